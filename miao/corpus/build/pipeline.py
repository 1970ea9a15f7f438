"""The corpus stage: your files, or the built-in corpus, to train and held-out records on disk."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from miao.corpus.build.assemble import Accounts
from miao.corpus.build.output import TEXT, Output, SourceCounts
from miao.corpus.build.own_text import write_talks
from miao.corpus.build.processes import stoppable
from miao.corpus.build.runner import run_here
from miao.corpus.build.stages import (
    Stage,
    given_paths,
    input_stamps,
    missing_inputs,
    needed_kinds,
    used_kinds,
)
from miao.corpus.build.timing import Timing
from miao.corpus.folder import Folder
from miao.corpus.records import KINDS
from miao.corpus.seedbed import Seedbed
from miao.corpus.steps import Progress, link, silent
from miao.files import (
    atomic_directory,
    full_disk_is_a_user_error,
    write_json,
    write_jsonl,
)
from miao.recipe import CorpusOptions, Recipe

__all__ = [
    "CorpusReport",
    "build_corpus",
    "given_paths",
    "input_stamps",
    "missing_inputs",
    "needed_kinds",
    "used_kinds",
    "write_eval_items",
]


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
    unread_keys: dict[str, dict[str, int]] = field(default_factory=dict)
    """Keys of turns that no record keeps, and of how many turns."""
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Per shape: its characters, and the columns that were not read."""
    merged: dict[str, int] = field(default_factory=dict)
    """Labelled answers that became the second side of a pair: objects read are records, problems
    and these."""
    accounts: dict[str, Accounts] = field(default_factory=dict)
    """What became of the user's own records: every one of them is accounted for."""

    sha256: dict[str, str] = field(default_factory=dict)
    """Of the files, `pretrain/train/wiki.jsonl`."""

    def add(self, stage: str, result: dict[str, Any]) -> None:
        """Takes over what a stage did."""
        self.origin[stage] = "files" if "read" in result else "seedbed"
        self.sha256 |= {f"{stage}/{name}": digest for name, digest in result["sha256"].items()}
        self.sources[stage] = {k: SourceCounts(**v) for k, v in result["sources"].items()}
        self.shapes[stage] = {}
        if "read" in result:
            read = result["read"]
            self.problems += read["problems"]
            self.skipped_files += read["skipped_files"]
            self.shapes[stage], self.repairs[stage] = read["shapes"], read["repairs"]
            self.merged[stage], self.unread_keys[stage] = read["merged"], read["unread_keys"]
            self.columns[stage] = read["columns"]
            self.accounts[stage] = Accounts.from_json(result["accounts"])

    def add_talks(self, made: dict[str, Any]) -> None:
        """Takes over the conversations that were made from the text."""
        self.sources["sft"][TEXT] = made["counts"]
        self.sha256 |= made["sha256"]


def build_corpus(
    options: CorpusOptions,
    seed: int,
    directory: Path,
    stages: Iterable[str] = tuple(KINDS),
    output: Output = "jsonl",
    progress: Progress = silent,
) -> CorpusReport:
    """Writes `<stage>/<train|heldout>/<source>.jsonl` and `manifest.json`.

    Your own files are cleaned, deduplicated and mixed as the options say; the built-in corpus is
    taken as it is. The split is by a hash of the content, so equal texts never stand on both sides.
    Interrupted anywhere, the same call goes on where it was, from `.NAME.work` beside the
    directory, and gives the same files.

    Raises:
        MiaoError: unreadable input (strict, unless `skip_bad_records`), or nothing found.
    """
    report = CorpusReport()
    work = directory.with_name(f".{directory.name}.work")
    timing = Timing(work / "timing.json")
    stages = list(stages)
    with full_disk_is_a_user_error(directory), stoppable():
        for stage in stages:
            place = Stage(stage, options, seed, output, str(work / stage))
            own = run_here(place, timing, progress)
            report.add(stage, json.loads(json.dumps(own)))  # as after an interruption
        with atomic_directory(directory) as temporary:
            for stage in stages:
                _link_files(work / stage, temporary, stage)
            if options.text_talks and options.paths and {"pretrain", "sft"} <= set(stages):
                report.add_talks(write_talks(temporary, options.text_talks, seed))
            write_report(Folder(str(temporary)), report, options, seed)
            write_json(temporary / "timing.json", timing.to_json())
    shutil.rmtree(work, ignore_errors=True)
    return report


def _link_files(place: Path, directory: Path, stage: str) -> None:
    """Puts what a stage wrote into the corpus; its problems follow those of earlier stages."""
    for path in sorted((place / "out").glob("*/*")):
        target = directory / stage / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        link(path, target)
    problems = place / "problems.jsonl"
    if problems.exists() and problems.stat().st_size:
        with open(directory / "problems.jsonl", "ab") as file, open(problems, "rb") as more:
            shutil.copyfileobj(more, file)


def write_report(folder: Folder, report: CorpusReport, options: CorpusOptions, seed: int) -> None:
    """Writes the manifest, examples, and overlaps with evaluation sets, where there are any."""
    for name in ("examples", "overlaps"):
        found = {stage: getattr(accounts, name) for stage, accounts in report.accounts.items()}
        if any(found.values()):
            folder.write_json(f"{name}.json", found)
    folder.write_json("manifest.json", _as_json(report, options, seed))


def write_eval_items(recipe: Recipe, origin: dict[str, str], directory: Path) -> None:
    """The built-in questions, for those kinds of record that are the built-in ones or hold them, as
    `choice.jsonl`, `questions.jsonl` and `preferences.jsonl`."""
    options = recipe.evaluate
    seedbed = Seedbed(recipe.corpus.seedbed, recipe.seed, recipe.corpus.tells_facts)
    items: dict[str, list[Any]] = {}
    if origin.get("pretrain") == "seedbed":
        items["choice"] = seedbed.choice_items(options.choice_items)
    if origin.get("sft") and recipe.corpus.talks_built_in:
        items["questions"] = seedbed.question_items(options.question_items)
    if origin.get("dpo") == "seedbed":
        items["preferences"] = seedbed.heldout_preferences(options.preference_pairs)
    with atomic_directory(directory) as temporary:
        for name, records in items.items():
            write_jsonl(temporary / f"{name}.jsonl", (record.to_json() for record in records))


def _as_json(report: CorpusReport, options: CorpusOptions, seed: int) -> dict[str, Any]:
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
        "repairs": report.repairs,
        "unread_keys": report.unread_keys,
        "columns": report.columns,
        "merged": report.merged,
        "problems": report.problems,
        "skipped_files": report.skipped_files,
        "accounts": {stage: accounts.to_json() for stage, accounts in report.accounts.items()},
        "sha256": dict(sorted(report.sha256.items())),
        "options": asdict(options) | {"seed": seed},
    }
