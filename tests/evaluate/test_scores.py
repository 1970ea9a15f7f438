"""Standard errors by their formulas, scores by category, and how they are shown."""

from __future__ import annotations

import math
import statistics

import pytest

from miao.evaluate.scores import Score, accuracy, by_category, mean, score_rows


@pytest.mark.parametrize(
    ("right", "value", "stderr"),
    [
        ([True] * 3 + [False], 0.75, math.sqrt(0.75 * 0.25 / 4)),
        ([True] * 50 + [False] * 50, 0.5, 0.05),
        ([True] * 7, 1.0, 1 / 16),  # Wilson, one standard error: 0.875 to 1
        ([False], 0.0, 1 / 4),
    ],
)
def test_accuracy(right: list[bool], value: float, stderr: float) -> None:
    score = accuracy("task", "category", right, 0.25)
    assert score == Score("task", "category", len(right), value, pytest.approx(stderr), 0.25)
    assert score.unit == "accuracy"


def test_mean() -> None:
    values = [1.0, 2.0, 4.0, 4.0, 9.0]
    score = mean("margin", "all", values, "nats")
    assert score.value == pytest.approx(statistics.mean(values))
    assert score.stderr == pytest.approx(statistics.stdev(values) / math.sqrt(5))
    assert (score.count, score.chance, score.unit) == (5, None, "nats")
    assert mean("margin", "all", [3.0], "nats").stderr is None


def test_by_category() -> None:
    right = [True, False, True, True, False]
    scores = by_category("task", ["b", "a", "b", "a", "a"], right, 0.5)
    assert [(s.category, s.count, s.value) for s in scores] == [
        ("a", 3, pytest.approx(1 / 3)),
        ("b", 2, 1.0),
        ("all", 5, 0.6),
    ]
    assert {s.chance for s in scores} == {0.5}


def test_a_score_as_json() -> None:
    assert Score("t", "c", 3, 0.5, 0.1, None, "bits").to_json() == {
        "task": "t",
        "category": "c",
        "count": 3,
        "value": 0.5,
        "stderr": 0.1,
        "chance": None,
        "unit": "bits",
    }


def test_score_rows() -> None:
    scores = [
        Score("multiple choice", "all", 1400, 0.5125, 0.0134, 0.25),
        Score("bits per byte", "zh", 40, 1.23456, 0.01, unit="bits"),
        Score("preference margin", "all", 1, -0.5, unit="nats"),
    ]
    assert score_rows(scores) == [
        ["multiple choice", "all", "1,400", "51.2%", "±1.3%", "25.0%"],
        ["bits per byte", "zh", "40", "1.235 bits", "±0.010", "-"],
        ["preference margin", "all", "1", "-0.500 nats", "-", "-"],
    ]
