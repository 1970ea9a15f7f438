"""Bodies of answers: calls of functions beyond what the client allows."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from miao.engine import Request, SamplingOptions
from miao.serve.generation import Growth
from miao.serve.replies import ChatReply

CALL = '<tool_call>\n{"name": "f", "arguments": {"a": %d}}\n</tool_call>'


@pytest.mark.parametrize("max_calls", [None, 1])
@pytest.mark.parametrize("step", [5, 1000])
def test_parallel_calls(max_calls: int | None, step: int) -> None:
    served: Any = SimpleNamespace(name="m", tokenizer=SimpleNamespace(decode=lambda ids: ""))
    request = Request([1, 2], SamplingOptions())
    reply = ChatReply(served, [1, 2], [request], True, max_calls)
    text = "I ask.\n" + CALL % 1 + "\n" + CALL % 2
    request.finish = "stop"
    chunks = []
    for start in range(0, len(text), step):
        is_last = start + step >= len(text)
        chunks += reply.chunks(Growth(request, text[start : start + step], 0, 0, is_last))
    choices = [chunk["choices"][0] for chunk in chunks]
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", [])]
    given = [json.loads(call["function"]["arguments"])["a"] for call in calls]
    assert given == [1, 2][:max_calls] and [call["index"] for call in calls] == [0, 1][:max_calls]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "I ask."
    assert choices[-1]["finish_reason"] == "tool_calls"
