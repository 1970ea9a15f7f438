"""Public benchmarks on the run page: a radar of a task's groups, and a bar for each subject."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from miao.report.charts import Dot, dot_plot
from miao.report.data import Record
from miao.report.words import Text, is_number, share

RADIUS, CENTRE, SIZE = 84, 130, 260
TOTALS = ("mean of subjects", "all", "not in the training text")
BARS_UP_TO = 80
"""More subjects than any task here has."""


@dataclass(frozen=True)
class Bar:
    name: str
    value: str
    stderr: str
    count: int
    is_total: bool
    plot: Markup


@dataclass(frozen=True)
class Benchmark:
    """One line of eval_results.jsonl: how a task was asked, its numbers, what to beware of."""

    title: str
    asked: Text
    radar: Markup | None
    bars: list[Bar]
    notes: list[str]


def benchmarks(evaluations: Mapping[str, Record]) -> list[Benchmark]:
    """The benchmarks that `miao eval` has left in a run."""
    lines = [line for line in evaluations.values() if "task" in line and line.get("scores")]
    return [_benchmark(line) for line in lines]


def _benchmark(line: Record) -> Benchmark:
    scores = [score for score in line["scores"] if is_number(score["value"])][:BARS_UP_TO]
    chance = next((score["chance"] for score in scores if score.get("chance")), None)
    top = max([chance or 0.0, *(s["value"] + 2 * (s.get("stderr") or 0.0) for s in scores)])
    span = (0.0, min(1.0, top))
    bars = [
        Bar(
            score["category"],
            share(score["value"]),
            "" if score.get("stderr") is None else f"± {share(score['stderr'])}",
            score["count"],
            score["category"] in TOTALS,
            dot_plot(
                [Dot(score["value"], score.get("stderr"), "plain")],
                span,
                score.get("chance"),
                f"{score['category']}: {share(score['value'])}",
            ),
        )
        for score in sorted(scores, key=lambda score: score["category"] not in TOTALS)
    ]
    shots, prompts, scoring = line.get("shots", 0), line.get("prompts", ""), line.get("scoring", "")
    stage = line.get("model_stage", "")
    asked = Text(
        f"{stage}：{prompts} 的提示，{scoring}，{shots} 道例题",
        f"{stage}: prompts of {prompts}, {scoring}, {shots} examples",
    )
    shown = _radar_values(scores, line.get("groups", []))
    title = str(line.get("title", line["task"]))
    radar = radar_plot(shown, chance, title) if shown else None
    return Benchmark(title, asked, radar, bars, list(line.get("notes", [])))


def _radar_values(scores: Sequence[Record], groups: Sequence[str]) -> list[tuple[str, float]]:
    """The groups of subjects; the subjects themselves where there are few and no groups."""
    names = groups or [s["category"] for s in scores if s["category"] not in TOTALS]
    found = [(s["category"], s["value"]) for s in scores if s["category"] in names]
    return found if 3 <= len(found) <= 12 else []


def radar_plot(values: Sequence[tuple[str, float]], chance: float | None, label: str) -> Markup:
    """Shares from 0 in the middle to 1 (or what is needed) at the rim; a ring for guessing."""
    count = len(values)
    top = min(1.0, max([chance or 0.0, *(value for _, value in values)]) * 1.25) or 1.0

    def place(number: int, value: float) -> tuple[float, float]:
        angle = 2 * math.pi * number / count - math.pi / 2
        reach = RADIUS * min(value / top, 1.0)
        return (
            round(CENTRE + reach * math.cos(angle), 1),
            round(CENTRE + reach * math.sin(angle), 1),
        )

    def ring(value: float, css: str) -> Markup:
        points = " ".join("{:g},{:g}".format(*place(n, value)) for n in range(count))
        return Markup('<polygon class="{}" fill="none" points="{}"/>').format(css, points)

    parts = [ring(top, "grid"), ring(top / 2, "grid")]
    for number, (name, value) in enumerate(values):
        x, y = place(number, top)
        line = Markup('<line class="grid" x1="{}" x2="{:g}" y1="{}" y2="{:g}"/>')
        parts.append(line.format(CENTRE, x, CENTRE, y))
        side = "middle" if abs(x - CENTRE) < 4 else "start" if x > CENTRE else "end"
        out = 1 + 9 / RADIUS
        text = Markup('<text class="tick" text-anchor="{}" x="{:g}" y="{:g}">{} {}</text>')
        parts.append(
            text.format(
                side,
                CENTRE + (x - CENTRE) * out,
                CENTRE + (y - CENTRE) * out + 3.5,
                name,
                share(value),
            )
        )
    if chance is not None:
        parts.append(ring(chance, "guide"))
    points = " ".join("{:g},{:g}".format(*place(n, v)) for n, (_, v) in enumerate(values))
    parts.append(
        Markup('<g class="hue-plain"><polygon class="line" points="{}"/></g>').format(points)
    )
    return Markup(
        '<svg class="chart radar" viewBox="-60 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(SIZE + 120, SIZE, label, Markup("").join(parts))
