"""Rows on disk: brought together by key, or read by their number. Memory does not grow with them.

Files are read and written, not mapped: mapped pages count as the process's memory.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BUCKET_BYTES = 4 << 20  # held in memory while sorting, a few times over
_ROW = np.dtype([("key", "<u8"), ("check", "<u8"), ("record", "<i8")])


class Buckets:
    """Rows on disk, split by key, so that equal keys meet in one bucket that fits in memory."""

    def __init__(self, directory: Path, rows: int):
        self.directory = directory
        self.count = max(1, -(-rows * _ROW.itemsize // BUCKET_BYTES))
        self.paths = [directory / f"{number:05d}.rows" for number in range(self.count)]

    def clear(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)

    def add(self, keys: NDArray[Any], checks: NDArray[Any] | int, records: NDArray[Any]) -> None:
        rows = np.empty(len(keys), dtype=_ROW)
        rows["key"], rows["check"], rows["record"] = keys, checks, records
        bucket = (rows["key"] >> np.uint64(20)) % np.uint64(self.count)
        order = np.argsort(bucket, kind="stable")
        edges = np.searchsorted(bucket[order], np.arange(self.count + 1))
        for number in range(self.count):
            part = rows[order[edges[number] : edges[number + 1]]]
            if part.size:
                with open(self.paths[number], "ab") as file:
                    file.write(part.tobytes())

    def groups(self) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Per bucket: the rows sorted by key (then as added), and the index of each one's group."""
        for path in self.paths:
            rows = np.fromfile(path, dtype=_ROW) if path.exists() else np.empty(0, dtype=_ROW)
            rows = rows[np.lexsort((rows["check"], rows["key"]))]
            new = np.ones(len(rows), dtype=bool)
            new[1:] = (rows["key"][1:] != rows["key"][:-1]) | (
                rows["check"][1:] != rows["check"][:-1]
            )
            starts = np.flatnonzero(new)
            yield rows, starts[np.cumsum(new) - 1]


class RowFile:
    """Rows of one width in a file: written at its end, read by number."""

    def __init__(self, path: Path, dtype: Any, width: int):
        self.path, self.dtype, self.width = path, np.dtype(dtype), width

    def clear(self) -> None:
        self.path.write_bytes(b"")

    def append(self, rows: NDArray[Any]) -> None:
        with open(self.path, "ab") as file:
            file.write(np.ascontiguousarray(rows, dtype=self.dtype).tobytes())

    def take(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """(numbers, width) rows."""
        wanted, back = np.unique(numbers, return_inverse=True)
        rows = np.empty((len(wanted), self.width), dtype=self.dtype)
        step = self.width * self.dtype.itemsize
        with open(self.path, "rb", buffering=0) as file:
            for place, number in enumerate(wanted.tolist()):
                file.seek(number * step)
                file.readinto(rows[place].data)
        return rows[back]
