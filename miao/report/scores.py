"""The scores: beside chance, with their error, and compared from stage to stage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from miao.report.charts import Dot, Span, dot_plot
from miao.report.curves import stage_tokens
from miao.report.data import Record, RunData
from miao.report.words import (
    Text,
    category_name,
    decimal,
    duration,
    is_number,
    phrases,
    quantity,
    share,
    stage_name,
    task_name,
)

Verdict = Literal["better", "worse"]
HEADLINES = ("multiple choice", "questions", "preference (reward)", "preference (likelihood)")


@dataclass(frozen=True)
class Card:
    """A headline number. `meter`: value, chance and two standard errors, as shares."""

    label: Text
    value: Text
    note: Text | None = None
    meter: tuple[float, float | None, float] | None = None


@dataclass(frozen=True)
class Cell:
    """A score of one stage; `verdict`: how it differs from the stage before, beyond the noise."""

    value: str
    stderr: str
    verdict: Verdict | None
    rose: bool


@dataclass(frozen=True)
class Row:
    category: Text
    is_total: bool
    count: int
    cells: list[Cell | None]
    chance: str
    plot: Markup


@dataclass(frozen=True)
class TaskTable:
    """The scores of one task: a row per category, a cell per stage."""

    name: Text
    note: Text | None
    rows: list[Row]


def score_cards(data: RunData) -> list[Card]:
    """What the run came to: the scores of the last stage that was evaluated."""
    cards = []
    if stage := data.last_evaluated:
        scores = data.evaluations[stage]["scores"]
        cards += [card for card in (_score_card(scores, task) for task in HEADLINES[:2]) if card]
        preferences = [
            card for card in (_score_card(scores, task) for task in HEADLINES[2:]) if card
        ]
        cards += preferences[:1]
        if bits := [s["value"] for s in scores if s["unit"] == "bits" and is_number(s["value"])]:
            value = decimal(sum(bits) / len(bits))
            note = Text(
                f"{len(bits)} 个来源的平均，越低越好",
                f"mean of {len(bits)} sources, lower is better",
            )
            cards.append(Card(task_name("bits per byte"), Text(value, value), note))
    return cards


def score_tables(data: RunData) -> list[TaskTable]:
    """All scores, a table per task, in the order in which the tasks are explained above."""
    scores = {
        (score["task"], score["category"], stage): score
        for stage in evaluated_stages(data)
        for score in data.evaluations.get(stage, {}).get("scores", [])
    }
    known = list(phrases("tasks"))
    tasks = sorted(
        {task: None for task, _, _ in scores}, key=lambda t: known.index(t) if t in known else 99
    )
    return [_task_table(task, scores, evaluated_stages(data)) for task in tasks]


def evaluated_stages(data: RunData) -> list[str]:
    """Of a run that begins with a trained model, "before" comes first."""
    stages = data.stages if "pretrain" in data.stages else ["before", *data.stages]
    return [stage for stage in stages if data.evaluations.get(stage, {}).get("scores")]


def verdict(before: Record | None, after: Record) -> Verdict | None:
    """Better or worse by more than two standard errors of the difference, or None.

    Bits are better when lower, everything else when higher. See `_estimate` for shares.
    """
    if before is None or not (is_number(before["value"]) and is_number(after["value"])):
        return None
    (then, error_then), (now, error_now) = _estimate(before), _estimate(after)
    if error_then is None or error_now is None:
        return None
    if abs(now - then) <= 2 * math.hypot(error_then, error_now):
        return None
    return "better" if (now > then) != (after["unit"] == "bits") else "worse"


def near_chance(score: Record) -> bool:
    """Whether guessing lies within two standard errors of the score."""
    value, error = _estimate(score)
    return (
        score.get("chance") is not None
        and error is not None
        and abs(value - score["chance"]) <= 2 * error
    )


def _estimate(score: Record) -> tuple[float, float | None]:
    """Value and standard error for comparing.

    To a share one right and one wrong answer are added (Agresti and Caffo, 2000): the plain
    standard error of 0 of 1 or of 12 of 12 is zero, and everything would differ from it.
    """
    if score["unit"] != "accuracy":
        return score["value"], score.get("stderr")
    count = score["count"] + 2
    value = (score["value"] * score["count"] + 1) / count
    return value, math.sqrt(value * (1 - value) / count)


def _score_card(scores: list[Record], task: str) -> Card | None:
    found = [
        s for s in scores if s["task"] == task and s["category"] == "all" and is_number(s["value"])
    ]
    if not found:
        return None
    score = found[0]
    error, chance = score.get("stderr") or 0.0, score.get("chance")
    note = Text(
        f"± {share(error)}，共 {score['count']:,} 题", f"± {share(error)}, {score['count']:,} items"
    )
    if chance is not None:
        guess = Text(f"瞎猜 {share(chance)}", f"guessing {share(chance)}")
        if near_chance(score):
            guess = Text(
                f"与瞎猜（{share(chance)}）分不开",
                f"cannot be told from guessing ({share(chance)})",
            )
        note = Text(f"{note.zh}；{guess.zh}", f"{note.en}; {guess.en}")
    value = share(score["value"])
    return Card(task_name(task), Text(value, value), note, (score["value"], chance, 2 * error))


def size_cards(data: RunData) -> list[Card]:
    """What it took: parameters, tokens, time; those that are known."""
    cards = []
    if data.parameters is not None:
        size = quantity(data.parameters)
        config = data.config
        layers, width = config.get("num_hidden_layers"), config.get("hidden_size")
        cards.append(
            Card(
                Text("参数", "Parameters"),
                Text(size, size),
                Text(f"{layers} 层，宽 {width}", f"{layers} layers, {width} wide"),
            )
        )
    tokens = {stage: stage_tokens(data, stage) for stage in data.stages}
    known = {stage: number for stage, number in tokens.items() if number}
    if known:
        total = quantity(sum(known.values()))
        parts = [(stage_name(stage), quantity(number)) for stage, number in known.items()]
        note = Text(*(" · ".join(f"{name[i]} {number}" for name, number in parts) for i in (0, 1)))
        cards.append(Card(Text("训练词元", "Tokens trained on"), Text(total, total), note))
    seconds = sum(spent for _, spent in stage_seconds(data))
    if seconds:
        note = Text("已完成各阶段之和", "sum of the finished stages")
        cards.append(Card(Text("用时", "Wall time"), duration(seconds), note))
    return cards


def stage_seconds(data: RunData) -> list[tuple[str, float]]:
    """Seconds of every finished stage of the chain.

    A stage that was interrupted and continued notes the time of its last part only; then the
    training time, which is kept across resumes, is nearer to the truth.
    """
    found = []
    for stage in data.expected_stages():
        if stage in data.finished:
            trained = data.results.get(stage, {}).get("seconds") or 0.0
            found.append((stage, max(data.finished[stage].get("seconds") or 0.0, trained)))
    return found


def _task_table(
    task: str, scores: dict[tuple[str, str, str], Record], stages: list[str]
) -> TaskTable:
    categories = list(dict.fromkeys(category for name, category, _ in scores if name == task))
    categories.sort(key=lambda category: category != "all")
    of_task = [score for (name, _, _), score in scores.items() if name == task]
    span = _span(of_task)
    rows = []
    for category in categories:
        found = [scores.get((task, category, stage)) for stage in stages]
        rows.append(_row(category_name(category, task), category == "all", found, stages, span))
    return TaskTable(task_name(task), phrases("task_notes").get(task), rows)


def _row(
    category: Text, is_total: bool, found: list[Record | None], stages: list[str], span: Span
) -> Row:
    cells: list[Cell | None] = []
    before: Record | None = None
    for score in found:
        cells.append(_cell(score, before) if score else None)
        before = score or before
    there = [score for score in found if score]
    dots = [
        Dot(score["value"], score.get("stderr"), stage)
        for stage, score in zip(stages, found, strict=True)
        if score and is_number(score["value"])
    ]
    chance = there[-1].get("chance")
    label = ", ".join(
        f"{s}: {_written(d.value, there[-1])}"
        for d, s in zip(dots, (d.hue for d in dots), strict=True)
    )
    return Row(
        category,
        is_total,
        there[-1]["count"],
        cells,
        "" if chance is None else _written(chance, there[-1]),
        dot_plot(dots, span, chance, label),
    )


def _cell(score: Record, before: Record | None) -> Cell:
    if not is_number(score["value"]):
        return Cell("–", "", None, False)
    error = score.get("stderr")
    rose = before is not None and is_number(before["value"]) and score["value"] > before["value"]
    return Cell(
        _written(score["value"], score),
        "" if error is None else f"± {_written(error, score)}",
        verdict(before, score),
        rose,
    )


def _written(value: float, score: Record) -> str:
    return share(value) if score["unit"] == "accuracy" else decimal(value)


def _span(scores: list[Record]) -> Span:
    """0 to 1 for shares, what is there for bits (0 is out of reach), else with 0 inside."""
    units = {score["unit"] for score in scores}
    if units == {"accuracy"}:
        return 0.0, 1.0
    edges = [
        score["value"] + sign * 2 * (score.get("stderr") or 0.0)
        for score in scores
        if is_number(score["value"])
        for sign in (-1, 1)
    ]
    zero = [] if units == {"bits"} and edges else [0.0]
    return min([*zero, *edges]), max([*zero, *edges])
