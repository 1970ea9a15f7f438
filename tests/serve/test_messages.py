"""Anthropic's messages: the shapes of the protocol, and its official client where it is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from miao.openai_api import NoAnswer, ask, opened
from miao.serve.messages import MessagesBody
from miao.tokenizer import Tokenizer
from tests.serve.conftest import CONTEXT, RunningServer

HELLO = [{"role": "user", "content": "今天天气很好"}]
NO_END = {str(id): -100 for id in range(3)}
SAMPLED = {"model": "tiny", "temperature": 1.0, "seed": 2, "messages": HELLO}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 6}, "warm": {"type": "boolean"}},
    "required": ["city", "warm"],
    "additionalProperties": False,
}
TOOL: dict[str, Any] = {"name": "weather", "description": "w", "input_schema": SCHEMA}


def stream(server: RunningServer, body: dict[str, Any]) -> list[dict[str, Any]]:
    events = []
    with opened(f"{server.url}/messages", body | {"stream": True}) as lines:
        for line in lines:
            name, _, rest = line.decode().strip().partition(": ")
            if name == "data":
                events.append(json.loads(rest))
            elif name == "event":
                expected = rest
            else:
                assert not name and events[-1]["type"] == expected
    return events


def test_a_message_says_what_a_chat_says(server: RunningServer) -> None:
    body = SAMPLED | {"max_tokens": 15, "logit_bias": NO_END}
    found = ask(f"{server.url}/messages", body | {"system": "Be brief."})
    system = {"role": "system", "content": "Be brief."}
    chat = ask(f"{server.url}/chat/completions", body | {"messages": [system, *HELLO]})
    (block,) = found["content"]
    assert block["type"] == "text" and found["type"] == "message" and found["role"] == "assistant"
    assert block["text"] == chat["choices"][0]["message"]["content"]
    assert (found["stop_reason"], found["stop_sequence"]) == ("max_tokens", None)
    usage = found["usage"]
    assert usage["output_tokens"] == 15
    read = usage["input_tokens"] + usage["cache_read_input_tokens"]
    assert read == chat["usage"]["prompt_tokens"]
    counted = ask(f"{server.url}/messages/count_tokens", {"messages": HELLO, "system": "Be brief."})
    assert counted == {"input_tokens": read}


def test_the_events_of_a_stream(server: RunningServer) -> None:
    body = SAMPLED | {"max_tokens": 15, "logit_bias": NO_END}
    events = stream(server, body)
    kinds = [event["type"] for event in events]
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert kinds == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * len(deltas),
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    text = "".join(delta["text"] for delta in deltas)
    assert text == ask(f"{server.url}/messages", body)["content"][0]["text"] and len(deltas) > 3
    assert events[-2]["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert events[-2]["usage"]["output_tokens"] == 15


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "weather"}])
def test_a_call_streams_piecewise_and_goes_on(server: RunningServer, choice: Any) -> None:
    body = SAMPLED | {"max_tokens": 200, "tools": [TOOL], "tool_choice": choice}
    found = ask(f"{server.url}/messages", body)
    (block,) = found["content"]
    assert block["type"] == "tool_use" and set(block["input"]) == {"city", "warm"}
    assert found["stop_reason"] == "tool_use" and block["id"].startswith("toolu_")
    events = stream(server, body)
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    parts = [delta["partial_json"] for delta in deltas]
    assert len(parts) > 5 and json.loads("".join(parts)) == block["input"]
    result = {"type": "tool_result", "tool_use_id": block["id"], "content": "sunny"}
    turns = [
        *HELLO,
        {"role": "assistant", "content": found["content"]},
        {"role": "user", "content": [result, {"type": "text", "text": "And now?"}]},
    ]
    again = ask(
        f"{server.url}/messages",
        body | {"messages": turns, "max_tokens": 3, "tool_choice": {"type": "none"}},
    )
    assert again["content"][0]["type"] == "text"


def test_a_last_turn_of_the_assistant_is_the_beginning(
    server: RunningServer, tokenizer: Tokenizer
) -> None:
    turns = [*HELLO, {"role": "assistant", "content": "我是"}]
    found = ask(f"{server.url}/messages/count_tokens", {"messages": turns})
    prompt = tokenizer.chat_template.encode_prompt(tokenizer, HELLO) + tokenizer.encode("我是")
    assert found["input_tokens"] == len(prompt)


def test_the_stop_sequence_is_named(server: RunningServer) -> None:
    body = SAMPLED | {"max_tokens": 40, "logit_bias": NO_END}
    text = ask(f"{server.url}/messages", body)["content"][0]["text"]
    stop = next(letter for letter in text[3:] if letter.isprintable() and letter != "\ufffd")
    found = ask(f"{server.url}/messages", body | {"stop_sequences": ["zzz", stop]})
    assert (found["stop_reason"], found["stop_sequence"]) == ("stop_sequence", stop)
    assert found["content"][0]["text"] == text[: text.index(stop)]


def test_turns_become_messages() -> None:
    body = MessagesBody.model_validate(
        {
            "max_tokens": 1,
            "system": [{"type": "text", "text": "S", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": "a"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "t", "signature": ""},
                        {"type": "text", "text": "b"},
                        {"type": "tool_use", "id": "1", "name": "f", "input": {"x": "苗"}},
                    ],
                },
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1"}]},
            ],
            "thinking": {"type": "disabled"},
            "stop_sequences": ["x"],
        }
    )
    chat = body.chat()
    assert [m.role for m in chat.messages] == ["system", "user", "assistant", "tool"]
    turn = chat.messages[2]
    assert (turn.text, turn.reasoning_content) == ("b", "t") and turn.tool_calls
    assert turn.tool_calls[0].function.arguments == '{"x": "苗"}'
    assert chat.thinking is False and chat.stops == ("x",)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "image"),
        ({"messages": [{"role": "user", "content": [{"type": "thinking", "thinking": "x"}]}]}, "a"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool", "name": "x"}, "tools": [TOOL]}, "no tool"),
        ({"mcp_servers": []}, "mcp_servers"),
    ],
)
def test_what_cannot_be_done_is_refused(
    server: RunningServer, body: dict[str, Any], said: str
) -> None:
    with pytest.raises(NoAnswer, match=said) as caught:
        ask(f"{server.url}/messages", SAMPLED | {"max_tokens": 3} | body)
    assert caught.value.code == 400


def test_the_official_client(serve: Callable[..., Any]) -> None:
    anthropic = pytest.importorskip("anthropic")
    with serve("tiny", api_key="secret") as running:
        url = running.url.removesuffix("/v1")
        with pytest.raises(anthropic.AuthenticationError):
            anthropic.Anthropic(base_url=url, api_key="other", max_retries=0).messages.create(
                model="tiny", max_tokens=3, messages=HELLO
            )
        client = anthropic.Anthropic(base_url=url, api_key="secret", max_retries=0)
        extra = {"seed": 2, "temperature": 1.0}
        options = {"model": "tiny", "messages": HELLO, "extra_body": extra}
        said = client.messages.create(max_tokens=9, **options)
        with client.messages.stream(max_tokens=9, **options) as events:
            assert "".join(events.text_stream) == said.content[0].text
            assert events.get_final_message().stop_reason == said.stop_reason
        tools = {"tools": [TOOL], "tool_choice": {"type": "any"}}
        called = client.messages.create(max_tokens=200, **options, **tools)
        with client.messages.stream(max_tokens=200, **options, **tools) as events:
            final = events.get_final_message()
        assert final.content[0].input == called.content[0].input
        assert final.stop_reason == "tool_use"
        counted = client.messages.count_tokens(model="tiny", messages=HELLO)
        assert counted.input_tokens > 5
        with pytest.raises(anthropic.NotFoundError):
            client.messages.create(model="claude", max_tokens=3, messages=HELLO)
        with pytest.raises(anthropic.BadRequestError, match="too many"):
            long = [{"role": "user", "content": "a" * 5000}]
            client.messages.create(model="tiny", max_tokens=3, messages=long)


def test_more_tokens_than_the_context_has_are_another_reason_to_stop(server: RunningServer) -> None:
    """Anthropic's clients must say how many tokens, and say tens of thousands; what has no room is
    refused to OpenAI's alone, whose clients need not say it."""
    asked = {"messages": HELLO, "max_tokens": 32_000, "logit_bias": NO_END}
    found = ask(f"{server.url}/messages", asked)
    assert found["stop_reason"] == "model_context_window_exceeded"
    used = found["usage"]
    assert used["input_tokens"] + used["cache_read_input_tokens"] + used["output_tokens"] == CONTEXT
    assert ask(f"{server.url}/messages", asked | {"max_tokens": 5})["stop_reason"] == "max_tokens"
