"""The corpus stage: your files, or the built-in corpus, to train and held-out records on disk."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from miao import __version__
from miao.corpus.assemble import Accounts, assemble
from miao.corpus.cleaning import clean_chunks
from miao.corpus.duplicates import Duplicates
from miao.corpus.formats import RecordCounts, convert_file, read_records
from miao.corpus.output import Output, SourceCounts, Splitter
from miao.corpus.problems import Problem
from miao.corpus.records import Kind, Record
from miao.corpus.seedbed import Seedbed
from miao.corpus.sources import find_files, find_sources
from miao.corpus.timing import Timing
from miao.errors import MiaoError
from miao.files import atomic_directory, sha256_of, write_json, write_jsonl
from miao.recipe import CorpusOptions, Recipe
from miao.recipe.cleaning import CleanOptions

KINDS: dict[str, Kind] = {"pretrain": "document", "sft": "conversation", "dpo": "preference"}


@dataclass
class CorpusReport:
    """What the corpus stage did, per stage of training; `corpus/manifest.json`."""

    origin: dict[str, str] = field(default_factory=dict)
    sources: dict[str, dict[str, SourceCounts]] = field(default_factory=dict)
    problems: int = 0
    skipped_files: list[str] = field(default_factory=list)
    shapes: dict[str, dict[str, int]] = field(default_factory=dict)
    repairs: dict[str, dict[str, int]] = field(default_factory=dict)
    """How often something was decoded otherwise than as plain UTF-8, or mended."""
    merged: dict[str, int] = field(default_factory=dict)
    """Labelled answers that became the second side of a pair: objects read are records, problems
    and these."""
    accounts: dict[str, Accounts] = field(default_factory=dict)
    """What became of the user's own records: every one of them is accounted for."""


def build_corpus(
    options: CorpusOptions,
    seed: int,
    directory: Path,
    advance: Callable[[int], None] = lambda records: None,
    stages: Iterable[str] = tuple(KINDS),
    output: Output = "jsonl",
) -> CorpusReport:
    """Writes `<stage>/<train|heldout>/<source>.jsonl` and `manifest.json`.

    Your own files are cleaned, deduplicated and mixed as the options say; the built-in corpus is
    taken as it is. The split is by a hash of the content, so equal texts never stand on both sides.
    What was cleaned before an interruption is not cleaned again.

    Raises:
        MiaoError: unreadable input (strict, unless `skip_bad_records`), or nothing found.
    """
    report = CorpusReport()
    seedbed = Seedbed(options.seedbed, seed)
    timing = Timing()
    work = directory.with_name(f".{directory.name}.work")
    with atomic_directory(directory) as temporary:
        problems = _ProblemLog(temporary / "problems.jsonl", options.skip_bad_records)
        for stage in stages:
            kind = KINDS[stage]
            given = given_paths(options)[stage]
            report.origin[stage] = "files" if given else "seedbed"
            with Splitter(temporary / stage, options, kind, output) as splitter:
                if given:
                    run = _OwnFiles(options, seed, stage, work / stage, timing)
                    counts, accounts = run.build(given, problems, splitter, advance)
                    report.shapes[stage] = dict(counts.by_shape)
                    report.repairs[stage] = dict(counts.repairs)
                    report.merged[stage] = counts.merged
                    report.skipped_files += [f"{path}: {why}" for path, why in counts.skipped_files]
                    report.accounts[stage] = accounts
                else:
                    for record in seedbed.records(kind):
                        splitter.write(record.to_json())
                        advance(1)
                    report.shapes[stage] = {}
                report.sources[stage] = splitter.finish()
            if stage in report.accounts:
                report.accounts[stage].settle(splitter)
        report.problems = problems.count
        for name in ("examples", "overlaps"):
            _write_details(temporary / f"{name}.json", name, report)
        write_json(temporary / "timing.json", timing.to_json())
        write_json(temporary / "manifest.json", _as_json(report, options, seed, temporary))
    shutil.rmtree(work, ignore_errors=True)
    return report


class _OwnFiles:
    """From the user's files to the records of one stage."""

    def __init__(self, options: CorpusOptions, seed: int, stage: str, work: Path, timing: Timing):
        self.options, self.seed, self.stage, self.timing = options, seed, stage, timing
        self.kind = KINDS[stage]
        self.work = work

    def build(
        self,
        paths: list[str],
        problems: _ProblemLog,
        splitter: Splitter,
        advance: Callable[[int], None],
    ) -> tuple[RecordCounts, Accounts]:
        options, counts = self.options, RecordCounts()
        accounts = Accounts()
        records: Iterable[Record]
        if options.clean.enabled and options.clean.quality_column:
            records = _good_records(paths, self.kind, options.clean, problems, counts, accounts)
        else:
            records = read_records(paths, self.kind, problems.note, counts)
        settings = asdict(options) | {"workers": None, "weights": {}}
        inputs = [__version__, settings, input_fingerprint(options)]
        inputs = json.loads(json.dumps(inputs))  # as it will be read again
        with self.timing.step(self.stage, "clean") as step:
            chunks = clean_chunks(records, options, self.work / "chunks", inputs, advance)
        for chunk in chunks:
            accounts.add(chunk.facts())
        step.characters = accounts.characters
        with self.timing.step(self.stage, "duplicates") as step:
            duplicates = Duplicates(chunks, options.dedup, self.work / "duplicates")
            accounts.add_duplicates(duplicates.find(), chunks, duplicates)
        step.characters = accounts.kept_characters
        with self.timing.step(self.stage, "mix and write") as step:
            assemble(chunks, duplicates, options.mix, self.seed, self.stage, splitter, accounts)
        step.characters = accounts.kept_characters
        return counts, accounts


def given_paths(options: CorpusOptions) -> dict[str, list[str]]:
    """The user's paths, per stage."""
    return {
        "pretrain": options.paths,
        "sft": options.conversations,
        "dpo": options.preferences,
    }


def input_fingerprint(options: CorpusOptions) -> list[list[Any]]:
    """Path, size and modification time of every input file: what the corpus depends on."""
    stamps = []
    for paths in (*given_paths(options).values(), options.contamination.paths):
        for file in find_files(paths) if paths else []:
            stamps.append(_stamp(Path(file)))
    return stamps + [_stamp(Path(p).expanduser()) for p in options.clean.blocklists]


def _stamp(file: Path) -> list[Any]:
    try:
        stat = file.stat()
    except OSError:  # whoever reads it says so
        return [str(file), None, None]
    return [str(file), stat.st_size, stat.st_mtime_ns]


def read_back(path: Path, kind: Kind) -> Iterator[Any]:
    """The records of a file that the corpus stage wrote."""
    return read_records([path], kind)


def _good_records(
    paths: list[str],
    kind: Kind,
    options: CleanOptions,
    problems: _ProblemLog,
    counts: RecordCounts,
    accounts: Accounts,
) -> Iterator[Record]:
    """The records whose score in the quality column is high enough; no record keeps the column."""
    column = options.quality_column
    sources = find_sources(paths, lambda path, why: counts.skipped_files.append((path, why)))
    for path, source in sources:
        for record, shape, value in convert_file(path, kind, source, problems.note, counts):
            score = value.get(column) if isinstance(value, dict) else None
            if _number(score) >= options.min_quality:
                counts.by_shape[shape] += 1
                yield record
            else:
                accounts.reject_before("quality", record, f"{column} is {score!r}")


def _number(score: Any) -> float:
    try:
        return float("-inf") if score is None or isinstance(score, bool) else float(score)
    except (TypeError, ValueError):
        return float("-inf")


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
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(problem.json_line())


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


def _write_details(path: Path, name: str, report: CorpusReport) -> None:
    """Examples, or overlaps with evaluation sets, where there are any."""
    details = {stage: getattr(accounts, name) for stage, accounts in report.accounts.items()}
    if any(details.values()):
        write_json(path, details)


def _as_json(
    report: CorpusReport, options: CorpusOptions, seed: int, directory: Path
) -> dict[str, Any]:
    totals: Counter[str] = Counter()
    for stage, sources in report.sources.items():
        for counts in sources.values():
            totals[stage] += counts.train + counts.heldout + counts.heldout_duplicates
    files = sorted(p for p in directory.glob("*/*/*") if p.suffix in (".jsonl", ".parquet"))
    return {
        "records": dict(totals),
        "origin": report.origin,
        "sources": {
            stage: {name: vars(counts) for name, counts in sorted(sources.items())}
            for stage, sources in report.sources.items()
        },
        "shapes": report.shapes,
        "repairs": report.repairs,
        "merged": report.merged,
        "problems": report.problems,
        "skipped_files": report.skipped_files,
        "accounts": {stage: accounts.to_json() for stage, accounts in report.accounts.items()},
        "sha256": {p.relative_to(directory).as_posix(): sha256_of(p) for p in files},
        "options": asdict(options) | {"seed": seed},
    }
