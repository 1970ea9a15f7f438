"""The log of a run as curves: read as it grows, so that a look costs what is new."""

from __future__ import annotations

import math
import threading
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from miao.files import orjson, parsed_lines

CURVES = {
    "loss": "loss",
    "heldout": "heldout_bits_per_byte",
    "speed": "tokens_per_second",
    "gradNorm": "grad_norm",
    "lr": "lr",
}
TASKS = "tasks"
"""The curve of what was asked while training: its first score."""
POINTS = 300
"""Per curve; more are averaged in runs of equal length."""
EVENTS = 500
"""Of a stage, the latest."""
PART = 2**20
"""Bytes of a log that are read at a time."""
LONG, SOME, SOON = 4 * 2**20, 6_000, 2.0
"""Of a log of so many bytes so many lines are read at first, so that its curves are there at once;
the whole when it is looked at again so many seconds later, or closely."""
RARE = (b'"event"', b'"scores"', b'"heldout')
"""What of a long log is never passed over."""
MARK = 64
"""Bytes at both ends of what was read, by which a file that was written anew is known."""


@dataclass
class StageLog:
    """What a stage logged: of each curve its tokens and values, and its events."""

    curves: dict[str, tuple[array[float], array[float]]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)

    def note(self, tokens: float, row: dict[str, Any]) -> None:
        """Keeps an event; the numbers beside it are no points of the curves."""
        if isinstance(row["event"], str):
            known = ("step", "loss", "grad_norm", "from_step", "left_out", "loss_scale")
            more = ", ".join(f"{key} {row[key]}"[:80] for key in known if row.get(key) is not None)
            self.events.append({"x": tokens, "kind": row["event"][:40], "more": more})
            del self.events[:-EVENTS]

    def ask(self, tokens: float, scores: Any) -> None:
        """Keeps the first of the scores of what was asked while training."""
        first = scores[0] if isinstance(scores, list) and scores else None
        if isinstance(first, dict) and (value := number(first.get("value"))) is not None:
            self.append(TASKS, np.array([tokens]), np.array([value]))

    def append(self, title: str, x: Any, y: Any) -> None:
        """Adds points to a curve."""
        for kept, new in zip(
            self.curves.setdefault(title, (array("d"), array("d"))), (x, y), strict=True
        ):
            kept.frombytes(new.tobytes())

    def points(self, title: str, span: tuple[float, float] | None = None) -> list[list[float]]:
        """A curve, thinned; of the tokens within `span`, if one is given."""
        if title not in self.curves:
            return []
        x, y = (np.array(values) for values in self.curves[title])
        if span is not None:
            near = (x >= span[0]) & (x <= span[1])
            x, y = x[near], y[near]
        return thinned(x, y, POINTS)


def thinned(x: Any, y: Any, most: int) -> list[list[float]]:
    """At most `most` points of two arrays, each the mean of a run of the given ones."""
    run = -(-len(x) // most) or 1
    starts = np.arange(0, len(x), run)
    if run == 1 or not len(x):
        return [list(pair) for pair in zip(x.tolist(), y.tolist(), strict=True)]
    sizes = np.diff(np.append(starts, len(x)))
    means = [(np.add.reduceat(values, starts) / sizes).tolist() for values in (x, y)]
    return [list(pair) for pair in zip(*means, strict=True)]


class RunLog:
    """`metrics.jsonl` of a run, by stages in their order."""

    def __init__(self) -> None:
        self.stages: dict[str, StageLog] = {}
        self.last: dict[str, Any] = {}
        """The latest line with a loss."""

    def extend(self, rows: Sequence[dict[str, Any]]) -> None:
        """Takes lines. A hundred thousand of them come at once where a page is opened late: so by
        columns."""
        for name, found in _by_stage(rows):
            stage = self.stages.setdefault(name, StageLog())
            events = [row for row in found if row.get("event") is not None]
            for row in events:
                if (tokens := number(row.get("tokens"))) is not None:
                    stage.note(tokens, row)
            plain = [row for row in found if row.get("event") is None] if events else found
            self.last = next((row for row in reversed(plain) if "loss" in row), self.last)
            x = _column(plain, "tokens")
            for title, key in CURVES.items():
                y = _column(plain, key)
                if (fine := np.isfinite(x) & np.isfinite(y)).any():
                    stage.append(title, x[fine], y[fine])
            for row in (row for row in plain if "scores" in row):
                if (tokens := number(row.get("tokens"))) is not None:
                    stage.ask(tokens, row["scores"])


def _by_stage(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Sequence[dict[str, Any]]]]:
    names = [row.get("stage") for row in rows]
    if names and names.count(names[0]) == len(names):
        yield text(names[0]), rows
        return
    for name, found in groupby(rows, lambda row: text(row.get("stage"))):
        yield name, list(found)


def _column(rows: Sequence[dict[str, Any]], key: str) -> Any:
    """The numbers that rows have under a key; NaN where one has none."""
    values = [row.get(key) for row in rows]
    if set(map(type, values)) <= _PLAIN:
        return np.array(values, dtype=float)
    return np.array([np.nan if (v := number(one)) is None else v for one in values])


_PLAIN = {float, int, type(None)}


class Grown:
    """The log of a run, of which a look reads what is new."""

    def __init__(self, path: Path):
        self._path = path
        self._turn = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self.log = RunLog()
        self._state: tuple[int, int] | None = None
        self._read, self._lines, self._ends = 0, 0, (b"", b"")
        self._problems: list[str] = []
        self._glanced: float | None = None
        """When only some lines were read."""

    def look(self, closely: bool = False) -> list[str]:
        """Reads what is new; returns all that is wrong with the file.

        Args:
            closely: every line, of a long log too.

        Raises:
            OSError: it cannot be read.
        """
        with self._turn:
            since = None if self._glanced is None else time.monotonic() - self._glanced
            again = since is not None and (closely or since > SOON)
            if again:
                self._forget()
            return self._look(closely or again)

    def _look(self, closely: bool) -> list[str]:
        if not self._path.is_file():
            self._forget()
            return []
        found = self._path.stat()
        state = (found.st_mtime_ns, found.st_size)
        if state == self._state:
            return self._problems
        with open(self._path, "rb") as file:
            if found.st_size < self._read or self._ends_of(file) != self._ends:
                self._forget()
            file.seek(self._read)
            new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            # A last line without its end is being written, unless it is all there.
            if not closely and not self._read and len(whole) > LONG:
                self._glance(whole)
            else:
                self._take(whole if whole or self._read else new)
            self._read += len(whole)
            self._ends, self._state = self._ends_of(file), state
        return self._problems

    def _take(self, new: bytes) -> None:
        """Lines, a part at a time: a hundred thousand records at once are slow to make. From the
        first part on that holds an odd line they are looked at one by one."""
        begin = 0
        while begin < len(new):
            end = new.find(b"\n", begin + PART) + 1 or len(new)
            rows = _plain(new[begin:end])
            if rows is None:
                text, end = new[begin:].decode("utf-8", "replace"), len(new)
                named = self._path, self._problems.append, self._lines + 1
                rows = parsed_lines(text, *named)
            self.log.extend(rows)
            self._lines += new.count(b"\n", begin, end)
            begin = end

    def _glance(self, new: bytes) -> None:
        """Some lines, evenly over all, and those that are rare."""
        begins = {new.find(b"\n", n * len(new) // SOME) + 1 for n in range(SOME)}
        for key in RARE:
            at = new.find(key)
            while at >= 0:
                begins.add(new.rfind(b"\n", 0, at) + 1)
                at = new.find(key, new.find(b"\n", at))
        begins |= {0, new.rfind(b"\n", 0, -1) + 1}
        lines = (new[begin : new.find(b"\n", begin) + 1] for begin in sorted(begins - {len(new)}))
        text = b"".join(lines).decode("utf-8", "replace")
        self.log.extend(parsed_lines(text, self._path, lambda _: None))  # of faults: the whole
        self._lines += new.count(b"\n")
        self._glanced = time.monotonic()

    def _ends_of(self, file: Any) -> tuple[bytes, bytes]:
        file.seek(0)
        head = file.read(min(MARK, self._read))
        file.seek(max(0, self._read - MARK))
        return head, file.read(min(MARK, self._read))


def _plain(lines: bytes) -> list[dict[str, Any]] | None:
    """The records of lines of which none is odd."""
    with suppress(ValueError, AttributeError):  # AttributeError: there is no orjson
        found = [orjson.loads(line) for line in lines.split(b"\n") if line]
        if set(map(type, found)) <= {dict}:
            return found
    return None


def text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def number(value: Any) -> float | None:
    """What JSON can hold as a number; None for all else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def through_time(lines: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Of the samples of a stage those of at most `most` moments, evenly from the first to the
    last."""
    moments = sorted({number(line.get("tokens")) or 0.0 for line in lines})
    if len(moments) > most:
        chosen = {round(n * (len(moments) - 1) / (most - 1)) for n in range(most)}
        moments = [moment for n, moment in enumerate(moments) if n in chosen]
    wanted = set(moments)
    return [line for line in lines if (number(line.get("tokens")) or 0.0) in wanted]
