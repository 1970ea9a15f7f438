"""The corpus stage: your files, or the built-in corpus, to train and held-out records on disk."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from miao.corpus.formats import RecordCounts, read_records
from miao.corpus.readers import Problem, find_files
from miao.corpus.records import Conversation, Document, Kind, Preference, Record
from miao.corpus.seedbed import Seedbed
from miao.errors import MiaoError
from miao.files import atomic_directory, write_json, write_jsonl
from miao.recipe import CorpusOptions, Recipe

KINDS: dict[str, Kind] = {"pretrain": "document", "sft": "conversation", "dpo": "preference"}
MAX_SOURCES = 24
"""More sources than this in one corpus count as one per path."""


@dataclass
class SourceCounts:
    """What a source gave."""

    train: int = 0
    heldout: int = 0
    heldout_duplicates: int = 0
    """Left out of training because the same text is held out."""
    characters: int = 0


@dataclass
class CorpusReport:
    """What the corpus stage did, per stage of training; `corpus/manifest.json`."""

    origin: dict[str, str] = field(default_factory=dict)
    sources: dict[str, dict[str, SourceCounts]] = field(default_factory=dict)
    problems: int = 0
    skipped_files: list[str] = field(default_factory=list)
    shapes: dict[str, dict[str, int]] = field(default_factory=dict)


def build_corpus(
    options: CorpusOptions,
    seed: int,
    directory: Path,
    advance: Callable[[int], None] = lambda records: None,
) -> CorpusReport:
    """Writes `<stage>/<train|heldout>/<source>.jsonl` and `manifest.json`.

    The split is by a hash of the content, so equal texts never stand on both sides.

    Raises:
        MiaoError: unreadable input (strict, unless `skip_bad_records`), or nothing found.
    """
    report = CorpusReport()
    seedbed = Seedbed(options.seedbed, seed)
    given = {
        "pretrain": options.paths,
        "sft": options.conversations,
        "dpo": options.preferences,
    }
    with atomic_directory(directory) as temporary:
        problems = _ProblemLog(temporary / "problems.jsonl", options.skip_bad_records)
        for stage, kind in KINDS.items():
            counts = RecordCounts()
            report.origin[stage] = "files" if given[stage] else "seedbed"
            records: Iterable[Record]
            if given[stage]:
                records = read_records(given[stage], kind, problems.note, counts)
            else:
                records = seedbed.records(kind)
            split = _Splitter(temporary / stage, options)
            report.sources[stage] = split.write(records, advance)
            report.shapes[stage] = dict(counts.by_shape)
            report.skipped_files += [f"{path}: {why}" for path, why in counts.skipped_files]
        report.problems = problems.count
        write_json(temporary / "manifest.json", _as_json(report))
    return report


def input_fingerprint(options: CorpusOptions) -> list[list[Any]]:
    """Path, size and modification time of every input file: what the corpus depends on."""
    stamps = []
    for paths in (options.paths, options.conversations, options.preferences):
        for file in find_files(paths) if paths else []:
            stat = file.stat()
            stamps.append([str(file), stat.st_size, stat.st_mtime_ns])
    return stamps


def read_back(path: Path, kind: Kind) -> Iterator[Any]:
    """The records of a file that the corpus stage wrote."""
    return read_records([path], kind)


class _ProblemLog:
    """Writes down every record that was passed over; strict: the first one ends the stage."""

    def __init__(self, path: Path, skip: bool):
        self.path, self.skip, self.count = path, skip, 0

    def note(self, problem: Problem) -> None:
        if not self.skip:
            error = problem.error()
            more = "or count and skip such records with --corpus.skip_bad_records true"
            raise MiaoError(error.what, where=error.where, fix=f"{error.fix or 'mend it'}, {more}")
        self.count += 1
        line = {"path": str(problem.path), "line": problem.line, "reason": problem.reason}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


class _Splitter:
    """Writes records to train/ and heldout/, one file per source."""

    def __init__(self, directory: Path, options: CorpusOptions):
        self.directory, self.options = directory, options
        self.counts: dict[str, SourceCounts] = defaultdict(SourceCounts)
        self.heldout: set[bytes] = set()
        self.files: dict[Path, IO[str]] = {}

    def write(
        self, records: Iterable[Record], advance: Callable[[int], None]
    ) -> dict[str, SourceCounts]:
        with ExitStack() as stack:
            for record in records:
                self._write_one(record, stack)
                advance(1)
        if not any(count.train for count in self.counts.values()):
            raise MiaoError(
                "no record is left to train on", fix="bring more text, or lower --corpus.heldout"
            )
        return dict(self.counts)

    def _write_one(self, record: Record, stack: ExitStack) -> None:
        content = record.to_json()
        source = self._source(content.pop("source"), record)
        text = json.dumps(content, ensure_ascii=False, sort_keys=True)
        digest = hashlib.sha256(text.encode()).digest()
        counts = self.counts[source]
        split = "train"
        if int.from_bytes(digest[:8], "big") < self.options.heldout * 2**64:
            if digest in self.heldout:
                counts.heldout_duplicates += 1
                return
            if counts.heldout < self.options.heldout_max:
                self.heldout.add(digest)
                split = "heldout"
        if split == "train":
            counts.train += 1
        else:
            counts.heldout += 1
        counts.characters += _characters(record)
        file = self._file(self.directory / split / f"{source}.jsonl", stack)
        file.write(json.dumps(record.to_json(), ensure_ascii=False) + "\n")

    def _source(self, name: str, record: Record) -> str:
        """Only documents are weighted by source; a file name made of the source's name."""
        if not isinstance(record, Document):
            return "conversations" if isinstance(record, Conversation) else "preferences"
        clean = re.sub(r"[^\w.\-]+", "_", name).strip("._")[:64] or "documents"
        if clean not in self.counts and len(self.counts) >= MAX_SOURCES:
            return "others"
        return clean

    def _file(self, path: Path, stack: ExitStack) -> IO[str]:
        if path not in self.files:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.files[path] = stack.enter_context(path.open("w", encoding="utf-8"))
        return self.files[path]


def write_eval_items(recipe: Recipe, origin: dict[str, str], directory: Path) -> None:
    """The built-in questions, for those kinds of record that are the built-in ones, as
    `choice.jsonl`, `questions.jsonl` and `preferences.jsonl`."""
    options = recipe.evaluate
    seedbed = Seedbed(recipe.corpus.seedbed, recipe.seed)
    items: dict[str, list[Any]] = {}
    if origin["pretrain"] == "seedbed":
        items["choice"] = seedbed.choice_items(options.choice_items)
    if origin["sft"] == "seedbed":
        items["questions"] = seedbed.question_items(options.question_items)
    if origin["dpo"] == "seedbed":
        items["preferences"] = seedbed.heldout_preferences(options.preference_pairs)
    with atomic_directory(directory) as temporary:
        for name, records in items.items():
            write_jsonl(temporary / f"{name}.jsonl", (record.to_json() for record in records))


def _characters(record: Record) -> int:
    if isinstance(record, Document):
        return len(record.text)
    if isinstance(record, Preference):
        messages = record.prompt + record.chosen + record.rejected
    else:
        messages = record.messages
    return sum(len(message.content) for message in messages)


def _as_json(report: CorpusReport) -> dict[str, Any]:
    totals: Counter[str] = Counter()
    for stage, sources in report.sources.items():
        for counts in sources.values():
            totals[stage] += counts.train + counts.heldout + counts.heldout_duplicates
    return {
        "records": dict(totals),
        "origin": report.origin,
        "sources": {
            stage: {name: vars(counts) for name, counts in sorted(sources.items())}
            for stage, sources in report.sources.items()
        },
        "shapes": report.shapes,
        "problems": report.problems,
        "skipped_files": report.skipped_files,
    }
