"""The user's files, cut into parts that tasks read by themselves, and those into blocks.

A plain `.jsonl` file is cut into ranges of bytes, which any process reads alone; small files go
together. What can only be read from its beginning (compressed, tables, long texts) is one part,
whose blocks of objects may be made into records elsewhere than where they are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from miao.corpus.folder import files_at, is_url
from miao.corpus.read.encoding import encoding_of
from miao.corpus.read.formats import Item, Reading, RecordCounts, read_items
from miao.corpus.read.opened import Source, format_of
from miao.corpus.read.problems import Problem
from miao.corpus.read.sources import GivenName
from miao.corpus.records import Kind

PART_BYTES = 8 << 20
"""Bytes of files that one task reads."""
BLOCK_CHARACTERS = 3_000_000
BLOCK_OBJECTS = 20_000


@dataclass(frozen=True)
class Piece:
    """A file, or the bytes `start:stop` of one (its lines that begin there)."""

    path: str
    """Or its URL."""
    source: str
    is_given: bool
    """Whether the user named the source."""
    size: int
    start: int = 0
    stop: int | None = None

    @property
    def file(self) -> Source:
        return files_at(self.path)[0] if is_url(self.path) else Path(self.path)

    @property
    def name(self) -> str:
        return GivenName(self.source) if self.is_given else self.source

    @property
    def span(self) -> tuple[int, int] | None:
        return None if self.stop is None else (self.start, self.stop)


@dataclass(frozen=True)
class Part:
    """What one task reads: files, or a piece of one."""

    pieces: tuple[Piece, ...]
    in_blocks: bool = False
    """Its objects may be worked on in several processes."""

    @property
    def size(self) -> int:
        return sum(piece.size for piece in self.pieces)

    def to_json(self) -> list[Any]:
        return [[list(vars(piece).values()) for piece in self.pieces], self.in_blocks]

    @staticmethod
    def from_json(value: list[Any]) -> Part:
        return Part(tuple(Piece(*piece) for piece in value[0]), value[1])


def cut_parts(files: Sequence[tuple[Source, str]], kind: Kind, reading: Reading) -> list[Part]:
    """The parts of files; they depend on nothing but these."""
    parts: list[Part] = []
    small: list[Piece] = []
    together = 0  # bytes of the small ones
    for path, source in files:
        size = path.stat().st_size
        piece = Piece(str(path), str(source), isinstance(source, GivenName), size)
        if small and together + size > PART_BYTES:
            parts.append(Part(tuple(small)))
            small, together = [], 0
        if size <= PART_BYTES:
            small.append(piece)
            together += size
        elif kind != "preference" and is_cut(path, reading):
            for start in range(0, size, PART_BYTES):
                stop = min(start + PART_BYTES, size)
                parts.append(Part((replace(piece, size=stop - start, start=start, stop=stop),)))
        else:  # labelled answers (preferences) make pairs from all over their file
            parts.append(Part((piece,), in_blocks=kind != "preference"))
    return [*parts, Part(tuple(small))] if small else parts


def is_cut(path: Source, reading: Reading) -> bool:
    """Whether a file is read from anywhere: plain JSON lines in UTF-8."""
    known = format_of(path)
    if known is None or known[0] not in (".jsonl", ".ndjson") or known[1] or reading.encoding:
        return False
    with path.open("rb") as file:
        return encoding_of(file.read(4096))[0] == "utf-8"


def blocks_of(part: Part, counts: RecordCounts, reading: Reading) -> Iterator[list[Item]]:
    """The objects of a part of one file, some at a time; the same blocks each time."""
    (piece,) = part.pieces
    block: list[Item] = []
    size = 0
    for item in read_items(piece.file, counts.repair, reading.encoding, piece.span):
        block.append(item)
        size += _size(item)
        if size >= BLOCK_CHARACTERS or len(block) >= BLOCK_OBJECTS:
            yield block
            block, size = [], 0
    if block:
        yield block


def _size(item: Item) -> int:
    """About how many characters an object has."""
    value = item.raw if isinstance(item, Problem) else item[1]
    if isinstance(value, dict):
        return sum(len(one) if isinstance(one, str) else 8 * _count(one) for one in value.values())
    return 8 * _count(value)


def _count(value: Any) -> int:
    return len(value) * 64 if isinstance(value, list | dict) else 1
