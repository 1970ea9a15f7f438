"""Any number of models beside each other, from verdicts on pairs of their answers (Bradley and
Terry 1952): a strength for each, with an interval."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miao.errors import MiaoError
from miao.evaluate.judge import Ask, Verdicts, judge_pair, outcome
from miao.files import append_jsonl, read_jsonl

ELO, MIDDLE = 400 / np.log(10), 1000.0
"""Strengths are written as Elo's numbers are: 400 more means ten to one."""
PRIOR = 0.5
"""Wins added to both sides of every pair: one that has never lost is not infinitely strong."""
RESAMPLES = 1000
PATIENCE = 8
"""Questions without any verdict, after which a judge is given up."""
Battles = dict[tuple[str, str], list[Verdicts]]
"""Of models a and b: the verdicts by question."""
_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Standing:
    """A model in the table: its strength with a 95 % interval, and its questions against all
    others."""

    name: str
    elo: float
    low: float
    high: float
    wins: int
    losses: int
    ties: int


class Verdictbook:
    """All verdicts of one judge, kept in a file: no pair of answers is paid for twice."""

    def __init__(self, path: Path, judge: str, warn: Callable[[str], None]):
        self.path, self.judge = path, judge
        self.known: dict[str, Verdicts] = {}
        for record in read_jsonl(path, warn) if path.exists() else []:
            one, two = (record.get("verdicts") or [None, None])[:2]
            self.known[str(record.get("key"))] = (one, two)
        self.asked = 0

    def verdicts(self, question: str, a: tuple[str, str], b: tuple[str, str], ask: Ask) -> Verdicts:
        """On (model, answer) a and b. What two models answer alike is a tie that nobody is asked
        about."""
        if a[1] == b[1]:
            return "tie", "tie"
        key = _key(self.judge, question, a[1], b[1])
        if key not in self.known:
            mirrored = self.known.get(_key(self.judge, question, b[1], a[1]))
            if mirrored is not None:
                return mirrored[1], mirrored[0]
            self.known[key] = judge_pair(question, a[1], b[1], ask)
            self.asked += 1
            self._give_up_in_time()
            record: dict[str, Any] = {"key": key, "judge": self.judge, "question": question}
            record |= {"a": a[0], "b": b[0], "verdicts": list(self.known[key])}
            append_jsonl(self.path, record)
        return self.known[key]

    def _give_up_in_time(self) -> None:
        last = list(self.known.values())[-self.asked :]
        if self.asked == PATIENCE and all(one == (None, None) for one in last):
            raise MiaoError(
                f"the judge gave no verdict on {PATIENCE} pairs of answers",
                where=self.judge,
                fix="it has to end with a line like 'Verdict: 1'; use a model that can follow that",
            )


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest()[:24]


def hold(
    questions: Sequence[str],
    answers: Mapping[str, Sequence[str]],
    book: Verdictbook,
    ask: Ask,
    advance: Callable[[int], None] = lambda done: None,
) -> Battles:
    """Every pair of models on every question."""
    found: Battles = {}
    for a, b in combinations(answers, 2):
        rows = []
        for question, x, y in zip(questions, answers[a], answers[b], strict=True):
            rows.append(book.verdicts(question, (a, x), (b, y), ask))
            advance(1)
        found[a, b] = rows
    return found


def longer_wins(found: Battles, answers: Mapping[str, Sequence[str]]) -> tuple[int, int]:
    """Of the questions that one of two answers won: how often the longer one did, and how many they
    are; answers of equal length are left out, and what two models say alike counts once."""
    won: dict[tuple[int, frozenset[str]], bool] = {}
    for (a, b), rows in found.items():
        for n, row in enumerate(rows):
            x, y, who = answers[a][n], answers[b][n], outcome(row)
            if who != 0.5 and len(x) != len(y):
                won[n, frozenset((x, y))] = (len(y) > len(x)) == (who == 1.0)
    return sum(won.values()), len(won)


def standings(found: Battles, seed: int = 0) -> list[Standing]:
    """The table, the strongest first. Its intervals come from drawing the questions again, since
    all models answer the same ones."""
    names = list(dict.fromkeys(name for pair in found for name in pair))
    count = len(next(iter(found.values())))
    won = np.zeros((count, len(names), len(names)))  # by question: row against column
    for (a, b), rows in found.items():
        i, j = names.index(a), names.index(b)
        won[:, j, i] = [outcome(row) for row in rows]
        won[:, i, j] = 1 - won[:, j, i]
    drawn = np.random.default_rng(seed).multinomial(count, [1 / count] * count, RESAMPLES)
    strengths = ELO * bradley_terry(won.sum(0)[None])[0] + MIDDLE
    draws = ELO * bradley_terry(np.tensordot(drawn, won, 1)) + MIDDLE
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    table = []
    for i, name in enumerate(names):
        others = np.delete(won[:, i], i, axis=1)
        counts = [int((others == value).sum()) for value in (1.0, 0.0, 0.5)]
        elo, least, most = (float(values[i]) for values in (strengths, low, high))
        table.append(Standing(name, elo, least, most, *counts))
    return sorted(table, key=lambda row: -row.elo)


def bradley_terry(won: _Array, prior: float = PRIOR, steps: int = 5000) -> _Array:
    """Log-strengths with mean 0 of [batch, n, n] numbers of wins of row against column, ties as
    half a win for both; by minorisation-maximisation (Hunter 2004)."""
    size = won.shape[-1]
    won = won + prior * (1 - np.eye(size))
    games, wins = won + won.swapaxes(1, 2), won.sum(2)
    strength = np.ones(wins.shape)
    for _ in range(steps):
        before = strength
        pairs = strength[:, :, None] + strength[:, None, :]
        strength = wins / (games / pairs).sum(2)
        strength /= np.exp(np.log(strength).mean(1, keepdims=True))
        if np.abs(np.log(strength / before)).max() < 1e-9:
            break
    found: _Array = np.log(strength)
    return found
