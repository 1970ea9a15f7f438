"""Tables (csv, tsv, parquet, arrow) -> one object per row."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

from miao.corpus.read.problems import OnProblem, Problem, place
from miao.corpus.read.streams import (
    DamagedFile,
    OnRepair,
    Source,
    format_of,
    missing_library,
    open_binary,
    read_lines,
    readable,
)

ROWS = 256  # held in memory at a time
MOST_COLUMNS = 10_000


def read_table(
    path: Source, delimiter: str, on_problem: OnProblem, on_repair: OnRepair | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows as {column: cell}; a row's line is the one it begins on."""
    csv.field_size_limit(2**31 - 1)  # the default of 128 KiB is less than a long document
    lines = (line + "\n" for _, line in read_lines(path, on_repair))
    first = next(lines, "")
    if delimiter not in first and (other := _delimiter_of(first)):
        delimiter = other
        if on_repair:
            on_repair(path, f"read with {other!r} between cells")
    rows = csv.reader(chain([first] if first else [], lines), delimiter=delimiter, strict=True)
    header: list[str] = []
    line = 1
    try:
        for row in rows:
            if row and not header:
                header = [name.strip() for name in row]
                if len(set(header)) < len(header):
                    raise DamagedFile("two columns have the same name", where=place(path, line))
                if len(header) > MOST_COLUMNS:
                    raise DamagedFile(f"{len(header)} columns", where=place(path, line))
            elif row and len(row) != len(header):
                reason = f"a row of {len(row)} cells under a header of {len(header)}"
                fix = "quote cells that contain the delimiter"
                on_problem(Problem(path, line, reason, fix, row))
            elif row:
                yield line, dict(zip(header, row, strict=True))
            line = rows.line_num + 1
    except csv.Error as error:
        fix = 'put cells that contain quotes or line breaks in quotes, and write " inside as ""'
        raise DamagedFile(f"not a valid row: {error}", where=place(path, line), fix=fix) from error


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
