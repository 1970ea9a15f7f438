"""Constrained answers: whatever a model would like to say, the form holds."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from miao.engine.grammar import GrammarConstraint, Grammars
from miao.errors import MiaoError
from miao.tokenizer import Tokenizer

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "kind": {"enum": ["猫", "dog"]},
        "ages": {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 2},
    },
    "required": ["name", "kind", "ages"],
    "additionalProperties": False,
}


def babble(constraint: GrammarConstraint, tokenizer: Tokenizer, seed: int) -> list[int] | None:
    """An answer of a model that likes every token alike; None where it did not end in time."""
    generator = torch.Generator().manual_seed(seed)
    answer: list[int] = []
    for _ in range(300):
        logits = constraint.allowed(torch.zeros(tokenizer.vocab_size + 3))
        token = int(torch.multinomial(logits.softmax(0), 1, generator=generator))
        if token in tokenizer.stop_ids:
            return answer
        answer.append(token)
        if constraint.accept(token):
            return answer
    return None


@pytest.fixture(scope="module")
def grammars(tokenizer: Tokenizer) -> Grammars:
    """Of a model that has more logits than the tokenizer has tokens."""
    return Grammars(tokenizer, tokenizer.vocab_size + 3)


@pytest.mark.parametrize("seed", range(6))
def test_a_schema_holds(grammars: Grammars, tokenizer: Tokenizer, seed: int) -> None:
    answer = babble(grammars.json(SCHEMA), tokenizer, seed)
    if answer is None:  # a number of any length may grow for long
        return
    found = json.loads(tokenizer.decode(answer))
    assert list(found) == ["name", "kind", "ages"]
    assert len(found["name"]) <= 5 and found["kind"] in ("猫", "dog")
    assert len(found["ages"]) <= 2 and all(age >= 0 for age in found["ages"])


def test_some_answers_of_a_schema_end(grammars: Grammars, tokenizer: Tokenizer) -> None:
    assert any(babble(grammars.json(SCHEMA), tokenizer, seed) for seed in range(6))


def test_an_object_and_nothing_else(grammars: Grammars, tokenizer: Tokenizer) -> None:
    first = grammars.json().allowed(torch.zeros(tokenizer.vocab_size + 3))
    allowed = [tokenizer.decode([i]) for i in (first == 0).nonzero().flatten().tolist()]
    assert allowed and all(text.startswith("{") for text in allowed)


@pytest.mark.parametrize("seed", range(3))
def test_calls_have_the_form_of_the_template(
    grammars: Grammars, tokenizer: Tokenizer, seed: int
) -> None:
    tools = [
        {
            "name": "walk",
            "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
        },
        {"name": "feed", "parameters": SCHEMA},
    ]
    answer = babble(grammars.tool_calls(tools), tokenizer, seed)
    if answer is None:
        return
    text = tokenizer.decode(answer)
    assert text.startswith("<tool_call>\n") and text.endswith("\n</tool_call>")
    call = json.loads(text.removeprefix("<tool_call>").removesuffix("</tool_call>"))
    assert call["name"] in ("walk", "feed") and list(call) == ["name", "arguments"]


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "elsewhere"}, {"pattern": "("}])
def test_what_cannot_be_enforced_is_refused(grammars: Grammars, schema: dict[str, Any]) -> None:
    with pytest.raises(MiaoError, match="cannot be enforced"):
        grammars.json({"type": "string"} | schema)
