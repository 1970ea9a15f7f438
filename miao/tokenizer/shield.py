"""Keeps what a message says apart from what the template writes (see `miao.tokenizer.template`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

# Noncharacters: Unicode promises that no text has them; where one does, it is escaped, not lost.
LEARN, END_LEARN, _ESCAPE = "\ufdd0", "\ufdd1", "\ufdd2"
_ESCAPED = {LEARN: _ESCAPE + "0", END_LEARN: _ESCAPE + "1", _ESCAPE: _ESCAPE + "2"}
_UNESCAPED = {escaped: mark for mark, escaped in _ESCAPED.items()} | {_ESCAPE + "-": ""}


class Span(NamedTuple):
    """A stretch of a rendered conversation: ordinary text or one control token."""

    text: str
    is_control: bool
    is_learnt: bool


class Shield:
    """Keeps control tokens that a message spells out apart from those that the template writes."""

    def __init__(self, controls: tuple[str, ...]):
        longest_first = sorted(controls, key=len, reverse=True)
        self._controls = frozenset(controls)
        marks = [LEARN, END_LEARN]
        self._harmful = re.compile("|".join(map(re.escape, [*longest_first, *marks, _ESCAPE])))
        self._cuts = re.compile("(" + "|".join(map(re.escape, [*longest_first, *marks])) + ")")

    def defuse(self, value: Any) -> Any:
        """A copy, of plain JSON types, in which no string holds a control token or a mark."""
        if isinstance(value, str):
            return self._harmful.sub(_defused, value)
        if isinstance(value, Mapping):
            return {self.defuse(key): self.defuse(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.defuse(item) for item in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        raise TypeError(f"{type(value).__name__} is not a JSON value")

    def restore(self, text: str) -> str:
        """The text as it was before `defuse`."""
        if _ESCAPE not in text:
            return text
        # A template that cuts strings up may leave an escape without its end; it goes too.
        return re.sub(f"{_ESCAPE}[012-]?", lambda match: _UNESCAPED.get(match[0], ""), text)

    def spans(self, rendered: str) -> list[Span]:
        """Cuts a rendered conversation at its control tokens and at the marks."""
        spans, is_learnt = [], False
        for piece in self._cuts.split(rendered):
            if piece in (LEARN, END_LEARN):
                is_learnt = piece == LEARN
            elif piece in self._controls:
                spans.append(Span(piece, True, is_learnt))
            elif piece:
                spans.append(Span(self.restore(piece), False, is_learnt))
        return spans


def _defused(match: re.Match[str]) -> str:
    found = match[0]
    return _ESCAPED.get(found) or f"{found[0]}{_ESCAPE}-{found[1:]}"


@lru_cache(maxsize=16)
def shield_of(controls: tuple[str, ...]) -> Shield:
    return Shield(controls)
