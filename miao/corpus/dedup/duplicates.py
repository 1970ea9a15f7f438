"""Finds duplicates among the records of all chunks: many tasks at a time, here or on many machines.

Equal keys meet by way of `shuffle`: the tasks of one phase write (key, record) rows for those of
the next. Near-duplicates are clusters of documents that share a band of MinHash and whose whole
signatures agree enough; one of each cluster stays. Everything is linear in the records, and memory
is that of a task, but for the edges between near-duplicates, 32 bytes each, in the one task that
makes clusters of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miao.corpus.dedup.chunks import ChunkFile, Groups
from miao.corpus.dedup.minhash import (
    BANDS,
    FINGERPRINT,
    PERMUTATIONS,
    band_keys,
    fingerprints,
    similarity,
    similarity_at_most,
)
from miao.corpus.dedup.shuffle import (
    PART_BYTES,
    Rows,
    RowWriter,
    all_rows_for,
    groups_of,
    part_of,
    parts_for,
    rows_for,
    sorted_rows,
)
from miao.corpus.dedup.spans import NUMBER_BITS, SUBSTRING
from miao.corpus.folder import Folder
from miao.corpus.ngrams import text_key
from miao.corpus.steps import Phase, once
from miao.recipe.cleaning import DedupOptions

KEPT, EXACT, NEAR = range(3)
EXAMPLES = 8
"""Near-duplicates to look at."""
SPANS_PER_RECORD = 8
"""How many passages a record has, about, where every run of tokens is one: some hundreds."""
NEIGHBOURS = 8
"""Records before each of equal band that it is compared with: all where few have that band. Where
many do, neighbours are those whose fingerprints begin alike (an LSH forest; Bawa et al. 2005)."""
BAND_BYTES = 8 * (2 + FINGERPRINT) * BANDS
"""Rows that a record gives to the meeting places."""
_RANK = np.uint64(48)
_RECORD = np.uint64((1 << 48) - 1)
_WORDS = PERMUTATIONS // 2  # of 64 bits, of a signature


@dataclass
class Found:
    """What was found: counts, and pairs to look at (dropped record, kept one, similarity)."""

    exact: int = 0
    near: int = 0
    spans: int = 0
    """Paragraphs, lines and runs of sentences; substrings overlap, and are not counted here."""
    near_pairs: list[tuple[int, int, float]] = field(default_factory=list)

    def add(self, result: dict[str, Any]) -> None:
        """Takes over the result of a task."""
        self.exact += result.get("exact", 0)
        self.near += result.get("near", 0)
        self.spans += result.get("spans", 0)
        pairs = [tuple(pair) for pair in result.get("near_pairs", [])]
        self.near_pairs += pairs[: max(0, EXAMPLES - len(self.near_pairs))]


class Duplicates:
    """The duplicates among grouped chunks, in a folder that may be deleted afterwards."""

    def __init__(self, groups: Groups, options: DedupOptions, folder: Folder):
        self.groups, self.options, self.folder = groups, options, folder

    @property
    def has_spans(self) -> bool:
        options = self.options
        return bool(options.paragraphs or options.sentences or options.lines or options.substrings)

    def phases(self) -> list[Phase]:
        """Exact duplicates first; then near ones and repeated spans among those that stay."""
        per_group, meeting = (lambda: self.groups.count), "meeting places of similar records"
        found: list[Phase] = []
        if self.options.exact:
            found += [
                Phase("equal records", "keys", per_group, self._keys),
                Phase(
                    "equal records", "equal", lambda: self._parts(24), self._equal, spent=("keys",)
                ),
            ]
        if self.options.near:
            found += [
                Phase(meeting, "bands", per_group, self._bands),
                Phase(meeting, "met", lambda: self._parts(BAND_BYTES), self._met, spent=("bands",)),
                Phase("similar records", "signed", per_group, self._signed, spent=("met",)),
                Phase("similar records", "similar", per_group, self._similar, spent=("signed",)),
                Phase("similar records", "clusters", once, self._clusters, spent=("similar",)),
            ]
        if self.has_spans:
            found += [
                Phase("repeated passages", "passages", per_group, self._passages),
                Phase(
                    "repeated passages",
                    "repeated",
                    self._span_parts,
                    self._repeated,
                    spent=("passages",),
                ),
            ]
        return found

    def dropped(self, group: int) -> NDArray[np.uint8]:
        """What each record of a group is, once the phases are done."""
        begin, end = self.groups.bounds(group)
        states = np.full(end - begin, KEPT, dtype=np.uint8)
        for wanted, name, tasks, state in (
            (self.options.exact, "equal", self._parts(24), EXACT),
            (self.options.near, "clusters", 1, NEAR),
        ):
            if wanted:
                states[self._for_group(name, group, 1, tasks)[:, 0].astype(np.int64) - begin] = (
                    state
                )
        return states

    def spans(self, group: int) -> dict[int, list[int]]:
        """The spans to take out of records of a group that stay, by the records' numbers."""
        spans: dict[int, list[int]] = {}
        if self.has_spans:
            for record, span in self._for_group("repeated", group, 2, self._span_parts()).tolist():
                spans.setdefault(record, []).append(span)
        return spans

    def _parts(self, bytes_per_record: int) -> int:
        return parts_for(self.groups.total * bytes_per_record, PART_BYTES)

    def _span_parts(self) -> int:
        each = SPANS_PER_RECORD if self.options.substrings is None else 64 * SPANS_PER_RECORD
        return self._parts(24 * each)

    def _writer(self, name: str, task: int, parts: int, width: int) -> RowWriter:
        return RowWriter(self.folder / name, task, parts, width)

    def _for_group(self, name: str, group: int, width: int, tasks: int) -> Rows:
        return all_rows_for(self.folder / name, group, self.groups.count, width, tasks)

    def _keys(self, group: int) -> None:
        parts = self._parts(24)
        writer = self._writer("keys", group, parts, 3)
        for chunk, begin, end in self.groups.of(group):
            (keys,) = chunk.arrays("keys")
            records = np.arange(begin, end, dtype=np.uint64) | self._ranks(chunk) << _RANK
            first = keys[:, 0] ^ self._scopes(chunk)
            writer.add(np.stack([first, keys[:, 1], records], axis=1), part_of(first, parts))
        writer.close()

    def _equal(self, part: int) -> dict[str, int]:
        tasks, parts = self.groups.count, self._parts(24)
        rows = sorted_rows(all_rows_for(self.folder / "keys", part, parts, 3, tasks))
        # The first of a group is the earliest one, unless another is preferred.
        copies = rows[groups_of(rows, 2) != np.arange(len(rows)), 2:] & _RECORD
        writer = self._writer("equal", part, self.groups.count, 1)
        writer.add(copies, self.groups.owners(copies[:, 0]))
        writer.close()
        return {"exact": len(copies)}

    def _bands(self, group: int) -> None:
        """The keys of the bands of those that stay, with fingerprints, which every band begins
        with another word of."""
        parts = self._parts(BAND_BYTES)
        writer = self._writer("bands", group, parts, 2 + FINGERPRINT)
        turned = (np.arange(FINGERPRINT) + np.arange(BANDS)[:, None]) % FINGERPRINT
        stays, offset = self._no_copies(group), self.groups.bounds(group)[0]
        for chunk, begin, end in self.groups.of(group):
            ours, has = chunk.arrays("signatures", "has_signature")
            local = np.flatnonzero(has & stays[begin - offset : end - offset])
            keys = (band_keys(ours[local]) ^ self._scopes(chunk)[local, None]).reshape(-1)
            records = np.repeat((begin + local).astype(np.uint64), BANDS)
            words = fingerprints(ours[local])[:, turned].reshape(-1, FINGERPRINT)
            rows = np.concatenate([keys[:, None], words, records[:, None]], axis=1)
            writer.add(rows, part_of(keys, parts))
        writer.close()

    def _met(self, part: int) -> None:
        """Pairs of equal band that may be alike: each record with the first one of its group, and
        with some before it."""
        tasks, parts = self.groups.count, self._parts(BAND_BYTES)
        width = 2 + FINGERPRINT
        rows = all_rows_for(self.folder / "bands", part, parts, width, tasks)
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        again = np.flatnonzero(rows[1:, 0] == rows[:-1, 0])
        rows = sorted_rows(rows[np.union1d(again, again + 1)])  # most bands are one record's
        group, here = groups_of(rows, 1), np.arange(len(rows))
        words, records = np.ascontiguousarray(rows[:, 1:-1]), rows[:, -1].copy()
        found = [np.empty((0, 2), dtype=np.uint64)]
        for back in (len(rows), *range(1, NEIGHBOURS + 1)):
            other = np.maximum(here - back, group)
            later = np.flatnonzero(other == here - back if back < len(rows) else other != here)
            for some in np.array_split(later, len(later) // 2**16 + 1):
                most = similarity_at_most(words[other[some]], words[some])
                some = some[most >= self.options.near_threshold]
                found.append(np.stack([records[other[some]], records[some]], axis=1))
        pairs = np.sort(np.concatenate(found), axis=1)
        pairs = np.unique(pairs, axis=0)
        writer = self._writer("met", part, self.groups.count, 2)
        writer.add(pairs, self.groups.owners(pairs[:, 1]))
        writer.close()

    def _signed(self, group: int) -> None:
        """The pairs whose second record is of this group, with its signature."""
        pairs = np.unique(self._for_group("met", group, 2, self._parts(BAND_BYTES)), axis=0)
        pairs = pairs[np.argsort(pairs[:, 1], kind="stable")]
        writer = self._writer("signed", group, self.groups.count, 3 + _WORDS)
        for mine, chunk, begin in self._by_chunk(group, pairs, 1):
            (signatures,) = chunk.arrays("signatures")
            quality = self._quality(chunk)
            for some in np.array_split(mine, len(mine) // 4096 + 1):
                at = (some[:, 1] - np.uint64(begin)).astype(np.int64)
                words = signatures[at].view(np.uint64)
                rows = np.concatenate([some, quality[at, None], words], axis=1)
                writer.add(rows, self.groups.owners(some[:, 0]))
        writer.close()

    def _similar(self, group: int) -> dict[str, Any]:
        """Of the pairs whose first record is of this group, those that are alike, as edges: each
        record with the first one that it hangs together with, and the quality of both."""
        edges, examples = [np.empty((0, 4), dtype=np.uint64)], []
        tasks, width = self.groups.count, 3 + _WORDS
        for rows in rows_for(self.folder / "signed", group, self.groups.count, width, tasks):
            rows = rows[np.argsort(rows[:, 0], kind="stable")]
            for mine, chunk, begin in self._by_chunk(group, rows, 0):
                (signatures,) = chunk.arrays("signatures")
                quality = self._quality(chunk)
                at = (mine[:, 0] - np.uint64(begin)).astype(np.int64)
                theirs = np.ascontiguousarray(mine[:, 3:]).view(np.uint32)
                alike = similarity(signatures[at], theirs)
                found = alike >= self.options.near_threshold
                pairs = np.stack([mine[:, 0], mine[:, 1], quality[at], mine[:, 2]], axis=1)[found]
                edges.append(pairs)
                for pair, share in zip(pairs[:EXAMPLES].tolist(), alike[found], strict=False):
                    examples.append((pair[1], pair[0], float(share)))
            edges = [_forest(np.concatenate(edges))]
        writer = self._writer("similar", group, 1, 4)
        writer.add(edges[0], np.zeros(len(edges[0]), dtype=np.int64))
        writer.close()
        return {"near_pairs": examples[:EXAMPLES]}

    def _clusters(self, task: int) -> dict[str, int]:
        """All but the best of each cluster."""
        edges = all_rows_for(self.folder / "similar", 0, 1, 4, self.groups.count)
        members, roots, quality = _clusters_of(edges)
        order = np.lexsort((members, quality, roots))
        members, roots = members[order], roots[order]
        gone = members[groups_of(roots[:, None], 1) != np.arange(len(roots))]
        writer = self._writer("clusters", 0, self.groups.count, 1)
        writer.add(gone[:, None], self.groups.owners(gone))
        writer.close()
        return {"near": len(gone)}

    def _passages(self, group: int) -> None:
        parts, offset = self._span_parts(), self.groups.bounds(group)[0]
        writer, kept = self._writer("passages", group, parts, 3), self.dropped(group) == KEPT
        for chunk, begin, end in self.groups.of(group):
            (spans,) = chunk.arrays("spans")
            local = spans[:, 1].astype(np.int64)
            stays = kept[begin - offset : end - offset][local]
            spans, local = spans[stays], local[stays]
            keys = spans[:, 0] ^ self._scopes(chunk)[local]
            rows = np.stack([keys, (begin + local).astype(np.uint64), spans[:, 2]], axis=1)
            writer.add(rows, part_of(keys, parts))
        writer.close()

    def _repeated(self, part: int) -> dict[str, int]:
        """Spans that stand in an earlier record (or before in the same one)."""
        tasks, parts = self.groups.count, self._span_parts()
        rows = sorted_rows(all_rows_for(self.folder / "passages", part, parts, 3, tasks))
        copies = rows[groups_of(rows, 1) != np.arange(len(rows)), 1:]
        writer = self._writer("repeated", part, self.groups.count, 2)
        writer.add(copies, self.groups.owners(copies[:, 0]))
        writer.close()
        kinds = copies[:, 1] >> np.uint64(NUMBER_BITS) & np.uint64(3)
        return {"spans": int((kinds != SUBSTRING).sum())}

    def _no_copies(self, group: int) -> NDArray[np.bool_]:
        """Which records of a group equal no other one that stays."""
        begin, end = self.groups.bounds(group)
        stays = np.ones(end - begin, dtype=bool)
        if self.options.exact:
            copies = self._for_group("equal", group, 1, self._parts(24))
            stays[copies[:, 0].astype(np.int64) - begin] = False
        return stays

    def _by_chunk(
        self, group: int, rows: Rows, column: int
    ) -> Iterator[tuple[Rows, ChunkFile, int]]:
        """The rows (sorted by a column of record numbers of this group) of each chunk."""
        for chunk, begin, end in self.groups.of(group):
            first, last = np.searchsorted(rows[:, column], np.array([begin, end], dtype=np.uint64))
            if last > first:
                yield rows[first:last], chunk, begin

    def _quality(self, chunk: ChunkFile) -> NDArray[np.uint64]:
        """Of each record: the smallest of a cluster stays, of equal ones the first record."""
        lengths = np.uint64(0)
        if self.options.keep == "longest":
            lengths = _RECORD - chunk.arrays("characters")[0].astype(np.uint64)
        quality: NDArray[np.uint64] = self._ranks(chunk) << _RANK | lengths
        return quality

    def _scopes(self, chunk: ChunkFile) -> NDArray[np.uint64]:
        """A word per record that keeps sources apart, or nothing at all."""
        (sources,) = chunk.arrays("sources")
        if self.options.across_sources:
            return np.zeros(len(sources), dtype=np.uint64)
        names = [text_key(name)[0] for name in chunk.facts().sources]
        return np.array(names or [0], dtype=np.uint64)[sources]

    def _ranks(self, chunk: ChunkFile) -> NDArray[np.uint64]:
        """The place of each record's source among the preferred ones."""
        (sources,) = chunk.arrays("sources")
        if not self.options.prefer:
            return np.zeros(len(sources), dtype=np.uint64)
        places = {name: place for place, name in enumerate(self.options.prefer)}
        table = [places.get(name, len(places)) for name in chunk.facts().sources] or [0]
        return np.array(table, dtype=np.uint64)[sources]


def connected(first: NDArray[Any], second: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The numbers that stand in the pairs, in order, and the smallest number that each is connected
    to. Every round at least halves the components that are not yet one."""
    members, ends = np.unique(np.concatenate([first, second]), return_inverse=True)
    a, b = ends.reshape(2, -1)
    parents = np.arange(len(members))
    while (apart := parents[a] != parents[b]).any():
        a, b = a[apart], b[apart]
        roots = parents[a], parents[b]
        np.minimum.at(parents, np.maximum(*roots), np.minimum(*roots))
        while ((above := parents[parents]) != parents).any():
            parents = above
    return members, members[parents]


def _clusters_of(edges: Rows) -> tuple[Rows, Rows, Rows]:
    """Members of edges, the first one of each one's cluster, and the quality of each."""
    members, roots = connected(edges[:, 0], edges[:, 1])
    quality = np.zeros(len(members), dtype=np.uint64)
    for side in (0, 1):
        quality[np.searchsorted(members, edges[:, side])] = edges[:, 2 + side]
    return members, roots, quality


def _forest(edges: Rows) -> Rows:
    """As few edges as connect the same."""
    members, roots, quality = _clusters_of(edges)
    later = np.flatnonzero(members != roots)
    first = np.searchsorted(members, roots[later])
    return np.stack([roots[later], members[later], quality[first], quality[later]], axis=1)
