"""Constrained answers: whatever a model would like to say, the form holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from miao.engine.grammar import GrammarConstraint, Grammars
from miao.errors import MiaoError
from miao.tokenizer import Tokenizer
from tests.train.pair import run_processes

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


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"const": "x" * 500_000}, "500013 characters; at most 100000"),
        ({"patternProperties": {f"^a{n}.*{n}$": {} for n in range(300)}}, "300 patternProperties"),
        ({"type": "object", "allOf": [
            {"anyOf": [{"properties": {f"{a}{n}": {}}, "required": [f"{a}{n}"]} for n in range(9)]}
            for a in "abcdefghi"
        ]}, "too large"),
        ({"$ref": "#"}, "nothing finite"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
         "nothing finite"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
         "nothing finite"),
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "nothing finite"),
        ({"enum": []}, "cannot be enforced"),
        ({"type": "string", "minLength": 5, "maxLength": 3}, "cannot be enforced"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_forms_that_cost_too_much_or_that_nothing_has(
    grammars: Grammars, schema: dict[str, Any], reason: str
) -> None:
    with pytest.raises(MiaoError, match=reason):
        grammars.json(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [{"type": "array", "items": {"$ref": "#"}, "minItems": 1}, {"type": "null"}]},
        {"type": "object", "properties": {"next": {"$ref": "#"}}},
        {"type": "array", "items": {"$ref": "#"}},
    ],
    ids=str,
)
def test_what_leads_back_to_itself_but_may_end_is_taken(
    grammars: Grammars, schema: dict[str, Any]
) -> None:
    grammars.json(schema)


def test_a_form_is_compiled_once(grammars: Grammars, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = SCHEMA | {"title": "compiled once"}
    first = [grammars.json(schema) for _ in range(2)]
    monkeypatch.setattr(grammars, "_compiled", lambda *arguments, **options: 1 / 0)
    for token in grammars._tokenizer.encode('{"name'):
        assert not first[0].accept(token)
    # The others still stand at the beginning.
    for constraint in (first[1], grammars.json(schema)):
        logits = constraint.allowed(torch.zeros(grammars._vocab_size))
        allowed = [grammars._tokenizer.decode([i]) for i in (logits == 0).nonzero().flatten()]
        assert allowed and all(text.startswith("{") for text in allowed)


def test_a_form_that_grows_too_complex_is_an_error_and_no_end(grammars: Grammars) -> None:
    names = {f"p{n}_{'x' * 10}": {"type": "string"} for n in range(1500)}
    constraint = grammars.json({"type": "object", "properties": names})
    with pytest.raises(MiaoError, match="cannot be enforced"):
        for token in grammars._tokenizer.encode('{"p3_xxxxxxxxxx": "a", "p4'):
            constraint.accept(token)
            constraint.check()


def read_chains(directory: Path) -> int:
    tokenizer = Tokenizer.from_directory(directory)
    grammars, steps = Grammars(tokenizer, tokenizer.vocab_size), range(5000)
    for name in ("a", "A"):
        chain = "".join(f"{name}{n}: {name}{n + 1}\n" for n in steps)
        grammars.grammar(f'start: {name}0\n{chain}{name}5000: "x"')
    chain = "".join(f"a{n} ::= a{n + 1}\n" for n in steps)
    grammars.grammar(f'root ::= a0\n{chain}a5000 ::= "x"')
    places = {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(2500)} | {"a2500": {}}
    grammars.json({"$ref": "#/$defs/a0", "$defs": places})
    print("alive")
    return 0


def test_rules_that_lead_on_and_on_do_not_end_the_process(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """They did, with everybody's answers: llguidance overflows a stack of the usual size."""
    tokenizer.save(tmp_path)
    (done,) = run_processes(1, read_chains, tmp_path, directory=tmp_path)
    assert done.code == 0 and done.said == "alive\n", done
