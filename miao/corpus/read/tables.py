"""Tables (csv, tsv, parquet, arrow) -> one object per row."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

from miao.corpus.read.opened import (
    DamagedFile,
    Source,
    format_of,
    missing_library,
    open_binary,
    readable,
)
from miao.corpus.read.problems import OnProblem, Problem, place
from miao.corpus.read.streams import OnRepair, read_lines

ROWS = 256  # held in memory at a time
MOST_COLUMNS = 10_000
LONGEST_CELL = 1 << 24
"""Characters; where a quote opens a longer one, its end is missing."""


def read_table(
    path: Source,
    delimiter: str,
    on_problem: OnProblem,
    on_repair: OnRepair | None = None,
    encoding: str | None = None,
) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows as {column: cell}; a row's line is the one it begins on.

    A quote that is not closed costs its own line and no other. Between tabs, where quotes need no
    quoting, such a line is taken as it stands if it has the right number of cells.
    """
    csv.field_size_limit(LONGEST_CELL)
    lines = read_lines(path, on_repair, encoding)
    first = next(lines, None)
    if first and delimiter not in first[1] and (other := _delimiter_of(first[1])):
        delimiter = other
        if on_repair:
            on_repair(path, f"read with {other!r} between cells")
    header: list[str] = []
    for line, row, text in _rows(chain([first] if first else [], lines), delimiter):
        literal = isinstance(row, str)
        if isinstance(row, str):
            reason, row = row, text.rstrip("\r").split(delimiter)
            if delimiter != "\t" or (header and len(row) != len(header)):
                fix = "put cells that contain quotes or line breaks in quotes, and write "
                fix += '" inside as ""'
                on_problem(Problem(path, line, f"not a valid row: {reason}", fix, text))
                continue
        if row and not header:
            header = [name.strip() for name in row]
            if len(set(header)) < len(header):
                raise DamagedFile("two columns have the same name", where=place(path, line))
            if len(header) > MOST_COLUMNS:
                raise DamagedFile(f"{len(header)} columns", where=place(path, line))
        elif row and len(row) != len(header):
            reason = f"a row of {len(row)} cells under a header of {len(header)}"
            on_problem(Problem(path, line, reason, "quote cells that contain the delimiter", row))
        elif row:
            if literal and on_repair:
                on_repair(path, "rows whose quotation marks are text")
            yield line, dict(zip(header, row, strict=True))


def _rows(
    lines: Iterator[tuple[int, str]], delimiter: str
) -> Iterator[tuple[int, list[str] | str, str]]:
    """Every row's line and cells; or its line, what is wrong with it, and the line's text.

    What is wrong with a row that goes on over several lines is blamed on its first one; the
    others are read anew, each as the beginning of a row.
    """
    again: deque[tuple[int, str]] = deque()
    taken: list[tuple[int, str]] = []
    width = 0

    def feed() -> Iterator[str]:
        while (item := again.popleft() if again else next(lines, None)) is not None:
            taken.append(item)
            yield item[1] + "\n"

    rows = csv.reader(feed(), delimiter=delimiter, strict=True)
    while True:
        row: list[str] | str | None
        try:
            row = next(rows, None)
        except csv.Error as error:
            row = str(error)
        if row is None:
            return
        number, text = taken[0]
        # Tabs do not stand in cells: lines that each have all of them are rows of their own.
        if delimiter == "\t" and len(taken) > 1 < width == len(text.split(delimiter)):
            whole = all(line.count(delimiter) + 1 == width for _, line in taken)
            row = "a quotation mark" if whole else row
        width = width or len(row if isinstance(row, list) else text.split(delimiter))
        if isinstance(row, str):
            again.extendleft(reversed(taken[1:]))
            rows = csv.reader(feed(), delimiter=delimiter, strict=True)
        taken.clear()
        yield number, row, text


def _delimiter_of(header: str) -> str | None:
    """What stands between the names of a header that the usual delimiter does not stand in: Excel
    writes semicolons where the comma is the decimal point, and tabs for "Unicode text"."""
    counts = {mark: header.count(mark) for mark in (",", ";", "\t", "|")}
    best = max(counts, key=lambda mark: counts[mark])
    return best if counts[best] else None


def read_parquet(
    path: Source, columns: Sequence[str] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows; only those of the `columns` that exist are read from the file, if some are named."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_library("pyarrow", path) from error
    number = 0
    with _seekable(path) as file:
        try:
            table = pyarrow.parquet.ParquetFile(file)
            chosen = [name for name in columns or () if name in table.schema_arrow.names]
            for batch in table.iter_batches(ROWS, columns=chosen or None):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        except (pyarrow.ArrowException, ValueError, OverflowError) as error:
            raise OSError(str(error)) from error


def read_arrow(path: Source) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of an Arrow IPC file (Feather 2) or stream (what `datasets` keeps in its cache)."""
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise missing_library("pyarrow", path) from error
    number = 0
    with _seekable(path) as file:
        try:
            if file.read(6) == b"ARROW1":
                reader = pyarrow.ipc.open_file(file)
                batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
            else:
                file.seek(0)
                batches = iter(pyarrow.ipc.open_stream(file))
            for batch in batches:
                for begin in range(0, batch.num_rows, ROWS):
                    for row in batch.slice(begin, ROWS).to_pylist():
                        number += 1
                        yield number, row
        except (pyarrow.ArrowException, ValueError, OverflowError, EOFError) as error:
            raise OSError(str(error)) from error


@contextmanager
def _seekable(path: Source) -> Iterator[Any]:
    """These formats are read from their end, compressed files from the beginning: unpacked."""
    known = format_of(path)
    with readable(path), open_binary(path) as file:
        if not (known and known[1]):
            yield file
            return
        with tempfile.TemporaryFile() as plain:
            shutil.copyfileobj(file, plain)
            plain.seek(0)
            yield plain
