"""What the tokenizer is trained on: a bounded sample from all over the sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from miao.corpus.read.parts import Part, read_part
from miao.corpus.records import Conversation, Document, Kind, Record

BLOCKS = 200
"""Of a source that is only sampled, so many places, evenly spaced, are read from."""
PEEK = 2**16


def sample_texts(
    files: Sequence[tuple[Path, Kind]], characters: float, balance: float = 0.0
) -> Iterator[str]:
    """Texts of `.jsonl` files, at most about `characters` in all; everything, in order, if it fits.

    What is taken of each file grows with its size to the power of 1 - `balance`; what a small file
    cannot give, the larger ones do.
    """
    sizes = [_characters_in(path) for path, _ in files]
    rooms = allotments(sizes, characters, balance)
    for (path, kind), size, room in zip(files, sizes, rooms, strict=True):
        total = path.stat().st_size
        if room >= size:
            parts, room_of_part = [Part(path, kind, total, 0, total)], float("inf")
        else:
            bounds = [total * number // BLOCKS for number in range(BLOCKS + 1)]
            parts = [Part(path, kind, b - a, a, b) for a, b in pairwise(bounds)]
            room_of_part = room / BLOCKS
        left = 0.0
        for part in parts:
            left += room_of_part
            for record in read_part(part) if left > 0 else ():
                for text in record_texts(record):
                    left -= len(text)
                    yield text
                if left <= 0:
                    break


def allotments(sizes: Sequence[float], total: float, balance: float) -> list[float]:
    """How much to take of each: in proportion to size ** (1 - balance), never more than there is;
    together `total`, or everything.

    Args:
        balance: 0: by size; 1: the same of each.
    """
    given = [0.0] * len(sizes)
    left, open_ones = min(total, sum(sizes)), [n for n, size in enumerate(sizes) if size > 0]
    while open_ones and left > 0:
        weights = {n: sizes[n] ** (1 - balance) for n in open_ones}
        unit = left / sum(weights.values())
        full = [n for n in open_ones if unit * weights[n] >= sizes[n]]
        for n in full or open_ones:
            given[n] = sizes[n] if full else unit * weights[n]
            left -= given[n]
        open_ones = [n for n in open_ones if n not in full] if full else []
    return given


def record_texts(record: Record) -> list[str]:
    """What is said in a record; of a preference the better answer only."""
    if isinstance(record, Document):
        return [record.text]
    chat = isinstance(record, Conversation)
    messages = record.messages if chat else record.prompt + record.chosen  # type: ignore[union-attr]
    return [message.content for message in messages]


def _characters_in(path: Path) -> float:
    """An estimate from the beginning of the file; the JSON around the texts counts, too."""
    with open(path, "rb") as file:
        beginning = file.read(PEEK)
    share = len(beginning.decode("utf-8", "ignore")) / len(beginning) if beginning else 1.0
    return path.stat().st_size * share
