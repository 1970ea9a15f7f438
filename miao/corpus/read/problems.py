"""What is wrong with one object of a file, and where."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from miao.corpus.read.opened import Source, format_of
from miao.errors import MiaoError

RAW_KEPT = 1 << 16
"""Characters of a bad record that the quarantine keeps."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One object that cannot become a record: its place, what is wrong, what to do.

    `line` is 0 where the problem is the file's; `raw` is the object or the line itself.
    """

    path: Source
    line: int
    reason: str
    fix: str | None = None
    raw: Any = None

    def error(self) -> MiaoError:
        return MiaoError(self.reason, where=place(self.path, self.line), fix=self.fix)

    def to_json(self) -> dict[str, Any]:
        """A line of a quarantine file."""
        raw = self.raw
        if isinstance(raw, bytes):
            raw = raw.decode("utf-8", "backslashreplace")
        if isinstance(raw, str) and len(raw) > RAW_KEPT:
            raw = raw[:RAW_KEPT] + f"... ({len(raw) - RAW_KEPT} characters more)"
        line = {"path": str(self.path), "line": self.line, "reason": self.reason, "fix": self.fix}
        return {**line, "record": raw}

    def json_line(self) -> str:
        """The same as text; what JSON or UTF-8 cannot hold is written out."""
        line = json.dumps(self.to_json(), ensure_ascii=False, default=str)
        return line.encode("utf-8", "backslashreplace").decode() + "\n"


OnProblem = Callable[[Problem], object]


def stop(problem: Problem) -> None:
    """The strict policy: the first problem ends the reading."""
    raise problem.error()


def place(path: Source, number: int) -> str:
    """`path:line`; for .json and the tables, whose objects are counted instead, says so."""
    if not number:
        return str(path)
    known = format_of(path)
    by_record = known is not None and known[0] in (".json", ".parquet", ".arrow")
    return f"{path} (record {number})" if by_record else f"{path}:{number}"
