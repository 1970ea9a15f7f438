"""An answer's text, taken apart as it streams: thinking, what is said, calls of functions."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from miao.tokenizer import Tokenizer

THINK, END_THINK = "<think>", "</think>"
CALL, END_CALL = "<tool_call>", "</tool_call>"


@dataclass
class Piece:
    """What a stretch of the answer adds."""

    reasoning: str = ""
    content: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.reasoning or self.content or self.calls)


class AnswerParser:
    """Splits the text by its tags. What is no well-formed call stays text.

    Args:
        in_thought: the prompt has opened <think> already.
        has_tools: whether calls are looked for.
    """

    def __init__(self, in_thought: bool = False, has_tools: bool = False):
        self._state = "thought" if in_thought else "start"
        self._has_tools = has_tools
        self._pending = ""
        self._trim = in_thought
        self._calls = 0

    def feed(self, text: str) -> Piece:
        """Takes more of the text; returns what is certain by now."""
        self._pending += text
        piece = Piece()
        while self._advance(piece):
            pass
        return piece

    def finish(self) -> Piece:
        """What is left: an unfinished call is text after all."""
        piece = self.feed("")
        rest, self._pending = self._pending, ""
        if self._state == "thought":
            piece.reasoning += rest
        elif self._state == "call":
            piece.content += CALL + rest
        else:
            piece.content += rest
        return piece

    def _advance(self, piece: Piece) -> bool:
        """One step; False when more text is needed."""
        if self._trim:
            self._pending = self._pending.lstrip("\n")
            self._trim = not self._pending
        if not self._pending:
            return False
        return {
            "start": self._at_start,
            "thought": self._in_thought,
            "said": self._in_speech,
            "call": self._in_call,
        }[self._state](piece)

    def _at_start(self, piece: Piece) -> bool:
        if self._pending.startswith(THINK):
            self._go_on("thought", THINK)
            return True
        if THINK.startswith(self._pending):
            return False
        self._state = "said"
        return True

    def _in_thought(self, piece: Piece) -> bool:
        thought, end, rest = self._pending.partition(END_THINK)
        if end:
            piece.reasoning += thought.rstrip("\n")
            self._pending, self._state, self._trim = rest, "said", True
            return True
        # Newlines before the closing tag belong to it.
        safe = _without_beginning_of(thought, END_THINK).rstrip("\n")
        piece.reasoning += safe
        self._pending = self._pending[len(safe) :]
        return False

    def _in_speech(self, piece: Piece) -> bool:
        if not self._has_tools:
            piece.content += self._pending
            self._pending = ""
            return False
        said, tag, rest = self._pending.partition(CALL)
        if tag:
            piece.content += said.rstrip("\n") if not self._calls else said.strip("\n")
            self._pending, self._state = rest, "call"
            return True
        safe = _without_beginning_of(said, CALL).rstrip("\n")
        piece.content += safe
        self._pending = self._pending[len(safe) :]
        return False

    def _in_call(self, piece: Piece) -> bool:
        written, end, rest = self._pending.partition(END_CALL)
        if not end:
            return False
        call = parse_call(written)
        if call is None:
            piece.content += CALL + written + END_CALL
        else:
            call["index"] = self._calls
            piece.calls.append(call)
            self._calls += 1
        self._pending, self._state, self._trim = rest, "said", True
        return True

    def _go_on(self, state: str, tag: str) -> None:
        self._pending, self._state = self._pending[len(tag) :], state
        self._trim = True


def opens_thought(tokenizer: Tokenizer, prompt: list[int]) -> bool:
    """Whether the prompt ends inside <think>, as some templates open it themselves."""
    return tokenizer.decode(prompt[-4:]).rstrip("\n").endswith(THINK)


def parse_call(written: str) -> dict[str, Any] | None:
    """OpenAI's tool call from `{"name": ..., "arguments": ...}`; None where that is not it."""
    try:
        call = json.loads(written)
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    arguments = call.get("arguments", {})
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {
        "id": f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {"name": call["name"], "arguments": arguments},
    }


def _without_beginning_of(text: str, tag: str) -> str:
    """The text without an end that may still become `tag`."""
    for size in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:size]):
            return text[:-size]
    return text
