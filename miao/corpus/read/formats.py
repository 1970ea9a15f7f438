"""Files -> records of one kind, with everything counted that was mended or passed over."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, overload

from miao.console import warn
from miao.corpus.read.accounting import Columns
from miao.corpus.read.columns import TEXT_KEYS, check_mapping, mapped
from miao.corpus.read.convert import (
    EXPECTED,
    LABELLED,
    converted,
    shape_of,
)
from miao.corpus.read.encoding import mend_text
from miao.corpus.read.kto import KtoPairs
from miao.corpus.read.opened import DamagedFile, Source, format_of
from miao.corpus.read.problems import OnProblem, Problem, place, stop
from miao.corpus.read.readers import read_objects
from miao.corpus.read.sources import GivenName, find_sources
from miao.corpus.read.streams import OnRepair
from miao.corpus.read.turns import unread_keys
from miao.corpus.records import Conversation, Document, Kind, Preference, Record, messages_of
from miao.errors import MiaoError

MOST_KEYS = 8
"""Unread keys that are named."""
DOCUMENT_SHAPES = (*TEXT_KEYS, "段落")
LOOKED_AT = 200
"""Records after which a file is refused of which much is not read."""
SINGLE = "kto, single"
"""The shape of a labelled answer without a counterpart to the same prompt."""


@dataclass(frozen=True)
class Reading:
    """What a user says of data that cannot be told from them."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Roles and the columns that have them (`read.columns.mapped`)."""
    encoding: str | None = None
    """Of text that is no UTF-8."""

    def __post_init__(self) -> None:
        check_mapping(self.columns)
        if self.encoding:
            try:
                codecs.lookup(self.encoding)
            except LookupError as error:
                fix = "such as gb18030, big5, cp950, shift_jis, cp1252"
                what = f"no encoding is called '{self.encoding}'"
                raise MiaoError(what, where="corpus.encoding", fix=fix) from error


AS_IT_IS = Reading()


@dataclass(slots=True)
class RecordCounts:
    """What `read_records` has read so far: records per file and shape, and what it passed over.

    Objects read = records + problems + `merged` (the second answers of KTO's pairs).
    """

    by_file: Counter[str] = field(default_factory=Counter)
    by_shape: Counter[str] = field(default_factory=Counter)
    problems: int = 0
    merged: int = 0
    repairs: Counter[str] = field(default_factory=Counter)
    """How often something was decoded otherwise than as plain UTF-8, or mended."""
    repaired_files: dict[str, str] = field(default_factory=dict)
    unread: Counter[str] = field(default_factory=Counter)
    """Keys of turns that no record keeps, once for each turn."""
    columns: Columns = field(default_factory=Columns)
    """What was read of the objects' columns, and what was not."""
    skipped_files: list[tuple[Path, str]] = field(default_factory=list)

    def repair(self, path: Source, how: str) -> None:
        self.repairs[how] += 1
        self.repaired_files.setdefault(how, str(path))

    def lines(self) -> list[str]:
        """What was mended, in words: one line for each way; and what was not read."""
        mended = [
            f"{how}: {number:,} {'time' if number == 1 else 'times'}, "
            f"first in {self.repaired_files[how]}"
            for how, number in self.repairs.items()
        ]
        return mended + unread_lines(self.unread) + self.columns.lines()


@overload
def read_records(
    paths: Sequence[str | Path],
    kind: Literal["document"],
    on_problem: OnProblem | None = None,
    counts: RecordCounts | None = None,
    reading: Reading = AS_IT_IS,
) -> Iterator[Document]: ...
@overload
def read_records(
    paths: Sequence[str | Path],
    kind: Literal["conversation"],
    on_problem: OnProblem | None = None,
    counts: RecordCounts | None = None,
    reading: Reading = AS_IT_IS,
) -> Iterator[Conversation]: ...
@overload
def read_records(
    paths: Sequence[str | Path],
    kind: Literal["preference"],
    on_problem: OnProblem | None = None,
    counts: RecordCounts | None = None,
    reading: Reading = AS_IT_IS,
) -> Iterator[Preference]: ...
def read_records(
    paths: Sequence[str | Path],
    kind: Kind,
    on_problem: OnProblem | None = None,
    counts: RecordCounts | None = None,
    reading: Reading = AS_IT_IS,
) -> Iterator[Any]:
    """All records of one kind in files, folders and glob patterns, in the order of the files.

    Strict unless there is an `on_problem`: then that is called for each object that cannot become
    a record, and reading goes on when it returns. `counts` is filled on the way, and what was
    mended is said at the end when they are given. The `source` of a
    record that names none is the folder or the file (without extension) that was asked for.

    Raises:
        MiaoError: at once for paths that cannot be read; while reading, for the first bad record
            (strict), a damaged file, or when no record was found at all.
    """
    said = counts is not None
    counts = counts if counts is not None else RecordCounts()
    sources = find_sources(paths, lambda path, why: counts.skipped_files.append((path, why)))
    return _records(sources, kind, on_problem or stop, counts, said, reading)


def _records(
    sources: list[tuple[Path, str]],
    kind: Kind,
    on_problem: OnProblem,
    counts: RecordCounts,
    say_repairs: bool,
    reading: Reading,
) -> Iterator[Record]:
    first_problem: Problem | None = None
    found = 0

    def report(problem: Problem) -> None:
        nonlocal first_problem
        first_problem = first_problem or problem
        counts.problems += 1
        on_problem(problem)

    for path, source in sources:
        for record, shape, _ in convert_file(path, kind, source, report, counts, reading):
            found += 1
            counts.by_file[str(path)] += 1
            counts.by_shape[shape] += 1
            yield record
    if not found:
        more = f" and {len(sources) - 1} more files" if len(sources) > 1 else ""
        because = ""
        if first_problem:
            first = place(first_problem.path, first_problem.line)
            because = f"; the first of {counts.problems} problems: {first}: {first_problem.reason}"
        raise MiaoError(
            f"no {kind}s found{because}",
            where=f"{sources[0][0]}{more}",
            fix=f"expected is {EXPECTED[kind]}",
        )
    if say_repairs:
        for line in counts.lines():
            warn(line)


def unread_lines(unread: Counter[str]) -> list[str]:
    """The keys of turns that were not read, in words: one line, or none."""
    if not unread:
        return []
    shown = ", ".join(f"{key} ({number:,})" for key, number in unread.most_common(MOST_KEYS))
    more = f" and {len(unread) - MOST_KEYS} more" if len(unread) > MOST_KEYS else ""
    return [f"keys of turns that mean nothing here and are not read: {shown}{more}"]


Item = tuple[int, Any] | Problem
"""A raw object with its line, or why there is none."""


def read_items(
    path: Source,
    on_repair: OnRepair,
    encoding: str | None = None,
    span: tuple[int, int] | None = None,
) -> Iterator[Item]:
    """`read_objects`, with what cannot be parsed in its place among the others; the rest of a
    damaged file is one problem.

    Args:
        span: of JSON lines only those that begin in these bytes; the first of them is line 1.
    """
    bad: list[Problem] = []
    try:
        for found in read_objects(path, bad.append, on_repair, encoding=encoding, span=span):
            yield from bad
            bad.clear()
            yield found
    except DamagedFile as error:
        bad.append(_file_problem(path, error))
    yield from bad


def convert_file(
    path: Source,
    kind: Kind,
    source: str,
    on_problem: OnProblem,
    counts: RecordCounts,
    reading: Reading = AS_IT_IS,
) -> Iterator[tuple[Record, str, Any]]:
    """The records of one file, each with its shape and the raw object that completed it.

    Strings are mended on the way (`read.encoding.mend_text`). What cannot become a record
    goes to `on_problem`, and so does a file whose rest cannot be read, when that returns.

    Raises:
        UnreadColumns: much of the text stands in columns that are not read; told after the first
            `LOOKED_AT` records, ten times as many, ..., and at the end.
    """
    items = read_items(path, counts.repair, reading.encoding)
    columns = Columns()
    yield from convert_items(
        items, path, kind, source, on_problem, counts, reading, columns, LOOKED_AT
    )
    columns.require_read(path)
    counts.columns.update(columns)


def convert_items(
    items: Iterable[Item],
    path: Source,
    kind: Kind,
    source: str,
    on_problem: OnProblem,
    counts: RecordCounts,
    reading: Reading,
    columns: Columns,
    look: int | None = None,
) -> Iterator[tuple[Record, str, Any]]:
    """`convert_file` of some of a file's objects, whose columns are accounted for in `columns`.

    Args:
        look: after how many records these columns are looked at first.
    """
    pairs = KtoPairs()
    found = 0
    for item in items:
        if isinstance(item, Problem):
            on_problem(item)
            continue
        line, given = item
        value, aside = mapped(given, reading.columns)
        try:
            record, shape, row = converted(value, kind, source)
            record.origin = source
            if isinstance(source, GivenName):
                record.source = source
            for how in mend(record):
                counts.repair(path, how)
        except MiaoError as error:
            on_problem(Problem(path, line, error.what, _fix(path, value, kind, error), given))
            continue
        if kind == "document" and isinstance(record, Document) and shape not in DOCUMENT_SHAPES:
            counts.repair(path, "conversations read as documents, the text of their turns")
        counts.unread.update(unread_keys(value))
        columns.add(shape, row, aside, record)
        found += 1
        if look and found == look:
            columns.require_read(path)
            look *= 10
        if shape == LABELLED and isinstance(record, Preference):
            yield from ((single, SINGLE, raw) for single, raw in pairs.overflow())
            if (pair := pairs.add(record, given)) is None:
                continue
            record = pair
            counts.merged += 1
        yield record, shape, given
    yield from ((single, SINGLE, raw) for single, raw in pairs.rest())


def _fix(path: Source, value: Any, kind: Kind, error: MiaoError) -> str | None:
    """The error's remedy; of a table without known columns also what its first line must be."""
    known = format_of(path)
    if not (known and known[0] in (".csv", ".tsv")) or shape_of(value, kind):
        return error.fix
    return f"the first line of a table names its columns; {error.fix}"


def _file_problem(path: Source, error: DamagedFile) -> Problem:
    """`path:line` in the error becomes the problem's line."""
    ending = (error.where or "").removeprefix(str(path)).strip(": ()").removeprefix("record ")
    line = int(ending) if ending.isdecimal() else 0
    return Problem(path, line, error.what, error.fix)


def mend(record: Record) -> list[str]:
    """Mends the record's strings in place; returns what was done.

    Raises:
        MiaoError: a text whose characters are lost.
    """
    if isinstance(record, Document):
        record.text, done = mend_text(record.text)
        return done
    all_done = []
    for number, message in enumerate(messages_of(record), 1):
        message.content, done = mend_text(message.content, f"turn {number}")
        all_done += done
    return all_done
