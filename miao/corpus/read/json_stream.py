"""JSON of any size, value by value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from miao.corpus.read.opened import DamagedFile, Source
from miao.corpus.read.streams import OnRepair, read_text

_TOKEN = 16  # characters: more than any JSON token has that is no string or plain number
_JSON_SPACE = re.compile(r"[ \t\r\n]*")


class JsonStream:
    """Decodes one JSON value after another of a text that is too large to hold."""

    def __init__(
        self, path: Source, on_repair: OnRepair | None = None, encoding: str | None = None
    ):
        self.path = path
        self.chunks = read_text(path, on_repair=on_repair, encoding=encoding)
        self.decode = json.JSONDecoder().raw_decode
        self.buffer, self.at = "", 0
        self.line, self.column = 1, 1  # where the buffer begins

    def more(self) -> bool:
        """Drops what was decoded, at least doubles what is left; False at the end of the file."""
        left, chunks, size = len(self.buffer) - self.at, [], 0
        while size <= left and (chunk := next(self.chunks, None)) is not None:
            chunks.append(chunk)
            size += len(chunk)
        if size:
            self.line, self.column = self.position(self.at)
            self.buffer, self.at = "".join([self.buffer[self.at :], *chunks]), 0
        return size > 0

    def position(self, at: int) -> tuple[int, int]:
        """Line and column of a place in the buffer."""
        newlines = self.buffer.count("\n", 0, at)
        if newlines:
            return self.line + newlines, at - self.buffer.rfind("\n", 0, at)
        return self.line, self.column + at

    def error(self, reason: str, at: int) -> DamagedFile:
        line, column = self.position(at)
        begin = max(at - 30, 0)
        return DamagedFile(
            f"invalid JSON at column {column} ({reason}) near {self.buffer[begin : at + 30]!r}",
            where=f"{self.path}:{line}",
            fix="mend the file: a list of objects, one object, or one object per line",
        )

    def peek(self) -> str:
        """The next character that is not white space, "" at the end of the file."""
        while True:
            space = _JSON_SPACE.match(self.buffer, self.at)
            self.at = space.end() if space else self.at
            if self.at < len(self.buffer) or not self.more():
                return self.buffer[self.at : self.at + 1]

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = self.decode(self.buffer, self.at)
                if end > len(self.buffer) - _TOKEN and self.more():  # 1.5 may go on as 1.5e3
                    continue
                self.at = end
                return value
            except (ValueError, RecursionError) as error:
                at, reason = getattr(error, "pos", self.at), getattr(error, "msg", str(error))
                # Is it wrong, or merely not all there yet?
                cut_off = at > len(self.buffer) - _TOKEN or reason.startswith("Unterminated string")
                if not (cut_off and self.more()):
                    raise self.error(reason, at) from error

    def items(self) -> Iterator[Any]:
        """The items of the list that begins here."""
        self.at += 1
        if self.peek() == "]":
            self.at += 1
            return
        while True:
            yield self.value()
            following = self.peek()
            if following not in (",", "]"):
                raise self.error("expecting ',' or ']' after an item", self.at)
            self.at += 1
            if following == "]":
                return
