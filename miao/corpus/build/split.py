"""Which records are held out, and which leave training because something like them is held out.

What is asked decides, not the record: all answers to one prompt stand on the same side. Planned
from the arrays of all chunks before anything is written, so the order of the records does not
matter.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from miao.corpus.build.mix import below
from miao.corpus.dedup.chunks import ChunkFile
from miao.corpus.dedup.duplicates import Duplicates
from miao.corpus.dedup.minhash import FILL, Sketches
from miao.recipe import CorpusOptions

TRAIN, HELDOUT, LEFT = range(3)
MOST_COPIES = 4
"""A document with more near-duplicates than this is not held out: they would leave training."""
LARGEST = 10
"""Nor is a prompt with more than one in so many of the records that may be held out."""
BLOCK = 1024  # records compared at a time
_ROW = np.dtype([("key", "<u8"), ("source", "<i8"), ("record", "<i8")])
Rows = NDArray[np.void]


class Split:
    """The split of a stage.

    Args:
        taken: the number of a chunk -> whether each of its records is wanted at all.
        names: the file that each source is written to: `heldout_max` counts for each.
    """

    def __init__(
        self,
        chunks: Sequence[ChunkFile],
        duplicates: Duplicates,
        options: CorpusOptions,
        taken: Callable[[int], NDArray[np.bool_]],
        name_of: Callable[[str], str],
        documents: bool,
    ):
        self.chunks, self.duplicates, self.options = chunks, duplicates, options
        self.taken, self.name_of, self.documents = taken, name_of, documents
        self.held = self.left = np.zeros(0, dtype=np.int64)
        self.keys: set[int] = set()
        """What is held out, as in the arrays `splits`."""
        if groups := self._groups() if options.heldout and options.heldout_max else {}:
            if documents:
                groups = self._apart(groups)
            self.held = _sorted(record for held, _ in groups.values() for record in held)
            self.left = np.setdiff1d(
                _sorted(r for _, left in groups.values() for r in left), self.held
            )
            self.keys = set(groups)

    def of_chunk(self, number: int) -> NDArray[np.uint8]:
        """TRAIN, HELDOUT or LEFT, for each record of a chunk."""
        begin, end = self.duplicates.starts[number : number + 2].tolist()
        state = np.full(end - begin, TRAIN, dtype=np.uint8)
        for records, what in ((self.held, HELDOUT), (self.left, LEFT)):
            first, last = np.searchsorted(records, [begin, end])
            state[records[first:last] - begin] = what
        return state

    def _groups(self) -> dict[int, tuple[list[int], list[int]]]:
        """Key -> the records that are held out, and those that leave training."""
        rows = self._candidates()
        starts = np.flatnonzero(np.diff(rows["key"], prepend=rows["key"][:1] + np.uint64(1)))
        parts = [part.tolist() for part in np.split(rows, starts[1:])] if rows.size else []
        most = self.options.heldout_max
        largest = 1 + MOST_COPIES if self.documents else max(most // LARGEST, 1)
        if not self.documents and not any(len(part) <= largest for part in parts):
            largest = most
        counts: Counter[int] = Counter()
        groups = {}
        for part in parts:
            key, source, _ = part[0]
            records = [record for _, _, record in part]
            held = records[:1] if self.documents else records
            if len(part) <= largest and counts[source] + len(held) <= most:
                counts[source] += len(held)
                groups[key] = held, records[len(held) :]
        return groups

    def _candidates(self) -> Rows:
        """Rows of the records whose key says that they may be held out, by key: of each source
        twice as many as are wanted."""
        rows = np.zeros(0, dtype=_ROW)
        files: dict[str, int] = {}
        bound = int(self.options.heldout * 2**64)
        for number, chunk in enumerate(self.chunks):
            keys, sources = chunk.arrays("splits", "sources")
            mine = self.taken(number) & below(keys, bound)
            mine[list(self.duplicates.of_chunk(number)[1])] = False  # it is not written whole
            at = np.flatnonzero(mine)
            if not at.size:
                continue
            names = map(self.name_of, chunk.facts().sources)
            table = np.array([files.setdefault(name, len(files)) for name in names])
            more = np.empty(len(at), dtype=_ROW)
            more["key"], more["source"] = keys[at], table[sources[at]]
            more["record"] = self.duplicates.starts[number] + at
            rows = np.concatenate([rows, more])
            if len(rows) > 8 * self.options.heldout_max * len(files):
                rows = self._smallest(rows)
        rows = self._smallest(rows)
        return rows[np.lexsort((rows["record"], rows["key"]))]

    def _smallest(self, rows: Rows) -> Rows:
        """The rows of smallest keys, twice `heldout_max` of each source."""
        rows = rows[np.lexsort((rows["record"], rows["key"], rows["source"]))]
        first = np.searchsorted(rows["source"], rows["source"])
        return rows[np.arange(len(rows)) - first < 2 * self.options.heldout_max]

    def _apart(
        self, groups: dict[int, tuple[list[int], list[int]]]
    ) -> dict[int, tuple[list[int], list[int]]]:
        """The groups with the near-duplicates of each; without those that have too many."""
        threshold = self.options.dedup.near_threshold
        order = {held[0]: (key, left) for key, (held, left) in groups.items()}
        records = _sorted(order)
        copies = [{record, *order[record][1]} for record in records.tolist()]
        most = 1 + MOST_COPIES
        wanted = Sketches(np.concatenate([rows for _, rows in self._sketches(records)]))
        for begin, sketches in self._sketches():
            for start in range(0, len(sketches), BLOCK):
                pairs = wanted.alike(sketches[start : start + BLOCK], threshold)
                for row, number in pairs:
                    copies[number].add(begin + start + row)
                wanted.drop([number for _, number in pairs if len(copies[number]) > most])
        return {
            order[record][0]: ([record], sorted(found - {record}))
            for record, found in zip(records.tolist(), copies, strict=True)
            if len(found) <= most
        }

    def _sketches(
        self, records: NDArray[np.int64] | None = None
    ) -> Iterator[tuple[int, NDArray[np.uint32]]]:
        """Per chunk, the number of its first record and the sketches of all its records (none of
        those that are not wanted), or of these ones."""
        for number, chunk in enumerate(self.chunks):
            begin, end = self.duplicates.starts[number : number + 2].tolist()
            (sketches,) = chunk.arrays("sketches")
            if records is None:
                sketches[~self.taken(number)] = FILL
                yield begin, sketches
            else:
                first, last = np.searchsorted(records, [begin, end])
                yield begin, sketches[records[first:last] - begin]


def _sorted(records: Any) -> NDArray[np.int64]:
    return np.unique(np.fromiter(records, dtype=np.int64))


class ContentSplit:
    """The split of the built-in corpus, as its records come: by a hash of all that each says (its
    questions that are asked later are never written at all)."""

    def __init__(self, options: CorpusOptions):
        self.options = options
        self._held: set[bytes] = set()
        self._counts: Counter[str] = Counter()

    def of(self, record: dict[str, Any], source: str) -> Literal["train", "heldout"] | None:
        """Where a record goes; None: the same one is held out."""
        content = {key: value for key, value in record.items() if key != "source"}
        text = json.dumps(content, ensure_ascii=False, sort_keys=True)
        digest = hashlib.sha256(text.encode()).digest()
        if int.from_bytes(digest[:8], "big") >= self.options.heldout * 2**64:
            return "train"
        if digest in self._held:
            return None
        if self._counts[source] >= self.options.heldout_max:
            return "train"
        self._held.add(digest)
        self._counts[source] += 1
        return "heldout"
