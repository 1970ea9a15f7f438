"""Sets of tasks that make one score: data files in `miao/evaluate/tasks/sets/`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from miao.errors import MiaoError, did_you_mean
from miao.evaluate.scores import ACCURACY, SHARES
from miao.evaluate.tasks.task import load_task
from miao.options import read_yaml


@dataclass(frozen=True)
class SetPart:
    """One task of a set, or some of its subjects (none: all); it counts in this language."""

    name: str
    language: str
    task: str
    subjects: tuple[str, ...]


@dataclass(frozen=True)
class TaskSet:
    """Tasks with the number of questions per subject, and the parts of the score."""

    name: str
    title_en: str
    title_zh: str
    limits: dict[str, int]
    parts: tuple[SetPart, ...]
    unit: str = ACCURACY
    """What is averaged: the share of right answers, or right options' share of probability."""

    def subjects(self, task: str) -> list[str]:
        """The subjects of a task that the parts need; none: all."""
        return [subject for part in self.parts if part.task == task for subject in part.subjects]


def built_in_sets() -> list[str]:
    """The names of the sets that come with Miao."""
    folder = resources.files("miao.evaluate").joinpath("tasks", "sets")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir())


def is_set(name: str) -> bool:
    """Whether `--tasks NAME` means a set: one that comes with Miao, or a file with `parts`."""
    path = Path(name)
    return name in built_in_sets() or (
        path.suffix in (".yaml", ".yml") and path.is_file() and "parts" in (read_yaml(path) or {})
    )


def load_set(name: str) -> TaskSet:
    """A built-in set by its name, or the one in a YAML file.

    Raises:
        MiaoError: no such set, or a part that names no task or subject.
    """
    if name.endswith((".yaml", ".yml")):
        return _read(Path(name))
    if name not in built_in_sets():
        known = built_in_sets()
        fix = did_you_mean(name, known) or f"sets: {', '.join(known)}"
        raise MiaoError(f"there is no set '{name}'", fix=fix)
    folder = resources.files("miao.evaluate") / "tasks" / "sets"
    with resources.as_file(folder / f"{name}.yaml") as path:
        return _read(path)


def _read(path: Path) -> TaskSet:
    values = read_yaml(path)
    try:
        parts = tuple(
            SetPart(str(name), str(language), words.split()[0], tuple(words.split()[1:]))
            for language, entries in values["parts"].items()
            for name, words in entries.items()
        )
        limits = {str(task): int(count) for task, count in values["limits"].items()}
        titles = {"en": path.stem, "zh": path.stem} | dict(values.get("title", {}))
    except (KeyError, AttributeError, IndexError, TypeError, ValueError) as error:
        fix = "limits: {TASK: COUNT}, parts: {LANGUAGE: {NAME: TASK SUBJECT ...}}"
        raise MiaoError(f"not a set of tasks: {error!r}", where=path, fix=fix) from error
    for part in parts:
        subjects = load_task(part.task).subjects
        if unknown := [one for one in part.subjects if subjects and one not in subjects]:
            raise MiaoError(f"{part.task} has no subject {', '.join(unknown)}", where=path)
        if part.task not in limits:
            raise MiaoError(f"limits: {part.task} is missing", where=path)
    unit = values.get("unit", ACCURACY)
    if unit not in SHARES:
        raise MiaoError(f"unit: {unit}", where=path, fix=f"{' or '.join(SHARES)}")
    return TaskSet(path.stem, str(titles["en"]), str(titles["zh"]), limits, parts, unit)
