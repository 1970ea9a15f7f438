"""What the answers to a task come to, with everything that keeps a score honest."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from miao.evaluate.benchmark import MEASURES, Answer, Asked
from miao.evaluate.scores import Score, accuracy, mean, ratio
from miao.evaluate.statistics import above_chance
from miao.evaluate.tasks.task import LETTERS

MEAN_OF_SUBJECTS = "mean of subjects"
NO_LETTER = "none"
BIASED = 0.5
"""Share of one letter among the predictions from which on it is pointed out."""


@dataclass
class Summary:
    """Scores by subject, group and over all; what guessing and always saying the same would give;
    and notes in words."""

    scores: list[Score]
    p_value: float | None = None
    """How likely guessing comes as far from chance as this."""
    majority: float | None = None
    """Share of the most frequent right answer: what a model gets that always says the same."""
    predicted: dict[str, int] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)
    """How often each letter was chosen, and how often it is right."""
    groups: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def at_chance(self) -> bool:
        return self.p_value is not None and self.p_value >= 0.05

    def to_json(self) -> dict[str, Any]:
        return {
            "scores": [score.to_json() for score in self.scores],
            "p_value_against_chance": self.p_value,
            "at_chance": self.at_chance,
            "majority_baseline": self.majority,
            "predicted_letters": self.predicted,
            "right_letters": self.expected,
            "groups": self.groups,
            "notes": self.notes,
        }


def summarise(asked: Asked, missing: Sequence[str] = ()) -> Summary:
    """Sums up labelled answers.

    Args:
        missing: subjects of the task without a file; they are named, since a mean over fewer
            subjects is another number.
    """
    if asked.style.scoring == "bits":
        return Summary(_bits(asked))
    answers = [answer for answer in asked.answers if answer.right is not None]
    assert answers, "at least one question with a known answer"
    right = [bool(answer.right) for answer in answers]
    chances = [answer.chance for answer in answers]
    name = asked.task.name
    summary = Summary(_scores(name, asked, answers, right, chances))
    categories = {score.category for score in summary.scores}
    known = [group for subject in asked.task.subjects.values() for group in subject.groups]
    summary.groups = [group for group in dict.fromkeys(known) if group in categories]
    for measure in answers[0].others:
        by_it = [answer.others[measure] == answer.item.answer for answer in answers]
        called = f"{name} ({MEASURES[measure]})"
        summary.scores.append(accuracy(called, "all", by_it, _mean(chances) or None))
    nats = [answer.nats for answer in answers if answer.nats is not None]
    if nats:
        summary.scores.append(mean(f"{name} (log-loss of the answer)", "all", nats, "nats"))
    if any(chances):
        places = {answer.item.answer for answer in answers}
        fixed = asked.style.scoring == "option" and len(answers) > 1 and places == {0}
        _against_guessing(summary, answers, right, chances, fixed)
    ties = sum(_is_tie(answer) for answer in answers) if any(chances) else 0
    if ties:
        summary.notes.append(
            f"in {ties} of {len(answers)} questions several options are equally likely; the first "
            "of them counts as chosen, as in lm-eval"
        )
    if asked.style.scoring == "generate":
        empty = sum(answer.found is None for answer in answers)
        if empty:
            summary.notes.append(f"no answer was found in {empty} of {len(answers)} texts")
    if asked.cut:
        too_many = asked.shots and asked.cut > len(asked.answers) / 2
        summary.notes.append(
            f"{asked.cut} prompts were longer than the context and lost their beginning"
            + (f"; ask with less than {asked.shots} examples: --shots 0" if too_many else "")
        )
    if asked.fewer:
        summary.notes.append(
            f"{asked.fewer} questions were shown fewer than {asked.shots} examples, to fit"
        )
    if missing:
        summary.notes.append(
            f"{len(missing)} of {len(asked.task.subjects)} subjects have no file: "
            + ", ".join(missing[:8])
            + (", ..." if len(missing) > 8 else "")
        )
    return summary


def _bits(asked: Asked) -> list[Score]:
    """Bits per byte of each domain (subject), and their mean: domains count alike."""
    by_domain: dict[str, list[Answer]] = {}
    for answer in asked.answers:
        by_domain.setdefault(answer.item.subject, []).append(answer)
    scores = [
        ratio(
            asked.task.name,
            domain,
            [(answer.nats or 0.0) / math.log(2) for answer in answers],
            [len(answer.item.question.encode(errors="replace")) for answer in answers],
            "bits",
        )
        for domain, answers in by_domain.items()
    ]
    if len(scores) == 1:
        return scores
    known = [score.stderr for score in scores if score.stderr is not None]
    error = math.hypot(*known) / len(scores) if len(known) == len(scores) else None
    value = _mean([score.value for score in scores])
    name = "mean of domains"
    return [*scores, Score(asked.task.name, name, len(scores), value, error, unit="bits")]


def _scores(
    name: str, asked: Asked, answers: list[Answer], right: list[bool], chances: list[float]
) -> list[Score]:
    """One per subject, one per group of subjects, the mean of subjects, and one over all."""
    by_subject: dict[str, list[int]] = {}
    for index, answer in enumerate(answers):
        by_subject.setdefault(answer.item.subject, []).append(index)
    if len(by_subject) == 1:
        return [accuracy(name, "all", right, _mean(chances) or None)]

    def score(category: str, indices: list[int]) -> Score:
        chance = _mean([chances[i] for i in indices])
        return accuracy(name, category, [right[i] for i in indices], chance or None)

    subjects = {subject: score(subject, indices) for subject, indices in by_subject.items()}
    groups: dict[str, list[int]] = {}
    for subject, indices in by_subject.items():
        known = asked.task.subjects.get(subject)
        for group in known.groups if known else ():
            groups.setdefault(group, []).extend(indices)
    means = list(subjects.values())
    # Every subject counts alike, those with nothing right too.
    stderr = math.sqrt(sum((one.stderr or 0.0) ** 2 for one in means)) / len(means)
    macro = Score(
        name,
        MEAN_OF_SUBJECTS,
        len(means),
        _mean([one.value for one in means]),
        stderr,
        _mean([one.chance or 0.0 for one in means]) or None,
    )
    return [
        *means,
        *(score(group, indices) for group, indices in groups.items()),
        macro,
        score("all", list(range(len(answers)))),
    ]


def _against_guessing(
    summary: Summary,
    answers: list[Answer],
    right: list[bool],
    chances: list[float],
    fixed_place: bool,
) -> None:
    summary.p_value = above_chance(right, chances)
    predicted = Counter(LETTERS[a.choice] if a.choice is not None else NO_LETTER for a in answers)
    expected = Counter(LETTERS[a.item.answer] for a in answers if isinstance(a.item.answer, int))
    if fixed_place:  # of a minimal pair the good sentence is always the first: no letter is shown
        expected, predicted = Counter(), Counter()
    summary.predicted = dict(sorted(predicted.items()))
    summary.expected = dict(sorted(expected.items()))
    summary.majority = max(expected.values()) / len(answers) if expected else None
    share, value = _mean([float(r) for r in right]), _mean(chances)
    if summary.at_chance:
        summary.notes.append(
            f"{share:.1%} cannot be told from guessing ({value:.1%}; p = {summary.p_value:.2f})"
        )
    elif share < value:
        summary.notes.append(f"{share:.1%} is below guessing ({value:.1%}): look at the answers")
    elif summary.majority is not None and share <= summary.majority:
        summary.notes.append(
            f"always answering the most frequent letter would give {summary.majority:.1%}"
        )
    letter, count = next(iter(predicted.most_common(1)), (NO_LETTER, 0))
    biased = letter != NO_LETTER and count > BIASED * len(answers)
    if biased and len(answers) >= 20:
        summary.notes.append(f"{letter} is chosen for {count / len(answers):.0%} of the questions")


def _is_tie(answer: Answer) -> bool:
    return len(answer.logprobs) > 1 and answer.logprobs.count(max(answer.logprobs)) > 1


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
