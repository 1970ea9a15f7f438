"""Against scipy's values, written down, and hand-computed ones."""

from __future__ import annotations

import math
import random

import pytest

from miao.evaluate.statistics import above_chance, compare_paired, holm, mcnemar


@pytest.mark.parametrize(
    ("only_a", "only_b", "expected"),
    [
        (0, 0, 1.0),
        (0, 5, 2 / 32),
        (5, 0, 2 / 32),
        (1, 9, 2 * (1 + 10) / 1024),
        (10, 10, 1.0),
        (30, 50, 0.03299261842647619),  # scipy.stats.binomtest(30, 80).pvalue
        (7, 24, 0.003326892852783203),  # scipy.stats.binomtest(7, 31).pvalue
    ],
)
def test_mcnemar_is_a_binomial_test(only_a: int, only_b: int, expected: float) -> None:
    assert mcnemar(only_a, only_b) == pytest.approx(expected, rel=1e-9)


def test_guessing_is_at_chance_and_knowing_is_not() -> None:
    chances = [0.25] * 400
    assert above_chance([True] * 100 + [False] * 300, chances) == 1.0
    # 120 right: z = (20 - 0.5) / sqrt(400 * 0.25 * 0.75)
    z = 19.5 / math.sqrt(75)
    expected = math.erfc(z / math.sqrt(2))
    assert above_chance([True] * 120 + [False] * 280, chances) == pytest.approx(expected)
    assert above_chance([False] * 400, chances) < 1e-9, "far below is not guessing either"
    assert above_chance([True] * 3, [1.0] * 3) == 1.0


def test_guessers_are_called_at_chance_nineteen_times_in_twenty() -> None:
    rng = random.Random(0)
    chances = [rng.choice([0.5, 0.25, 1 / 3]) for _ in range(300)]
    calls = [above_chance([rng.random() < p for p in chances], chances) >= 0.05 for _ in range(400)]
    assert 0.92 < sum(calls) / len(calls) < 0.995


def test_a_paired_difference_by_hand() -> None:
    right_a = [True] * 40 + [False] * 60
    right_b = [True] * 30 + [False] * 10 + [True] * 25 + [False] * 35
    found = compare_paired(right_a, right_b)
    assert (found.count, found.only_a, found.only_b) == (100, 10, 25)
    assert found.value == pytest.approx(0.15)
    variance = (35 - 100 * 0.15**2) / 99
    assert found.stderr == pytest.approx(math.sqrt(variance / 100))
    assert found.p_value == pytest.approx(mcnemar(10, 25))
    # The bootstrap agrees with the normal interval.
    assert found.low == pytest.approx(0.15 - 1.96 * found.stderr, abs=0.02)
    assert found.high == pytest.approx(0.15 + 1.96 * found.stderr, abs=0.02)


def test_the_same_answers_do_not_differ() -> None:
    found = compare_paired([True, False] * 5, [True, False] * 5)
    assert (found.value, found.p_value, found.low, found.high) == (0.0, 1.0, 0.0, 0.0)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
