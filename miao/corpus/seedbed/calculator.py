"""Sums and differences too large for a small head: the assistant has a calculator and calls it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from miao.corpus.records import Conversation, Message
from miao.corpus.seedbed.arithmetic import Operation, asked, equation, full_stop, is_held_out
from miao.corpus.seedbed.tables import ZH_SHARE, some_language

LARGEST = 99
SCHEMA: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "The value of an arithmetic expression.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string"}},
            "required": ["expression"],
        },
    },
}
"""What the assistant is told of the calculator."""


def conversations(rng: random.Random, zh_share: float = ZH_SHARE) -> Iterator[Conversation]:
    """Endless chats of one question, one call, its result, and the answer.

    Args:
        zh_share: the share of Chinese chats; the others are English.
    """
    while True:
        language = some_language(rng, zh_share)
        operation: Operation = rng.choice(("+", "-"))
        a, b = rng.randint(0, LARGEST), rng.randint(0, LARGEST)
        if operation == "-":
            a, b = max(a, b), min(a, b)
        if is_held_out(operation, a, b):
            continue
        question, result = asked(operation, a, b, language, rng)
        call = {"name": "calculator", "arguments": {"expression": f"{a}{operation}{b}"}}
        turns = [
            Message("user", question),
            Message("assistant", "", tool_calls=[call]),
            Message("tool", str(result)),
            Message("assistant", equation(operation, a, b) + full_stop(language)),
        ]
        yield Conversation(turns, source="calculator", tools=[SCHEMA])
