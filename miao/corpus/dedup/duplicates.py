"""Finds duplicates among the records of all chunks, on disk: memory does not grow with them.

Equal keys are brought together by splitting (key, record) rows into buckets by key, and sorting
one bucket at a time. Near-duplicates are clusters of documents that share a band of MinHash and
whose whole signatures agree enough; one of each cluster stays. Each step that is done stays done
when the work is interrupted.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from miao.corpus.dedup.buckets import Buckets, RowFile
from miao.corpus.dedup.chunks import ChunkFacts
from miao.corpus.dedup.minhash import BANDS, PERMUTATIONS, band_keys, similarity
from miao.corpus.dedup.spans import NUMBER_BITS, SUBSTRING
from miao.corpus.ngrams import text_key
from miao.corpus.steps import Line, Progress, claim, finish, finished, silent
from miao.recipe.cleaning import DedupOptions

KEPT, EXACT, NEAR = range(3)
EXAMPLES = 200  # pairs remembered
PAIRS = 4096  # whose signatures are compared at a time
BLOCK = 1 << 20  # records looked through at a time


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
    """Paragraphs, lines and runs of sentences; substrings overlap, and are not counted here."""
    near_pairs: list[tuple[int, int, float]] = field(default_factory=list)


class Duplicates:
    """The duplicates among chunks, in a working directory that may be deleted afterwards.

    Records are numbered through all chunks in order. `dropped` says what each one is.

    Args:
        inputs: what the chunks were made from; what was found from the same before is taken over.
    """

    def __init__(
        self, chunks: Sequence[Chunk], options: DedupOptions, directory: Path, inputs: Any = None
    ):
        self.chunks, self.options, self.directory = chunks, options, directory
        sizes = [chunk.facts().kept for chunk in chunks]
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.total = int(self.starts[-1])
        self.mark = claim(directory, [inputs, asdict(options), sizes])
        self.dropped = self._on_disk("dropped", np.uint8, keep=True)
        self.found = Found()

    def find(self, progress: Progress = silent) -> Found:
        """Exact duplicates first; then near ones and repeated spans among those that stay."""
        options, chunks = self.options, len(self.chunks)
        if options.exact:
            self._step("equal records", self._exact, 2 * chunks, progress)
        if options.near:
            self._step("meeting places of similar records", self._bands, chunks, progress)
            self._step("similar records", self._near, self._band_buckets().count, progress)
            shutil.rmtree(self._band_buckets().directory, ignore_errors=True)
            self._signatures().path.unlink(missing_ok=True)
        if options.paragraphs or options.sentences or options.lines or options.substrings:
            self._step("repeated passages", self._spans, 2 * chunks, progress)
        return self.found

    def _step(
        self, name: str, work: Callable[[Line], None], total: int, progress: Progress
    ) -> None:
        """Does a step unless it is done; a step that was broken off begins again."""
        path = self.directory / f"{name.replace(' ', '-')}.json"
        if (result := finished(path, self.mark)) is None:
            with progress(name, total) as line:
                work(line)
            if isinstance(self.dropped, np.memmap):
                self.dropped.flush()
            finish(path, self.mark, vars(self.found))
        else:
            self.found = Found(**result)

    def of_chunk(self, number: int) -> tuple[NDArray[np.uint8], dict[int, list[int]]]:
        """What each record of a chunk is, and the spans to take out of those that stay."""
        begin, end = self.starts[number], self.starts[number + 1]
        spans: dict[int, list[int]] = {}
        path = self._span_path(number)
        if path.exists():
            for record, span in np.fromfile(path, dtype="<i8").reshape(-1, 2).tolist():
                spans.setdefault(record, []).append(span)
        return np.array(self.dropped[begin:end]), spans

    def _exact(self, line: Line) -> None:
        self._forget(EXACT, KEPT)
        buckets = Buckets(self.directory / "exact", self.total)
        buckets.clear()
        for number, chunk in enumerate(self.chunks):
            (keys,) = chunk.arrays("keys")
            first = keys[:, 0] ^ self._scopes(chunk)
            buckets.add(first, keys[:, 1], self.starts[number] + np.arange(len(keys)))
            line.advance()
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
            line.advance(len(self.chunks) / buckets.count)
        shutil.rmtree(buckets.directory)

    def _bands(self, line: Line) -> None:
        """Writes the signatures of those that stay, and the keys of their bands into buckets."""
        signatures, buckets = self._signatures(), self._band_buckets()
        signatures.clear()
        buckets.clear()
        for number, chunk in enumerate(self.chunks):
            begin, end = self.starts[number], self.starts[number + 1]
            ours, has = chunk.arrays("signatures", "has_signature")
            signatures.append(ours)
            local = np.flatnonzero(has & (self.dropped[begin:end] == KEPT))
            keys = band_keys(ours[local]) ^ self._scopes(chunk)[local, None]
            records = np.repeat(begin + local, keys.shape[1])
            buckets.add(keys.reshape(-1), 0, records)
            line.advance()

    def _near(self, line: Line) -> None:
        self._forget(NEAR, KEPT)
        signatures, buckets = self._signatures(), self._band_buckets()
        clusters = Clusters(self._on_disk("parents", np.int64))
        for grouped, group in buckets.groups():
            self._join(grouped["record"], group, signatures, clusters)
            line.advance()
        self._drop_clusters(clusters)

    def _band_buckets(self) -> Buckets:
        return Buckets(self.directory / "bands", self.total * BANDS)

    def _signatures(self) -> RowFile:
        return RowFile(self.directory / "signatures.rows", "<u4", PERMUTATIONS)

    def _join(self, records: Any, group: Any, signatures: RowFile, clusters: Clusters) -> None:
        """Joins those of equal band whose signatures agree: each with its group's first, and with
        the one before it."""
        here = np.arange(len(records))
        for other in (group, np.maximum(here - 1, group)):
            later = np.flatnonzero(here != other)
            pairs = np.stack([records[other[later]], records[later]], axis=1)
            pairs = np.unique(np.sort(pairs, axis=1), axis=0)
            for start in range(0, len(pairs), PAIRS):
                some = pairs[start : start + PAIRS]
                theirs = signatures.take(some.reshape(-1)).reshape(len(some), 2, -1)
                alike = similarity(theirs[:, 0], theirs[:, 1])
                for i in np.flatnonzero(alike >= self.options.near_threshold).tolist():
                    first, second = some[i].tolist()
                    joined = clusters.join(first, second)
                    if joined and len(self.found.near_pairs) < EXAMPLES:
                        self.found.near_pairs.append((second, first, float(alike[i])))

    def _drop_clusters(self, clusters: Clusters) -> None:
        """Drops all but the best of each cluster."""
        lengths = self._column("characters") if self.options.keep == "longest" else None
        ranks = self._ranks()

        def quality(record: int) -> tuple[int, int, int]:
            rank = int(ranks[record]) if ranks is not None else 0
            return (rank, -int(lengths[record]) if lengths is not None else 0, record)

        best = self._on_disk("best", np.int64)  # record + 1, at its cluster's root
        for record in clusters.members():
            root = clusters.root(record)
            if not best[root] or quality(record) < quality(int(best[root]) - 1):
                best[root] = record + 1
        for record in clusters.members():
            if best[clusters.root(record)] != record + 1:
                self.dropped[record] = NEAR
                self.found.near += 1

    def _spans(self, line: Line) -> None:
        """Spans that stand in an earlier record (or before in the same one)."""
        for number in range(len(self.chunks)):
            self._span_path(number).unlink(missing_ok=True)
        total = sum(len(chunk.arrays("spans")[0]) for chunk in self.chunks)
        buckets = Buckets(self.directory / "spans", total)
        buckets.clear()
        for number, chunk in enumerate(self.chunks):
            (spans,) = chunk.arrays("spans")
            stays = self.dropped[self.starts[number] : self.starts[number + 1]] == KEPT
            spans = spans[stays[spans[:, 1].astype(np.int64)]]
            records = self.starts[number] + spans[:, 1].astype(np.int64)
            # The number of the span travels beside the record: 32 bits are enough for either.
            keys = spans[:, 0] ^ self._scopes(chunk)[spans[:, 1].astype(np.int64)]
            buckets.add(keys, 0, (records << 32) | spans[:, 2].astype(np.int64))
            line.advance()
        for rows, group in buckets.groups():
            copies = rows["record"][np.arange(len(rows)) != group]
            self.found.spans += int((copies >> NUMBER_BITS & 3 != SUBSTRING).sum())
            records, spans = copies >> 32, copies & 0xFFFFFFFF
            owners = np.searchsorted(self.starts, records, side="right") - 1
            for number in np.unique(owners).tolist():
                mine = owners == number
                lines = np.stack([records[mine] - self.starts[number], spans[mine]], axis=1)
                with open(self._span_path(number), "ab") as file:
                    file.write(lines.astype("<i8").tobytes())
            line.advance(len(self.chunks) / buckets.count)
        shutil.rmtree(buckets.directory)

    def _forget(self, state: int, instead: int) -> None:
        """Takes back what a step that was broken off had found."""
        for begin in range(0, self.total, BLOCK):
            block = self.dropped[begin : begin + BLOCK]
            block[block == state] = instead

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
        ranks = self._on_disk("ranks", np.uint16)
        places = {name: place for place, name in enumerate(self.options.prefer)}
        for number, chunk in enumerate(self.chunks):
            (sources,) = chunk.arrays("sources")
            table = [places.get(name, len(places)) for name in chunk.facts().sources] or [0]
            ranks[self.starts[number] : self.starts[number + 1]] = np.array(table)[sources]
        return ranks

    def _column(self, name: str) -> NDArray[Any]:
        column = self._on_disk(name, np.int64)
        for number, chunk in enumerate(self.chunks):
            (column[self.starts[number] : self.starts[number + 1]],) = chunk.arrays(name)
        return column

    def _span_path(self, number: int) -> Path:
        return self.directory / f"spans-{number:06d}.bin"

    def _on_disk(self, name: str, dtype: Any, keep: bool = False) -> NDArray[Any]:
        """A number per record, zeros at first, in a file that is mapped: the system writes out
        what does not fit in memory. `keep`: the numbers that stand there stay."""
        if self.total == 0:
            return np.zeros(0, dtype=dtype)
        path = self.directory / f"{name}.map"
        size = path.stat().st_size if path.exists() else None
        there = keep and size == self.total * np.dtype(dtype).itemsize
        return np.memmap(path, dtype=dtype, mode="r+" if there else "w+", shape=(self.total,))


class Clusters:
    """Union-find over records, in an array that may lie on disk: 0 for a record that was never
    joined, its own number + 1 for the root of a cluster, else the number of a parent + 1."""

    def __init__(self, parents: NDArray[np.int64]):
        self._parents = parents

    def members(self) -> Iterator[int]:
        """All records that were joined, in order."""
        for begin in range(0, len(self._parents), BLOCK):
            yield from (begin + np.flatnonzero(self._parents[begin : begin + BLOCK])).tolist()

    def root(self, record: int) -> int:
        path = []
        while (parent := int(self._parents[record])) not in (0, record + 1):
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
        self._parents[a] = self._parents[b] = a + 1
        return True
