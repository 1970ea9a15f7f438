"""Token shards: sequences of token ids in memory-mapped files, with a manifest.

A dataset directory holds `tokens-00000.bin` (uint16 or uint32), `offsets-00000.bin` (int64, one
more than sequences), for conversations `mask-00000.bin` (uint8: 1 where the token is learned),
and `manifest.json`. A sequence of n tokens trains n-1 predictions.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from miao.errors import MiaoError
from miao.files import read_json, sha256_of, write_json

CHUNK = 2**22
"""Sequences whose lengths are read at once."""
COMPARED = ".compared.json"
"""Which files were compared with their checksums, and how they looked then."""
VERSION = 1


@dataclass
class Shard:
    """One set of files: how many sequences and tokens, and each file's checksum."""

    sequences: int
    tokens: int
    files: dict[str, str] = field(default_factory=dict)
    trained_tokens: int = 0
    """Tokens that are learned (mask 1)."""
    bytes: int = 0
    """UTF-8 bytes of the text."""
    origin: str = ""
    """The part of the input that it was made from."""
    key: str = ""
    """Hash of that part and of all that decides its tokens: made again, it would be the same."""
    notes: dict[str, int] = field(default_factory=dict)
    """What was left out of it and is to be said, and how often."""


@dataclass
class Manifest:
    """What a dataset directory says of itself."""

    kind: str
    """document, conversation or preference (whose sequences are chosen, rejected, chosen, ...; a
    side that is not there is a sequence of no tokens)."""
    source: str
    tokenizer: str
    """Fingerprint of the tokenizer."""
    vocab_size: int
    dtype: str
    trained_tokens: int = 0
    """Tokens that are learned (mask 1)."""
    bytes: int = 0
    """UTF-8 bytes of the text."""
    shards: list[Shard] = field(default_factory=list)
    version: int = VERSION

    @property
    def sequences(self) -> int:
        return sum(shard.sequences for shard in self.shards)

    @property
    def tokens(self) -> int:
        return sum(shard.tokens for shard in self.shards)

    @property
    def notes(self) -> Counter[str]:
        """Of all shards."""
        return sum((Counter(shard.notes) for shard in self.shards), Counter())


class TokenDataset:
    """A dataset directory opened for reading: memory-mapped, nothing is loaded.

    Args:
        verify: compare every file's checksum with the manifest (always: its size); "once": of
            those that have changed since they were last compared.

    Raises:
        MiaoError: missing, incomplete or damaged, with the file's name and the remedy.
    """

    def __init__(self, directory: Path, verify: bool | Literal["once"] = False):
        self.directory = directory
        self.manifest = read_manifest(directory / "manifest.json")
        self._tokens: list[NDArray[Any]] = []
        self._masks: list[NDArray[np.uint8]] = []
        self._first: list[int] = [0]
        self._offsets: list[NDArray[np.int64]] = []
        compared = self._compared() if verify == "once" else {}
        before = dict(compared)
        for number, shard in enumerate(self.manifest.shards):
            self._check_files(shard, verify, compared)
            self._tokens.append(self._map("tokens", number, self.manifest.dtype))
            if f"mask-{number:05d}.bin" in shard.files:
                self._masks.append(self._map("mask", number, "uint8"))
            self._offsets.append(self._map("offsets", number, "int64"))
            self._first.append(self._first[-1] + shard.sequences)
        self._views = [offsets.data for offsets in self._offsets]  # single numbers: faster
        if verify == "once" and compared != before:
            with suppress(OSError):  # a place that is only read: compared again the next time
                write_json(directory / COMPARED, compared)

    def _compared(self) -> dict[str, list[str | int]]:
        try:
            return dict(read_json(self.directory / COMPARED))
        except (MiaoError, TypeError, ValueError):
            return {}

    def __len__(self) -> int:
        return self._first[-1]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of every sequence, int64 [sequences]: not for what must not grow with them."""
        lengths = [np.diff(offsets) for offsets in self._offsets]
        return np.concatenate(lengths) if lengths else np.zeros(0, dtype=np.int64)

    def first_lengths(self, count: int) -> NDArray[np.int64]:
        """The lengths of the first sequences."""
        numbers = np.arange(min(count, len(self)))
        begins, ends = self.bounds(numbers)
        return ends - begins

    def length_chunks(self, block: int) -> Iterator[NDArray[np.int64]]:
        """The lengths part by part, each within a shard and (but for a shard's last) of whole
        blocks."""
        step = block * (CHUNK // block)
        for offsets in self._offsets:
            for start in range(0, len(offsets) - 1, step):
                yield np.asarray(np.diff(offsets[start : start + step + 1]), dtype=np.int64)

    def blocks(self, block: int) -> NDArray[np.int64]:
        """The first sequence of every block; blocks begin anew with every shard."""
        firsts = [np.arange(one, end, block) for one, end in pairwise(self._first)]
        return np.concatenate(firsts) if firsts else np.zeros(0, dtype=np.int64)

    def neighbours(self, first: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """The lengths of `count` sequences from each of `first` on, int64 [n, count]; 1 where the
        shard ends before."""
        shards, within = self._places(first)
        parts = []
        for shard, start in zip(shards, within, strict=True):
            part = self._offsets[shard][start : start + count + 1]
            if len(part) <= count:
                part = np.concatenate([part, part[-1] + np.arange(1, count + 2 - len(part))])
            parts.append(part)
        stacked = np.stack(parts)
        return stacked[:, 1:] - stacked[:, :-1]

    def bounds(self, sequences: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each sequence begins and ends within its shard, int64 [n] each."""
        return self._bounds(*self._places(sequences))

    def _bounds(
        self, shards: list[int], within: list[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        views, places = self._views, list(zip(shards, within, strict=True))
        begins = [views[shard][place] for shard, place in places]
        ends = [views[shard][place + 1] for shard, place in places]
        return np.array(begins, dtype=np.int64), np.array(ends, dtype=np.int64)

    def read(
        self, sequences: NDArray[np.int64], starts: NDArray[np.int64], most: int
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None, NDArray[np.int64]]:
        """At most `most` tokens of each sequence from `starts` on, end to end; which of them are
        learned (None: all); and how many there are of each."""
        shards, within = self._places(sequences)
        begins, ends = self._bounds(shards, within)
        begins = begins + starts
        ends = np.minimum(ends, begins + most)
        places = list(zip(shards, begins.tolist(), ends.tolist(), strict=True))

        def joined(columns: list[NDArray[Any]]) -> NDArray[Any]:
            return np.concatenate([columns[shard][begin:end] for shard, begin, end in places])

        if not places:
            return np.zeros(0, dtype=np.int64), None, np.zeros(0, dtype=np.int64)
        mask = joined(self._masks).astype(bool) if self._masks else None
        return joined(self._tokens), mask, ends - begins

    def _places(self, sequences: NDArray[np.int64]) -> tuple[list[int], list[int]]:
        """The shard of each sequence, and its number there."""
        first = np.asarray(self._first)
        shards = np.searchsorted(first, sequences, side="right") - 1
        return shards.tolist(), (sequences - first[shards]).tolist()

    @property
    def group_size(self) -> int:
        """How many neighbouring sequences belong together (a preference is a pair)."""
        return 2 if self.manifest.kind == "preference" else 1

    def tokens(self, sequence: int, start: int = 0, stop: int | None = None) -> NDArray[np.int64]:
        """Token ids `start:stop` of a sequence, int64."""
        return self._slice(self._tokens, sequence, start, stop).astype(np.int64)

    def mask(
        self, sequence: int, start: int = 0, stop: int | None = None
    ) -> NDArray[np.bool_] | None:
        """Which of these tokens are learned; None: all."""
        if not self._masks:
            return None
        return self._slice(self._masks, sequence, start, stop).astype(bool)

    def learns(self, slots: int | None = None) -> NDArray[np.bool_]:
        """Of every sequence, whether any of its first `slots` predictions (None: of all) is
        learned; bool [sequences]."""
        if not self._masks:
            return self.lengths > 1
        found = []
        for offsets, mask in zip(self._offsets, self._masks, strict=True):
            first, end = offsets[:-1] + 1, offsets[1:]
            stop = end if slots is None else np.minimum(first + slots, end)
            learned = np.zeros(len(first), dtype=bool)
            some = first < stop
            # In pairs: from a first token up to its stop, and from there to the next one.
            bounds = np.stack([first[some], stop[some]], axis=1).reshape(-1)
            if len(bounds):
                within = bounds[:-1] if bounds[-1] == len(mask) else bounds
                learned[some] = np.maximum.reduceat(mask, within)[::2] > 0
            found.append(learned)
        return np.concatenate(found)

    def flat_offset(self, sequence: int) -> int:
        """Where the sequence begins when all shards are laid end to end (for extra columns)."""
        shard = bisect.bisect_right(self._first, sequence) - 1
        before = sum(part.tokens for part in self.manifest.shards[:shard])
        return before + int(self._offsets[shard][sequence - self._first[shard]])

    def _slice(
        self, columns: list[NDArray[Any]], sequence: int, start: int, stop: int | None
    ) -> Any:
        shard = bisect.bisect_right(self._first, sequence) - 1
        begin, end = self._offsets[shard][sequence - self._first[shard] :][:2]
        end = end if stop is None else min(end, begin + stop)
        return columns[shard][begin + start : end]

    def _map(self, column: str, number: int, dtype: str) -> NDArray[Any]:
        path = self.directory / f"{column}-{number:05d}.bin"
        return np.asarray(np.memmap(path, dtype=dtype, mode="r"))  # slices of a plain array: faster

    def _check_files(
        self, shard: Shard, verify: bool | Literal["once"], compared: dict[str, list[str | int]]
    ) -> None:
        sizes = {
            "tokens": shard.tokens * np.dtype(self.manifest.dtype).itemsize,
            "offsets": (shard.sequences + 1) * 8,
            "mask": shard.tokens,
        }
        for name, checksum in shard.files.items():
            path = self.directory / name
            expected = sizes[name.split("-")[0]]
            status = path.stat() if path.exists() else None
            found = -1 if status is None else status.st_size
            # A copy of the file is another file.
            mark: list[str | int] = [checksum]
            if status is not None:
                mark += [found, status.st_mtime_ns, status.st_ino]
            wanted = verify is True or (verify == "once" and compared.get(name) != mark)
            if found != expected or (wanted and sha256_of(path) != checksum):
                state = "missing" if found < 0 else "damaged"
                detail = (
                    f" ({found:,} bytes instead of {expected:,})" if 0 <= found != expected else ""
                )
                raise MiaoError(
                    f"this shard file is {state}{detail}",
                    where=path,
                    fix=f"delete {self.directory} and run again: it is made anew from the corpus",
                )
            compared[name] = mark


def read_manifest(path: Path) -> Manifest:
    """The manifest of a dataset directory.

    Raises:
        MiaoError: missing, damaged, or of another version.
    """
    content = read_json(path)
    try:
        if content["version"] != VERSION:
            raise MiaoError(f"shards of version {content['version']}, not {VERSION}", where=path)
        return Manifest(**content | {"shards": [Shard(**shard) for shard in content["shards"]]})
    except (KeyError, TypeError) as error:
        raise MiaoError(
            f"not the manifest of token shards, or a damaged one ({error})",
            where=path,
            fix="name a run, its shards, or one dataset in them",
        ) from error
