"""Forms that an answer must have: calls of functions, and what vLLM calls structured outputs."""

from __future__ import annotations

import json
import re
from typing import Any

import openai
import pytest

from tests.serve.conftest import RunningServer

HELLO = [{"role": "user", "content": "今天天气很好"}]
NO_PARAMETERS: list[dict[str, Any]] = [
    {},
    {"parameters": None},
    {"parameters": {}},
    {"parameters": {"type": "object"}},
    {"parameters": {"type": "object", "properties": {}}},
    {"parameters": {"type": "object", "properties": {}, "required": []}},
    {"parameters": {"type": "object", "properties": {}, "additionalProperties": False}},
]


@pytest.fixture(scope="module")
def client(server: RunningServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)


def forced(client: openai.OpenAI, function: dict[str, Any], **options: Any) -> Any:
    arguments: dict[str, Any] = {"model": "tiny", "messages": HELLO, "temperature": 1.0, "seed": 3}
    tools = [{"type": "function", "function": {"name": "now", **function}}]
    return client.chat.completions.create(
        **arguments, tools=tools, tool_choice="required", **options
    )


@pytest.mark.parametrize("function", NO_PARAMETERS, ids=json.dumps)
def test_a_function_without_parameters_gets_an_empty_object(
    client: openai.OpenAI, function: dict[str, Any]
) -> None:
    (choice,) = forced(client, function).choices
    assert choice.message.tool_calls[0].function.arguments == "{}"
    assert choice.finish_reason == "tool_calls" and choice.message.content is None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("most", [1, 2, 4, 8, 12, 20, 40])
def test_a_forced_call_that_is_cut_leaks_no_markup(
    client: openai.OpenAI, most: int, stream: bool
) -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "string", "minLength": 400}}}
    answer = forced(
        client,
        {"parameters": parameters | {"required": ["a"]}},
        max_tokens=most,
        stream=stream,
        extra_body={"stop": ["zzzzz"]},
    )
    if not stream:
        (choice,) = answer.choices
        assert not choice.message.content and choice.finish_reason == "length"
        return
    choices = [choice for chunk in answer for choice in chunk.choices]
    assert not any(choice.delta.content for choice in choices)
    assert choices[-1].finish_reason == "length"


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ({"structured_outputs": {"choice": ["苗", "sprout", "a b"]}}, "苗|sprout|a b"),
        ({"guided_choice": ["苗", "sprout"]}, "苗|sprout"),
        ({"structured_outputs": {"regex": r"\d{3}-\d{4}"}}, r"\d{3}-\d{4}"),
        ({"guided_regex": "(ab|c){2,5}"}, "(ab|c){2,5}"),
        ({"structured_outputs": {"grammar": 'root ::= "yes" | "no" [0-9]'}}, "yes|no[0-9]"),
        ({"guided_grammar": 'start: ("x" | "y") "!"'}, "[xy]!"),
        ({"structured_outputs": {"json": {"type": "boolean"}}}, "true|false"),
        ({"guided_json": '{"enum": [1, "a"]}'}, '1|"a"'),
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_answer_has_the_form(
    client: openai.OpenAI, form: dict[str, Any], pattern: str, seed: int
) -> None:
    options: dict[str, Any] = {"model": "tiny", "temperature": 1.0, "seed": seed, "max_tokens": 60}
    chat = client.chat.completions.create(**options, messages=HELLO, extra_body=form)
    assert re.fullmatch(pattern, chat.choices[0].message.content)
    text = client.completions.create(**options, prompt="天气", extra_body=form)
    assert re.fullmatch(pattern, text.choices[0].text) and text.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"structured_outputs": {}}, "one of"),
        ({"structured_outputs": {"choice": ["a"], "regex": "b"}}, "one of"),
        ({"structured_outputs": {"choice": []}}, "choice"),
        ({"structured_outputs": {"choice": [""]}}, "empty"),
        ({"structured_outputs": {"regex": "("}}, "cannot be enforced"),
        ({"structured_outputs": {"grammar": "root ::= other"}}, "cannot be enforced"),
        ({"structured_outputs": {"json": "{"}}, "JSON"),
        ({"structured_outputs": {"regex": "a"}, "guided_regex": "a"}, "guided"),
        ({"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}}, "not"),
    ],
)
def test_a_form_that_is_none_is_refused(
    client: openai.OpenAI, form: dict[str, Any], said: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=said):
        client.chat.completions.create(model="tiny", messages=HELLO, extra_body=form)
