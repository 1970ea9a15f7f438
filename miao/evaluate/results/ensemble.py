"""One score of many tasks: the mean of their centred shares, 0 at chance and 1 at perfect.

As CORE of DCLM (arXiv:2406.11794): every task counts alike, whatever its number of questions or its
level of guessing. Here with its error, and for Chinese, English and both. The share is that of
right answers, or the one that right options have of all options' probability: of a small model it
tells more (arXiv:2508.13144), since it moves before the verdict does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from miao.evaluate.benchmark import Answer
from miao.evaluate.scores import ACCURACY, CENTRED, PROBABILITY, Score
from miao.evaluate.statistics import stratified, wilson

BOTH = "both"
Z95 = 1.959964


@dataclass(frozen=True)
class Part:
    """One task of the ensemble: a share with its standard error, and what guessing gives."""

    name: str
    language: str
    count: int
    value: float
    stderr: float
    chance: float = 0.0
    unit: str = ACCURACY
    accuracy: float | None = None
    """Share of right answers, where `value` is another."""
    task: str = ""
    subjects: tuple[str, ...] = ()
    """Whose answers these are; no subjects: all."""

    @property
    def centred(self) -> float:
        """(value - chance) / (1 - chance); below 0 where guessing would be better."""
        return (self.value - self.chance) / (1 - self.chance)

    @property
    def centred_stderr(self) -> float:
        return self.stderr / (1 - self.chance)

    def score(self) -> Score:
        return Score(
            self.name, self.language, self.count, self.value, self.stderr, self.chance, self.unit
        )

    def limits(self, z: float = Z95) -> tuple[float, float]:
        """Wilson's interval of the centred share, for as many independent verdicts as would have
        this standard error."""
        spread = self.value * (1 - self.value)
        count = spread / self.stderr**2 if spread and self.stderr else self.count
        low, high = wilson(self.value, max(count, 1.0), z)
        return ((low - self.chance) / (1 - self.chance), (high - self.chance) / (1 - self.chance))


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error and its 95 % interval."""

    value: float
    stderr: float
    low: float
    high: float


@dataclass(frozen=True)
class Ensemble:
    """The tasks of a set, answered by one model. Scores of equal sets may be compared."""

    name: str
    parts: tuple[Part, ...]

    @property
    def languages(self) -> list[str]:
        return list(dict.fromkeys(part.language for part in self.parts))

    def score(self, language: str | None = None) -> Estimate:
        """The mean over the tasks of a language; None: over the languages, which count alike.

        Standard errors of tasks add as independent ones. The interval is that of Zou and Donner
        (2008) from the tasks' own intervals, which near 0 and 1 are not symmetric.
        """
        value = variance = below = above = 0.0
        for part, weight in self.weights(language):
            low, high = part.limits()
            value += weight * part.centred
            variance += (weight * part.centred_stderr) ** 2
            below += (weight * (part.centred - low)) ** 2
            above += (weight * (high - part.centred)) ** 2
        return Estimate(
            value, math.sqrt(variance), value - math.sqrt(below), value + math.sqrt(above)
        )

    def weights(self, language: str | None) -> list[tuple[Part, float]]:
        """The tasks that the score of a language is the weighted mean of."""
        shown = self.languages if language is None else [language]
        groups = [[part for part in self.parts if part.language == one] for one in shown]
        assert groups and all(groups), "a task of every language"
        return [(part, 1 / len(group) / len(groups)) for group in groups for part in group]

    def scores(self) -> list[Score]:
        """The score of each language, and of both where there are two, as lines of a table."""
        names = [*self.languages, BOTH] if len(self.languages) > 1 else [*self.languages]
        rows = []
        for name in names:
            found = self.score(None if name == BOTH else name)
            count = sum(part.count for part in self.parts if name in (BOTH, part.language))
            rows.append(Score(self.name, name, count, found.value, found.stderr, 0.0, CENTRED))
        return rows

    def to_json(self) -> dict[str, Any]:
        """Scores with their intervals, and the tasks that they come from."""
        names = [*self.languages, BOTH]
        return {
            "set": self.name,
            "scores": {n: asdict(self.score(None if n == BOTH else n)) for n in names},
            "parts": [
                asdict(part) | {"centred": part.centred, "centred_stderr": part.centred_stderr}
                for part in self.parts
            ],
        }


def ensemble_from_json(record: dict[str, Any]) -> Ensemble:
    """What `Ensemble.to_json` wrote."""
    names = {entry.name for entry in fields(Part)}
    parts = [{k: v for k, v in part.items() if k in names} for part in record["parts"]]
    return Ensemble(
        record["set"], tuple(Part(**p | {"subjects": tuple(p.get("subjects", ()))}) for p in parts)
    )


def part_of(
    name: str,
    language: str,
    answers: Sequence[Answer],
    unit: str = ACCURACY,
    task: str = "",
    subjects: tuple[str, ...] = (),
) -> Part:
    """Sums up the answers to one task (see `stratified`); by probability where `unit` says so and
    options were compared."""
    known = [answer for answer in answers if answer.right is not None]
    assert known, "at least one question with a known answer"
    right = [float(bool(answer.right)) for answer in known]
    shares = [p for answer in known if (p := answer.probability) is not None]
    by_share = unit == PROBABILITY and len(shares) == len(known)
    rows = [
        (answer.item.subject, answer.item.cluster, value)
        for answer, value in zip(known, shares if by_share else right, strict=True)
    ]
    value, variance = stratified(rows)
    count = len(known)
    stderr = math.sqrt(variance) or 1 / (2 * (count + 1))
    chance = sum(answer.chance for answer in known) / count
    accuracy = sum(right) / count if by_share else None
    unit = PROBABILITY if by_share else ACCURACY
    return Part(name, language, count, value, stderr, chance, unit, accuracy, task, subjects)
