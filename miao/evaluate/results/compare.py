"""Two or more models on the same questions: which differences are more than noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from miao.console import warn
from miao.errors import MiaoError
from miao.evaluate.results.store import answers_folder
from miao.evaluate.statistics import Difference, compare_paired, holm
from miao.files import read_jsonl

Record = dict[str, Any]
Answers = dict[tuple[str, str, str], Record]


@dataclass(frozen=True)
class Comparison:
    """One task: model B against model A on the questions that both answered."""

    task: str
    a: str
    b: str
    share_a: float
    share_b: float
    difference: Difference
    adjusted: float
    """The p-value, adjusted (Holm) for how many comparisons are made at a time."""
    left_out: int
    """Questions that only one of them answered."""
    same_choice: int
    """Questions for which both chose alike, right or wrong."""


def compare_results(paths: Sequence[str], task: str | None = None) -> list[Comparison]:
    """Every later model against the first, task by task.

    Raises:
        MiaoError: nothing that both answered in the same way of asking.
    """
    folders = {path: answers_folder(path) for path in paths}
    first = paths[0]
    made = [
        _compare(name, first, other, folders)
        for other in paths[1:]
        for name in _shared(folders[first], folders[other], task)
    ]
    if not made:
        have = sorted({file.stem for folder in folders.values() for file in _files(folder)})
        raise MiaoError(
            "these models have answered nothing in the same way",
            fix=f"evaluate them with the same options; there is {', '.join(have)}",
        )
    adjusted = holm([one.adjusted for one in made])
    return [replace(one, adjusted=p) for one, p in zip(made, adjusted, strict=True)]


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*-*shot*.jsonl"))


def _shared(one: Path, other: Path, task: str | None) -> list[str]:
    names = {file.name for file in _files(one)} & {file.name for file in _files(other)}
    return sorted(name for name in names if task is None or name.startswith(task))


def _compare(name: str, first: str, other: str, folders: dict[str, Path]) -> Comparison:
    a, b = (by_question(folders[path] / name) for path in (first, other))
    shared = [key for key in a if key in b]
    if not shared:
        raise MiaoError(
            "both were evaluated, but on different questions",
            where=f"{folders[first] / name} and {folders[other] / name}",
            fix="use the same files, --subjects and --limit",
        )
    right_a = [bool(a[key]["right"]) for key in shared]
    right_b = [bool(b[key]["right"]) for key in shared]
    difference = compare_paired(right_a, right_b)
    same = sum(_said(a[key]) == _said(b[key]) for key in shared)
    return Comparison(
        name.removesuffix(".jsonl"),
        first,
        other,
        sum(right_a) / len(shared),
        sum(right_b) / len(shared),
        difference,
        difference.p_value,
        len(a) + len(b) - 2 * len(shared),
        same,
    )


def by_question(path: Path, warn_of_nameless: bool = True) -> Answers:
    """Answers by subject, number and content of the question, where it is known what is right."""
    records = [record for record in read_jsonl(path, warn) if record.get("right") is not None]
    whole = [record for record in records if {"subject", "id", "question"} <= record.keys()]
    if warn_of_nameless and len(whole) < len(records):
        warn(f"{path}: {len(records) - len(whole)} answers name no question and are left out")
    return {(str(r["subject"]), str(r["id"]), str(r["question"])): r for r in whole}


def _said(record: Record) -> Any:
    return record.get("choice", record.get("found"))


def comparison_text(one: Comparison) -> str:
    """What was found, in words that need no wide terminal."""
    d = one.difference
    verdict = "no difference shown"
    if one.adjusted < 0.05:
        verdict = f"{one.b} is {'better' if d.value > 0 else 'worse'}"
    return (
        f"{one.task}, {d.count:,} questions\n"
        f"  {one.a}: {one.share_a:.1%}   {one.b}: {one.share_b:.1%}   "
        f"chosen alike: {one.same_choice:,}\n"
        f"  difference {100 * d.value:+.1f} ± {100 * d.stderr:.1f} points "
        f"(paired bootstrap, 95 %: {100 * d.low:+.1f} to {100 * d.high:+.1f})\n"
        f"  right alone: {d.only_a} and {d.only_b}; p = {one.adjusted:.3g} (McNemar, Holm)\n"
        f"  -> {verdict}"
    )
