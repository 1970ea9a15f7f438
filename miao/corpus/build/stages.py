"""One stage of the corpus, from the user's files or the built-in corpus to its files on disk.

Reading and cleaning, finding duplicates, mixing and writing: each step that is done is not done
again after an interruption, and within each step what was finished is kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from miao import __version__
from miao.console import warn
from miao.corpus.build.assemble import Accounts, Assembly
from miao.corpus.build.cleaning import clean_chunks
from miao.corpus.build.output import BUILT_IN, Output, Splitter
from miao.corpus.build.split import ContentSplit
from miao.corpus.build.timing import Timing
from miao.corpus.clean.classifier import FACTS
from miao.corpus.clean.columns import Columns
from miao.corpus.clean.own import file_of
from miao.corpus.dedup.chunks import ChunkFacts, ChunkFile
from miao.corpus.dedup.duplicates import Duplicates
from miao.corpus.read.formats import Reading, RecordCounts, convert_file, read_records
from miao.corpus.read.problems import Problem
from miao.corpus.read.sources import find_files, find_sources, is_unseen
from miao.corpus.records import KINDS, REPLAYED, Document, Kind, Record
from miao.corpus.seedbed import Seedbed
from miao.corpus.steps import Line, Progress, finish, finished
from miao.errors import MiaoError
from miao.files import at_home, fingerprint
from miao.recipe import CorpusOptions, Recipe

SETTINGS = (
    *("clean", "dedup", "contamination", "mix", "heldout", "heldout_max", "skip_bad_records"),
    *("columns", "encoding"),
)
"""Options that the records of the user's own files depend on."""
AFTER_CLEANING = ("exact", "near_threshold", "keep", "prefer", "across_sources")
"""Options of `dedup` that cleaning knows nothing of."""


@dataclass(frozen=True)
class Stage:
    """A stage and its workplace: `chunks/` and `duplicates/` while it is made, `out/` with its
    files, and `done.json` when they are all there."""

    stage: str
    options: CorpusOptions
    seed: int
    output: Output
    directory: Path
    timing: Timing
    progress: Progress

    @property
    def given(self) -> list[str]:
        """The user's paths; none: the built-in corpus."""
        return given_paths(self.options)[self.stage]

    @property
    def reading(self) -> Reading:
        return Reading(self.options.columns, self.options.encoding)

    @property
    def kind(self) -> Kind:
        return KINDS[self.stage]

    def result(self) -> dict[str, Any]:
        """What this stage did (JSON): `sources`, and of the user's files `read` and `accounts`."""
        done = self.directory / "done.json"
        inputs = self._own_inputs() if self.given else self._built_in_inputs()
        mark = fingerprint([inputs, self.seed, self.output])
        if finished(done, mark) is None:
            finish(done, mark, self._from_files(mark) if self.given else self._from_seedbed())
            for name in ("chunks", "duplicates"):
                shutil.rmtree(self.directory / name, ignore_errors=True)
        result: dict[str, Any] = finished(done, mark)  # as it is read after an interruption
        return result

    def _line(self, what: str, total: float) -> AbstractContextManager[Line]:
        return self.progress(f"{self.stage}: {what}", total)

    @property
    def mixes(self) -> bool:
        """Whether built-in records are written beside the user's."""
        return self.kind == "conversation" and self.options.mixes_built_in

    def _splitter(self, source: str | None = None) -> Splitter:
        return Splitter(self.directory / "out", self.kind, self.output, source)

    def _built_in_inputs(self) -> list[Any]:
        options = self.options
        built_in = [asdict(options.seedbed), options.tells_facts]
        return [__version__, *built_in, options.heldout, options.heldout_max]

    def _own_inputs(self) -> list[Any]:
        values = asdict(self.options)
        settings = {name: values[name] for name in SETTINGS}
        stamps = input_stamps(self.options, [self.stage])
        return [__version__, settings, stamps] + [self._built_in_inputs()] * self.mixes

    def _from_seedbed(self) -> dict[str, Any]:
        with self._splitter() as splitter:
            splitter.restore(None)
            return {"sources": self._write_built_in(splitter)}

    def _write_built_in(self, splitter: Splitter) -> dict[str, dict[str, int]]:
        seedbed = Seedbed(self.options.seedbed, self.seed, self.options.tells_facts)
        with self._line("writing", seedbed.size(self.kind)) as line:
            split = ContentSplit(self.options)
            for record in seedbed.records(self.kind):
                written = record.to_json()
                if side := split.of(written, splitter.name_of(record.source)):
                    splitter.write(written, side)
                else:
                    splitter.leave(written)
                line.advance(len(record.text) if isinstance(record, Document) else 1)
        return {name: vars(counts) for name, counts in splitter.finish().items()}

    def _from_files(self, mark: str) -> dict[str, Any]:
        chunks, read, accounts = self._clean()
        with self.timing.step(self.stage, "duplicates") as step:
            place, cleaned = self.directory / "duplicates", self._cleaning_inputs()
            duplicates = Duplicates(chunks, self.options.dedup, place, cleaned)
            accounts.add_duplicates(duplicates.find(self._line), chunks, duplicates)
            step.characters = accounts.kept_characters
        with self.timing.step(self.stage, "mix and write") as step, self._splitter() as splitter:
            assembly = Assembly(chunks, duplicates, self.options, self.seed, self.stage)
            assembly.write(splitter, accounts, self.directory / "written.json", mark, self._line)
            sources = splitter.finish()
            step.characters = accounts.kept_characters
        accounts.settle(splitter)
        beside = {}
        if self.mixes:
            with self._splitter(BUILT_IN) as splitter:
                beside = self._write_built_in(splitter)
        return {
            "sources": {name: vars(counts) for name, counts in sources.items()} | beside,
            "read": read,
            "accounts": vars(accounts),
        }

    def _cleaning_inputs(self) -> list[Any]:
        version, settings, stamps = self._own_inputs()[:3]
        dedup = {k: v for k, v in settings["dedup"].items() if k not in AFTER_CLEANING}
        skip, clean = settings["skip_bad_records"], settings["clean"]
        how = [settings["columns"], settings["encoding"]]
        return [version, self.kind, clean, settings["contamination"], dedup, skip, how, stamps]

    def _clean(self) -> tuple[list[ChunkFile], dict[str, Any], Accounts]:
        """The chunks of clean records, what was read, and the accounts so far."""
        directory, inputs = self.directory / "chunks", self._cleaning_inputs()
        done, mark = directory / "done.json", fingerprint(inputs)
        result = finished(done, mark)
        if result is None:
            before, counts = ChunkFacts(), RecordCounts()
            problems = ProblemLog(self.directory / "problems.jsonl", self.options.skip_bad_records)
            size = sum(path.stat().st_size for path in find_files(self.given))
            with (
                self.timing.step(self.stage, "clean") as step,
                self._line("cleaning", size) as line,
            ):
                records = self._read(problems, counts, before)
                chunks = clean_chunks(records, self.options, directory, inputs, line)
                step.characters = sum(chunk.facts().characters for chunk in chunks)
            read = {
                "problems": problems.count,
                "skipped_files": [f"{path}: {why}" for path, why in counts.skipped_files],
                "shapes": counts.by_shape,
                "repairs": counts.repairs,
                "unread_keys": counts.unread,
                "columns": counts.columns.to_json(),
                "merged": counts.merged,
            }
            finish(done, mark, {"chunks": len(chunks), "read": read, "before": before.to_json()})
            result = finished(done, mark)
        chunks = [ChunkFile(directory, number) for number in range(result["chunks"])]
        accounts = Accounts()
        for facts in [ChunkFacts.from_json(result["before"]), *(one.facts() for one in chunks)]:
            accounts.add(facts)
        return chunks, result["read"], accounts

    def _read(
        self, problems: ProblemLog, counts: RecordCounts, before: ChunkFacts
    ) -> Iterable[Record]:
        columns = Columns(self.options.clean)
        if columns.wanted:
            return self._good_records(columns, problems, counts, before)
        records: Iterable[Record] = read_records(
            self.given, self.kind, problems.note, counts, self.reading
        )
        return records

    def _good_records(
        self, columns: Columns, problems: ProblemLog, counts: RecordCounts, before: ChunkFacts
    ) -> Iterator[Record]:
        """The records whose columns (a score, an address) are as they should be."""
        skipped = counts.skipped_files
        sources = find_sources(self.given, lambda path, why: skipped.append((path, why)))
        for path, source in sources:
            for record, shape, value in convert_file(
                path, self.kind, source, problems.note, counts, self.reading
            ):
                if rejected := columns.rejects(value):
                    rule, why = rejected
                    before.reject(record, rule, why)
                    continue
                counts.by_shape[shape] += 1
                yield record
        for line in counts.lines():
            warn(line)


def given_paths(options: CorpusOptions) -> dict[str, list[str]]:
    """The user's paths, per stage."""
    return {
        "pretrain": options.paths,
        "sft": options.conversations,
        "dpo": options.preferences,
    }


def used_kinds(recipe: Recipe) -> set[str]:
    """The kinds of record, by their stages, that some stage that is on learns from."""
    replayed = {
        earlier
        for stage, earlier in REPLAYED.items()
        if getattr(recipe, stage).enabled and getattr(recipe, stage).replay > 0
    }
    return replayed | {stage for stage in KINDS if getattr(recipe, stage).enabled}


def needed_kinds(recipe: Recipe) -> list[str]:
    """Those of which a corpus is made. The user's files of others make no demands; the built-in
    records cost nothing and are measured with. All of them, where nothing is to be trained."""
    used, given = used_kinds(recipe), given_paths(recipe.corpus)
    return [stage for stage in KINDS if not used or stage in used or not given[stage]]


def input_stamps(
    options: CorpusOptions, stages: Iterable[str] = tuple(KINDS)
) -> dict[str, list[Any]]:
    """Size, modification time and name of every input file: what these stages depend on."""
    stamps: dict[str, list[Any]] = {}
    given = given_paths(options)
    for paths in (*(given[stage] for stage in stages), options.contamination.paths):
        for file, name in find_sources(paths) if paths else []:
            stamps[str(file)] = [*_stamp(Path(file)), name]
    return stamps | {str(path): _stamp(path) for path in _side_files(options)}


def missing_inputs(options: CorpusOptions, stages: Iterable[str]) -> list[str]:
    """Those of the user's paths, for these stages, where nothing is that can be read."""
    given, missing = given_paths(options), []
    paths = [path for stage in stages for path in given[stage]]
    for path in [*paths, *options.contamination.paths]:
        try:
            if not is_unseen(path):
                find_files([path])
        except MiaoError:
            missing.append(path)
    return missing + [str(path) for path in _side_files(options) if not path.exists()]


def _side_files(options: CorpusOptions) -> list[Path]:
    """What the rules of cleaning are read from."""
    clean = options.clean
    lists = [at_home(path) for path in clean.blocklists + clean.blocked_domains]
    lists += [at_home(clean.classifier) / FACTS] if clean.classifier else []
    return [*lists, *map(file_of, clean.keep_functions + clean.edit_functions)]


def _stamp(file: Path) -> list[Any]:
    try:
        stat = file.stat()
    except OSError:  # whoever reads it says so
        return [None, None]
    return [stat.st_size, stat.st_mtime_ns]


class ProblemLog:
    """Writes down every record that was passed over; strict: the first one ends the stage."""

    def __init__(self, path: Path, skip: bool):
        self.path, self.skip, self.count = path, skip, 0
        path.unlink(missing_ok=True)

    def note(self, problem: Problem) -> None:
        if not self.skip:
            error = problem.error()
            more = "or count and skip such records with --corpus.skip_bad_records true"
            raise MiaoError(error.what, where=error.where, fix=f"{error.fix or 'mend it'}, {more}")
        self.count += 1
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(problem.json_line())
