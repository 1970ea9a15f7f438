"""An answer's text, taken apart as it streams: thinking, what is said, calls of functions."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, field
from typing import Any

from miao.tokenizer import Tokenizer

THINK, END_THINK = "<think>", "</think>"
CALL, END_CALL = "<tool_call>", "</tool_call>"
NAMED = re.compile(r'\s*\{\s*"name"\s*:\s*"([^"\\\x00-\x1f]+)"')
OPENED = re.compile(NAMED.pattern + r'\s*,\s*"arguments"\s*:\s*(?=\{)')


@dataclass
class Piece:
    """What a stretch of the answer adds."""

    reasoning: str = ""
    content: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    """OpenAI's deltas: the first of a call has its id and name, later ones add to its arguments."""

    def __bool__(self) -> bool:
        return bool(self.reasoning or self.content or self.calls)

    def add(self, more: Piece) -> None:
        """What comes next; pieces of one call become one."""
        self.reasoning += more.reasoning
        self.content += more.content
        for call in more.calls:
            if self.calls and self.calls[-1]["index"] == call["index"]:
                self.calls[-1]["function"]["arguments"] += call["function"]["arguments"]
            else:
                self.calls.append(call | {"function": dict(call["function"])})


class AnswerParser:
    """Splits the text by its tags. What does not begin as a call does stays text.

    Args:
        in_thought: the prompt has opened <think> already.
        has_tools: whether calls are looked for.
        is_forced: the answer can be nothing but a call, so that no part of one is text.
    """

    def __init__(self, in_thought: bool = False, has_tools: bool = False, is_forced: bool = False):
        self._state = "thought" if in_thought else "start"
        self._has_tools, self._is_forced = has_tools, is_forced
        self._pending = ""
        self._trim = in_thought
        self._calls = 0
        self._depth, self._is_quoted, self._is_escaped = 0, False, False

    def feed(self, text: str) -> Piece:
        """Takes more of the text; returns what is certain by now."""
        self._pending += text
        piece = Piece()
        while self._advance(piece):
            pass
        return piece

    def finish(self, is_cut: bool = False) -> Piece:
        """What is left. A call that is not even named is text after all, if the model ended it so.

        Args:
            is_cut: there was no room for more.
        """
        piece = self.feed("")
        rest, self._pending = self._pending, ""
        if self._state == "thought":
            piece.reasoning += rest
        elif self._state == "call" and (
            self._is_forced or (is_cut and rest.lstrip()[:1] in ("", "{"))
        ):
            if named := NAMED.match(rest):
                self._open(piece, named)
        elif self._state == "call":
            piece.content += CALL + rest
        elif self._state != "called" and not (self._is_forced and CALL.startswith(rest)):
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
            "arguments": self._in_arguments,
            "called": self._after_arguments,
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
        if opened := OPENED.match(self._pending):
            self._open(piece, opened)
            self._state, self._depth, self._is_quoted = "arguments", 0, False
            return True
        written, end, rest = self._pending.partition(END_CALL)
        if not end:
            return False
        call = parse_call(written)
        if call is None:
            piece.content += CALL + written + END_CALL
        else:
            piece.calls.append({"index": self._calls, **call})
            self._calls += 1
        self._pending, self._state, self._trim = rest, "said", True
        return True

    def _open(self, piece: Piece, named: re.Match[str]) -> None:
        piece.calls.append({"index": self._calls, **new_call(named[1])})
        self._calls += 1
        self._pending = self._pending[named.end() :]

    def _in_arguments(self, piece: Piece) -> bool:
        """Passes on the object as it is written, up to its end."""
        size, is_whole = self._object_end()
        part, self._pending = self._pending[:size], self._pending[size:]
        if part:
            piece.calls.append({"index": self._calls - 1, "function": {"arguments": part}})
        if is_whole:
            self._state = "called"
        return is_whole

    def _object_end(self) -> tuple[int, bool]:
        """How much of what is pending belongs to the JSON object, and whether it ends there: also
        where nothing that follows can make it JSON."""
        for place, letter in enumerate(self._pending):
            if self._is_escaped:
                self._is_escaped = False
            elif self._is_quoted:
                if letter < " ":
                    return place, True
                self._is_escaped, self._is_quoted = letter == "\\", letter != '"'
            elif letter == "<":
                return place, True
            else:
                self._is_quoted = letter == '"'
                self._depth += (letter in "{[") - (letter in "}]")
                if not self._depth:
                    return place + 1, True
        return len(self._pending), False

    def _after_arguments(self, piece: Piece) -> bool:
        _, end, rest = self._pending.partition(END_CALL)
        if end:
            self._pending, self._state, self._trim = rest, "said", True
            return True
        self._pending = self._pending[len(_without_beginning_of(self._pending, END_CALL)) :]
        return False

    def _go_on(self, state: str, tag: str) -> None:
        self._pending, self._state = self._pending[len(tag) :], state
        self._trim = True


def opens_thought(tokenizer: Tokenizer, prompt: list[int]) -> bool:
    """Whether the prompt ends inside <think>, as some templates open it themselves."""
    begin, end = tokenizer.token_to_id(THINK), tokenizer.token_to_id(END_THINK)
    if begin is None or end is None:
        return tokenizer.decode(prompt[-4:]).rstrip("\n").endswith(THINK)
    bounds = {begin, end, *tokenizer.stop_ids}
    return next((token for token in reversed(prompt) if token in bounds), None) == begin


def parse_call(written: str) -> dict[str, Any] | None:
    """OpenAI's tool call from `{"name": ..., "arguments": ...}`; None where that is not it."""
    try:
        call = json.loads(written)
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            return None
        arguments = call.get("arguments", {})
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        f"{call['name']}{arguments}".encode()  # half a surrogate pair is in no text
    except (ValueError, RecursionError):
        return None
    return new_call(call["name"], arguments)


def new_call(name: str, arguments: str = "") -> dict[str, Any]:
    """A call in OpenAI's form, under an id of its own."""
    return {
        "id": f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _without_beginning_of(text: str, tag: str) -> str:
    """The text without an end that may still become `tag`."""
    for size in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:size]):
            return text[:-size]
    return text
