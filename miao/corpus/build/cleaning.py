"""The first phase: the user's files, in parts, to chunks of clean records.

A task reads a part and cleans its records, chunk by chunk, without knowing of any other. What it
read, mended and could not read is put together afterwards, in the order of the files.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from miao.console import warn
from miao.corpus.dedup.chunks import ChunkBuilder, ChunkFacts, ChunkFile, Groups, Tools
from miao.corpus.folder import Folder
from miao.corpus.ngrams import text_key
from miao.corpus.read.accounting import Columns
from miao.corpus.read.blocks import Part, Piece, blocks_of
from miao.corpus.read.convert import EXPECTED
from miao.corpus.read.formats import (
    LOOKED_AT,
    Item,
    Reading,
    RecordCounts,
    convert_file,
    convert_items,
    read_items,
)
from miao.corpus.read.problems import Problem, place
from miao.corpus.records import Kind
from miao.errors import MiaoError
from miao.recipe import CorpusOptions

CHUNK_CHARACTERS = 3_000_000
CHUNK_RECORDS = 20_000
NAMES_KEPT = 1024
"""Of one path's own source names in a block: so many tell whether they are names of sources."""


@dataclass
class Read:
    """What became of a block, or of everything, before duplicates."""

    facts: ChunkFacts = field(default_factory=ChunkFacts)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    """`RecordCounts` without its columns and files."""
    repaired: dict[str, str] = field(default_factory=dict)
    problems: list[Any] = field(default_factory=list)
    """[the piece that its line counts from or null, `Problem.to_json`]"""
    columns: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    """The chunks, with the records and characters that each has kept."""
    origins: dict[str, list[int]] = field(default_factory=dict)
    """The own names (hashes) of the records of each path."""


class Cleaning:
    """The parts of a stage's files, and what is done with each."""

    def __init__(self, parts: list[Part], kind: Kind, options: CorpusOptions, folder: Folder):
        self.parts, self.kind, self.options, self.folder = parts, kind, options, folder
        self.reading = Reading(options.columns, options.encoding)

    @cached_property
    def tools(self) -> Tools:
        return Tools(self.options)

    def whole(self, part: int) -> dict[str, Any]:
        """Cleans a part that is one block."""
        pieces = self.parts[part].pieces
        block = _Block(self, f"{part:06d}-00000")
        if pieces[0].span:
            block.add_items(
                pieces[0],
                read_items(
                    pieces[0].file, block.counts.repair, self.reading.encoding, pieces[0].span
                ),
            )
        else:
            for piece in pieces:
                block.add_file(piece)
        return block.finish()

    def blocks(self, part: int, counts: RecordCounts) -> Iterator[list[Item]]:
        """What is read of a part that is cleaned block by block."""
        return blocks_of(self.parts[part], counts, self.reading)

    def block(self, part: int, number: int, items: list[Item]) -> dict[str, Any]:
        """Cleans one block of such a part."""
        block = _Block(self, f"{part:06d}-{number:05d}")
        block.add_items(self.parts[part].pieces[0], items, number == 0)
        return block.finish()


class _Block:
    """Records on their way into chunks."""

    def __init__(self, cleaning: Cleaning, name: str):
        self.cleaning, self.name = cleaning, name
        self.counts, self.read, self.columns = RecordCounts(), Read(), Columns()
        self.builder = ChunkBuilder(cleaning.options, cleaning.tools)
        self._span: Piece | None = None

    def add_file(self, piece: Piece) -> None:
        file, cleaning = piece.file, self.cleaning
        self._add(
            convert_file(file, cleaning.kind, piece.name, self._note, self.counts, cleaning.reading)
        )

    def add_items(self, piece: Piece, items: Iterable[Item], begins: bool | None = None) -> None:
        """Objects of a file that goes on in other blocks, perhaps."""
        file, cleaning = piece.file, self.cleaning
        self._span = piece if piece.span else None
        begins = piece.start == 0 if begins is None else begins
        self._add(
            convert_items(
                items,
                file,
                cleaning.kind,
                piece.name,
                self._note,
                self.counts,
                cleaning.reading,
                self.columns,
                LOOKED_AT if begins else None,
            )
        )

    def _add(self, records: Iterable[tuple[Any, str, Any]]) -> None:
        rejects = self.cleaning.tools.columns.rejects
        for record, shape, value in records:
            rejected = rejects(value)
            self.builder.add(record, rejected)
            if not rejected:
                self.counts.by_shape[shape] += 1
            if self.builder.is_full(CHUNK_CHARACTERS, CHUNK_RECORDS):
                self._write()

    def _note(self, problem: Problem) -> None:
        if not self.cleaning.options.skip_bad_records:
            line = problem.line
            if self._span and line:
                line += Lines().before(self._span)
            where = place(problem.path, line)
            more = "or count and skip such records with --corpus.skip_bad_records true"
            raise MiaoError(problem.reason, where=where, fix=f"{problem.fix or 'mend it'}, {more}")
        line = json.loads(problem.json_line())
        piece = vars(self._span) if self._span and problem.line else None
        self.read.problems.append([piece, line])

    def _write(self) -> None:
        """The chunk that is full."""
        builder, read = self.builder, self.read
        chunk = ChunkFile(self.cleaning.folder, f"{self.name}-{len(read.names):03d}")
        chunk.write(builder)
        read.names.append(chunk.name)
        read.kept.append(builder.facts.kept)
        read.sizes.append(builder.characters)
        read.facts.add(builder.facts)
        for source, origin in zip(builder.facts.sources, builder.facts.origins, strict=True):
            own = read.origins.setdefault(origin, [])
            key = text_key(source)[0]
            if len(own) < NAMES_KEPT and key not in own:
                own.append(key)
        self.builder = ChunkBuilder(builder.options, builder.tools)

    def finish(self) -> dict[str, Any]:
        self._write()
        counts, read = self.counts, self.read
        names = ("by_shape", "repairs", "unread")
        read.counts = {name: getattr(counts, name) for name in names}
        read.counts["totals"] = Counter(merged=counts.merged)
        read.repaired = counts.repaired_files
        read.columns = {"whole": counts.columns.state(), "part": self.columns.state()}
        return {**vars(read), "facts": read.facts.to_json()}


class Lines:
    """Counts the lines of files before pieces of them, given in order: each byte is read once."""

    def __init__(self) -> None:
        self._path, self._at, self._lines = "", 0, 0

    def before(self, piece: Piece) -> int:
        """How many lines of its file begin before those of the piece."""
        if piece.path != self._path:
            self._path, self._at, self._lines = piece.path, 0, 0
        last = b"\n"
        with piece.file.open("rb") as file:
            file.seek(max(self._at - 1, 0))
            last = file.read(1) if self._at else last
            while self._at < piece.start:
                chunk = file.read(min(1 << 20, piece.start - self._at))
                if not chunk:
                    break
                self._lines += chunk.count(b"\n")
                self._at += len(chunk)
                last = chunk[-1:]
        return self._lines + (last != b"\n")  # that one goes on in the piece


def gather(
    cleaning: Cleaning,
    results: Iterable[tuple[int, list[dict[str, Any]]]],
    problems: Any,
) -> dict[str, Any]:
    """Puts together what the blocks of every part say, in order, and notes the chunks.

    Args:
        results: (part, its blocks') in order.
        problems: a binary file for every record that was passed over.

    Raises:
        MiaoError: no record was found, or much of some file's text is not read.
    """
    total, counts, count = Read(), RecordCounts(), 0
    first: dict[str, Any] | None = None
    file, columns, lines = "", Columns(), Lines()

    def end_of_file() -> None:
        nonlocal columns
        columns.require_read(file)
        counts.columns.update(columns)
        columns = Columns()

    for part, blocks in results:
        pieces = cleaning.parts[part].pieces
        if pieces[0].path != file:
            end_of_file()
            file = pieces[0].path
        for block in blocks:
            total.facts.add(ChunkFacts.from_json(block["facts"]))
            for name, counted in block["counts"].items():
                total.counts.setdefault(name, Counter()).update(counted)
            for how, path in block["repaired"].items():
                counts.repaired_files.setdefault(how, path)
            for piece, problem in block["problems"]:
                problem["line"] += lines.before(Piece(**piece)) if piece else 0
                first, count = first or problem, count + 1
                problems.write((json.dumps(problem, ensure_ascii=False) + "\n").encode())
            counts.columns.update(Columns.from_state(block["columns"]["whole"]))
            columns.update(Columns.from_state(block["columns"]["part"]))
            for name in ("names", "kept", "sizes"):
                getattr(total, name).extend(block[name])
            for origin, own in block["origins"].items():
                known = total.origins.setdefault(origin, [])
                known += [key for key in own if key not in known][: NAMES_KEPT - len(known)]
    end_of_file()
    counts.by_shape, counts.repairs, counts.unread = (
        total.counts.get(name, Counter()) for name in ("by_shape", "repairs", "unread")
    )
    if not total.facts.read:
        _raise_nothing(cleaning, first, count)
    for line in counts.lines():
        warn(line)
    Groups.write(cleaning.folder, total.names, total.kept, total.sizes)
    return {
        "facts": total.facts.to_json(),
        "origins": {origin: len(own) for origin, own in total.origins.items()},
        "characters": sum(total.sizes),
        "read": {
            "problems": count,
            "shapes": counts.by_shape,
            "repairs": counts.repairs,
            "unread_keys": counts.unread,
            "columns": counts.columns.to_json(),
            "merged": total.counts.get("totals", Counter())["merged"],
        },
    }


def _raise_nothing(cleaning: Cleaning, first: dict[str, Any] | None, count: int) -> None:
    paths = list(dict.fromkeys(piece.path for part in cleaning.parts for piece in part.pieces))
    more = f" and {len(paths) - 1} more files" if len(paths) > 1 else ""
    because = ""
    if first:
        at = f"{first['path']}:{first['line']}" if first["line"] else first["path"]
        because = f"; the first of {count} problems: {at}: {first['reason']}"
    raise MiaoError(
        f"no {cleaning.kind}s found{because}",
        where=f"{paths[0]}{more}",
        fix=f"expected is {EXPECTED[cleaning.kind]}",
    )


def read_of(counts: RecordCounts, blocks: int) -> dict[str, Any]:
    """The result of a part that was cleaned in blocks: how many, and what reading it mended."""
    return {
        "blocks": blocks,
        "counts": {"repairs": counts.repairs},
        "repaired": counts.repaired_files,
    }


def summed(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """What both say; numbers are added up."""
    both = {**second, **first}
    for name in first.keys() & second.keys():
        if isinstance(first[name], dict):
            both[name] = summed(first[name], second[name])
        elif isinstance(first[name], int):
            both[name] = first[name] + second[name]
    return both
