"""How sure a score is, whether it is more than guessing, and whether two models differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


def above_chance(right: Sequence[bool], chances: Sequence[float]) -> float:
    """p-value (two-sided) of so many right answers, or a number as far from what guessing gives.

    Question i is guessed right with probability `chances[i]`; their sum is Poisson-binomial, here
    by its normal approximation with continuity correction.
    """
    expected = sum(chances)
    spread = math.sqrt(sum(p * (1 - p) for p in chances))
    if spread == 0:
        return 1.0
    distance = max(abs(sum(right) - expected) - 0.5, 0.0)
    return math.erfc(distance / spread / math.sqrt(2))


@dataclass(frozen=True)
class Difference:
    """Model B against model A on the same questions. `value` is B - A as a share."""

    count: int
    value: float
    stderr: float
    only_a: int
    only_b: int
    p_value: float
    """McNemar's exact test: how likely such a split of the questions that only one of them answers
    is if neither is better."""
    low: float
    high: float
    """Paired bootstrap, 95 %."""


def compare_paired(right_a: Sequence[bool], right_b: Sequence[bool], seed: int = 0) -> Difference:
    """The difference of two models that answered the same questions."""
    assert len(right_a) == len(right_b) and right_a, "the same questions, at least one"
    steps = [int(b) - int(a) for a, b in zip(right_a, right_b, strict=True)]
    count, only_a, only_b = len(steps), steps.count(-1), steps.count(1)
    value = sum(steps) / count
    variance = sum((step - value) ** 2 for step in steps) / max(count - 1, 1)
    low, high = _bootstrap(only_a, only_b, count, seed)
    return Difference(
        count,
        value,
        math.sqrt(variance / count),
        only_a,
        only_b,
        mcnemar(only_a, only_b),
        low,
        high,
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value: a fair coin for every question that only one model answers right."""
    count, fewer = only_a + only_b, min(only_a, only_b)
    if count == 0:
        return 1.0
    tail = sum(math.comb(count, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**count)


def _bootstrap(only_a: int, only_b: int, count: int, seed: int) -> tuple[float, float]:
    """95 % interval of the mean difference over resampled questions, of which each has one of
    three differences: a resample is a multinomial draw."""
    shares = [only_a / count, only_b / count, 1 - (only_a + only_b) / count]
    drawn = np.random.default_rng(seed).multinomial(count, shares, RESAMPLES)
    low, high = np.quantile((drawn[:, 1] - drawn[:, 0]) / count, [0.025, 0.975])
    return float(low), float(high)


def wilson(share: float, count: float, z: float) -> tuple[float, float]:
    """Wilson's interval (1927) of a share of `count` independent questions."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2) / (1 + z * z / count)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def clustered_variance(values: Sequence[float], clusters: Sequence[object]) -> float:
    """Variance of a mean whose questions come in clusters (one text, several questions): of
    clusters' summed residuals, with the correction G / (G - 1) for G clusters; that of the values
    over n, p(1-p)/n for right and wrong, where every question stands alone."""
    count = len(values)
    middle = sum(values) / count
    sums: dict[object, float] = {}
    for one, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + one - middle
    if len(sums) in (1, count):
        return sum((one - middle) ** 2 for one in values) / count**2
    return sum(r * r for r in sums.values()) * len(sums) / (len(sums) - 1) / count**2


def stratified(rows: Sequence[tuple[object, object, float]]) -> tuple[float, float]:
    """Mean and its variance, of (subject, cluster, value) of every question. Subjects are fixed
    parts, each with its own spread; questions of one cluster are one draw together."""
    groups: dict[object, list[tuple[object, float]]] = {}
    for subject, cluster, value in rows:
        groups.setdefault(subject, []).append((cluster, value))
    variance = sum(
        (len(group) / len(rows)) ** 2
        * clustered_variance([value for _, value in group], [cluster for cluster, _ in group])
        for group in groups.values()
    )
    return sum(value for *_, value in rows) / len(rows), variance


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment for several comparisons, in their order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
