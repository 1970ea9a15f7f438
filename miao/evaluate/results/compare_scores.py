"""Two models' scores of the same set of tasks, by the same questions: what both find easy or hard
is no noise of the difference."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from miao.console import warn
from miao.evaluate.benchmark import right_share
from miao.evaluate.results.compare import Answers, Record, by_question
from miao.evaluate.results.ensemble import BOTH, Z95, Ensemble, Part, ensemble_from_json
from miao.evaluate.results.store import answers_folder
from miao.evaluate.scores import PROBABILITY
from miao.evaluate.statistics import holm, stratified
from miao.files import read_jsonl

BETWEEN_RUNS = {"early": 0.028}
"""By how much the scores of single models differ that read held-out text equally well: twice the
scatter of 30 of them around the line over bits per byte (docs, page 21)."""
Step = tuple[object, object, float]
"""Subject and cluster of a question, and what B has there more than A."""


@dataclass(frozen=True)
class ScoreDifference:
    """The score of model B less that of model A, centred: 1 is from guessing to perfect."""

    name: str
    language: str
    a: str
    b: str
    score_a: float
    score_b: float
    value: float
    stderr: float
    low: float
    high: float
    p_value: float
    """Two-sided, of no difference; adjusted (Holm) for how many comparisons are made at a time."""
    count: int
    left_out: int
    """Questions that only one of them answered."""


def compare_scores(paths: Sequence[str], only: str | None = None) -> list[ScoreDifference]:
    """Every later model against the first, for every score that both have; none: no such score."""

    @functools.cache
    def read(path: Path) -> Answers:  # once, however many parts are asked of a file
        return by_question(path, warn_of_nameless=False)

    found = [
        difference
        for other in paths[1:]
        for name, line, line_b in _shared(paths[0], other)
        if only is None or name.startswith(only)
        for difference in _differences(name, (paths[0], other), (line, line_b), read)
    ]
    adjusted = holm([one.p_value for one in found])
    return [replace(one, p_value=p) for one, p in zip(found, adjusted, strict=True)]


def _shared(a: str, b: str) -> list[tuple[str, Record, Record]]:
    """The scores that both have, asked in the same way."""
    ours, theirs = _lines(a), _lines(b)
    return [(name, ours[name], theirs[name]) for name in ours if name in theirs]


def _lines(path: str) -> dict[str, Record]:
    folder = answers_folder(path)
    lines = folder.parent.parent / "eval_results.jsonl"
    suffix = f" of {folder.name}"
    return {
        line["stage"].removeprefix("score ").removesuffix(suffix): line
        for line in read_jsonl(lines, warn)
        if "ensemble" in line and "files" in line and line.get("model_stage") == folder.name
    }


def _differences(
    name: str,
    paths: tuple[str, str],
    lines: tuple[Record, Record],
    read: Callable[[Path], Answers],
) -> list[ScoreDifference]:
    """Of each language, and of both where there are two."""
    a, b = (ensemble_from_json(line["ensemble"]) for line in lines)
    if [(p.name, p.language) for p in a.parts] != [(p.name, p.language) for p in b.parts]:
        warn(f"{name}: the set has other tasks in {paths[0]} and {paths[1]}: ask one of them again")
        return []
    found: dict[Part, list[Step]] = {}
    counts: dict[Part, tuple[int, int]] = {}
    for part, other in zip(a.parts, b.parts, strict=True):
        ours, theirs = (
            _of_part(read(answers_folder(path) / line["files"][one.task]), one)
            for path, line, one in zip(paths, lines, (part, other), strict=True)
        )
        keys = [key for key in ours if key in theirs]
        if not keys or part.unit != other.unit:
            warn(f"{name}: {part.name} {part.language} was asked otherwise: no score is compared")
            return []
        steps: list[Step] = [
            (key[0], ours[key].get("cluster", key), _value(theirs[key], part.unit) - before)
            for key in keys
            for before in [_value(ours[key], part.unit)]
        ]
        found[part] = steps
        counts[part] = (len(keys), len(ours) + len(theirs) - 2 * len(keys))
    names = [*a.languages, BOTH] if len(a.languages) > 1 else a.languages
    return [_difference(name, one, paths, (a, b), found, counts) for one in names]


def _difference(
    name: str,
    language: str,
    paths: tuple[str, str],
    scores: tuple[Ensemble, Ensemble],
    found: dict[Part, list[Step]],
    counts: dict[Part, tuple[int, int]],
) -> ScoreDifference:
    chosen = None if language == BOTH else language
    weights = scores[0].weights(chosen)
    value, stderr = paired([(w / (1 - part.chance), found[part]) for part, w in weights])
    before, after = (ensemble.score(chosen).value for ensemble in scores)
    p_value = math.erfc(abs(value) / stderr / math.sqrt(2)) if stderr else float(value == 0)
    shared, left_out = (sum(counts[part][i] for part, _ in weights) for i in (0, 1))
    low, high = value - Z95 * stderr, value + Z95 * stderr
    return ScoreDifference(
        name, language, *paths, before, after, value, stderr, low, high, p_value, shared, left_out
    )


def paired(parts: Sequence[tuple[float, Sequence[Step]]]) -> tuple[float, float]:
    """The weighted sum of the parts' mean steps, and its standard error: parts are independent."""
    value = variance = 0.0
    for weight, steps in parts:
        middle, spread = stratified(steps)
        value += weight * middle
        variance += weight**2 * spread
    return value, math.sqrt(variance)


def _of_part(answers: Answers, part: Part) -> Answers:
    if not part.subjects:
        return answers
    return {key: r for key, r in answers.items() if r["subject"] in part.subjects}


def _value(record: Record, unit: str) -> float:
    if unit == PROBABILITY:
        share = right_share(record.get("logprobs", []), record["answer"])
        assert share is not None, "what is counted by probability has options and their log p"
        return share
    return float(bool(record["right"]))


def score_text(one: ScoreDifference) -> str:
    """What was found, in words that need no wide terminal."""
    verdict = "no difference shown"
    if one.p_value < 0.05:
        verdict = f"{one.b} is {'better' if one.value > 0 else 'worse'}"
        if one.language == BOTH and abs(one.value) < BETWEEN_RUNS.get(one.name.split()[0], 0.0):
            verdict += ", as single runs of equal bits per byte are: it says nothing of recipes"
    return (
        f"{one.name} ({one.language}): one score of {one.count:,} shared questions\n"
        f"  {one.a}: {100 * one.score_a:.1f}   {one.b}: {100 * one.score_b:.1f}\n"
        f"  difference {100 * one.value:+.1f} ± {100 * one.stderr:.1f} "
        f"(paired, 95 %: {100 * one.low:+.1f} to {100 * one.high:+.1f}); "
        f"p = {one.p_value:.3g} (Holm)\n"
        f"  -> {verdict}"
    )
