"""Rows on their way from many tasks to many others, by way of files: each task writes its rows
sorted by whom they are for, and each of those reads its own out of every file.

Rows are of 64-bit words. Memory is that of one run, and files are as many as runs: linear in the
rows, whoever writes and reads, on however many machines.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from miao.corpus.folder import Folder

RUN_BYTES = 32 << 20
"""Rows that a task holds before it writes them."""
PART_BYTES = 24 << 20
"""Rows that a task reads, a few times over in memory while it sorts them."""
MOST_PARTS = 1024
"""Beyond so many parts they grow with the square root: every part is read out of every file."""
Rows = NDArray[np.uint64]


def parts_for(size: float, each: float) -> int:
    """How many parts of about `each` something of a size is cut into."""
    count = max(1, math.ceil(size / each))
    return count if count <= MOST_PARTS else math.ceil(math.sqrt(count * MOST_PARTS))


def part_of(keys: NDArray[np.uint64], parts: int) -> NDArray[np.int64]:
    """The part of each key (a hash, whose upper bits are evenly spread)."""
    return ((keys >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)).astype(np.int64)


class RowWriter:
    """The rows of one task, `(n, width)`, for `parts` others.

    A run is a file: whether another one follows, where the rows of each part begin, the rows.
    """

    def __init__(self, folder: Folder, task: int, parts: int, width: int):
        self.folder, self.task, self.parts, self.width = folder, task, parts, width
        self._rows: list[Rows] = []
        self._owners: list[NDArray[np.int64]] = []
        self._held = self._runs = 0

    def add(self, rows: Rows, owners: NDArray[np.int64]) -> None:
        """Args: owners: the part that each row is for."""
        self._rows.append(np.ascontiguousarray(rows, dtype=np.uint64))
        self._owners.append(owners)
        self._held += rows.nbytes
        if self._held > RUN_BYTES:
            self._write(more=True)

    def close(self) -> None:
        self._write(more=False)

    def _write(self, more: bool) -> None:
        rows = np.concatenate([np.empty((0, self.width), dtype=np.uint64), *self._rows])
        owners = np.concatenate([np.empty(0, dtype=np.int64), *self._owners])
        self._rows, self._owners, self._held = [], [], 0
        order = np.argsort(owners, kind="stable")
        edges = np.searchsorted(owners, np.arange(self.parts + 1), sorter=order)
        head = np.concatenate([[int(more)], edges]).astype("<u8")
        with self.folder.write(run_name(self.task, self._runs)) as file:
            file.write(head.tobytes())
            for begin in range(0, len(rows), 1 << 18):  # no second copy of all rows
                file.write(rows[order[begin : begin + (1 << 18)]].astype("<u8").tobytes())
        self._runs += 1


def run_name(task: int, run: int) -> str:
    return f"{task:06d}-{run:04d}.rows"


def rows_for(folder: Folder, part: int, parts: int, width: int, tasks: int) -> Iterator[Rows]:
    """The rows for a part, of each run of each task in turn; in the order in which they came."""
    for task in range(tasks):
        run, more = 0, True
        while more:
            name = run_name(task, run)
            with folder.open(name) as file:
                more = bool(np.frombuffer(file.read(8), "<u8")[0])
                file.seek(8 * (1 + part))
                begin, end = np.frombuffer(file.read(16), "<u8").tolist()
                if end > begin:
                    file.seek(8 * (parts + 2 + begin * width))
                    data = file.read(8 * (end - begin) * width)
                    yield np.frombuffer(data, "<u8").reshape(-1, width)
            run += 1


def all_rows_for(folder: Folder, part: int, parts: int, width: int, tasks: int) -> Rows:
    """The same as one array."""
    found = list(rows_for(folder, part, parts, width, tasks))
    return np.concatenate([np.empty((0, width), dtype=np.uint64), *found])


def groups_of(rows: Rows, columns: int) -> NDArray[np.int64]:
    """Of sorted rows, the place of the first of those that agree with each in so many columns."""
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (rows[1:, :columns] != rows[:-1, :columns]).any(axis=1)
    return np.flatnonzero(new)[np.cumsum(new) - 1]


def sorted_rows(rows: Rows) -> Rows:
    """By their columns, the first one first."""
    return rows[np.lexsort(rows.T[::-1])]
