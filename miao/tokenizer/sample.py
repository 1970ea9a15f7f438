"""What the tokenizer is trained on: a bounded sample from all over the sources."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from miao.console import say, warn
from miao.corpus.read.parts import Part, read_part
from miao.corpus.records import Conversation, Document, Kind, Record

BLOCKS = 200
"""Of a source that is only sampled, so many places, evenly spaced, are read from."""
PEEK = 2**16
MEMORY = {"tokenizers": 130, "rustbpe": 72}
"""Bytes that a trainer takes for every byte of *different* words: measured with 2M to 6M characters
of Chinese and of English. (Chinese clauses are words, and hardly any comes twice: 240 to 270 bytes
per character, of English 15 to 25.)"""
PROBED = 10**6
"""Characters of which different words are counted, to know how their number grows."""
USED = 0.6
"""Of the memory that is free, so much at most."""
_WORD = re.compile(r"[^\W\d_]+|[^\w\s]+|\s+|\d|_")


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


@dataclass(frozen=True)
class TrainingMemory:
    """How much memory training takes with so many characters of some files: the bytes of different
    words grow as a power of the characters (Heaps' law), which a sample shows."""

    characters: float
    words: float
    """Bytes of the different words in so many characters."""
    power: float

    @classmethod
    def of(cls, files: Sequence[tuple[Path, Kind]], balance: float) -> TrainingMemory:
        different: set[str] = set()
        characters = words = 0
        half = (1, 1)
        for text in sample_texts(files, PROBED, balance):
            new = set(_WORD.findall(text)) - different
            different |= new
            words += sum(len(word.encode("utf-8", "replace")) for word in new)
            characters += len(text)
            if characters <= PROBED / 2:
                half = (characters, words)
        grown = characters / half[0], words / max(half[1], 1)
        power = math.log(max(grown[1], 1)) / math.log(grown[0]) if grown[0] > 1 else 1.0
        return cls(max(characters, 1), max(words, 1), min(max(power, 0.2), 1.0))

    def needed(self, characters: float, trainer: str) -> float:
        """Bytes of memory."""
        grown = (max(characters, self.characters) / self.characters) ** self.power
        return MEMORY[trainer] * self.words * grown

    def fitting(self, room: float, trainer: str) -> float:
        """Characters for which so many bytes are enough."""
        return self.characters * (room / (MEMORY[trainer] * self.words)) ** (1 / self.power)


def fit_training(
    files: Sequence[tuple[Path, Kind]],
    characters: float,
    balance: float,
    trainer: str,
    free: float,
) -> tuple[float, str]:
    """The sample and the trainer that fit in so many bytes of free memory (0: unknown), said where
    they are not what was asked for.

    Args:
        trainer: "auto": tokenizers, but rustbpe, which takes less, where memory is short and it is
            installed.
    """
    first = "tokenizers" if trainer == "auto" else trainer
    characters = min(characters, sum(_characters_in(path) for path, _ in files))
    room = USED * free
    if not free or characters * 4 * MEMORY[first] <= room:  # at most four bytes per character
        return characters, first
    memory = TrainingMemory.of(files, balance)
    needed = memory.needed(characters, first)
    if needed <= room:
        return characters, first
    short = f"{first} would take {needed / 2**30:.1f} GiB for {characters:,.0f} characters"
    if trainer == "auto" and importlib.util.find_spec("rustbpe"):
        first = "rustbpe"
        if memory.needed(characters, first) <= room:
            say(f"  {short}: trained with rustbpe")
            return characters, first
    fitting = max(memory.fitting(room, first), PROBED)
    if fitting < characters:
        warn(
            f"{short}, and {free / 2**30:.1f} GiB are free: the tokenizer is trained with {first} "
            f"on {fitting:,.0f} characters (--tokenizer.sample)"
        )
    return min(fitting, characters), first


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
