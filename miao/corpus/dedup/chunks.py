"""Chunks: some thousand records after cleaning, with the hashes that duplicates are found by.

Cleaning is the expensive part and needs no record to know of another. So it goes chunk by chunk,
in as many processes as there are, and each chunk is written whole: what is done stays done. The
memory needed is that of a few chunks, however large the input.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miao.corpus.clean import Cleaned, Cleaner, Rejected
from miao.corpus.clean.columns import Columns
from miao.corpus.dedup.contamination import EvaluationIndex
from miao.corpus.dedup.minhash import FILL, PERMUTATIONS, SKETCH, grams_of, signatures, sketches
from miao.corpus.dedup.shuffle import parts_for
from miao.corpus.dedup.spans import spans_of
from miao.corpus.folder import Folder
from miao.corpus.ngrams import TextView, folded_key, language_of, text_key
from miao.corpus.records import Document, Record, prompt_of, text_of
from miao.recipe import CorpusOptions

EXAMPLES = 4  # of each rule, per chunk
SHOWN = 240  # characters of an example
MOST_OVERLAPS = 200  # with evaluation sets, that are listed
LANGUAGES = ("zh", "en", "other")
TOGETHER = 50_000
"""Characters of records that are cleaned together: what is measured of them stays in the cache."""
_ENCODE = json.JSONEncoder(ensure_ascii=False).encode


@dataclass
class ChunkFacts:
    """What happened to the records of a chunk: read = rejected + contaminated + kept."""

    read: int = 0
    kept: int = 0
    characters: int = 0
    """Of all that was read."""
    rejected: Counter[str] = field(default_factory=Counter)
    rejected_characters: Counter[str] = field(default_factory=Counter)
    contaminated: int = 0
    edited: Counter[str] = field(default_factory=Counter)
    """Records that an edit changed."""
    taken_out: Counter[str] = field(default_factory=Counter)
    """Characters that an edit took out."""
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    overlaps: list[dict[str, Any]] = field(default_factory=list)
    overlaps_found: int = 0
    sources: list[str] = field(default_factory=list)
    """Names, by the number that the arrays hold."""
    origins: list[str] = field(default_factory=list)
    """Of each of those, the path that its records come from."""

    def to_json(self) -> dict[str, Any]:
        return vars(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> ChunkFacts:
        counted = ("rejected", "rejected_characters", "edited", "taken_out")
        given: dict[str, Any] = {k: Counter(v) if k in counted else v for k, v in values.items()}
        return ChunkFacts(**given)

    def add(self, other: ChunkFacts) -> None:
        """Takes over the counts and examples of another one; not the sources."""
        self.read += other.read
        self.kept += other.kept
        self.characters += other.characters
        self.contaminated += other.contaminated
        for name in ("rejected", "rejected_characters", "edited", "taken_out"):
            getattr(self, name).update(getattr(other, name))
        for rule, examples in other.examples.items():
            shown = self.examples.setdefault(rule, [])
            shown += examples[: max(0, 2 * EXAMPLES - len(shown))]
        self.overlaps_found += other.overlaps_found
        self.overlaps += other.overlaps[: max(0, MOST_OVERLAPS - len(self.overlaps))]

    def reject(self, record: Record, rule: str, why: str) -> None:
        """Counts a record that goes."""
        text = text_of(record)
        self.read += 1
        self.characters += len(text)
        self.rejected[rule] += 1
        self.rejected_characters[rule] += len(text)
        self.add_example(rule, source=record.source, why=why, text=text[:SHOWN])

    def add_example(self, rule: str, **example: Any) -> None:
        shown = self.examples.setdefault(rule, [])
        if len(shown) < EXAMPLES:
            shown.append(example)


class ChunkBuilder:
    """Cleans records, some of them together, and collects what a chunk file holds."""

    def __init__(self, options: CorpusOptions, tools: Tools | None = None):
        self.options = options
        self.tools = tools or Tools(options)
        self.facts = ChunkFacts()
        self.lines: list[str] = []
        self.read = 0
        """Characters of all records that were added and not passed over at once."""
        self._waiting: list[tuple[Record, tuple[str, str] | None]] = []
        self._together = 0  # characters of those
        self._keys: list[tuple[int, int]] = []
        self._facts: list[tuple[int, int, int]] = []  # characters, language, source
        self._made: list[bool] = []  # whether a record has a signature and a sketch
        self._signatures: list[Any] = []
        self._spans: list[Any] = []  # arrays of (key, record, span)
        self._splits: list[int] = []
        self._sketches: list[Any] = []
        self._sources: dict[tuple[str, str], int] = {}

    def add(self, record: Record, rejected: tuple[str, str] | None = None) -> None:
        """Takes a record, or counts it as one that goes: (rule, why)."""
        self._waiting.append((record, rejected))
        if not rejected:
            size = len(text_of(record))
            self.read += size
            self._together += size
            if self._together >= TOGETHER:
                self.settle()

    def is_full(self, characters: int, records: int) -> bool:
        """Whether so much was read, or so many are kept."""
        if len(self.lines) + len(self._waiting) >= records:
            self.settle()
        return self.read >= characters or len(self.lines) >= records

    def settle(self) -> None:
        """Cleans what was added."""
        waiting, self._waiting, self._together = self._waiting, [], 0
        wanted = [record for record, rejected in waiting if not rejected]
        found = iter(self.tools.cleaner.clean_all(wanted) if wanted else [])
        kept: list[Cleaned] = []
        for record, rejected in waiting:
            cleaned = Rejected(*rejected) if rejected else next(found)
            if isinstance(cleaned, Rejected):
                self.facts.reject(record, cleaned.rule, cleaned.detail)
            elif self._stays(record, cleaned):
                kept.append(cleaned)
        self._measure(kept)

    def _stays(self, record: Record, cleaned: Cleaned) -> bool:
        """Notes what was found in a record and changed, unless it goes for what it overlaps."""
        facts = self.facts
        facts.read += 1
        facts.characters += len(text_of(record))
        if self.tools.index and (overlap := self.tools.index.overlap(cleaned.view)):
            facts.overlaps_found += 1
            facts.overlaps.append(
                {
                    "source": record.source,
                    "evaluation": overlap.place,
                    "share": round(overlap.share, 3),
                    "question": overlap.text,
                    "record": cleaned.view.text[:SHOWN],
                }
            )
            if self.options.contamination.action == "reject":
                facts.contaminated += 1
                return False
        for rule, (taken, before, after) in cleaned.edits.items():
            facts.edited[rule] += 1
            facts.taken_out[rule] += taken
            facts.add_example(rule, source=record.source, before=before, after=after)
        self._keep(cleaned.record, cleaned.view)
        return True

    @property
    def characters(self) -> int:
        """Of all records that are kept."""
        return sum(size for size, _, _ in self._facts)

    def _keep(self, record: Record, view: TextView) -> None:
        number = len(self.lines)
        content = record.to_json()
        self.lines.append(_ENCODE(content))
        source = self._sources.setdefault((record.source, record.origin), len(self._sources))
        self._facts.append((len(view.text), LANGUAGES.index(language_of(view)), source))
        if isinstance(record, Document):
            self._keys.append(text_key(record.text))
            self._splits.append(folded_key(view))
            spans = spans_of(view, self.options.dedup)
            if spans.size:
                self._spans.append(np.insert(spans, 1, number, axis=1))
        else:
            content.pop("source")
            self._keys.append(text_key(json.dumps(content, ensure_ascii=False, sort_keys=True)))
            self._splits.append(folded_key(TextView(prompt_of(record))))
        self.facts.kept += 1

    def _measure(self, kept: list[Cleaned]) -> None:
        """Signatures and sketches of those that are documents with enough tokens."""
        dedup = self.options.dedup
        fewest = max(dedup.near_min_tokens, dedup.near_ngram)
        enough = [isinstance(c.record, Document) and len(c.view.tokens) >= fewest for c in kept]
        self._made += enough
        views = [cleaned.view for cleaned, made in zip(kept, enough, strict=True) if made]
        if not views:
            return
        grams, sizes = grams_of(views, dedup.near_ngram)
        self._sketches.append(sketches(grams, sizes))
        if dedup.near:
            self._signatures.append(signatures(grams, sizes))

    def arrays(self) -> dict[str, Any]:
        """keys (n, 2), characters, languages, sources (n), signatures and whether there is one,
        splits (n): what is asked, sketches (n, SKETCH), spans (m): key, record in the chunk, span
        of the record."""
        columns = np.array(self._facts, dtype=np.int64).reshape(-1, 3)
        made = np.array(self._made, dtype=bool)
        sketched = np.full((len(made), SKETCH), FILL)
        signed = np.zeros((len(made) if self.options.dedup.near else 0, PERMUTATIONS), np.uint32)
        for rows, found in ((sketched, self._sketches), (signed, self._signatures)):
            if found:
                rows[made] = np.concatenate(found)
        return {
            "keys": np.array(self._keys, dtype=np.uint64).reshape(-1, 2),
            "characters": columns[:, 0],
            "languages": columns[:, 1].astype(np.uint8),
            "sources": columns[:, 2].astype(np.uint32),
            "signatures": signed,
            "has_signature": made[: len(signed)],
            "splits": np.array(self._splits, dtype=np.uint64),
            "sketches": sketched,
            "spans": np.concatenate([np.zeros((0, 3), dtype=np.uint64), *self._spans]),
        }

    def finish(self) -> ChunkFacts:
        self.facts.sources = [source for source, _ in self._sources]
        self.facts.origins = [origin for _, origin in self._sources]
        return self.facts


class Tools:
    """What cleaning needs and is slow to make: once per process."""

    def __init__(self, options: CorpusOptions):
        self.cleaner = Cleaner(options.clean)
        self.columns = Columns(options.clean)
        paths = options.contamination.paths
        self.index = EvaluationIndex(options.contamination) if paths else None


@dataclass(frozen=True)
class ChunkFile:
    """A chunk in a folder: NAME.jsonl, .npz, and .json, which is written last."""

    folder: Folder
    name: str

    def write(self, builder: ChunkBuilder) -> None:
        builder.settle()
        with self.folder.write(f"{self.name}.jsonl") as file:
            file.writelines(f"{line}\n".encode() for line in builder.lines)
        with self.folder.write(f"{self.name}.npz") as file:
            np.savez(file, **builder.arrays())
        self.folder.write_json(f"{self.name}.json", builder.finish().to_json())

    def facts(self) -> ChunkFacts:
        return ChunkFacts.from_json(self.folder.read_json(f"{self.name}.json"))

    def lines(self) -> Iterator[bytes]:
        """Its records as JSON."""
        with self.folder.open(f"{self.name}.jsonl") as file:
            yield from file

    def arrays(self, *names: str) -> list[Any]:
        """Of `ChunkBuilder.arrays`; here only those are read."""
        place = f"{self.name}.npz"
        local = self.folder.is_local
        with np.load(
            self.folder.path(place) if local else io.BytesIO(self.folder.read(place)),
            allow_pickle=False,
        ) as arrays:
            return [arrays[name] for name in names]


GROUP_CHARACTERS = 32_000_000
"""What one task works on after cleaning."""


class Groups:
    """All chunks of a stage, numbered with their records in order, in groups: a task's worth.

    Args:
        folder: the chunks'; `groups.npz` there holds which there are.
    """

    def __init__(self, folder: Folder):
        self.folder = folder

    @staticmethod
    def write(
        folder: Folder, names: Sequence[str], kept: Sequence[int], size: Sequence[int]
    ) -> None:
        """Notes the chunks, in order, with the records and characters that each has kept."""
        sizes = np.array(size, dtype=np.int64)
        wanted = parts_for(int(sizes.sum()), GROUP_CHARACTERS)
        share = -(-int(sizes.sum()) // wanted) or 1
        group = (np.cumsum(sizes) - sizes) // share  # by where each chunk begins
        edges = np.flatnonzero(np.diff(group, prepend=-1, append=-1))
        with folder.write("groups.npz") as file:
            np.savez(
                file,
                names=np.array(names, dtype="S"),
                starts=np.concatenate([[0], np.cumsum(np.array(kept, dtype=np.int64))]),
                edges=edges if len(names) else np.zeros(1, dtype=np.int64),
            )

    @cached_property
    def _held(self) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
        with np.load(io.BytesIO(self.folder.read("groups.npz")), allow_pickle=False) as arrays:
            names = [name.decode() for name in arrays["names"].tolist()]
            return names, arrays["starts"].astype(np.int64), arrays["edges"].astype(np.int64)

    @property
    def total(self) -> int:
        """Records."""
        return int(self._held[1][-1])

    @property
    def count(self) -> int:
        return len(self._held[2]) - 1

    def bounds(self, group: int) -> tuple[int, int]:
        """The numbers of a group's first record, and of the one after its last."""
        _, starts, edges = self._held
        return int(starts[edges[group]]), int(starts[edges[group + 1]])

    def of(self, group: int) -> Iterator[tuple[ChunkFile, int, int]]:
        """The chunks of a group, each with the numbers of its first record, and after its last."""
        names, starts, edges = self._held
        for place in range(int(edges[group]), int(edges[group + 1])):
            yield ChunkFile(self.folder, names[place]), int(starts[place]), int(starts[place + 1])

    def owners(self, records: NDArray[Any]) -> NDArray[np.int64]:
        """The group of each record."""
        _, starts, edges = self._held
        inner = starts[edges[1:-1]]
        return np.searchsorted(inner, records.astype(np.int64), side="right").astype(np.int64)

    def line(self, record: int) -> bytes:
        """The JSON of a record."""
        names, starts, _ = self._held
        place = int(np.searchsorted(starts, record, side="right")) - 1
        lines = ChunkFile(self.folder, names[place]).lines()
        return next(islice(lines, record - int(starts[place]), None))
