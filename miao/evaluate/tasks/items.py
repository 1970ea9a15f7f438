"""Questions from a task's files: whatever the layout, the same `Item`."""

from __future__ import annotations

import csv
import hashlib
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from miao.console import warn
from miao.corpus.read.readers import read_objects
from miao.corpus.read.streams import read_lines
from miao.errors import MiaoError
from miao.evaluate.tasks.generated import generated
from miao.evaluate.tasks.task import LETTERS, Source, Subject, Task, expression

CELLS = ["first", "second"]
"""Columns of a table of which two rows are one record, each with its cells."""
EVERYTHING = "all"
"""The one subject of a task that has no subjects."""


@dataclass(frozen=True)
class Item:
    """One question. `answer` is the index of the right option, or a text where there are none;
    None: nobody knows. `variables` is what templates see."""

    id: str
    subject: str
    question: str
    options: list[str]
    answer: int | str | None
    variables: dict[str, Any] = field(repr=False)

    @property
    def cluster(self) -> str:
        """Questions on the same text belong together; others stand alone."""
        return str(self.variables.get("cluster", f"{self.subject}/{self.id}"))

    @property
    def letters(self) -> list[str]:
        return list(LETTERS[: len(self.options)])

    @property
    def fingerprint(self) -> str:
        """Tells whether two files mean the same question."""
        return fingerprint("\n".join([self.question, *self.options]))


def fingerprint(text: str) -> str:
    """Twelve hexadecimal digits that tell texts apart."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:12]


@dataclass(frozen=True)
class Questions:
    """The questions of a task by subject, the examples to show before them, and the subjects that
    the task names but that have no file."""

    items: dict[str, list[Item]]
    examples: dict[str, list[Item]]
    missing: list[str]
    folder: Path
    labelled: bool

    def all(self) -> list[Item]:
        return [item for items in self.items.values() for item in items]


def read_questions(
    task: Task,
    data: Path,
    split: str | None = None,
    shots: int = 0,
    subjects: Sequence[str] = (),
    limit: int | None = None,
) -> Questions:
    """Reads the split that is asked for (default: the task's), and the first `shots` examples of
    the split for examples.

    Args:
        data: the folder that holds the task's files, or one folder above it.
        subjects: read only these. limit: at most so many questions per subject.

    Raises:
        MiaoError: no files, an unknown subject, a record that does not fit the task, too few
            examples.
    """
    split = split or task.split
    for name in subjects:
        if task.subjects and name not in task.subjects:
            raise MiaoError(
                f"the task {task.name} has no subject '{name}'",
                fix=f"it has {', '.join(list(task.subjects)[:60])}",
            )
    folder, source = _find_source(task, data, split, subjects)
    labelled = split not in task.unlabelled
    found = {
        subject: _limited(task, source, folder, split, subject, limit, labelled)
        for subject in _subjects_there(task, source, folder, split)
        if not subjects or subject in subjects
    }
    wanted = [name for name in task.subjects if not subjects or name in subjects]
    if not any(found.values()):
        raise MiaoError(f"no questions of the split {split}", where=folder)
    examples: dict[str, list[Item]] = {}
    if shots:
        if task.fewshot_split is None:
            raise MiaoError(
                f"the task {task.name} names no split for examples",
                where=task.path,
                fix="use --shots 0, or give the task a fewshot_split",
            )
        for subject in found:
            few = _limited(task, source, folder, task.fewshot_split, subject, shots, True)
            if len(few) < shots:
                raise MiaoError(
                    f"{subject}: {shots} examples are wanted, {task.fewshot_split} has {len(few)}",
                    where=folder,
                    fix=f"use --shots {len(few)} or fewer",
                )
            examples[subject] = few
    missing = [name for name in wanted if not found.get(name)]
    return Questions(found, examples, missing, folder, labelled)


def _find_source(
    task: Task, data: Path, split: str, subjects: Sequence[str]
) -> tuple[Path, Source]:
    """The folder that holds files of the task (of these subjects, if any), and their layout."""
    for folder in [*(data / name for name in task.folders), data]:
        for source in task.sources:
            if source.built_in:
                return task.path.parent, source
            if source.generated is not None:
                return folder, source
            wanted: Sequence[str | None] = subjects or [None]
            if any(True for one in wanted for _ in _matches(source, folder, split, one)):
                return folder, source
    layouts = "\n".join(f"    {source.files}" for source in task.sources)
    hubs = [source.hub for source in task.sources if source.hub]
    download = f"; or let Miao fetch it: --data {hubs[0]}" if hubs else ""
    raise MiaoError(
        f"no files of the task {task.name} (split {split}) here. It looks for\n{layouts}\n"
        f"  directly here" + (f" or in {', '.join(task.folders)}/" if task.folders else ""),
        where=data,
        fix=f"name the folder that holds them with --data{download}",
    )


def _matches(source: Source, folder: Path, split: str, subject: str | None) -> Iterator[Path]:
    """The files of a split, of one subject or of any."""
    name = source.splits.get(split, split)
    pattern = source.files.replace("{split}", name).replace("{subject}", subject or "*")
    yield from sorted(folder.glob(pattern))


def _subjects_there(task: Task, source: Source, folder: Path, split: str) -> list[str]:
    """The task's subjects that have a file; or, where it names none, those of the file names."""
    if source.generated is not None:
        return list(task.subjects)
    if "{subject}" not in source.files:
        return [EVERYTHING]
    if task.subjects:
        return [name for name in task.subjects if any(_matches(source, folder, split, name))]
    pattern = re.escape(source.files.replace("{split}", source.splits.get(split, split)))
    pattern = pattern.replace(re.escape("*"), ".*").replace(re.escape("{subject}"), "(.+?)", 1)
    pattern = pattern.replace(re.escape("{subject}"), r"\1")
    paths = _matches(source, folder, split, None)
    found = (re.fullmatch(pattern, path.relative_to(folder).as_posix()) for path in paths)
    return list(dict.fromkeys(match[1] for match in found if match))


def _limited(
    task: Task,
    source: Source,
    folder: Path,
    split: str,
    subject: str,
    limit: int | None,
    labelled: bool,
) -> list[Item]:
    found = _items(task, source, folder, split, subject, limit, labelled)
    if source.wrong:  # the others' answers are needed, whatever the limit
        return list(islice(_with_wrong(list(found), source.wrong, folder), limit))
    return list(islice(found, limit))


def _with_wrong(items: list[Item], count: int, folder: Path) -> Iterator[Item]:
    """Gives each item its right answer and `count` others' as options, drawn anew for every item
    but always alike. An answer that also fits the same question is not taken. In an order of no
    meaning, so that the first ones are a sample."""
    random.Random(0).shuffle(items)
    pools: dict[str, dict[str, None]] = {}
    fitting: dict[str, set[str]] = {}
    for item in items:
        right = str(item.variables["right"])
        pools.setdefault(str(item.variables.get("pool")), {})[right] = None
        fitting.setdefault(item.question, set()).add(right)
    answers = {pool: list(found) for pool, found in pools.items()}
    left_out = 0
    for item in items:
        right, known = str(item.variables["right"]), answers[str(item.variables.get("pool"))]
        rng = random.Random(f"{item.question}\n{right}")
        drawn = rng.sample(known, min(count + len(fitting[item.question]), len(known)))
        options = [other for other in drawn if other not in fitting[item.question]][:count]
        if not options:
            left_out += 1
            continue
        options.insert(rng.randrange(len(options) + 1), right)
        variables = item.variables | {"options": options}
        yield replace(item, options=options, answer=options.index(right), variables=variables)
    if left_out:
        warn(f"{folder}: {left_out} questions have no others of their kind and are left out")


def _items(
    task: Task,
    source: Source,
    folder: Path,
    split: str,
    subject: str,
    limit: int | None,
    labelled: bool,
) -> Iterator[Item]:
    number = 0
    topic = task.subjects.get(subject, Subject(subject, subject, subject))
    labels = _labels(source, folder, split)
    records = (
        ((str(task.path), record) for record in _made(task, source, split, subject, limit))
        if source.generated is not None
        else (
            (f"{path}:{line}", record)
            for path in _matches(source, folder, split, subject)
            for line, record in _records(source, path)
        )
    )
    for where, record in records:
        if not isinstance(record, Mapping):
            record = {"record": record}
        parts = expression(source.each, where)(record) if source.each else [{}]
        for part in parts:
            variables = {str(k): v for k, v in record.items()}
            variables |= part if isinstance(part, Mapping) else {"part": part}
            if source.keep and not expression(source.keep, where)(variables):
                continue
            variables["topic"] = {"name": topic.name, "en": topic.en, "zh": topic.zh}
            if labels is not None:
                if number >= len(labels):
                    raise MiaoError("there are more questions than labels", where=where)
                variables["label"] = labels[number]
            yield _item(source, variables, subject, number, where, labelled)
            number += 1


def _made(
    task: Task, source: Source, split: str, subject: str, limit: int | None
) -> Iterator[dict[str, Any]]:
    if split not in (task.split, task.fewshot_split):
        raise MiaoError(
            f"the task {task.name} has no split {split}",
            where=task.path,
            fix=f"its questions are made: leave --split away, or use {task.split}",
        )
    assert source.generated is not None
    return generated(subject, source.generated, split != task.split, limit)


def _item(
    source: Source,
    variables: dict[str, Any],
    subject: str,
    number: int,
    where: str,
    labelled: bool,
) -> Item:
    found = dict(variables)
    for name, text in source.fields.items():
        if name == "answer" and not labelled:
            continue
        found[name] = expression(text, where)(found)
    options = [str(option) for option in found.get("options") or []]
    answer = found.get("answer") if labelled else None
    found |= {"options": options}
    if isinstance(answer, bool) or (options and labelled and not isinstance(answer, int)):
        raise MiaoError(f"the answer {answer!r} is not the number of an option", where=where)
    if options and isinstance(answer, int) and not 0 <= answer < len(options):
        raise MiaoError(f"answer {answer} is none of the {len(options)} options", where=where)
    if len(options) > len(LETTERS):
        raise MiaoError(f"{len(options)} options are more than there are letters", where=where)
    if labelled and not options:
        answer = str(answer)
    identity = str(found.get("id", number))
    subject = str(found["subject"]) if "subject" in source.fields else subject
    return Item(identity, subject, str(found.get("question", "")), options, answer, found)


def _records(source: Source, path: Path) -> Iterator[tuple[int, Any]]:
    if source.columns == CELLS:
        return _pairs_of_rows(path)
    if source.columns:
        return _headless(source.columns, path)
    return read_objects(path)


def _pairs_of_rows(path: Path) -> Iterator[tuple[int, dict[str, list[str]]]]:
    """Rows of any length, two by two as `first` and `second`; one that begins with an empty cell is
    a table's header."""
    rows = csv.reader(line + "\n" for _, line in read_lines(path))
    waiting: list[str] = []
    for row in rows:
        if not row or not row[0]:
            continue
        if waiting:
            yield rows.line_num, {"first": waiting, "second": row}
        waiting = [] if waiting else row
    if waiting:
        raise MiaoError("an odd number of rows: the last has no partner", where=path)


def _headless(columns: list[str], path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a table that has no header."""
    rows = csv.reader(line + "\n" for _, line in read_lines(path))
    for row in rows:
        if not row:
            continue
        if len(row) != len(columns):
            raise MiaoError(
                f"a row of {len(row)} cells, where {len(columns)} are expected "
                f"({', '.join(columns)})",
                where=f"{path}:{rows.line_num}",
            )
        yield rows.line_num, dict(zip(columns, row, strict=True))


def _labels(source: Source, folder: Path, split: str) -> list[str] | None:
    if source.labels is None:
        return None
    path = folder / source.labels.replace("{split}", source.splits.get(split, split))
    if not path.is_file():
        return None
    return path.read_text(encoding="utf-8").split()
