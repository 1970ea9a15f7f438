"""The log of a run as curves: read as it grows, so that a look costs what is new."""

from __future__ import annotations

import math
import threading
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from miao.files import parsed_lines

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
        for name, of_stage in groupby(rows, lambda row: text(row.get("stage"))):
            stage, found = self.stages.setdefault(name, StageLog()), list(of_stage)
            for row in (row for row in found if row.get("event") is not None):
                if (tokens := number(row.get("tokens"))) is not None:
                    stage.note(tokens, row)
            plain = [row for row in found if row.get("event") is None]
            self.last = next((row for row in reversed(plain) if "loss" in row), self.last)
            x = _column(plain, "tokens")
            for title, key in CURVES.items():
                y = _column(plain, key)
                if (fine := np.isfinite(x) & np.isfinite(y)).any():
                    stage.append(title, x[fine], y[fine])
            for row in (row for row in plain if "scores" in row):
                if (tokens := number(row.get("tokens"))) is not None:
                    stage.ask(tokens, row["scores"])


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

    def look(self) -> list[str]:
        """Reads what is new; returns all that is wrong with the file.

        Raises:
            OSError: it cannot be read.
        """
        with self._turn:
            return self._look()

    def _look(self) -> list[str]:
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
            text = (whole if whole or self._read else new).decode("utf-8", "replace")
            named = self._path, self._problems.append, self._lines + 1
            self.log.extend(parsed_lines(text, *named))
            self._read += len(whole)
            self._lines += whole.count(b"\n")
            self._ends, self._state = self._ends_of(file), state
        return self._problems

    def _ends_of(self, file: Any) -> tuple[bytes, bytes]:
        file.seek(0)
        head = file.read(min(MARK, self._read))
        file.seek(max(0, self._read - MARK))
        return head, file.read(min(MARK, self._read))


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
