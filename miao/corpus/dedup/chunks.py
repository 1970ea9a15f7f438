"""Chunks: some thousand records after cleaning, with the hashes that duplicates are found by.

Cleaning is the expensive part and needs no record to know of another. So it goes chunk by chunk,
in as many processes as there are, and each chunk is written whole: what is done stays done. The
memory needed is that of a few chunks, however large the input.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from miao.corpus.clean import Cleaner, Rejected
from miao.corpus.clean.columns import Columns
from miao.corpus.dedup.contamination import EvaluationIndex
from miao.corpus.dedup.minhash import FILL, PERMUTATIONS, SKETCH, signature, sketch
from miao.corpus.dedup.spans import spans_of
from miao.corpus.ngrams import TextView, folded_key, language_of, text_key
from miao.corpus.records import Document, Record, prompt_of, text_of
from miao.files import atomic_open, read_json, write_json
from miao.recipe import CorpusOptions

EXAMPLES = 4  # of each rule, per chunk
SHOWN = 240  # characters of an example
LANGUAGES = ("zh", "en", "other")


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
    """Cleans records one by one, and collects what a chunk file holds."""

    def __init__(self, options: CorpusOptions, tools: Tools | None = None):
        self.options = options
        self.tools = tools or Tools(options)
        self.facts = ChunkFacts()
        self.lines: list[str] = []
        self._keys: list[tuple[int, int]] = []
        self._facts: list[tuple[int, int, int]] = []  # characters, language, source
        self._signatures: list[Any] = []
        self._spans: list[Any] = []  # arrays of (key, record, span)
        self._splits: list[int] = []
        self._sketches: list[Any] = []
        self._sources: dict[tuple[str, str], int] = {}

    def add(self, record: Record) -> Record | None:
        """The cleaned record, or None when it goes."""
        facts = self.facts
        cleaned = self.tools.cleaner.clean(record)
        if isinstance(cleaned, Rejected):
            facts.reject(record, cleaned.rule, cleaned.detail)
            return None
        facts.read += 1
        facts.characters += len(text_of(record))
        if self.tools.index and (overlap := self.tools.index.overlap(cleaned.view)):
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
                return None
        for rule, (taken, before, after) in cleaned.edits.items():
            facts.edited[rule] += 1
            facts.taken_out[rule] += taken
            facts.add_example(rule, source=record.source, before=before, after=after)
        self._keep(cleaned.record, cleaned.view)
        return cleaned.record

    def _keep(self, record: Record, view: Any) -> None:
        dedup = self.options.dedup
        number = len(self.lines)
        content = record.to_json()
        self.lines.append(json.dumps(content, ensure_ascii=False))
        source = self._sources.setdefault((record.source, record.origin), len(self._sources))
        self._facts.append((len(view.text), LANGUAGES.index(language_of(view)), source))
        if isinstance(record, Document):
            self._keys.append(text_key(record.text))
        else:
            content.pop("source")
            self._keys.append(text_key(json.dumps(content, ensure_ascii=False, sort_keys=True)))
        enough = isinstance(record, Document) and len(view.tokens) >= dedup.near_min_tokens
        self._sketches.append(sketch(view, dedup.near_ngram) if enough else None)
        prompt = view if isinstance(record, Document) else TextView(prompt_of(record))
        self._splits.append(folded_key(prompt))
        if dedup.near:
            self._signatures.append(signature(view, dedup.near_ngram) if enough else None)
        if isinstance(record, Document):
            spans = spans_of(view, dedup)
            self._spans.append(np.insert(spans, 1, number, axis=1))
        self.facts.kept += 1

    def arrays(self) -> dict[str, Any]:
        """keys (n, 2), characters, languages, sources (n), signatures and whether there is one,
        splits (n): what is asked, sketches (n, SKETCH), spans (m): key, record in the chunk, span
        of the record."""
        columns = np.array(self._facts, dtype=np.int64).reshape(-1, 3)
        spans = np.concatenate([np.zeros((0, 3), dtype=np.uint64), *self._spans])
        made = [s is not None for s in self._signatures]
        empty = np.zeros(PERMUTATIONS, dtype=np.uint32)
        none = np.full(SKETCH, FILL)
        sketches = [none if s is None else s for s in self._sketches]
        signatures = [empty if s is None else s for s in self._signatures]
        return {
            "keys": np.array(self._keys, dtype=np.uint64).reshape(-1, 2),
            "characters": columns[:, 0],
            "languages": columns[:, 1].astype(np.uint8),
            "sources": columns[:, 2].astype(np.uint32),
            "signatures": np.array(signatures, dtype=np.uint32).reshape(-1, PERMUTATIONS),
            "has_signature": np.array(made, dtype=bool),
            "splits": np.array(self._splits, dtype=np.uint64),
            "sketches": np.array(sketches, dtype=np.uint32).reshape(-1, SKETCH),
            "spans": spans,
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
    """A chunk on disk: NNNNNN.jsonl, .npz, and .json, which is written last."""

    directory: Path
    number: int

    def path(self, suffix: str) -> Path:
        return self.directory / f"{self.number:06d}.{suffix}"

    @property
    def done(self) -> bool:
        return self.path("json").exists()

    def write(self, builder: ChunkBuilder) -> None:
        with atomic_open(self.path("jsonl")) as file:
            file.writelines(line + "\n" for line in builder.lines)
        with atomic_open(self.path("npz"), "wb") as file:
            save_arrays(file, builder.arrays())
        write_json(self.path("json"), builder.finish().to_json())

    def facts(self) -> ChunkFacts:
        return ChunkFacts.from_json(read_json(self.path("json")))

    def arrays(self, *names: str) -> list[Any]:
        with open(self.path("npz"), "rb") as file:
            return load_arrays(file, *names)


def save_arrays(file: IO[bytes], arrays: dict[str, Any]) -> None:
    np.savez(file, **arrays)


def load_arrays(file: IO[bytes], *names: str) -> list[Any]:
    """Only the arrays asked for are read."""
    with np.load(file, allow_pickle=False) as arrays:
        return [arrays[name] for name in names]
