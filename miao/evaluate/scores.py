"""A score always comes with how sure it is, and with what guessing would give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

CENTRED = "centred"
"""Unit of a score that is 0 at chance and 1 at perfect."""
ACCURACY, PROBABILITY = "accuracy", "probability"
"""Units of shares: of right answers; the right option's of the probability of all options."""
SHARES = (ACCURACY, PROBABILITY)


@dataclass(frozen=True)
class Score:
    """One number of an evaluation.

    `value` is a share (0..1) for the units in `SHARES`, else in `unit`. `stderr` is its standard
    error, `chance` what guessing gives; None where there is no such thing.
    """

    task: str
    category: str
    count: int
    value: float
    stderr: float | None = None
    chance: float | None = None
    unit: str = ACCURACY

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def accuracy(task: str, category: str, right: Sequence[bool], chance: float | None = None) -> Score:
    """Share of right answers with the standard error of a proportion, sqrt(p(1-p)/n).

    Where none or all are right that would be 0, as if all were known: half the width of Wilson's
    interval (1927) of one standard error then, 1 / (2(n+1)).
    """
    share = sum(right) / len(right)
    stderr = math.sqrt(share * (1 - share) / len(right)) or 1 / (2 * (len(right) + 1))
    return Score(task, category, len(right), share, stderr, chance)


def mean(task: str, category: str, values: Sequence[float], unit: str) -> Score:
    """Mean with its standard error, s/sqrt(n); of shares that are all alike as in `accuracy`."""
    average = sum(values) / len(values)
    stderr = None
    if len(values) > 1:
        variance = sum((value - average) ** 2 for value in values) / (len(values) - 1)
        stderr = math.sqrt(variance / len(values))
        if unit == "share" and not stderr:
            stderr = 1 / (2 * (len(values) + 1))
    return Score(task, category, len(values), average, stderr, unit=unit)


def ratio(
    task: str, category: str, sums: Sequence[float], counts: Sequence[float], unit: str
) -> Score:
    """A ratio of sums over documents (bits and bytes) with its standard error by the delta
    method; None for a single one."""
    total, count = max(sum(counts), 1), len(sums)
    value = sum(sums) / total
    spread = sum((s - value * n) ** 2 for s, n in zip(sums, counts, strict=True))
    stderr = math.sqrt(spread * count / max(count - 1, 1)) / total if count > 1 else None
    return Score(task, category, count, value, stderr, unit=unit)


def ranked(task: str, category: str, better: Sequence[float], worse: Sequence[float]) -> Score:
    """How often one of the better values is above one of the worse, over all pairs of them (the
    area under the ROC curve; ties count half), with the standard error of Hanley and McNeil
    (1982)."""
    wins = sum((a > b) + 0.5 * (a == b) for a in better for b in worse)
    m, n = len(better), len(worse)
    area = wins / (m * n)
    above, below = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (m - 1) * (above - area**2) + (n - 1) * (below - area**2)
    return Score(task, category, m + n, area, math.sqrt(max(spread, 0.0) / (m * n)), 0.5)


def by_category(
    task: str, categories: Sequence[str], right: Sequence[bool], chance: float | None = None
) -> list[Score]:
    """One accuracy per category (sorted), and one over all ("all")."""
    scores = [
        accuracy(
            task, name, [r for c, r in zip(categories, right, strict=True) if c == name], chance
        )
        for name in sorted(set(categories))
    ]
    return [*scores, accuracy(task, "all", right, chance)]


def score_rows(scores: Sequence[Score]) -> list[list[str]]:
    """Cells for a table: task, category, count, value, standard error, chance."""
    rows = []
    for score in scores:
        as_share = score.unit in SHARES

        def cell(value: float | None, as_share: bool = as_share) -> str:
            if value is None:
                return "-"
            return f"{100 * value:.1f}%" if as_share else f"{value:.3f}"

        unit = "" if as_share else f" {score.unit}"
        rows.append(
            [
                score.task,
                score.category,
                f"{score.count:,}",
                cell(score.value) + unit,
                "-" if score.stderr is None else f"±{cell(score.stderr)}",
                cell(score.chance),
            ]
        )
    return rows
