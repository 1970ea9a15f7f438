"""Every field that the installed official client can send changes the answer, is a label without
effect, or is refused by name. A field that a newer client brings fails here until it is decided."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai.resources.chat.completions import Completions as Chat
from openai.resources.completions import Completions as Text
from openai.resources.embeddings import Embeddings
from openai.resources.responses import Responses

from tests.serve.conftest import RunningServer

CLIENT_SIDE = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}
CHANGES, LABEL, REFUSED = "changes the answer", "has no effect", "is refused"
Table = dict[str, list[tuple[str, Any, dict[str, Any]]]]
"""Field -> what happens to values of it, each with the fields that it needs beside it."""

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
NO_END = {str(id): -100 for id in range(3)}
COMMON: Table = {
    "model": [(CHANGES, "other", {})],
    "temperature": [(CHANGES, 0.0, {}), (REFUSED, 3.0, {})],
    "top_p": [(CHANGES, 0.01, {})],
    "logit_bias": [(CHANGES, {"50": 100}, {})],
    "frequency_penalty": [(CHANGES, 2.0, {"temperature": 0.0})],
    "presence_penalty": [(CHANGES, 2.0, {"temperature": 0.0})],
    "max_tokens": [(CHANGES, 3, {})],
    "n": [(CHANGES, 2, {}), (REFUSED, 1000, {})],
    "seed": [(CHANGES, 9, {})],
    "stop": [(CHANGES, list("abcdefghijklmnop"), {})],
    "stream": [(CHANGES, True, {})],
    "stream_options": [
        (CHANGES, {"include_usage": True}, {"stream": True}),
        (REFUSED, {"include_obfuscation": True}, {"stream": True}),
    ],
    "user": [(LABEL, "u", {})],
}
CHAT: Table = COMMON | {
    "messages": [(CHANGES, [{"role": "user", "content": "天气"}], {})],
    # It may end by itself, else it goes on until the context is full.
    "max_completion_tokens": [(CHANGES, 3, {"max_tokens": openai.omit, "logit_bias": {"2": 1}})],
    "logprobs": [(CHANGES, True, {})],
    "top_logprobs": [(CHANGES, 2, {"logprobs": True})],
    "response_format": [(CHANGES, {"type": "json_object"}, {})],
    "tools": [(CHANGES, [TOOL], {})],
    "tool_choice": [(CHANGES, "required", {"tools": [TOOL]})],
    # What it does stands in test_replies.py: a random model makes no two calls.
    "parallel_tool_calls": [(LABEL, False, {})],
    "reasoning_effort": [(CHANGES, "none", {})],
    "metadata": [(LABEL, {"a": "b"}, {})],
    "safety_identifier": [(LABEL, "s", {})],
    "prompt_cache_key": [(LABEL, "p", {})],
    "service_tier": [(LABEL, "auto", {}), (REFUSED, "priority", {})],
    "store": [(LABEL, False, {}), (REFUSED, True, {})],
    "modalities": [(LABEL, ["text"], {}), (REFUSED, ["audio"], {})],
    "audio": [(REFUSED, {"format": "wav", "voice": "alloy"}, {})],
    "function_call": [(REFUSED, "auto", {})],
    "functions": [(REFUSED, [{"name": "f"}], {})],
    "moderation": [(REFUSED, {}, {})],
    "prediction": [(REFUSED, {"type": "content", "content": "a"}, {})],
    "prompt_cache_options": [(REFUSED, {}, {})],
    "prompt_cache_retention": [(REFUSED, "24h", {})],
    "verbosity": [(REFUSED, "low", {})],
    "web_search_options": [(REFUSED, {}, {})],
}
TEXT: Table = COMMON | {
    "prompt": [(CHANGES, "天气", {})],
    "echo": [(CHANGES, True, {})],
    "logprobs": [(CHANGES, 2, {})],
    "suffix": [(LABEL, "", {}), (REFUSED, "end", {})],
    "best_of": [(LABEL, 1, {}), (REFUSED, 3, {})],
}
EMBEDDINGS: Table = {
    "model": [(CHANGES, "other", {})],
    "input": [(CHANGES, "天气", {})],
    "dimensions": [(LABEL, 32, {}), (REFUSED, 7, {})],
    "encoding_format": [(CHANGES, "base64", {})],
    "user": [(LABEL, "u", {})],
}
FLAT_TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}
LOGPROBS = {"include": ["message.output_text.logprobs"]}
RESPONSES: Table = {
    "model": [(CHANGES, "other", {})],
    "input": [(CHANGES, "天气", {})],
    "instructions": [(CHANGES, "Be brief.", {})],
    "temperature": [(CHANGES, 0.0, {}), (REFUSED, 3.0, {})],
    "top_p": [(CHANGES, 0.01, {})],
    "max_output_tokens": [(CHANGES, 3, {})],
    "stream": [(CHANGES, True, {})],
    "stream_options": [(LABEL, {"include_obfuscation": False}, {})],
    "include": [(CHANGES, LOGPROBS["include"], {}), (REFUSED, ["file_search_call.results"], {})],
    "top_logprobs": [(CHANGES, 2, LOGPROBS), (REFUSED, 2, {})],
    "text": [
        (CHANGES, {"format": {"type": "json_object"}}, {}),
        (REFUSED, {"verbosity": "low"}, {}),
    ],
    "tools": [(CHANGES, [FLAT_TOOL], {}), (REFUSED, [{"type": "web_search"}], {})],
    "tool_choice": [(CHANGES, "required", {"tools": [FLAT_TOOL]})],
    "parallel_tool_calls": [(LABEL, False, {})],
    "reasoning": [(CHANGES, {"effort": "none"}, {}), (REFUSED, {"summary": "detailed"}, {})],
    "truncation": [(LABEL, "disabled", {}), (REFUSED, "auto", {})],
    "background": [(LABEL, False, {}), (REFUSED, True, {})],
    "store": [(LABEL, False, {}), (REFUSED, True, {})],
    "service_tier": [(LABEL, "auto", {}), (REFUSED, "priority", {})],
    "metadata": [(LABEL, {"a": "b"}, {})],
    "user": [(LABEL, "u", {})],
    "safety_identifier": [(LABEL, "s", {})],
    "prompt_cache_key": [(LABEL, "p", {})],
    "previous_response_id": [(REFUSED, "resp_1", {})],
    "conversation": [(REFUSED, "conv_1", {})],
    "prompt": [(REFUSED, {"id": "p"}, {})],
    "access_programs": [(REFUSED, {"cyber": "standard"}, {})],
    "background_options": [(REFUSED, {}, {})],
    "context_management": [(REFUSED, [], {})],
    "image": [(REFUSED, {"context_compression": "enabled"}, {})],
    "max_tool_calls": [(REFUSED, 3, {})],
    "moderation": [(REFUSED, {}, {})],
    "prompt_cache_options": [(REFUSED, {}, {})],
    "prompt_cache_retention": [(REFUSED, "24h", {})],
}
SAMPLED = {"model": "tiny", "temperature": 1.0, "seed": 5, "max_tokens": 12, "logit_bias": NO_END}
ROUTES: dict[str, tuple[Callable[..., Any], Table, dict[str, Any]]] = {
    "chat": (Chat.create, CHAT, SAMPLED | {"messages": [{"role": "user", "content": "hello"}]}),
    "text": (Text.create, TEXT, SAMPLED | {"prompt": "hello"}),
    "responses": (
        Responses.create,
        RESPONSES,
        {
            "model": "tiny",
            "input": "hello",
            "temperature": 1.0,
            "max_output_tokens": 12,
            "extra_body": {"seed": 5, "logit_bias": NO_END},
        },
    ),
    "embeddings": (
        Embeddings.create,
        EMBEDDINGS,
        {"model": "tiny", "input": "hello", "encoding_format": "float"},
    ),
}
CASES = [
    (route, field, *probe)
    for route, (_, table, _) in ROUTES.items()
    for field, probes in table.items()
    for probe in probes
]


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def usual(client: openai.OpenAI) -> Callable[..., Any]:
    """The answer without the field that is tried."""
    known: dict[str, Any] = {}

    def answer(route: str, body: dict[str, Any]) -> Any:
        key = f"{route} {body}"
        if key not in known:
            known[key] = ask(client, route, body)
            assert ask(client, route, body) == known[key], "the comparison must mean something"
        return known[key]

    return answer


def ask(client: openai.OpenAI, route: str, body: dict[str, Any]) -> Any:
    """The answer without what differs every time."""
    resources = {
        "chat": client.chat.completions,
        "text": client.completions,
        "responses": client.responses,
        "embeddings": client.embeddings,
    }
    answer: Any = resources[route].create(**body)
    found = list(answer) if body.get("stream") is True else [answer]
    if route == "responses" and len(found) == 1:  # it repeats what was asked
        return [found[0].output_text, found[0].status, _nameless(found[0].output)]
    dumped = [one.model_dump(exclude={"id", "created"}) for one in found]
    for one in dumped:
        if one.get("usage"):
            one["usage"].pop("prompt_tokens_details", None)  # depends on who asked before
    return dumped


def _nameless(output: list[Any]) -> list[Any]:
    return [item.model_dump(exclude={"id", "call_id"}) for item in output]


@pytest.mark.parametrize("route", ROUTES)
def test_every_field_of_the_client_is_decided(route: str) -> None:
    create, table, _ = ROUTES[route]
    fields = set(inspect.signature(create).parameters) - CLIENT_SIDE
    assert len(fields) >= 5 and fields <= table.keys(), fields - table.keys()


@pytest.mark.parametrize(("route", "field", "effect", "value", "beside"), CASES)
def test_a_field_does_what_is_said(
    client: openai.OpenAI,
    usual: Callable[..., Any],
    route: str,
    field: str,
    effect: str,
    value: Any,
    beside: dict[str, Any],
) -> None:
    create, _, body = ROUTES[route]
    if field not in inspect.signature(create).parameters:
        pytest.skip("this version of the client does not know it")
    base = body | beside
    if effect == REFUSED:
        with pytest.raises(openai.BadRequestError, match=field):
            ask(client, route, base | {field: value})
        return
    changed = ask(client, route, base | {field: value}) != usual(route, base)
    assert changed is (effect == CHANGES)
