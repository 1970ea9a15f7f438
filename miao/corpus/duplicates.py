"""Finds duplicates among the records of all chunks, on disk: memory does not grow with them.

Equal keys are brought together by splitting (key, record) rows into buckets by key, and sorting
one bucket at a time. Near-duplicates are clusters of documents that share a band of MinHash and
whose whole signatures agree enough; one of each cluster stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from miao.corpus.chunks import ChunkFacts
from miao.corpus.minhash import PERMUTATIONS, band_keys, similarity
from miao.corpus.ngrams import text_key
from miao.recipe.cleaning import DedupOptions

KEPT, EXACT, NEAR = range(3)
BUCKET_BYTES = 16 << 20  # held in memory while sorting
EXAMPLES = 8
_ROW = np.dtype([("key", "<u8"), ("check", "<u8"), ("record", "<i8")])


class Chunk(Protocol):
    """Where the arrays of a chunk come from: a file here, or one of datatrove's."""

    def facts(self) -> ChunkFacts: ...
    def arrays(self, *names: str) -> list[Any]: ...


@dataclass
class Found:
    """What was found: counts, and pairs to look at (dropped record, kept one, similarity)."""

    exact: int = 0
    near: int = 0
    spans: int = 0
    near_pairs: list[tuple[int, int, float]] = field(default_factory=list)


class Buckets:
    """Rows on disk, split by key, so that equal keys meet in one bucket that fits in memory."""

    def __init__(self, directory: Path, rows: int):
        directory.mkdir(parents=True, exist_ok=True)
        self.count = max(1, -(-rows * _ROW.itemsize // BUCKET_BYTES))
        self.paths = [directory / f"{number:05d}.rows" for number in range(self.count)]
        for path in self.paths:
            path.unlink(missing_ok=True)

    def add(self, keys: NDArray[Any], checks: NDArray[Any] | int, records: NDArray[Any]) -> None:
        rows = np.empty(len(keys), dtype=_ROW)
        rows["key"], rows["check"], rows["record"] = keys, checks, records
        bucket = (rows["key"] >> np.uint64(20)) % np.uint64(self.count)
        order = np.argsort(bucket, kind="stable")
        edges = np.searchsorted(bucket[order], np.arange(self.count + 1))
        for number in range(self.count):
            part = rows[order[edges[number] : edges[number + 1]]]
            if part.size:
                with open(self.paths[number], "ab") as file:
                    file.write(part.tobytes())

    def groups(self) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Per bucket: the rows sorted by key (then as added), and the index of each one's group."""
        for path in self.paths:
            if not path.exists():
                continue
            rows = np.fromfile(path, dtype=_ROW)
            path.unlink()
            rows = rows[np.lexsort((rows["check"], rows["key"]))]
            new = np.ones(len(rows), dtype=bool)
            new[1:] = (rows["key"][1:] != rows["key"][:-1]) | (
                rows["check"][1:] != rows["check"][:-1]
            )
            starts = np.flatnonzero(new)
            yield rows, starts[np.cumsum(new) - 1]


class Duplicates:
    """The duplicates among chunks, in a working directory that may be deleted afterwards.

    Records are numbered through all chunks in order. `dropped` says what each one is.
    """

    def __init__(self, chunks: Sequence[Chunk], options: DedupOptions, directory: Path):
        self.chunks, self.options, self.directory = chunks, options, directory
        directory.mkdir(parents=True, exist_ok=True)
        sizes = [chunk.facts().kept for chunk in chunks]
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.total = int(self.starts[-1])
        self.dropped = self._on_disk("dropped", np.uint8, (self.total,))
        self.found = Found()

    def find(self) -> Found:
        """Exact duplicates first; then near ones and repeated spans among those that stay."""
        if self.options.exact:
            self._exact()
        if self.options.near:
            self._near()
        if self.options.paragraphs or self.options.lines:
            self._spans()
        return self.found

    def of_chunk(self, number: int) -> tuple[NDArray[np.uint8], dict[int, list[int]]]:
        """What each record of a chunk is, and the spans to take out of those that stay."""
        begin, end = self.starts[number], self.starts[number + 1]
        spans: dict[int, list[int]] = {}
        path = self._span_path(number)
        if path.exists():
            for record, span in np.fromfile(path, dtype="<i8").reshape(-1, 2).tolist():
                spans.setdefault(record, []).append(span)
        return np.array(self.dropped[begin:end]), spans

    def _exact(self) -> None:
        buckets = Buckets(self.directory / "exact", self.total)
        for number, chunk in enumerate(self.chunks):
            (keys,) = chunk.arrays("keys")
            first = keys[:, 0] ^ self._scopes(chunk)
            buckets.add(first, keys[:, 1], self.starts[number] + np.arange(len(keys)))
        ranks = self._ranks()
        for rows, group in buckets.groups():
            # Within a group the rows stand as added: the first is the earliest, unless preferred.
            keeper = rows["record"][group]
            if ranks is not None:
                order = np.lexsort((rows["record"], ranks[rows["record"]], group))
                starts = np.unique(group, return_index=True)[1]
                keeper = np.repeat(rows["record"][order][starts], np.diff(starts, append=len(rows)))
            copies = rows["record"][rows["record"] != keeper]
            self.dropped[copies] = EXACT
            self.found.exact += len(copies)

    def _near(self) -> None:
        signatures = self._on_disk("signatures", np.uint32, (self.total, PERMUTATIONS))
        usable = self._on_disk("usable", np.bool_, (self.total,))
        rows = 0
        for number, chunk in enumerate(self.chunks):
            begin, end = self.starts[number], self.starts[number + 1]
            signatures[begin:end], has = chunk.arrays("signatures", "has_signature")
            usable[begin:end] = has & (self.dropped[begin:end] == KEPT)
            rows += int(usable[begin:end].sum())
        buckets = Buckets(self.directory / "bands", rows * band_keys(signatures[:1]).shape[-1])
        for number, chunk in enumerate(self.chunks):
            begin, end = self.starts[number], self.starts[number + 1]
            local = np.flatnonzero(usable[begin:end])
            keys = band_keys(signatures[begin:end][local]) ^ self._scopes(chunk)[local, None]
            records = np.repeat(begin + local, keys.shape[1])
            buckets.add(keys.reshape(-1), 0, records)
        clusters = Clusters(self._on_disk("parents", np.int64, (self.total,)))
        for grouped, group in buckets.groups():
            self._join(grouped["record"], group, signatures, clusters)
        self._drop_clusters(clusters)

    def _join(self, records: Any, group: Any, signatures: Any, clusters: Clusters) -> None:
        """Joins those of equal band whose signatures agree: each with its group's first, and with
        the one before it."""
        here = np.arange(len(records))
        for other in (group, np.maximum(here - 1, group)):
            later = np.flatnonzero(here != other)
            pairs = np.stack([records[other[later]], records[later]], axis=1)
            pairs = np.unique(np.sort(pairs, axis=1), axis=0)
            for start in range(0, len(pairs), 4096):
                a, b = pairs[start : start + 4096].T
                alike = similarity(signatures[a], signatures[b])
                for i in np.flatnonzero(alike >= self.options.near_threshold).tolist():
                    joined = clusters.join(int(a[i]), int(b[i]))
                    if joined and len(self.found.near_pairs) < 200:
                        self.found.near_pairs.append((int(b[i]), int(a[i]), float(alike[i])))

    def _drop_clusters(self, clusters: Clusters) -> None:
        """Drops all but the best of each cluster."""
        lengths = self._column("characters") if self.options.keep == "longest" else None
        ranks = self._ranks()

        def quality(record: int) -> tuple[int, int, int]:
            rank = int(ranks[record]) if ranks is not None else 0
            return (rank, -int(lengths[record]) if lengths is not None else 0, record)

        best: dict[int, int] = {}
        members = sorted(clusters.joined)
        for record in members:
            root = clusters.root(record)
            if root not in best or quality(record) < quality(best[root]):
                best[root] = record
        for record in members:
            if best[clusters.root(record)] != record:
                self.dropped[record] = NEAR
                self.found.near += 1

    def _spans(self) -> None:
        """Spans that stand in an earlier record (or before in the same one)."""
        for number in range(len(self.chunks)):
            self._span_path(number).unlink(missing_ok=True)
        total = sum(len(chunk.arrays("spans")[0]) for chunk in self.chunks)
        buckets = Buckets(self.directory / "spans", total)
        for number, chunk in enumerate(self.chunks):
            (spans,) = chunk.arrays("spans")
            stays = self.dropped[self.starts[number] : self.starts[number + 1]] == KEPT
            spans = spans[stays[spans[:, 1].astype(np.int64)]]
            records = self.starts[number] + spans[:, 1].astype(np.int64)
            # The number of the span travels beside the record: 32 bits are enough for either.
            keys = spans[:, 0] ^ self._scopes(chunk)[spans[:, 1].astype(np.int64)]
            buckets.add(keys, 0, (records << 32) | spans[:, 2].astype(np.int64))
        for rows, group in buckets.groups():
            copies = rows["record"][np.arange(len(rows)) != group]
            self.found.spans += len(copies)
            records, spans = copies >> 32, copies & 0xFFFFFFFF
            owners = np.searchsorted(self.starts, records, side="right") - 1
            for number in np.unique(owners).tolist():
                mine = owners == number
                lines = np.stack([records[mine] - self.starts[number], spans[mine]], axis=1)
                with open(self._span_path(number), "ab") as file:
                    file.write(lines.astype("<i8").tobytes())

    def _scopes(self, chunk: Chunk) -> NDArray[np.uint64]:
        """A word per record that keeps sources apart, or nothing at all."""
        (sources,) = chunk.arrays("sources")
        if self.options.across_sources:
            return np.zeros(len(sources), dtype=np.uint64)
        names = [text_key(name)[0] for name in chunk.facts().sources]
        return np.array(names or [0], dtype=np.uint64)[sources]

    def _ranks(self) -> NDArray[Any] | None:
        """The place of each record's source among the preferred ones."""
        if not self.options.prefer:
            return None
        ranks = self._on_disk("ranks", np.uint16, (self.total,))
        places = {name: place for place, name in enumerate(self.options.prefer)}
        for number, chunk in enumerate(self.chunks):
            (sources,) = chunk.arrays("sources")
            table = [places.get(name, len(places)) for name in chunk.facts().sources] or [0]
            ranks[self.starts[number] : self.starts[number + 1]] = np.array(table)[sources]
        return ranks

    def _column(self, name: str) -> NDArray[Any]:
        column = self._on_disk(name, np.int64, (self.total,))
        for number, chunk in enumerate(self.chunks):
            (column[self.starts[number] : self.starts[number + 1]],) = chunk.arrays(name)
        return column

    def _span_path(self, number: int) -> Path:
        return self.directory / f"spans-{number:06d}.bin"

    def _on_disk(self, name: str, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        """Zeros in a file that is mapped: the system writes out what does not fit in memory."""
        if shape[0] == 0:
            return np.zeros(shape, dtype=dtype)
        return np.memmap(self.directory / f"{name}.map", dtype=dtype, mode="w+", shape=shape)


class Clusters:
    """Union-find over records, in an array that may lie on disk; 0 stands for "itself"."""

    def __init__(self, parents: NDArray[np.int64]):
        self._parents = parents  # parent + 1
        self.joined: set[int] = set()

    def root(self, record: int) -> int:
        path = []
        while parent := int(self._parents[record]):
            path.append(record)
            record = parent - 1
        for passed in path[:-1]:
            self._parents[passed] = record + 1
        return record

    def join(self, first: int, second: int) -> bool:
        """Joins two clusters; False when they are one already. The earlier root stays."""
        a, b = sorted((self.root(first), self.root(second)))
        if a == b:
            return False
        self._parents[b] = a + 1
        self.joined |= {first, second}
        return True
