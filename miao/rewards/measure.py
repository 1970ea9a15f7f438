"""Held-out problems before and after GRPO: the same problems, greedy answers, paired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from miao.evaluate.scores import Score, accuracy, mean
from miao.model.decoder import Decoder
from miao.rewards.answers import Answer, Examiner
from miao.rewards.problems import Problem

TASK = "rewards"
TOTAL = "all"


@dataclass(frozen=True)
class Change:
    """What a reward function gave before and after, and the mean difference on the same problems
    with its standard error."""

    before: Score
    after: Score
    difference: Score

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Measured:
    """`changes`: per function, and of the weighted sum. `answers`: as the report compares them."""

    changes: list[Change]
    answers_before: list[dict[str, Any]]
    answers_after: list[dict[str, Any]]


def measure(
    examiner: Examiner,
    before: Decoder,
    after: Decoder,
    problems: Sequence[Problem],
    advance: Callable[[int], None] = lambda finished: None,
) -> Measured:
    """Puts the problems to both models."""
    seeds = [None] * len(problems)
    old = examiner.ask(before, problems, seeds, advance=advance)
    new = examiner.ask(after, problems, seeds, advance=advance)
    first = next(iter(examiner.rewards.weights))
    names = list(examiner.rewards.weights)
    changes = [
        _change(name, [a.values[name] for a in old], [a.values[name] for a in new])
        for name in names
    ]
    if len(names) > 1 or examiner.rewards.weights[first] != 1:
        changes.append(_change(TOTAL, [a.reward for a in old], [a.reward for a in new]))
    return Measured(changes, _records(first, problems, old), _records(first, problems, new))


def _change(name: str, before: list[float], after: list[float]) -> Change:
    difference = mean(TASK, name, [b - a for a, b in zip(before, after, strict=True)], "difference")
    return Change(_score(name, before), _score(name, after), difference)


def _score(name: str, values: list[float]) -> Score:
    if name != TOTAL and set(values) <= {0.0, 1.0}:
        return accuracy(TASK, name, [value == 1.0 for value in values])
    return mean(TASK, name, values, "reward")


def _records(
    first: str, problems: Sequence[Problem], answers: Sequence[Answer]
) -> list[dict[str, Any]]:
    """Right is what the first reward function gives more than one half for."""
    return [
        {"question": p.prompt, "answer": a.text, "right": a.values[first] > 0.5}
        for p, a in zip(problems, answers, strict=True)
    ]
