"""Folders and files that users bring -> raw objects (dicts and lists), one by one."""

from __future__ import annotations

import csv
import glob
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miao.corpus.streams import (
    SUPPORTED,
    JsonStream,
    format_of,
    missing_library,
    open_binary,
    read_lines,
    read_text,
    readable,
    unknown_format,
)
from miao.errors import MiaoError

TEXT_PIECE = 1 << 16  # bytes: about the size of the documents that a large text is cut into
WHOLE_TEXT = 1 << 20  # bytes: a text up to this size stays one document
PARQUET_ROWS = 256  # held in memory at a time

_RECORD_KEYS = {"text", "content", "instruction", "prompt", "question", "query", "input", "tools"}
_BLANK_LINES = re.compile(r"\n(?:[ \t\r\u3000]*\n)+")


@dataclass(frozen=True, slots=True)
class Problem:
    """One object that cannot become a record: its place, what is wrong, what to do."""

    path: Path
    line: int
    reason: str
    fix: str | None = None

    def error(self) -> MiaoError:
        return MiaoError(self.reason, where=place(self.path, self.line), fix=self.fix)


OnProblem = Callable[[Problem], object]
OnSkip = Callable[[Path, str], object]


def stop(problem: Problem) -> None:
    """The strict policy: the first problem ends the reading."""
    raise problem.error()


def place(path: Path, number: int) -> str:
    """`path:line`; for .json and .parquet, whose objects are counted instead, says so."""
    known = format_of(path)
    by_record = known is not None and known[0] in (".json", ".parquet")
    return f"{path} (record {number})" if by_record else f"{path}:{number}"


def find_files(paths: Sequence[str | Path], on_skip: OnSkip | None = None) -> list[Path]:
    """The readable files that files, folders (all levels, sorted) and glob patterns stand for.

    A file reached twice is listed once. `on_skip(path, why)` hears of everything passed over:
    hidden names, unknown extensions, broken links.

    Raises:
        MiaoError: a path that does not exist or cannot be read; nothing readable at all.
    """
    return [file for file, _ in find_sources(paths, on_skip)]


def find_sources(
    paths: Sequence[str | Path], on_skip: OnSkip | None = None
) -> list[tuple[Path, str]]:
    """`find_files`, each with the name of what the user pointed at (a file's without extension)."""
    paths = [paths] if isinstance(paths, str | Path) else paths
    found: dict[str, tuple[Path, str]] = {}
    for given in paths:
        for top in _expanded(given):
            for file in _files_at(top, on_skip or (lambda path, why: None)):
                found.setdefault(os.path.realpath(file), (file, _stem(top)))
    if not found:
        raise MiaoError(
            "nothing that can be read here",
            where=", ".join(str(path) for path in paths) or None,
            fix=f"supported are {SUPPORTED}; unpack archives, turn .pdf and .docx into text first",
        )
    return list(found.values())


def _expanded(given: str | Path) -> list[Path]:
    """The existing files and folders that one path or glob pattern of the user's stands for."""
    path = Path(given).expanduser()
    if path.exists():
        if path.is_file() and format_of(path) is None:
            raise unknown_format(path)
        return [path]
    if not glob.has_magic(str(path)):
        raise MiaoError(
            "no such file or folder",
            where=given,
            fix=f"check the spelling; relative paths start at {Path.cwd()}",
        )
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    if "**" in path.parts:  # it goes into the folders itself, perhaps for some of their files only
        matches = [match for match in matches if not match.is_dir()]
    if not matches:
        raise MiaoError("no file matches this pattern", where=given, fix="check the pattern")
    return matches


def _files_at(top: Path, skip: OnSkip) -> list[Path]:
    """The readable files of a folder, or the file itself."""

    def unreadable(error: OSError) -> None:
        raise MiaoError(f"the folder cannot be read: {error.strerror}", where=error.filename)

    def visible(folder: str, names: list[str]) -> list[Path]:
        for name in names:
            if name.startswith("."):
                skip(Path(folder, name), "hidden")
        return [Path(folder, name) for name in sorted(names) if not name.startswith(".")]

    candidates = [] if top.is_dir() else [top]
    walk = os.walk(top, onerror=unreadable, followlinks=True) if top.is_dir() else ()
    visited: set[str] = set()  # links between folders may lead round in a circle
    for folder, subfolders, names in walk:
        visited.add(os.path.realpath(folder))
        candidates += visible(folder, names)
        inner = visible(folder, subfolders)
        subfolders[:] = [path.name for path in inner if os.path.realpath(path) not in visited]
    files = []
    for path in sorted(candidates):
        if format_of(path) is None:
            skip(path, "unknown extension")
        elif not path.is_file():
            skip(path, "broken link" if path.is_symlink() else "not a regular file")
        else:
            files.append(path)
    return files


def _stem(top: Path) -> str:
    """`data/wiki` -> "wiki"; `data/wiki.v2.jsonl.xz` -> "wiki.v2"."""
    name = os.path.basename(os.path.abspath(top))
    known = None if top.is_dir() else format_of(top)
    return name[: -len("".join(known))] if known else name


def read_objects(path: str | Path, on_problem: OnProblem = stop) -> Iterator[tuple[int, Any]]:
    """Yields (line number, raw object), or (record number, ...) for .json and .parquet.

    Memory does not grow with the file, except for a .json that is one single object. A JSON line
    or table row that cannot be parsed goes to `on_problem`; if that returns, reading goes on.

    Raises:
        MiaoError: a file that cannot be read, is damaged, truncated, or not UTF-8.
    """
    path = Path(path)
    known = format_of(path)
    if known is None:
        raise unknown_format(path)
    match known[0]:
        case ".jsonl" | ".ndjson":
            return _read_json_lines(path, on_problem)
        case ".json":
            return _read_json(path)
        case ".csv":
            return _read_table(path, ",", on_problem)
        case ".tsv":
            return _read_table(path, "\t", on_problem)
        case ".parquet":
            return _read_parquet(path)
        case _:
            return _read_text(path)


def _read_text(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The whole text as one object, or the pieces of a large one, joined again the same text."""
    whole: list[str] | None = []
    size, line = 0, 1
    for piece in _text_pieces(path):
        if whole is None:
            yield line, {"text": piece}
            line += piece.count("\n")
            continue
        whole.append(piece)
        size += len(piece.encode())
        if size > WHOLE_TEXT:
            for earlier in whole:
                yield line, {"text": earlier}
                line += earlier.count("\n")
            whole = None
    if whole is not None:
        yield line, {"text": "".join(whole)}


def _text_pieces(path: Path) -> Iterator[str]:
    """Cuts after the last blank lines in every `TEXT_PIECE` bytes.

    Where four times as many have none, cuts after the last line, or before the last character.
    No piece is blank: the spaces at the borders stay with their neighbours.
    """
    begun, chunks = "", 0
    for chunk in read_text(path, TEXT_PIECE):
        begun, chunks = begun + chunk, chunks + 1
        start, end = len(begun) - len(begun.lstrip()), len(begun.rstrip())
        cut = max((match.end() for match in _BLANK_LINES.finditer(begun, start, end)), default=0)
        if not cut and chunks >= 4 and end - start > TEXT_PIECE:
            cut = begun.rfind("\n", start, end) + 1 or end - 1
        if cut > start:
            yield begun[:cut]
            begun, chunks = begun[cut:], 0
    if begun:
        yield begun


def _read_table(
    path: Path, delimiter: str, on_problem: OnProblem
) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows as {column: cell}; a row's line is the one it begins on."""
    csv.field_size_limit(2**31 - 1)  # the default of 128 KiB is less than a long document
    rows = csv.reader(
        (line + "\n" for _, line in read_lines(path)), delimiter=delimiter, strict=True
    )
    header: list[str] = []
    line = 1
    try:
        for row in rows:
            if row and not header:
                header = [name.strip() for name in row]
                if len(set(header)) < len(header):
                    raise MiaoError("two columns have the same name", where=place(path, line))
            elif row and len(row) != len(header):
                reason = f"a row of {len(row)} cells under a header of {len(header)}"
                on_problem(Problem(path, line, reason, "quote cells that contain the delimiter"))
            elif row:
                yield line, dict(zip(header, row, strict=True))
            line = rows.line_num + 1
    except csv.Error as error:
        fix = 'put cells that contain quotes or line breaks in quotes, and write " inside as ""'
        raise MiaoError(f"not a valid row: {error}", where=place(path, line), fix=fix) from error


def _read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_library("pyarrow", path) from error
    number = 0
    with readable(path), open_binary(path) as file, tempfile.TemporaryFile() as plain:
        known = format_of(path)
        if known and known[1]:  # parquet is read from its end, compressed files from the beginning
            shutil.copyfileobj(file, plain)
        try:
            table = pyarrow.parquet.ParquetFile(plain if known and known[1] else file)
            for batch in table.iter_batches(PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        except (pyarrow.ArrowException, ValueError) as error:
            raise OSError(str(error)) from error


def _read_json_lines(path: Path, on_problem: OnProblem) -> Iterator[tuple[int, Any]]:
    for number, line in read_lines(path):
        text = line.strip(" \t\r\ufeff")
        if not text:
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            at = line.index(text) + getattr(error, "pos", 0)
            fix = "mend or delete the line: each must hold one whole JSON object"
            if number == 1 and text in ("[", "{"):
                fix = "this looks like JSON over several lines: rename the file to .json"
            on_problem(Problem(path, number, _invalid(error, at + 1, text), fix))
        else:
            yield number, value


def _invalid(error: Exception, column: int, text: str) -> str:
    """Describes invalid JSON, showing the beginning of what was read as JSON."""
    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    shown = repr(text[:60]) + ("..." if len(text) > 60 else "")
    return f"invalid JSON at column {column} ({reason}) in {shown}"


def _read_json(path: Path) -> Iterator[tuple[int, Any]]:
    """The items of a list; the one list of objects in an object, or that object; or JSON lines."""
    stream = JsonStream(path)
    if stream.peek() == "[":
        yield from enumerate(stream.items(), 1)
        if stream.peek():
            raise stream.error("more after the end of the list", stream.at)
    elif stream.peek():
        first = stream.value()
        if stream.peek():  # many .json files hold JSON lines
            yield 1, first
            number = 1
            while stream.peek():
                number += 1
                yield number, stream.value()
        else:
            yield from enumerate(_records_in(first), 1)


def _records_in(value: Any) -> list[Any]:
    """The records of `{"version": 1, "data": [{...}, ...]}`; any other value is one itself.

    A list of turns, or whatever stands beside a text or a question, belongs to one record.
    """
    if isinstance(value, dict) and not _RECORD_KEYS & value.keys():
        lists = [entry for entry in value.values() if isinstance(entry, list)]
        if len(lists) == 1 and all(
            isinstance(entry, dict) and not {"role", "from"} & entry.keys() for entry in lists[0]
        ):
            return lists[0]
    return [value]
