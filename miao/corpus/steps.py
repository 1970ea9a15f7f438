"""Steps that are not done again: each leaves its result beside a mark of what it was made from.

Also how a step tells of its progress.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from miao.errors import MiaoError
from miao.files import fingerprint, read_json, write_json


class Line(Protocol):
    """A progress line."""

    def advance(self, amount: float = 1, text: str = "") -> None: ...


Progress = Callable[[str, float], AbstractContextManager[Line]]
"""Begins a progress line for something, of a total amount; `miao.console.ProgressLine` is one."""


@dataclass(frozen=True)
class Phase:
    """Tasks that need nothing of one another, but all that the phases before have done."""

    title: str
    """For the progress line, which neighbours of one title share."""
    name: str
    count: Callable[[], int]
    """How many tasks there are; known when the phases before are done."""
    run: Callable[[int], Any]
    """Does a task, given its number; its result is JSON."""
    clear: Callable[[int], Any] = lambda task: None
    """What may go when a task's result is noted."""
    spent: tuple[str, ...] = ()
    """Folders that may go when all tasks are done."""


def once() -> int:
    """The count of a phase that is one task, whatever there is to do."""
    return 1


class _NoLine:
    def advance(self, amount: float = 1, text: str = "") -> None:
        pass


@contextmanager
def silent(what: str, total: float) -> Iterator[Line]:
    """Shows nothing."""
    yield _NoLine()


def claim(directory: Path, inputs: Any) -> str:
    """Makes a directory the workplace for these inputs (any JSON-like value): what stands there
    from others goes. Returns the inputs' mark."""
    mark = fingerprint(inputs)
    if finished(directory / "inputs.json", mark) is None:
        shutil.rmtree(directory, ignore_errors=True)
        finish(directory / "inputs.json", mark, {})
    return mark


def finish(path: Path, mark: str, result: Any) -> None:
    """Writes down that a step is done, with its result (JSON)."""
    write_json(path, {"mark": mark, "result": result})


def finished(path: Path, mark: str) -> Any:
    """The result of a step; None: it is not done, or was done from something else."""
    if not path.exists():
        return None
    try:
        written = read_json(path)
    except MiaoError:
        return None
    return written["result"] if isinstance(written, dict) and written.get("mark") == mark else None


def link(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the file system knows no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
