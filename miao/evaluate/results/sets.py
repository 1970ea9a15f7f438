"""A set of tasks asked of one model, and the score that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from miao.evaluate.benchmark import Asked, ask
from miao.evaluate.measure.likelihood import Advance, nothing
from miao.evaluate.results.ensemble import Ensemble, part_of
from miao.evaluate.tasks.items import Questions, read_questions
from miao.evaluate.tasks.prompts import Encoder, build_prompt
from miao.evaluate.tasks.sets import TaskSet, built_in_sets, load_set
from miao.evaluate.tasks.task import PromptStyle, Task, load_task
from miao.model.decoder import Decoder

Prepared = tuple[Task, str, PromptStyle, Questions]


def read_set(chosen: TaskSet, data: Path, limit: int | None = None) -> list[Prepared]:
    """The questions of all tasks of a set.

    Args:
        limit: fewer questions per subject than the set wants; scores of the same limit compare.
    """
    found = []
    for name, most in chosen.limits.items():
        task = load_task(name)
        style_name, style = task.style(None)
        count = most if limit is None else min(limit, most)
        subjects = chosen.subjects(name)
        questions = read_questions(task, data, None, style.shots, subjects, count)
        found.append((task, style_name, style, questions))
    return found


def ask_set(
    model: Decoder, encoder: Encoder, prepared: Sequence[Prepared], advance: Advance = nothing
) -> list[Asked]:
    """Every task of a set, asked."""
    return [
        ask(model, encoder, task, questions, style_name, style, style.shots, advance)
        for task, style_name, style, questions in prepared
    ]


def count_options(prepared: Sequence[Prepared]) -> int:
    """What `ask_set` advances to."""
    return sum(len(item.options) for *_, questions in prepared for item in questions.all())


def count_tokens(encoder: Encoder, prepared: Sequence[Prepared]) -> int:
    """About how many tokens `ask_set` reads: every option behind its question, without examples."""
    texts = [
        prompt.context + choice
        for task, _, style, questions in prepared
        for item in questions.all()
        for prompt in [build_prompt(task, style, item, ())]
        for choice in prompt.choices or [""]
    ]
    return sum(len(ids) for ids in encoder.tokenizer.encode_batch(texts))


def within(chosen: TaskSet) -> list[TaskSet]:
    """The sets that come with Miao whose questions are all among those of this one."""
    others = [load_set(name) for name in built_in_sets() if name != chosen.name]
    return [
        other
        for other in others
        if set(other.parts) < set(chosen.parts)
        and other.unit == chosen.unit
        and other.limits.items() <= chosen.limits.items()
    ]


def ensemble_of(chosen: TaskSet, asked: Sequence[Asked]) -> Ensemble:
    """The score of a set from its answers."""
    answers = {one.task.name: one.answers for one in asked}
    return Ensemble(
        chosen.name,
        tuple(
            part_of(
                part.name,
                part.language,
                [
                    answer
                    for answer in answers[part.task]
                    if not part.subjects or answer.item.subject in part.subjects
                ],
                chosen.unit,
                part.task,
                part.subjects,
            )
            for part in chosen.parts
        ),
    )
