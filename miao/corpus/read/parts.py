"""Files of records, cut into parts that any process can read by itself.

A plain `.jsonl` file is cut into ranges of bytes: a line belongs to the range in which it begins.
Any other file is one part.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miao.corpus.read.convert import LABELLED, shape_of, to_conversation, to_document, to_preference
from miao.corpus.read.formats import RecordCounts, read_records
from miao.corpus.read.opened import CHUNK
from miao.corpus.read.readers import read_objects
from miao.corpus.read.streams import seek_line
from miao.corpus.read.turns import unread_keys
from miao.corpus.records import Kind
from miao.errors import MiaoError
from miao.files import fingerprint, sha256_of

SMALLEST_PART = 2**24
PARTS_PER_FILE = 256
"""A file gives at most about so many parts, however large it is."""
CONVERTERS: dict[Kind, Callable[[Any, str], Any]] = {
    "document": to_document,
    "conversation": to_conversation,
    "preference": to_preference,
}


@dataclass(frozen=True)
class Part:
    """Bytes `start:stop` of a `.jsonl` file (its lines that begin there), or a whole file."""

    path: Path
    kind: Kind
    size: int
    start: int = 0
    stop: int | None = None
    """None: the whole file, of any format."""

    @property
    def name(self) -> str:
        return (
            self.path.name if self.stop is None else f"{self.path.name}[{self.start}:{self.stop}]"
        )


def split_file(path: Path, kind: Kind, smallest: int = SMALLEST_PART) -> list[Part]:
    """The parts of one file; they depend on nothing but its size.

    Labelled answers (KTO) stay together: a good and a bad one to the same prompt become a pair.
    """
    size = path.stat().st_size
    if path.suffix.lower() != ".jsonl" or (kind == "preference" and _is_labelled(path)):
        return [Part(path, kind, size)]
    step = smallest
    while step * PARTS_PER_FILE < size:
        step *= 2
    starts = range(0, size, step)
    return [Part(path, kind, min(step, size - at), at, min(at + step, size)) for at in starts]


def _is_labelled(path: Path) -> bool:
    """Whether the first object of a file is a labelled answer."""
    first = next((value for _, value in read_objects(path, lambda problem: None)), None)
    return shape_of(first, "preference") == LABELLED


def part_key(part: Part, settings: list[Any]) -> str:
    """A hash of the part's content and of `settings`: equal keys, equal tokens."""
    if part.stop is None:
        return fingerprint([sha256_of(part.path), part.path.suffixes, *settings])
    digest = hashlib.sha256()
    with open(part.path, "rb") as file:
        left = seek_line(file, part.stop) - seek_line(file, part.start)
        while left > 0 and (chunk := file.read(min(CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
    return fingerprint([digest.hexdigest(), *settings])


def read_part(part: Part, unread: Counter[str] | None = None) -> Iterator[Any]:
    """The records of a part, in order.

    Args:
        unread: counts the keys of turns that no record keeps (of a whole file they are said).

    Raises:
        MiaoError: a line that is no record of this kind; with its number.
    """
    if part.stop is None:
        counts = None if unread is None else RecordCounts()
        yield from read_records([part.path], part.kind, counts=counts)
        return
    convert, source = CONVERTERS[part.kind], part.path.stem
    with open(part.path, "rb") as file:
        at = seek_line(file, part.start)
        while at < part.stop and (line := file.readline()):
            try:
                text = line.decode().strip(" \t\r\n\ufeff")
                if text:
                    value = json.loads(text)
                    yield convert(value, source)
                    if unread is not None:
                        unread.update(unread_keys(value))
            except (ValueError, RecursionError, MiaoError) as error:
                raise _located(error, part.path, at) from error
            at += len(line)


def _located(error: Exception, path: Path, at: int) -> MiaoError:
    """The error of a line, with the line's number."""
    line = 1
    with open(path, "rb") as file:
        while at > 0 and (chunk := file.read(min(CHUNK, at))):
            line += chunk.count(b"\n")
            at -= len(chunk)
    if isinstance(error, MiaoError):
        return MiaoError(error.what, where=f"{path}:{line}", fix=error.fix)
    return MiaoError(
        f"this line is not a JSON object in UTF-8: {error}",
        where=f"{path}:{line}",
        fix="mend or delete the line",
    )
