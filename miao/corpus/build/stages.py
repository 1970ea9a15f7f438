"""One stage of the corpus, from the user's files to those of the corpus: the phases that make it,
and what each of their tasks does, in whatever process on whatever machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from miao import __version__
from miao.corpus.build.assemble import Accounts, Assembly
from miao.corpus.build.built_in import write_built_in
from miao.corpus.build.cleaning import Cleaning, gather, read_of, summed
from miao.corpus.build.output import (
    BUILT_IN,
    Output,
    SourceCounts,
    crowded,
    require_parquet,
    require_some,
)
from miao.corpus.build.selection import Selection
from miao.corpus.clean.classifier import FACTS
from miao.corpus.dedup.chunks import ChunkFacts, Groups
from miao.corpus.dedup.duplicates import Duplicates, Found
from miao.corpus.folder import Folder
from miao.corpus.read.blocks import Part, cut_parts
from miao.corpus.read.formats import Item, Reading, RecordCounts
from miao.corpus.read.opened import Source
from miao.corpus.read.sources import find_files, find_sources, is_unseen
from miao.corpus.records import KINDS, REPLAYED, Kind
from miao.corpus.seedbed import Seedbed
from miao.corpus.steps import Phase, Progress, once, silent
from miao.errors import MiaoError
from miao.files import at_home, fingerprint
from miao.hubs.remote import RemoteFile
from miao.own_code import source_file
from miao.recipe import CorpusOptions, Recipe

SETTINGS = (
    *("clean", "dedup", "contamination", "mix", "heldout", "heldout_max", "skip_bad_records"),
    *("columns", "encoding"),
)
"""Options that the records of the user's own files depend on."""
AFTER_CLEANING = ("exact", "near_threshold", "keep", "prefer", "across_sources")
"""Options of `dedup` that cleaning knows nothing of."""


class Stage:
    """A stage and its workplace. Each task of each phase leaves its result there, and is not done
    again where that stands already, from the same inputs.

    Args:
        place: the workplace, a path or URL.
        out: where the files go, `train/NAME.jsonl`; default: `out` in the workplace.
    """

    def __init__(
        self,
        stage: str,
        options: CorpusOptions,
        seed: int,
        output: Output,
        place: str,
        out: str | None = None,
    ):
        self.stage, self.options, self.seed, self.output = stage, options, seed, output
        self.folder = Folder(place)
        self.out = Folder(out) if out else self.folder / "out"
        self.marks = self._marks()

    def __getstate__(self) -> dict[str, Any]:
        """Without what was found out in this process."""
        names = ("stage", "options", "seed", "output", "folder", "out", "marks")
        return {name: vars(self)[name] for name in names}

    @property
    def given(self) -> list[str]:
        """The user's paths; none: the built-in corpus."""
        return given_paths(self.options)[self.stage]

    @property
    def kind(self) -> Kind:
        return KINDS[self.stage]

    @property
    def mixes(self) -> bool:
        """Whether built-in records are written beside the user's."""
        return self.kind == "conversation" and self.options.mixes_built_in

    @cached_property
    def phases(self) -> dict[str, Phase]:
        """What is done, in order."""
        built_in = Phase("writing", "built-in", once, lambda task: self.write_built_in())
        if not self.given:
            return {built_in.name: built_in}
        assembly = self.assembly

        def join(task: int) -> str:
            return assembly.join(*self._settled["files"][task])

        def forget_segments(task: int) -> None:
            for segment in self._settled["files"][task][1]:
                assembly.folder.remove(segment)

        own = [
            Phase("finding the files", "parts", once, self._find_parts),
            Phase("cleaning", "clean", lambda: len(self.cleaning.parts), self._clean_part),
            Phase("putting together", "chunks", once, self._gather),
            *self.duplicates.phases(),
            *self.selection.phases(),
            Phase("writing", "write", self._writings, assembly.write),
            Phase("writing", "settle", once, self._settle),
            Phase("writing", "join", lambda: len(self._settled["files"]), join, forget_segments),
            *[built_in] * self.mixes,
        ]
        return {phase.name: phase for phase in own}

    def do(self, name: str, task: int) -> Any:
        """Does a task of a phase unless it is done; its result."""
        phase = self.phases[name]
        if (result := self.done(name, task)) is None:
            result = phase.run(task)
            self.note(name, task, result)
        phase.clear(task)
        return result

    def note(self, name: str, task: int, result: Any) -> None:
        """Writes down that a task is done."""
        noted = {"of": self._mark(name), "result": [result]}
        self.folder.note(f"done/{name}/{task:06d}.json", noted)

    def done(self, name: str, task: int) -> Any:
        """The result of a task (of one that has none, `[]`); None: it is not done."""
        return self._result(name, self.folder.read_json(f"done/{name}/{task:06d}.json"))

    def results(self, name: str, count: int | None = None) -> list[Any]:
        """Those of all tasks of a phase that is done."""
        count = self.phases[name].count() if count is None else count
        names = [f"done/{name}/{task:06d}.json" for task in range(count)]
        return [self._result(name, noted) for noted in self.folder.read_many(names)]

    def _result(self, name: str, noted: Any) -> Any:
        if not isinstance(noted, dict) or noted.get("of") != self._mark(name):
            return None
        (result,) = noted["result"]
        return [] if result is None else result

    def _mark(self, name: str) -> str:
        """Of what the results of a phase depend on."""
        if name in ("parts", "clean", "chunks") or name.startswith("block-"):
            return self.marks["clean"]
        same = {phase.name for phase in self.duplicates.phases()}
        return self.marks["duplicates" if name in same else "all"]

    def _marks(self) -> dict[str, str]:
        values = asdict(self.options)
        settings = {name: values[name] for name in SETTINGS}
        stamps = input_stamps(self.options, [self.stage])
        dedup = {k: v for k, v in settings["dedup"].items() if k not in AFTER_CLEANING}
        names = ("clean", "contamination", "skip_bad_records", "columns", "encoding")
        how = [settings[name] for name in names]
        cleaning = [__version__, self.kind, how, dedup, stamps]
        options, built_in = self.options, self.mixes or not self.given
        seedbed = [asdict(options.seedbed), options.tells_facts] if built_in else []
        held = [options.heldout, options.heldout_max]
        own = [settings, stamps] if self.given else []
        return {
            "clean": fingerprint(cleaning),
            "duplicates": fingerprint([cleaning, settings["dedup"]]),
            "all": fingerprint([__version__, own, seedbed, held, self.seed, self.output]),
        }

    # Rooms of the workplace, each known once the phases before it are done.

    @cached_property
    def cleaning(self) -> Cleaning:
        parts = [Part.from_json(part) for part in self.done("parts", 0)["parts"]]
        return Cleaning(parts, self.kind, self.options, self.folder / "chunks")

    @cached_property
    def groups(self) -> Groups:
        return Groups(self.folder / "chunks")

    @cached_property
    def duplicates(self) -> Duplicates:
        return Duplicates(self.groups, self.options.dedup, self.folder / "duplicates")

    @cached_property
    def selection(self) -> Selection:
        place = self.folder / "selection"
        return Selection(
            self.groups, self.duplicates, self.options, self.seed, self.stage, place, self.crowded
        )

    @cached_property
    def assembly(self) -> Assembly:
        place = self.folder / "written"
        return Assembly(self.selection, self.kind, self.output, place, self.out)

    def crowded(self) -> dict[str, int]:
        """The paths whose records have too many names of their own to be sources, and how many."""
        return self._crowded

    @cached_property
    def _crowded(self) -> dict[str, int]:
        origins = self.done("chunks", 0)["origins"]
        return crowded(origins)

    @cached_property
    def _settled(self) -> dict[str, Any]:
        settled: dict[str, Any] = self.done("settle", 0)
        return settled

    # What tasks do.

    def _find_parts(self, task: int) -> dict[str, Any]:
        if self.output == "parquet":
            require_parquet()
        skipped: list[str] = []
        files = find_sources(self.given, lambda path, why: skipped.append(f"{path}: {why}"))
        reading = Reading(self.options.columns, self.options.encoding)
        parts = cut_parts(files, self.kind, reading)
        return {"parts": [part.to_json() for part in parts], "skipped": skipped}

    def _clean_part(self, part: int) -> dict[str, Any]:
        if not self.cleaning.parts[part].in_blocks:
            return {"block": self.cleaning.whole(part)}
        counts, count = RecordCounts(), 0
        for number, items in enumerate(self.cleaning.blocks(part, counts)):
            self.clean_block(part, number, items)
            count += 1
        return read_of(counts, count)

    def clean_block(self, part: int, number: int, items: list[Item]) -> None:
        """Cleans a block of a part, unless that is done."""
        if self.done(f"block-{part:06d}", number) is None:
            result = self.cleaning.block(part, number, items)
            self.note(f"block-{part:06d}", number, result)

    def _gather(self, task: int) -> dict[str, Any]:
        with self.folder.write("problems.jsonl") as file:
            return gather(self.cleaning, self._blocks(), file)

    def _blocks(self) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        for part, result in enumerate(self.results("clean")):
            if "block" in result:
                yield part, [result["block"]]
                continue
            blocks = self.results(f"block-{part:06d}", result["blocks"])
            for name in ("counts", "repaired"):
                if blocks:  # what was mended in reading counts with the first one
                    blocks[0][name] = summed(blocks[0][name], result[name])
            yield part, blocks

    def _writings(self) -> int:
        return self.selection.rounds * self.groups.count

    def _settle(self, task: int) -> dict[str, Any]:
        """Everything that is known of the stage; and the files to be made."""
        made, found, accounts = self.done("chunks", 0), Found(), Accounts()
        accounts.add(ChunkFacts.from_json(made["facts"]))
        accounts.kept_characters = made["characters"]
        for phase in self.duplicates.phases():
            for result in self.results(phase.name):
                found.add(result or {})
        accounts.add_duplicates(found, self.groups)
        accounts.mix = {name: share.to_json() for name, share in self.selection.shares.items()}
        accounts.crowded = self.crowded()
        written = self.results("write")
        sources: dict[str, SourceCounts] = {}
        for result in written:
            accounts.add_written(result)
            for name, counts in result["counts"].items():
                sources.setdefault(name, SourceCounts()).add(SourceCounts(**counts))
        require_some(sources.values())
        lengths = [sum(column) for column in zip(*(r["lengths"] for r in written), strict=True)]
        accounts.settle(sources.values(), lengths)
        skipped = self.done("parts", 0)["skipped"]
        return {
            "files": self.assembly.plan(written),
            "sources": {name: vars(counts) for name, counts in sources.items()},
            "read": {**made["read"], "skipped_files": skipped},
            "accounts": vars(accounts),
        }

    def result(self) -> dict[str, Any]:
        """What the stage did, when all its phases are done: `sources`, `read`, `accounts`, and the
        SHA-256 of each file, `sha256`."""
        beside: dict[str, Any] = {"sources": {}, "sha256": {}}
        if "built-in" in self.phases:
            beside = self.done("built-in", 0)
        if not self.given:
            return beside
        files = [name for name, _ in self._settled["files"]]
        digests = dict(zip(files, self.results("join"), strict=True)) | beside["sha256"]
        kept = {name: self._settled[name] for name in ("read", "accounts")}
        sources = self._settled["sources"] | beside["sources"]
        return {**kept, "sources": sources, "sha256": digests}

    def write_built_in(self, progress: Progress = silent) -> dict[str, Any]:
        """The records of the built-in corpus, alone or beside the user's."""
        seedbed = Seedbed(self.options.seedbed, self.seed, self.options.tells_facts)
        with progress(f"{self.stage}: writing", seedbed.size(self.kind)) as line:
            return write_built_in(
                seedbed,
                self.kind,
                self.options,
                self.output,
                self.folder,
                self.out,
                line,
                BUILT_IN if self.mixes else None,
            )


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
            stamps[str(file)] = [*_stamp(file), name]
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
    own = map(source_file, clean.keep_functions + clean.edit_functions)
    return [*lists, *filter(None, own)]


def _stamp(file: Source) -> list[Any]:
    try:
        stat = file.stat()
    except OSError:  # whoever reads it says so
        return [None, None]
    return [stat.st_size, file.version if isinstance(file, RemoteFile) else stat.st_mtime_ns]
