"""The words of the report in both languages, and how its numbers are written."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeGuard

from miao.corpus.clean import reasons
from miao.options import read_yaml


class Text(NamedTuple):
    """One phrase in both languages; the page shows the one that the reader chose."""

    zh: str
    en: str


@cache
def phrases(section: str) -> dict[str, Text]:
    """A section of `words.yaml` ("stages", "tasks", "task_notes", "categories", "records"), or
    "rules": why the rules of `miao.corpus.clean` reject or edit."""
    if section == "rules":
        return {rule: Text(**why) for rule, why in reasons().items()}
    sections = read_yaml(Path(__file__).with_name("words.yaml"))
    return {name: Text(**both) for name, both in sections[section].items()}


def stage_name(stage: str) -> Text:
    """A stage of the chain; `evaluate X` is the evaluation of X."""
    if stage.startswith("evaluate "):
        of = stage_name(stage.removeprefix("evaluate "))
        return Text(f"评测：{of.zh}", f"Evaluation: {of.en}")
    return phrases("stages").get(stage, Text(stage, stage))


def task_name(task: str) -> Text:
    return phrases("tasks").get(task, Text(task, task))


def category_name(category: str, task: str = "") -> Text:
    """Names of the user's own sources and categories stay as they are."""
    if task.startswith("preference") and category == "language":
        return Text("用对语言", "Right language")
    return phrases("categories").get(category, Text(category, category))


def quantity(number: float) -> str:
    """Three significant digits: `950`, `12.3K`, `2M`, `1.5B`."""
    for scale, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(number) >= scale * 0.9995:
            return f"{_minus(f'{number / scale:.3g}')}{suffix}"
    return _minus(f"{number:.3g}")


def share(value: float) -> str:
    """`0.5` -> `50.0%`."""
    return _minus(f"{100 * value:.1f}%")


def decimal(value: float) -> str:
    """Four digits; two of a number that would else be 0.00 something."""
    if value == 0:
        return "0"
    if abs(value) < 0.01:
        return _minus(f"{value:.2g}".replace("e-0", "e-"))
    places = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1
    return _minus(f"{value:.{places}f}")


def tick(value: float) -> str:
    """A round number of an axis, as short as it can be."""
    text = f"{value:.0e}" if 0 < abs(value) < 1e-3 else f"{value:.6g}"
    return _minus(text.replace("e-0", "e-"))


def duration(seconds: float) -> Text:
    """`0.6 s`, `42 s`, `13 min 05 s`, `2 h 07 min`."""
    if seconds < 10:
        return Text(f"{seconds:.1f} 秒", f"{seconds:.1f} s")
    whole = round(seconds)
    if whole < 60:
        return Text(f"{whole} 秒", f"{whole} s")
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return Text(f"{hours} 小时 {minutes:02d} 分", f"{hours} h {minutes:02d} min")
    return Text(f"{minutes} 分 {whole % 60:02d} 秒", f"{minutes} min {whole % 60:02d} s")


def is_number(value: object) -> TypeGuard[int | float]:
    """A finite number (training that went wrong leaves NaN behind, an unknown value None)."""
    return isinstance(value, int | float) and math.isfinite(value)


def _minus(text: str) -> str:
    return text.replace("-", "−")
