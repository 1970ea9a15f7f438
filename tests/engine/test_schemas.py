"""Schemas whose objects hold what they name, and schemas inside others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from miao.engine.grammar import GrammarConstraint, Grammars
from miao.engine.schemas import arguments_of, check, closed, moved
from miao.errors import MiaoError
from miao.tokenizer import Tokenizer

CITY: dict[str, Any] = {"type": "object", "properties": {"name": {"type": "string"}}}
TRIP: dict[str, Any] = {
    "type": "object",
    "properties": {"to": {"$ref": "#/$defs/City"}, "days": {"type": "integer"}},
    "required": ["to"],
    "$defs": {"City": CITY},
}


def accepts(constraint: GrammarConstraint, tokenizer: Tokenizer, text: str) -> bool:
    """Whether the grammar allows the whole text."""
    ids = tokenizer.encode(text, allow_special=True)
    return constraint._matcher.validate_tokens(ids) == len(ids)


def test_objects_hold_what_they_name() -> None:
    found = closed(TRIP)
    assert found["additionalProperties"] is False
    assert found["$defs"]["City"]["additionalProperties"] is False
    assert "additionalProperties" not in TRIP and "additionalProperties" not in CITY
    properties = {"properties": {"allOf": CITY, "properties": CITY}}
    assert closed(properties)["properties"]["allOf"]["additionalProperties"] is False


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        CITY | {"additionalProperties": True},
        CITY | {"additionalProperties": {"type": "string"}},
        CITY | {"patternProperties": {"^x": {}}},
        {"allOf": [CITY, {"properties": {"b": {}}}]},
        CITY | {"anyOf": [{"properties": {"b": {}}}]},
        {"not": CITY},
        {"enum": [{"properties": {"a": 1}}]},
        {"type": "integer", "minimum": 0, "exclusiveMaximum": 10},
        {"type": "integer", "minimum": 10**30},
        {"type": ["integer", "null"], "minimum": "no"},
        {"type": "number"},
        {"properties": 7, "anyOf": "no", "items": [3]},
    ],
    ids=json.dumps,
)
def test_what_is_left_as_it_is(schema: dict[str, Any]) -> None:
    assert closed(schema) == schema


def test_integers_end() -> None:
    most = 9 * 10**18
    assert closed({"type": "integer"}) == {"type": "integer", "minimum": -most, "maximum": most}
    either = {"type": ["integer", "null"], "minimum": 3}
    assert closed({"items": either})["items"] == either | {"maximum": most}


def test_references_lead_to_where_the_schema_is() -> None:
    found = moved(TRIP, "#/anyOf/1/properties/arguments")
    assert found["properties"]["to"]["$ref"] == "#/anyOf/1/properties/arguments/$defs/City"
    tree = {"type": "array", "items": {"$ref": "#"}}
    assert moved(tree, "#/a")["items"]["$ref"] == "#/a"


def test_the_grammar_follows(tokenizer: Tokenizer) -> None:
    pytest.importorskip("llguidance")
    grammars = Grammars(tokenizer, tokenizer.vocab_size)
    for text, is_right in (
        ('{"to":{"name":"x"},"days":3}', True),
        ('{"to":{"name":"x"},"more":3}', False),
        ('{"to":{"other":1}}', False),
    ):
        assert accepts(grammars.json(TRIP), tokenizer, text) is is_right, text
    number = grammars.json({"type": "object", "properties": {"a": {"type": "integer"}}})
    assert accepts(number, tokenizer, f'{{"a":{2**62}}}')
    number = grammars.json({"type": "object", "properties": {"a": {"type": "integer"}}})
    assert not accepts(number, tokenizer, f'{{"a":{2**65}}}')
    tools = [{"name": "stay"}, {"name": "go", "parameters": TRIP}]
    for several in (tools[1:], tools):
        for inside, is_right in (('{"name": "x"}', True), ('{"name": 3}', False)):
            call = f'{{"name": "go", "arguments": {{"to": {inside}}}}}'
            text = f"<tool_call>\n{call}\n</tool_call>"
            constraint = grammars.tool_calls(several)
            assert accepts(constraint, tokenizer, text) is is_right, text
    with pytest.raises(MiaoError, match="cannot be enforced"):
        grammars.tool_calls([{"name": "go", "parameters": {"$ref": "#/$defs/None"}}])


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "object", "additionalProperties": True},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "object", "required": ["a"]},
        {"$ref": "#/$defs/City", "$defs": {"City": CITY}},
        {"anyOf": [CITY, {"type": "object"}]},
        CITY,
    ],
)
def test_arguments_that_a_schema_allows_stay_allowed(parameters: dict[str, Any]) -> None:
    assert arguments_of(parameters) == closed(parameters)


def test_references_that_lead_on_in_the_worst_order_are_given_up() -> None:
    """Each pass over the parts finds one more of them."""
    places = {f"a{n}": {"$ref": f"#/$defs/a{n - 1}"} for n in range(1, 300)} | {"a0": {}}
    with pytest.raises(MiaoError, match="more than 100 times"):
        check({"$ref": "#/$defs/a299", "$defs": places})
    check({"$ref": "#/$defs/a299", "$defs": dict(reversed(places.items()))})
