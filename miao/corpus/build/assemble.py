"""The last step: what stays of the chunks, as often as the mix wants it, to the corpus files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miao.corpus.build.mix import (
    OTHERS,
    Taking,
    categories_of,
    category_table,
    plan_mix,
    record_keys,
    takings,
)
from miao.corpus.build.output import SplitName, Splitter, crowded_origins
from miao.corpus.build.split import HELDOUT, LEFT, TRAIN, Split
from miao.corpus.clean.cleaner import excerpt
from miao.corpus.dedup.chunks import LANGUAGES, SHOWN, ChunkFacts, ChunkFile
from miao.corpus.dedup.duplicates import KEPT, Duplicates, Found
from miao.corpus.dedup.spans import without_spans
from miao.corpus.ngrams import TextView, folded_key
from miao.corpus.records import KINDS
from miao.corpus.steps import Progress, finish, finished, silent
from miao.recipe import CorpusOptions, parse_quantity
from miao.recipe.cleaning import MixOptions

EXAMPLES = 8
MOST_OVERLAPS = 200
REPEATED = "repeated passages"
_COUNTED = ("left_out", "emptied", "languages", "edited", "taken_out", "examples")
"""Accounts that are kept while writing."""


@dataclass
class Accounts:
    """What became of every record that was read:

    read = rejected + contaminated + exact + near + emptied + left_out + train + heldout +
    heldout_duplicates, where `train` counts different records (`written` - `repeated`).
    """

    read: int = 0
    characters: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    rejected_characters: Counter[str] = field(default_factory=Counter)
    contaminated: int = 0
    exact: int = 0
    near: int = 0
    emptied: int = 0
    """All their passages stand in earlier records."""
    left_out: Counter[str] = field(default_factory=Counter)
    """By the mix, per category."""
    train: int = 0
    heldout: int = 0
    heldout_duplicates: int = 0
    repeated: int = 0
    edited: Counter[str] = field(default_factory=Counter)
    taken_out: Counter[str] = field(default_factory=Counter)
    kept_characters: int = 0
    """After cleaning, before duplicates."""
    languages: Counter[str] = field(default_factory=Counter)
    """Records in the corpus."""
    lengths: list[int] = field(default_factory=list)
    mix: dict[str, Any] = field(default_factory=dict)
    crowded: dict[str, int] = field(default_factory=dict)
    """Paths whose records have too many names to be sources: path -> how many."""
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    overlaps: list[dict[str, Any]] = field(default_factory=list)
    overlaps_found: int = 0

    def add(self, facts: ChunkFacts) -> None:
        self.read += facts.read
        self.characters += facts.characters
        self.contaminated += facts.contaminated
        for name in ("rejected", "rejected_characters", "edited", "taken_out"):
            getattr(self, name).update(getattr(facts, name))
        for rule, examples in facts.examples.items():
            shown = self.examples.setdefault(rule, [])
            shown += examples[: max(0, EXAMPLES - len(shown))]
        self.overlaps_found += len(facts.overlaps)
        self.overlaps += facts.overlaps[: max(0, MOST_OVERLAPS - len(self.overlaps))]

    def add_duplicates(
        self, found: Found, chunks: Sequence[ChunkFile], duplicates: Duplicates
    ) -> None:
        self.exact, self.near = found.exact, found.near
        for chunk in chunks:
            self.kept_characters += int(chunk.arrays("characters")[0].sum())
        for dropped, kept, alike in found.near_pairs[:EXAMPLES]:
            self.examples.setdefault("near-duplicate", []).append(
                {
                    "similarity": round(alike, 3),
                    "before": _text_at(chunks, duplicates, dropped),
                    "after": _text_at(chunks, duplicates, kept),
                }
            )

    def add_edit(self, rule: str, source: str, before: str, after: str) -> None:
        """Counts a text that was changed after cleaning."""
        self.edited[rule] += 1
        self.taken_out[rule] += len(before) - len(after)
        shown = self.examples.setdefault(rule, [])
        if len(shown) < EXAMPLES:
            old, new = excerpt(before, after)
            shown.append({"source": source, "before": old, "after": new})

    def settle(self, splitter: Splitter) -> None:
        """Takes over what was written, and makes sure that nothing is unaccounted for."""
        for counts in splitter.counts.values():
            self.train += counts.train - counts.repeated
            self.repeated += counts.repeated
            self.heldout += counts.heldout
            self.heldout_duplicates += counts.heldout_duplicates
        self.lengths = splitter.lengths
        assert self.read == self.accounted, f"{self.read} read, {self.accounted} accounted for"

    @property
    def accounted(self) -> int:
        gone = sum(self.rejected.values()) + sum(self.left_out.values()) + self.contaminated
        copies = self.exact + self.near + self.emptied + self.heldout_duplicates
        return gone + copies + self.train + self.heldout

    def to_json(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("examples", "overlaps")}

    @staticmethod
    def from_json(values: dict[str, Any]) -> Accounts:
        """From all of `vars()`, as JSON."""
        accounts = Accounts(**values)
        for name, value in vars(Accounts()).items():
            if isinstance(value, Counter):
                setattr(accounts, name, Counter(getattr(accounts, name)))
        return accounts


@dataclass
class Assembly:
    """The last step: the records that stay go to the corpus files, as often as the mix wants. Each
    round of repetitions goes through all chunks once; interrupted, it goes on at a chunk's end."""

    chunks: Sequence[ChunkFile]
    duplicates: Duplicates
    options: CorpusOptions
    seed: int
    stage: str

    def write(
        self,
        splitter: Splitter,
        accounts: Accounts,
        state: Path,
        mark: str,
        progress: Progress = silent,
    ) -> None:
        """Writes everything, and counts it in the accounts.

        Args:
            state: the file that remembers how far this came, for these inputs' `mark`.
        """
        plan = _Plan(self.chunks, self.duplicates, self.options.mix, self.seed, self.stage)
        splitter.names, accounts.crowded = crowded_origins(self.chunks)
        documents = KINDS[self.stage] == "document"
        split = Split(
            self.chunks, self.duplicates, self.options, plan.taken, splitter.name_of, documents
        )
        accounts.mix = {name: share.to_json() for name, share in plan.shares.items()}
        number, turn = 0, 0
        done = finished(state, mark)
        if splitter.restore(done and done["written"]):
            number, turn = done["next"]
            for name in _COUNTED:
                setattr(accounts, name, type(getattr(accounts, name))(done[name]))
        with progress("writing", plan.rounds * len(self.chunks)) as line:
            line.advance(turn * len(self.chunks) + number)
            while turn < plan.rounds:
                while number < len(self.chunks):
                    self._write_chunk(number, turn, plan, split, splitter, accounts)
                    number += 1
                    facts = {name: getattr(accounts, name) for name in _COUNTED}
                    facts |= {"next": [number, turn], "written": splitter.state()}
                    finish(state, mark, facts)
                    line.advance(1, f"{splitter.characters:,} characters")
                number, turn = 0, turn + 1

    def _write_chunk(
        self,
        number: int,
        turn: int,
        plan: _Plan,
        split: Split,
        splitter: Splitter,
        accounts: Accounts,
    ) -> None:
        """Writes the records of a chunk that are taken more than `turn` times."""
        chunk = self.chunks[number]
        dropped, spans = self.duplicates.of_chunk(number)
        categories, copies = plan.of_chunk(number, dropped)
        states = split.of_chunk(number)
        if turn == 0:
            names = [*plan.shares, OTHERS]
            for category in categories[(copies == 0) & (dropped == KEPT)].tolist():
                accounts.left_out[names[category]] += 1
        languages = chunk.arrays("languages")[0]
        with open(chunk.path("jsonl"), encoding="utf-8") as lines:
            for place, line in enumerate(lines):
                if copies[place] <= turn or (turn and states[place] != TRAIN):
                    continue
                record = json.loads(line)
                if place in spans:
                    whole = record["text"]
                    record["text"] = without_spans(whole, spans[place], self.duplicates.options)
                    if not record["text"].strip():
                        accounts.emptied += turn == 0
                        continue
                    if turn == 0:
                        accounts.add_edit(REPEATED, record["source"], whole, record["text"])
                    if folded_key(TextView(record["text"])) in split.keys:
                        states[place] = LEFT
                if states[place] == LEFT:
                    if turn == 0:
                        splitter.leave(record)
                    continue
                if turn == 0:
                    accounts.languages[LANGUAGES[languages[place]]] += 1
                side: SplitName = "heldout" if states[place] == HELDOUT else "train"
                splitter.write(record, side, again=turn > 0)


class _Plan:
    """How often each record is taken."""

    def __init__(
        self,
        chunks: Sequence[ChunkFile],
        duplicates: Duplicates,
        options: MixOptions,
        seed: int,
        stage: str,
    ):
        self.chunks, self.duplicates, self.seed = chunks, duplicates, seed
        self.others = options.others
        self.categories = categories_of(options, stage)
        self.shares = {}
        self.takings: list[Taking] = []
        if self.categories:
            total = options.total if stage == "pretrain" else None
            size = None if total is None else parse_quantity(total, "corpus.mix.total")
            sources = {source for chunk in chunks for source in chunk.facts().sources}
            self.shares = plan_mix(self.categories, self._available(), size, stage, sources)
            self.takings = takings(self.shares, self._keys_of)

    @property
    def rounds(self) -> int:
        """How often a record is taken at most; 1 or more."""
        return max([1, *(taking.most for taking in self.takings)])

    def taken(self, number: int) -> NDArray[np.bool_]:
        """Whether each record of a chunk is wanted at all."""
        return self.of_chunk(number, self.duplicates.of_chunk(number)[0])[1] > 0

    def of_chunk(
        self, number: int, dropped: NDArray[np.uint8]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The category of each record (-1: none), and how often it is taken."""
        stays = dropped == KEPT
        if not self.categories:
            return np.full(len(dropped), -1), stays.astype(np.int64)
        categories = self._categories_of_chunk(number)
        keys = self._keys_of_chunk(number, len(dropped))
        copies = np.where(categories < 0, int(self.others), 0)
        for place, taking in enumerate(self.takings):
            copies = np.where(categories == place, taking.copies(keys), copies)
        return categories, np.where(stays, copies, 0)

    def _available(self) -> dict[str, tuple[int, int]]:
        records: Counter[str] = Counter()
        characters: Counter[str] = Counter()
        for number, chunk in enumerate(self.chunks):
            (sizes,) = chunk.arrays("characters")
            stays = self.duplicates.of_chunk(number)[0] == KEPT
            categories = self._categories_of_chunk(number)
            for place, name in enumerate(self.categories):
                mine = stays & (categories == place)
                records[name] += int(mine.sum())
                characters[name] += int(sizes[mine].sum())
        return {name: (records[name], characters[name]) for name in self.categories}

    def _categories_of_chunk(self, number: int) -> NDArray[np.int64]:
        chunk = self.chunks[number]
        sources, languages = chunk.arrays("sources", "languages")
        table = category_table(self.categories, chunk.facts().sources)
        if not len(table):
            return np.zeros(0, dtype=np.int64)
        return table[sources, languages].astype(np.int64)

    def _keys_of(self, category: int) -> Iterator[NDArray[np.uint64]]:
        for number in range(len(self.chunks)):
            stays = self.duplicates.of_chunk(number)[0] == KEPT
            mine = stays & (self._categories_of_chunk(number) == category)
            yield self._keys_of_chunk(number, len(mine))[mine]

    def _keys_of_chunk(self, number: int, count: int) -> NDArray[np.uint64]:
        return record_keys(int(self.duplicates.starts[number]), count, self.seed)


def _text_at(chunks: Sequence[ChunkFile], duplicates: Duplicates, record: int) -> str:
    """The beginning of a record's text."""
    number = int(np.searchsorted(duplicates.starts, record, side="right")) - 1
    place = record - int(duplicates.starts[number])
    with open(chunks[number].path("jsonl"), encoding="utf-8") as lines:
        for at, line in enumerate(lines):
            if at == place:
                return json.loads(line).get("text", "")[:SHOWN]
    return ""
