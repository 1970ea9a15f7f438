"""The official client's responses API: text, calls of functions, forms, streams."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from miao.serve.responses import ResponseBody
from tests.serve.conftest import RunningServer

HELLO = "今天天气很好"
NO_END = {str(id): -100 for id in range(3)}
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 6}, "warm": {"type": "boolean"}},
    "required": ["city", "warm"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True}


class Weather(BaseModel):
    warm: bool
    kind: bool


@pytest.fixture(scope="module")
def client(server: RunningServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)


def test_a_response_says_what_a_chat_says(client: openai.OpenAI) -> None:
    found = client.responses.create(
        model="tiny", instructions="Be brief.", input=HELLO, max_output_tokens=20, temperature=0
    )
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": HELLO},
    ]
    chat = client.chat.completions.create(model="tiny", messages=messages, max_tokens=20)
    assert found.output_text == chat.choices[0].message.content
    assert found.usage and chat.usage
    assert found.usage.input_tokens == chat.usage.prompt_tokens
    assert found.usage.output_tokens == chat.usage.completion_tokens
    is_cut = chat.choices[0].finish_reason == "length"
    assert found.status == ("incomplete" if is_cut else "completed")
    assert (found.incomplete_details is not None) is is_cut


def test_the_events_of_a_stream(client: openai.OpenAI) -> None:
    arguments: dict[str, Any] = {"model": "tiny", "input": HELLO, "max_output_tokens": 12}
    arguments |= {"temperature": 1.0, "extra_body": {"seed": 4, "logit_bias": NO_END}}
    whole = client.responses.create(**arguments)
    events = list(client.responses.create(**arguments, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * len(deltas),
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert "".join(deltas) == whole.output_text and len(deltas) > 3
    assert events[-1].response.output_text == whole.output_text
    assert events[0].response.usage is None and events[-1].response.usage.output_tokens == 12


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "weather"}])
def test_calls_stream_piecewise_and_go_on(client: openai.OpenAI, choice: Any) -> None:
    arguments: dict[str, Any] = {"model": "tiny", "input": HELLO, "tools": [TOOL]}
    arguments |= {"temperature": 1.0, "extra_body": {"seed": 2}}
    with client.responses.stream(**arguments, tool_choice=choice) as stream:
        events = list(stream)
        final = stream.get_final_response()
    kinds = [event.type for event in events]
    assert kinds.count("response.function_call_arguments.delta") > 5
    assert kinds[-3:] == [
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    (call,) = final.output
    assert call.type == "function_call" and call.name == "weather"
    assert set(json.loads(call.arguments)) == {"city", "warm"}
    follow_up: Any = [
        {"role": "user", "content": HELLO},
        *client.responses.create(**arguments, tool_choice=choice).output,
    ]
    follow_up.append(
        {"type": "function_call_output", "call_id": follow_up[-1].call_id, "output": "sunny"}
    )
    again = client.responses.create(
        model="tiny", input=follow_up, tools=[TOOL], tool_choice="none", max_output_tokens=3
    )
    assert again.output[0].type == "message"


def test_a_schema_is_parsed(client: openai.OpenAI) -> None:
    found = client.responses.parse(
        model="tiny", input=HELLO, text_format=Weather, extra_body={"seed": 1}
    )
    assert isinstance(found.output_parsed, Weather) and found.status == "completed"


def test_logprobs_come_with_the_text(client: openai.OpenAI) -> None:
    arguments: dict[str, Any] = {"model": "tiny", "input": HELLO, "max_output_tokens": 6}
    arguments |= {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    arguments |= {"extra_body": {"logit_bias": NO_END}}
    whole = client.responses.create(**arguments)
    logprobs = whole.output[0].content[0].logprobs
    assert logprobs and all(len(entry.top_logprobs) == 2 for entry in logprobs)
    streamed = [
        entry.logprob
        for event in client.responses.create(**arguments, stream=True)
        if event.type == "response.output_text.delta"
        for entry in event.logprobs
    ]
    assert streamed == [entry.logprob for entry in logprobs]


def test_items_become_messages() -> None:
    part = {"type": "output_text", "text": "hm", "annotations": [], "logprobs": []}
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
    body = ResponseBody.model_validate(
        {
            "instructions": "I",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
                {
                    "type": "reasoning",
                    "id": "r",
                    "summary": [],
                    "content": [{"type": "reasoning_text", "text": "t"}],
                },
                {"type": "message", "role": "assistant", "content": [part], "status": "completed"},
                call,
                call | {"call_id": "c2"},
                {"type": "function_call_output", "call_id": "c1", "output": "1"},
                {
                    "type": "function_call_output",
                    "call_id": "c2",
                    "output": [{"type": "input_text", "text": "2"}],
                },
                {"role": "assistant", "content": "b"},
                {"role": "assistant", "content": "c"},
            ],
        }
    )
    messages = body.chat().messages
    assert [m.role for m in messages] == [
        *("system", "user", "assistant", "tool", "tool", "assistant", "assistant")
    ]
    turn = messages[2]
    assert (turn.text, turn.reasoning_content) == ("hm", "t")
    assert [c.id for c in turn.tool_calls or []] == ["c1", "c2"]
    assert [m.text for m in messages[3:]] == ["1", "2", "b", "c"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "items of type"),
        ({"input": []}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input"),
        ({"truncation": "auto"}, "truncation"),
        ({"top_logprobs": 2}, "include"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL, TOOL]}, "same name"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "schema"),
        ({"text": {"verbosity": "low"}}, "verbosity"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    client: openai.OpenAI, body: dict[str, Any], said: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=said):
        client.responses.create(model="tiny", input="a", extra_body=body)


def test_a_stream_that_breaks_off_says_so(serve: Callable[..., Any]) -> None:
    from miao.serve.app import Limits

    with serve("tiny", limits=Limits(timeout=0.05), rows=1) as running:
        client = openai.OpenAI(base_url=running.url, api_key="none", max_retries=0)
        stream = client.responses.create(
            model="tiny", input=HELLO, stream=True, extra_body={"logit_bias": NO_END}
        )
        (*_, last) = list(stream)
    assert last.type == "response.failed" and "seconds" in last.response.error.message


def test_the_templates_options_are_those_of_a_chat() -> None:
    """vLLM's field: a response thinks as a chat does."""
    options = {"chat_template_kwargs": {"enable_thinking": False}}
    assert ResponseBody(input="?", **options).chat().thinking is False
