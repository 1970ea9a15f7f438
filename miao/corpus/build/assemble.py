"""The last step: what stays of the chunks, as often as the mix wants it, to the corpus files."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from miao.corpus.build.mix import OTHERS
from miao.corpus.build.output import (
    OUTPUT_BYTES,
    Output,
    SourceCounts,
    SplitName,
    Splitter,
    characters_of,
    write_parquet,
)
from miao.corpus.build.selection import GONE, HELDOUT, LEFT, TRAIN, Selection
from miao.corpus.clean.cleaner import excerpt
from miao.corpus.dedup.chunks import LANGUAGES, SHOWN, ChunkFacts, Groups
from miao.corpus.dedup.duplicates import Found
from miao.corpus.dedup.spans import without_spans
from miao.corpus.folder import Folder
from miao.corpus.ngrams import TextView, folded_key
from miao.corpus.records import Kind
from miao.files import usual_mode

EXAMPLES = 8
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
        self._show(facts.examples)
        self.overlaps_found += facts.overlaps_found
        self.overlaps += facts.overlaps

    def _show(self, examples: dict[str, list[Any]]) -> None:
        for rule, found in examples.items():
            shown = self.examples.setdefault(rule, [])
            shown += found[: max(0, EXAMPLES - len(shown))]

    def add_duplicates(self, found: Found, groups: Groups) -> None:
        self.exact, self.near = found.exact, found.near
        for dropped, kept, alike in found.near_pairs:
            before, after = (
                json.loads(groups.line(record)).get("text", "")[:SHOWN]
                for record in (dropped, kept)
            )
            pair = {"similarity": round(alike, 3), "before": before, "after": after}
            self._show({"near-duplicate": [pair]})

    def add_written(self, written: dict[str, Any]) -> None:
        """Takes over what a task of writing counted."""
        for name in ("left_out", "languages", "edited", "taken_out"):
            getattr(self, name).update(written[name])
        self.emptied += written["emptied"]
        self._show(written["examples"])

    def add_edit(self, rule: str, source: str, before: str, after: str) -> None:
        """Counts a text that was changed after cleaning."""
        self.edited[rule] += 1
        self.taken_out[rule] += len(before) - len(after)
        shown = self.examples.setdefault(rule, [])
        if len(shown) < EXAMPLES:
            old, new = excerpt(before, after)
            shown.append({"source": source, "before": old, "after": new})

    def settle(self, counts: Iterable[SourceCounts], lengths: list[int]) -> None:
        """Takes over what was written, and makes sure that nothing is unaccounted for."""
        for count in counts:
            self.train += count.train - count.repeated
            self.repeated += count.repeated
            self.heldout += count.heldout
            self.heldout_duplicates += count.heldout_duplicates
        self.lengths = lengths
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


class Assembly:
    """The last phases: the records that stay go to the corpus files, as often as the mix wants. In
    each round of repetitions every group's records are written by a task of their own; what the
    tasks have written is then joined, in order, to files of some size.

    Args:
        folder: for what passes between the tasks.
        out: for the files, `train/NAME.jsonl`.
    """

    def __init__(
        self, selection: Selection, kind: Kind, output: Output, folder: Folder, out: Folder
    ):
        self.selection, self.groups = selection, selection.groups
        self.duplicates = selection.duplicates
        self.kind, self.output, self.folder, self.out = kind, output, folder, out

    def write(self, task: int) -> dict[str, Any]:
        """Writes the records of a group that are taken more than `turn` times; what it counted."""
        turn, group = divmod(task, self.groups.count)
        selection, counted = self.selection, Accounts()
        categories, copies = selection.copies(group)
        states, spans = selection.states(group), self.duplicates.spans(group)
        offset = self.groups.bounds(group)[0]
        if turn == 0:
            names = [*selection.shares, OTHERS]
            for category in categories[(copies == 0) & (categories != GONE)].tolist():
                counted.left_out[names[category]] += 1
        with self.folder.scratch() as directory, Splitter(directory) as splitter:
            for chunk, begin, end in self.groups.of(group):
                wanted = copies[begin - offset : end - offset] > turn
                if turn:
                    wanted &= states[begin - offset : end - offset] == TRAIN
                if not wanted.any():
                    continue
                facts = chunk.arrays("sources", "languages", "characters")
                sources, languages, sizes = (array.tolist() for array in facts)
                files = selection.files(chunk)
                for place, line in enumerate(chunk.lines()):
                    if not wanted[place]:
                        continue
                    record, state = begin + place, int(states[begin + place - offset])
                    name, size = files[sources[place]], sizes[place]
                    if record in spans:
                        edited = self._without(line, spans[record], counted)
                        if edited is None:
                            counted.emptied += turn == 0
                            continue
                        line, size, key = edited
                        state = LEFT if key in selection.heldout_keys else state
                    elif self.kind != "document":
                        size = characters_of(json.loads(line))
                    if state == LEFT:
                        if turn == 0:
                            splitter.leave(name)
                        continue
                    if turn == 0:
                        counted.languages[LANGUAGES[languages[place]]] += 1
                    side: SplitName = "heldout" if state == HELDOUT else "train"
                    splitter.write(line, name, side, size, again=turn > 0)
            splitter.close()
            written = {name: (directory / name).stat().st_size for name in sorted(splitter.names)}
            for name in written:
                self.folder.take(directory / name, f"{task:06d}/{name}")
        if turn:  # what was edited is counted once
            counted = Accounts()
        facts_of = {name: getattr(counted, name) for name in _COUNTED}
        counts = {name: vars(one) for name, one in splitter.counts.items()}
        return {**facts_of, "counts": counts, "lengths": splitter.lengths, "files": written}

    def _without(
        self, line: bytes, spans: list[int], counted: Accounts
    ) -> tuple[bytes, int, int] | None:
        """A record without the passages that stand in earlier ones, its characters, and the key of
        what is left; None: nothing is."""
        record = json.loads(line)
        whole = record["text"]
        record["text"] = without_spans(whole, spans, self.duplicates.options)
        if not record["text"].strip():
            return None
        counted.add_edit(REPEATED, record["source"], whole, record["text"])
        line = (json.dumps(record, ensure_ascii=False) + "\n").encode()
        return line, len(record["text"]), folded_key(TextView(record["text"]))

    def plan(self, written: Iterable[dict[str, Any]]) -> list[tuple[str, list[str]]]:
        """(name, its segments) of each file of the corpus, from what the tasks wrote, in order."""
        files: dict[str, list[list[str]]] = {}
        sizes: dict[str, int] = {}
        for task, result in enumerate(written):
            for name, size in result["files"].items():
                parts = files.setdefault(name, [[]])
                if parts[-1] and sizes[name] + size > OUTPUT_BYTES:
                    parts.append([])
                    sizes[name] = 0
                parts[-1].append(f"{task:06d}/{name}")
                sizes[name] = sizes.get(name, 0) + size
        planned = []
        for name, parts in sorted(files.items()):
            stem = name.removesuffix(".jsonl")
            for number, segments in enumerate(parts):
                many = f"-{number:05d}-of-{len(parts):05d}" if len(parts) > 1 else ""
                planned.append((f"{stem}{many}.{self.output}", segments))
        return planned

    def join(self, name: str, segments: list[str]) -> str:
        """Makes a file of the corpus; its SHA-256."""
        return join_segments(self.folder, segments, name, self.kind, self.folder, self.out)


def join_segments(
    place: Folder, segments: list[str], name: str, kind: Kind, folder: Folder, out: Folder
) -> str:
    """Makes one file (by its name: .jsonl or .parquet) in `out` of JSON lines; its SHA-256."""
    with folder.scratch() as directory:
        digest, joined = hashlib.sha256(), directory / "joined.jsonl"
        with open(joined, "wb") as whole:
            for segment in segments:
                with place.open(segment) as file:
                    while data := file.read(1 << 20):
                        digest.update(data)
                        whole.write(data)
        if name.endswith(".parquet"):
            made = directory / "joined.parquet"
            with open(made, "wb") as target:
                write_parquet(joined, kind, target)
            with open(made, "rb") as file:
                digest = hashlib.file_digest(file, "sha256")
            joined = made
        os.chmod(joined, usual_mode(0o666))
        out.take(joined, name)
    return digest.hexdigest()
