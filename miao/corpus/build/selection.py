"""Which records are taken, and how often; which are held out, and which leave training for them.

What is asked decides what is held out, not the record: all answers to one prompt stand on the same
side. Everything is planned from the arrays of the chunks before a record is written, so the order
of the records does not matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miao.corpus.build.mix import (
    Share,
    Taking,
    below,
    categories_of,
    category_table,
    plan_mix,
    record_keys,
    takings,
)
from miao.corpus.build.output import file_name
from miao.corpus.dedup.chunks import ChunkFile, Groups
from miao.corpus.dedup.duplicates import KEPT, Duplicates
from miao.corpus.dedup.minhash import FILL, SKETCH, Sketches
from miao.corpus.folder import Folder
from miao.corpus.records import KINDS
from miao.corpus.steps import Phase, once
from miao.recipe import CorpusOptions, parse_quantity

TRAIN, HELDOUT, LEFT = range(3)
MOST_COPIES = 4
"""A document with more near-duplicates than this is not held out: they would leave training."""
LARGEST = 10
"""Nor is a prompt with more than one in so many of the records that may be held out."""
BLOCK = 1024  # records compared at a time
MOST_NAMED = 9
GONE = -2
"""The category of a duplicate."""
_ROW = np.dtype(
    [("key", "<u8"), ("source", "<i8"), ("record", "<i8"), ("sketch", "<u4", (SKETCH,))]
)
Candidates = NDArray[np.void]


class Selection:
    """The mix and the split of a stage.

    Args:
        crowded: paths whose records have too many names to be sources.
    """

    def __init__(
        self,
        groups: Groups,
        duplicates: Duplicates,
        options: CorpusOptions,
        seed: int,
        stage: str,
        folder: Folder,
        crowded: Any,
    ):
        self.groups, self.duplicates, self.options = groups, duplicates, options
        self.seed, self.stage, self.folder, self._crowded = seed, stage, folder, crowded
        self.documents = KINDS[stage] == "document"
        self.categories = categories_of(options.mix, stage)

    def phases(self) -> list[Phase]:
        def per_group() -> int:
            return self.groups.count

        found = []
        if self.categories:
            found += [
                Phase("writing", "available", per_group, self._available),
                Phase("writing", "mix", once, self._mix),
            ]
        if self.options.heldout and self.options.heldout_max:
            found += [
                Phase("writing", "candidates", per_group, self._candidates),
                Phase("writing", "split", once, self._split),
            ]
            if self.documents:
                found += [
                    Phase("writing", "alike", per_group, self._alike),
                    Phase("writing", "apart", once, self._apart),
                ]
        return found

    @cached_property
    def shares(self) -> dict[str, Share]:
        if not self.categories:
            return {}
        found = self.folder.read_json("mix.json")["shares"]
        return {name: Share(**share) for name, share in found.items()}

    @cached_property
    def takings(self) -> list[Taking]:
        if not self.categories:
            return []
        return [Taking(*values) for values in self.folder.read_json("mix.json")["takings"]]

    @property
    def rounds(self) -> int:
        """How often a record is taken at most; 1 or more."""
        return max([1, *(taking.most for taking in self.takings)])

    def copies(self, group: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The category of each record of a group (-1: none, `GONE`: a duplicate), and how often it
        is taken."""
        if not self.categories:
            stays = self.duplicates.dropped(group) == KEPT
            return np.where(stays, -1, GONE), stays.astype(np.int64)
        categories = self._categories(group)
        keys = self._keys(group)
        copies = np.where(categories == -1, int(self.options.mix.others), 0)
        for place, taking in enumerate(self.takings):
            copies = np.where(categories == place, taking.copies(keys), copies)
        return categories, copies

    def states(self, group: int) -> NDArray[np.uint8]:
        """TRAIN, HELDOUT or LEFT, for each record of a group."""
        begin, end = self.groups.bounds(group)
        state = np.full(end - begin, TRAIN, dtype=np.uint8)
        for records, what in ((self._plan["held"], HELDOUT), (self._plan["left"], LEFT)):
            numbers = np.array(records, dtype=np.int64)
            first, last = np.searchsorted(numbers, [begin, end])
            state[numbers[first:last] - begin] = what
        return state

    @cached_property
    def heldout_keys(self) -> set[int]:
        """What is held out, as in the arrays `splits`."""
        return set(self._plan["keys"])

    def files(self, chunk: ChunkFile) -> list[str]:
        """The name of the files that each of a chunk's sources is written to."""
        facts, kind = chunk.facts(), KINDS[self.stage]
        return [
            file_name(origin if origin in self._crowded() else source, kind)
            for source, origin in zip(facts.sources, facts.origins, strict=True)
        ]

    @cached_property
    def _plan(self) -> dict[str, Any]:
        if not (self.options.heldout and self.options.heldout_max):
            return {"held": [], "left": [], "keys": []}
        name = "apart" if self.documents else "split"
        plan: dict[str, Any] = self.folder.read_json(f"{name}.json")
        return plan

    def _keys(self, group: int) -> NDArray[np.uint64]:
        begin, end = self.groups.bounds(group)
        return record_keys(begin, end - begin, self.seed)

    def _available(self, group: int) -> dict[str, Any]:
        """What there is of each category in a group, duplicates aside."""
        stays, offset = self.duplicates.dropped(group) == KEPT, self.groups.bounds(group)[0]
        found = [np.zeros(0, dtype=np.int16)]
        records: Counter[str] = Counter()
        characters: Counter[str] = Counter()
        sources: set[str] = set()
        for chunk, begin, end in self.groups.of(group):
            of, languages, sizes = chunk.arrays("sources", "languages", "characters")
            names = chunk.facts().sources
            sources = set(sorted(sources.union(names))[:MOST_NAMED])
            mine = category_table(self.categories, names)[of, languages] if len(of) else found[0]
            mine = np.where(stays[begin - offset : end - offset], mine, GONE).astype(np.int16)
            found.append(mine)
            for place, name in enumerate(self.categories):
                records[name] += int((mine == place).sum())
                characters[name] += int(sizes[mine == place].sum())
        with self.folder.write(f"categories-{group:06d}") as file:
            file.write(np.concatenate(found).astype("<i2").tobytes())
        result = {"records": records, "characters": characters, "sources": sorted(sources)}
        self.folder.write_json(f"available-{group:06d}.json", result)
        return {}

    def _categories(self, group: int) -> NDArray[np.int64]:
        data = self.folder.read(f"categories-{group:06d}")
        return np.frombuffer(data, "<i2").astype(np.int64)

    def _mix(self, task: int) -> dict[str, Any]:
        options, count = self.options.mix, self.groups.count
        found = self.folder.read_many([f"available-{g:06d}.json" for g in range(count)])
        available = {
            name: (
                sum(one["records"][name] for one in found),
                sum(one["characters"][name] for one in found),
            )
            for name in self.categories
        }
        total = options.total if self.stage == "pretrain" else None
        size = None if total is None else parse_quantity(total, "corpus.mix.total")
        sources = {source for one in found for source in one["sources"]}
        shares = plan_mix(self.categories, available, size, self.stage, sources)
        taken = takings(shares, self._keys_of)
        plan = {
            "shares": {name: share.to_json() for name, share in shares.items()},
            "takings": [list(asdict(taking).values()) for taking in taken],
        }
        self.folder.write_json("mix.json", plan)
        return {}

    def _keys_of(self, category: int) -> Iterator[NDArray[np.uint64]]:
        for group in range(self.groups.count):
            yield self._keys(group)[self._categories(group) == category]

    def _candidates(self, group: int) -> None:
        """The records of a group whose key says that they may be held out: of each file twice as
        many as are wanted."""
        rows, names = np.zeros(0, dtype=_ROW), dict[str, int]()
        bound = int(self.options.heldout * 2**64)
        taken, spans = self.copies(group)[1] > 0, self.duplicates.spans(group)
        offset = self.groups.bounds(group)[0]
        taken[[record - offset for record in spans]] = False  # it is not written whole
        for chunk, begin, end in self.groups.of(group):
            keys, sources = chunk.arrays("splits", "sources")
            at = np.flatnonzero(taken[begin - offset : end - offset] & below(keys, bound))
            if not at.size:
                continue
            files = [names.setdefault(name, len(names)) for name in self.files(chunk)]
            more = np.empty(len(at), dtype=_ROW)
            more["key"], more["source"] = keys[at], np.array(files)[sources[at]]
            more["record"] = begin + at
            more["sketch"] = chunk.arrays("sketches")[0][at] if self.documents else 0
            rows = self._smallest(np.concatenate([rows, more]))
        with self.folder.write(f"candidates-{group:06d}.npz") as file:
            np.savez(file, rows=rows, names=np.array(list(names), dtype="U"))

    def _smallest(self, rows: Candidates) -> Candidates:
        """The rows of smallest keys, twice `heldout_max` of each source."""
        rows = rows[np.lexsort((rows["record"], rows["key"], rows["source"]))]
        first = np.searchsorted(rows["source"], rows["source"])
        return rows[np.arange(len(rows)) - first < 2 * self.options.heldout_max]

    def _split(self, task: int) -> None:
        """What may be held out: prompts with all their records; of documents, those of which few
        are much alike (`_apart`)."""
        rows, names = np.zeros(0, dtype=_ROW), dict[str, int]()
        for group in range(self.groups.count):
            with self.folder.open(f"candidates-{group:06d}.npz") as file:
                more, own = (np.load(file, allow_pickle=False)[name] for name in ("rows", "names"))
            if len(more):
                numbers = [names.setdefault(name, len(names)) for name in own.tolist()]
                more["source"] = np.array(numbers)[more["source"]]
                rows = self._smallest(np.concatenate([rows, more]))
        rows = rows[np.lexsort((rows["record"], rows["key"]))]
        chosen = self._choose(rows[["key", "source", "record"]])
        plan: dict[str, Any] = {
            "keys": list(chosen),
            "held": sorted(record for held, _ in chosen.values() for record in held),
            "groups": [[held, left] for held, left in chosen.values()],
        }
        left = {record for _, gone in chosen.values() for record in gone}
        plan["left"] = sorted(left.difference(plan["held"]))
        self.folder.write_json("split.json", plan)
        if self.documents:
            wanted = rows[np.isin(rows["record"], plan["held"])]
            wanted = wanted[np.argsort(wanted["record"])]["sketch"]
            with self.folder.write("sketches") as file:
                file.write(np.ascontiguousarray(wanted, "<u4").tobytes())

    def _choose(self, rows: NDArray[np.void]) -> dict[int, tuple[list[int], list[int]]]:
        """Key -> the records that are held out, and those that leave training."""
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

    def _alike(self, group: int) -> None:
        """The records of a group that are much like one that may be held out."""
        count = len(self.folder.read_json("split.json")["held"])
        rows = np.frombuffer(self.folder.read("sketches"), "<u4").reshape(count, SKETCH)
        wanted = Sketches(rows, self.options.dedup.near_threshold)
        taken = self.copies(group)[1] > 0
        offset = self.groups.bounds(group)[0]
        found: dict[int, list[int]] = {}
        for chunk, begin, end in self.groups.of(group):
            (sketches,) = chunk.arrays("sketches")
            sketches[~taken[begin - offset : end - offset]] = FILL
            for start in range(0, len(sketches), BLOCK):
                pairs = wanted.alike(sketches[start : start + BLOCK])
                for row, number in pairs:
                    found.setdefault(number, []).append(begin + start + row)
                most = 2 + MOST_COPIES
                wanted.drop([number for _, number in pairs if len(found[number]) > most])
        self.folder.write_json(f"alike-{group:06d}.json", list(found.items()))

    def _apart(self, task: int) -> None:
        """The groups with the near-duplicates of each; without those that have too many."""
        plan = self.folder.read_json("split.json")
        copies = [{record} for record in plan["held"]]
        places = {record: place for place, record in enumerate(plan["held"])}
        for (record,), left in plan["groups"]:
            copies[places[record]].update(left)
        count = self.groups.count
        for found in self.folder.read_many([f"alike-{g:06d}.json" for g in range(count)]):
            for number, records in found:
                copies[number].update(records)
        few = [len(alike) <= 1 + MOST_COPIES for alike in copies]
        held = [record for record, some in zip(plan["held"], few, strict=True) if some]
        left = {r for alike, some in zip(copies, few, strict=True) if some for r in alike}
        keys = zip(plan["keys"], plan["groups"], strict=True)
        apart = {
            "keys": [key for key, ((record,), _) in keys if few[places[record]]],
            "held": held,
            "left": sorted(left - set(held)),
        }
        self.folder.write_json("apart.json", apart)
