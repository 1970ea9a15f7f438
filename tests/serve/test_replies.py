"""Bodies of answers: calls of functions beyond what the client allows."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from miao.engine import Request, SamplingOptions
from miao.serve.answer import Piece
from miao.serve.conversation import ChatBody
from miao.serve.generation import Growth
from miao.serve.replies import ChatReply

CALL = '<tool_call>\n{"name": "f", "arguments": {"a": %d}}\n</tool_call>'


@pytest.mark.parametrize("max_calls", [None, 1])
@pytest.mark.parametrize("step", [5, 1000])
def test_parallel_calls(max_calls: int | None, step: int) -> None:
    tokenizer = SimpleNamespace(token_to_id=lambda token: None, decode=lambda ids: "")
    served: Any = SimpleNamespace(name="m", tokenizer=tokenizer)
    request = Request([1, 2], SamplingOptions())
    tool = {"type": "function", "function": {"name": "f"}}
    body = ChatBody(
        messages=[{"role": "user", "content": "?"}],
        tools=[tool],
        parallel_tool_calls=None if max_calls is None else False,
    )
    reply = ChatReply(served, [1, 2], [request], body)
    text = "I ask.\n" + CALL % 1 + "\n" + CALL % 2
    request.finish = "stop"
    chunks = []
    for start in range(0, len(text), step):
        is_last = start + step >= len(text)
        chunks += reply.chunks(Growth(request, text[start : start + step], 0, 0, is_last))
    choices = [chunk["choices"][0] for chunk in chunks]
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", [])]
    whole = Piece()
    for call in calls:
        whole.add(Piece(calls=[call]))
    given = [json.loads(call["function"]["arguments"])["a"] for call in whole.calls]
    assert given == [1, 2][:max_calls]
    assert [call["index"] for call in whole.calls] == [0, 1][:max_calls]
    (choice,) = reply.whole()["choices"]
    assert [c["id"] for c in choice["message"]["tool_calls"]] == [c["id"] for c in whole.calls]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "I ask."
    assert choices[-1]["finish_reason"] == "tool_calls"
