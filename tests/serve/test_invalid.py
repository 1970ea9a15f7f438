"""What the server says of fields that are wrong: no word of the library that checks them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from miao.serve.app import create_app
from miao.serve.conversation import ChatBody
from miao.serve.messages import MessagesBody
from miao.serve.protocol import Body, CompletionBody
from miao.serve.responses import ResponseBody

SAY = {"messages": [{"role": "user", "content": "x"}]}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "messages: is missing"),
        ([1], "the body must be an object"),
        ({"messages": "x"}, "messages: must be a list"),
        ({"messages": []}, "messages: must have at least 1"),
        (
            {"messages": [{"role": "user", "content": 5}]},
            "messages.0.content: must be a text or a list",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages.0.content.0.type: must be 'text' or 'refusal'; "
            "messages.0.content.0.image_url: this server does not know the field",
        ),
        (SAY | {"stop": [1]}, "stop.0: must be a text"),
        (SAY | {"temperature": "hot"}, "temperature: must be a number"),
        (SAY | {"temperature": -1}, "temperature: must be at least 0"),
        (SAY | {"n": 1.5}, "n: must be a whole number"),
        (
            SAY | {"tool_choice": 5},
            "tool_choice: must be 'none', 'auto' or 'required' or an object",
        ),
        (
            SAY | {"tool_choice": {"type": "x"}},
            "tool_choice.type: must be 'function'; tool_choice.function: is missing",
        ),
        (SAY | {"response_format": 7}, "response_format: must be an object"),
        (SAY | {"Modle": 1}, "Modle: this server does not know the field"),
        ({"prompt": {}}, "prompt: must be a text or a list"),
        ({"prompt": [1, "a"]}, "prompt.1: must be a whole number"),
        ({"prompt": [-1]}, "prompt.0: must be at least 0"),
        (
            {"messages": [{"role": "user", "content": "\ud83d"}]},
            "messages.0.content: holds half a surrogate pair, which no encoding has",
        ),
        (
            SAY | {"metadata": {"a": ["\ud83d"]}},
            "metadata: holds half a surrogate pair, which no encoding has",
        ),
        (
            SAY | {"logit_bias": {"bad1": 1, "5": 2, "bad2": 3}},
            "logit_bias: 'bad1', 'bad2' are no token id",
        ),
        (
            SAY | {"logit_bias": {"5": "x"}},
            "logit_bias: the bias of 5 must be a number from -100 to 100",
        ),
        ({"prompt": [[1, 2], [-3]]}, "prompt.1.0: must be at least 0"),
    ],
)
def test_a_refusal_names_the_field_and_no_internals(body: Any, said: str) -> None:
    path = "completions" if "prompt" in body else "chat/completions"
    answer = TestClient(create_app([])).post(
        f"/v1/{path}", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == said


MANY = 3000


@pytest.mark.parametrize("kind", [ChatBody, CompletionBody, ResponseBody, MessagesBody])
@pytest.mark.parametrize(
    "given",
    [
        {"prompt": [*[""] * MANY, 1]},
        {"prompt": [{}] * MANY},
        {"prompt": [[]] * MANY + [[""]]},
        {"messages": [{}] * MANY},
        {"messages": [{"role": "user", "content": [{}] * MANY}]},
        {"input": [{}] * MANY},
        {f"k{n}": 1 for n in range(MANY)},
        {"messages": [{f"k{n}": 1 for n in range(MANY)}], "prompt": "", "input": ""},
        SAY | {"prompt": "", "logit_bias": {f"k{n}": "x" for n in range(MANY)}},
        SAY | {"stop": [1] * MANY, "tools": [1] * MANY},
    ],
    ids=lambda given: json.dumps(given)[:50],
)
def test_however_much_is_wrong_little_is_said(kind: type[Body], given: dict[str, Any]) -> None:
    """A server that lists a million faults answers nobody else meanwhile."""
    with pytest.raises(ValidationError) as raised:
        kind(**given)
    assert raised.value.error_count() < 20
