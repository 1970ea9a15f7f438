"""What is recognised in files, what they hold, and what is wrong with them."""

from __future__ import annotations

import json
import random
import shlex
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

from miao.console import ProgressLine, count, headline, say, say_next, warn
from miao.corpus.clean.language import weighed_letters
from miao.corpus.read.accounting import UnreadColumns
from miao.corpus.read.formats import AS_IT_IS, Reading, RecordCounts, convert_file
from miao.corpus.read.kinds import sniff_kind
from miao.corpus.read.opened import format_of
from miao.corpus.read.problems import Problem, place
from miao.corpus.read.sources import find_sources
from miao.corpus.records import FIELDS, Document, Kind, Preference, Record, text_of
from miao.files import atomic_open

SHOWN_FILES = 40
FOLDED = 5
"""More files than this of one folder that are alike share a line."""
SHOWN_PATHS = 3
SHOWN_PROBLEMS = 20
SHOWN_CHARACTERS = 400
SAMPLE = 10_000
"""Lengths that are kept, drawn evenly from all, to tell the quantiles from."""


@dataclass
class Found:
    """What the records of one kind are like."""

    records: int = 0
    characters: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    lengths: list[int] = field(default_factory=list)
    samples: list[Record] = field(default_factory=list)
    """Three records, drawn evenly from all."""

    def add(self, record: Record, draw: random.Random) -> None:
        text = text_of(record)
        self.records += 1
        self.characters += len(text)
        self.languages[language_of(text)] += 1
        _keep(self.lengths, len(text), SAMPLE, self.records, draw)
        _keep(self.samples, record, 3, self.records, draw)

    def quantiles(self) -> dict[str, int]:
        ordered = sorted(self.lengths)
        places = {"shortest": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "longest": 1.0}
        return {name: ordered[round(at * (len(ordered) - 1))] for name, at in places.items()}


def _keep(kept: list[Any], value: Any, size: int, number: int, draw: random.Random) -> None:
    """Reservoir sampling: after `number` values each is kept with the same probability."""
    if len(kept) < size:
        kept.append(value)
    elif (at := draw.randrange(number)) < size:
        kept[at] = value


def language_of(text: str) -> str:
    """A coarse guess from the script: zh, en (Latin), ja, ko, ru, ..., mixed, or none."""
    found = weighed_letters(text[:2000])
    if not (total := found.total()):
        return "none"
    best, most = found.most_common(1)[0]
    return {"latin": "en (Latin)"}.get(best, best) if most > 0.6 * total else "mixed"


class Check:
    """One run over all files; memory does not grow with them."""

    def __init__(self, quarantine: Path, limit: int | None, reading: Reading = AS_IT_IS):
        self.quarantine, self.limit, self.reading = quarantine, limit, reading
        self.given: list[str] = []
        """What the user pointed at."""
        self.counts = RecordCounts()
        self.found: dict[Kind, Found] = {}
        self.files: list[dict[str, Any]] = []
        self.shown: list[Problem] = []
        self.refused = False
        """Whether of some file too much is not read to train on it."""
        self._draw = random.Random(0)
        self._stack = ExitStack()
        self._out: IO[str] | None = None

    def run(self, paths: list[str], kind: Kind | None) -> None:
        self.given = paths
        skipped = self.counts.skipped_files
        sources = find_sources(paths, lambda path, why: skipped.append((path, why)))
        with self._stack, ProgressLine("checking", len(sources)) as line:
            for path, source in sources:
                self._file(path, source, kind)
                line.advance(1, f"{sum(found.records for found in self.found.values()):,} records")

    def _file(self, path: Path, source: str, asked: Kind | None) -> None:
        kind = asked or sniff_kind(path, self.reading)
        counts, facts = RecordCounts(), Found()
        shapes: Counter[str] = Counter()

        def report(problem: Problem) -> None:
            counts.problems += 1
            self._problem(problem)

        records = convert_file(path, kind or "document", source, report, counts, self.reading)
        try:
            for record, shape, _ in islice(records, self.limit):
                shapes[shape] += 1
                facts.records += 1
                facts.characters += len(text_of(record))
                self.found.setdefault(kind or "document", Found()).add(record, self._draw)
        except UnreadColumns as error:
            report(Problem(path, 0, error.what, error.fix))
            self.refused = True
        for how, number in counts.repairs.items():
            self.counts.repairs[how] += number
            self.counts.repaired_files.setdefault(how, counts.repaired_files[how])
        self.counts.unread += counts.unread
        self.counts.problems += counts.problems
        self.counts.merged += counts.merged
        self.counts.columns.update(counts.columns)
        form = format_of(path)
        self.files.append(
            {
                "path": str(path),
                "format": "".join(form) if form else "",
                "kind": kind or "document",
                "shapes": dict(shapes),
                "records": facts.records,
                "characters": facts.characters,
                "rejected": counts.problems,
                "merged": counts.merged,
                "mended": dict(counts.repairs),
                "unread_keys": dict(counts.unread),
                "columns": counts.columns.to_json(),
            }
        )

    def _problem(self, problem: Problem) -> None:
        if len(self.shown) < SHOWN_PROBLEMS:
            self.shown.append(problem)
        if self._out is None:
            self._out = self._stack.enter_context(atomic_open(self.quarantine))
        self._out.write(problem.json_line())

    def to_json(self) -> dict[str, Any]:
        return {
            "files": self.files,
            "kinds": {
                kind: {
                    "records": found.records,
                    "characters": found.characters,
                    "length": found.quantiles(),
                    "languages": dict(found.languages),
                    "samples": [record.to_json() for record in found.samples],
                }
                for kind, found in self.found.items()
            },
            "rejected": self.counts.problems,
            "merged": self.counts.merged,
            "mended": dict(self.counts.repairs),
            "unread_keys": dict(self.counts.unread),
            "columns": self.counts.columns.to_json(),
            "skipped_files": [f"{path}: {why}" for path, why in self.counts.skipped_files],
            "quarantine": str(self.quarantine) if self.counts.problems else None,
        }

    def print(self) -> None:
        headline("recognised")
        groups = _alike(self.files)
        for group in groups[:SHOWN_FILES]:
            say(_line(group))
        if more := sum(map(len, groups[SHOWN_FILES:])):
            say(f"  and {more} files more (--json lists all)")
        for kind, found in self.found.items():
            headline(f"{_counted(found.records, kind)}, {count(found.characters)} characters")
            lengths = (f"{name} {number:,}" for name, number in found.quantiles().items())
            say(f"  characters per record: {', '.join(lengths)}")
            shares = (
                f"{name} {number / found.records:.1%}"
                for name, number in found.languages.most_common()
            )
            say(f"  languages (by script): {', '.join(shares)}")
            for record in found.samples:
                say(shown(record))
        for line in self.counts.lines():
            warn(line)
        for path, why in self.counts.skipped_files[:10]:
            warn(f"passed over: {path} ({why})")
        if len(self.counts.skipped_files) > 10:
            warn(f"passed over: {len(self.counts.skipped_files) - 10} files more")
        self._print_problems()
        if self.found and not self.refused:
            say_next(f"miao run seedling --name mine {self._as_options()}")

    def _as_options(self) -> str:
        """The options of a recipe that train on what was found."""
        words = []
        for kind in self.found:
            files = [file for file in self.files if file["kind"] == kind and file["records"]]
            paths = self.given if len(self.found) == 1 else [file["path"] for file in files]
            more = ["..."] if len(paths) > SHOWN_PATHS else []
            words += [f"--corpus.{FIELDS[kind]}", *map(shlex.quote, paths[:SHOWN_PATHS]), *more]
        if self.reading.columns:
            columns = json.dumps(dict(self.reading.columns), ensure_ascii=False)
            words += ["--corpus.columns", shlex.quote(columns)]
        if self.reading.encoding:
            words += ["--corpus.encoding", self.reading.encoding]
        if self.counts.problems:
            words += ["--corpus.skip_bad_records", "true"]
        return " ".join(words)

    def _print_problems(self) -> None:
        if not self.counts.problems:
            none = (
                "no record is rejected"
                if self.counts.unread or self.counts.columns.unread
                else "no problems"
            )
            say(f"\n{none}" if self.found else "")
            return
        headline(_counted(self.counts.problems, "problem"))
        said = None
        for problem in self.shown:
            fix = f"\n      -> {problem.fix}" if problem.fix and problem.fix != said else ""
            said = problem.fix
            say(f"  {place(problem.path, problem.line)}: {problem.reason}{fix}")
        if self.counts.problems > len(self.shown):
            say(f"  and {self.counts.problems - len(self.shown):,} more")
        say(f"all of them, with their records: {self.quarantine}")


def _alike(files: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Each file alone, but many of one folder, format and kind together."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for file in files:
        key = (Path(file["path"]).parent, file["format"], file["kind"])
        groups.setdefault(key, []).append(file)
    parts = (
        [group] if len(group) > FOLDED else [[file] for file in group] for group in groups.values()
    )
    return [part for group in parts for part in group]


def _line(files: list[dict[str, Any]]) -> str:
    """What is in files that are alike, or in one."""
    first = files[0]
    records, characters, merged, rejected = (
        sum(file[what] for file in files)
        for what in ("records", "characters", "merged", "rejected")
    )
    where = f"{first['path']}:"
    if len(files) > 1:
        where = f"{Path(first['path']).parent}/: {len(files):,} {first['format']},"
    if not records and not rejected:
        return f"  {where} EMPTY"
    shapes = ", ".join(dict.fromkeys(shape for file in files for shape in file["shapes"]))
    facts = _counted(records, first["kind"]) + (f" ({shapes})" if shapes else "")
    facts += f", {count(characters)} characters"
    facts += f", {merged:,} labelled answers made pairs" if merged else ""
    return f"  {where} {facts}" + (f", {rejected:,} REJECTED" if rejected else "")


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def shown(record: Record) -> str:
    """A record as the user should see it, cut to a few lines."""

    def cut(text: str) -> str:
        text = " ".join(text.split())
        more = len(text) - SHOWN_CHARACTERS
        return text if more <= 0 else f"{text[:SHOWN_CHARACTERS]}... ({more:,} more)"

    if isinstance(record, Document):
        return f"  > {cut(record.text)}"
    parts: Iterator[tuple[str, Any]]
    if isinstance(record, Preference):
        sides = {"prompt": record.prompt, "chosen": record.chosen, "rejected": record.rejected}
        parts = ((f"{side} {m.role}", m) for side, messages in sides.items() for m in messages)
    else:
        parts = ((message.role, message) for message in record.messages)
    lines = []
    for role, message in islice(parts, 8):
        extra = f" <think> {cut(message.reasoning)} </think>" if message.reasoning else ""
        calls = f" {json.dumps(message.tool_calls, ensure_ascii=False)}"
        extra += calls if message.tool_calls else ""
        extra += "" if message.learned else " (not learned)"
        lines.append(f"  > {role}:{extra} {cut(message.content)}")
    return "\n".join(lines)
