"""What is measured after a stage, and what of it can be measured with this run's data."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from miao.console import ProgressLine
from miao.corpus.read.convert import to_preference
from miao.corpus.records import Preference
from miao.corpus.seedbed.items import ChoiceItem, QuestionItem
from miao.engine import SamplingOptions
from miao.evaluate.measure.likelihood import (
    bits_per_byte,
    choose_by_perplexity,
    chosen,
    prefer,
    prefer_single,
)
from miao.evaluate.measure.quality import chat_answers
from miao.evaluate.own import (
    ABOUT,
    CLOZE,
    OWN,
    TALKING,
    OwnQuestion,
    answer_own,
    manner_of,
    own_questions,
    text_questions,
    tone_of,
)
from miao.evaluate.scores import Score, by_category
from miao.files import read_jsonl
from miao.model.decoder import Decoder
from miao.recipe import EvaluateOptions, parse_quantity
from miao.rundir import RunDir
from miao.shards.dataset import TokenDataset
from miao.tokenizer import Tokenizer

T = TypeVar("T")
R = TypeVar("R")
CHUNK = 16
"""Questions between two looks at the clock."""


@dataclass
class StageEvaluation:
    """Scores of a stage, and the chat's answers to the held-out questions."""

    scores: list[Score]
    answers: list[dict[str, Any]]
    own: list[dict[str, Any]]
    """Answers to the user's held-out questions, beside the references."""


def evaluate_stage(
    model: Decoder,
    tokenizer: Tokenizer,
    run: RunDir,
    options: EvaluateOptions,
    reference: Decoder | None = None,
    beta: float = 1.0,
    base_only: bool = False,
) -> StageEvaluation:
    """Bits per byte by source, multiple choice, chat questions, preferences: after every stage the
    same, so that each has its before. A pretrained model meets the chat's marks for the first time.

    Args:
        reference: the model before DPO, for the implicit reward; None for other stages.
        base_only: the model has only been pretrained: where time is short it is asked nothing.
    """
    ends = None if options.seconds is None else time.monotonic() + options.seconds
    scores: list[Score] = []
    answers: list[dict[str, Any]] = []
    replies: list[dict[str, Any]] = []
    budget = parse_quantity(options.heldout_tokens, "evaluate.heldout_tokens")
    for directory in sorted(run.shards("pretrain", "heldout").glob("*/")):
        scores.append(bits_per_byte(model, TokenDataset(directory), tokenizer, budget))
    if choices := [ChoiceItem.from_json(r) for r in read_jsonl(run.eval_items / "choice.jsonl")]:
        with ProgressLine("multiple choice", sum(len(i.options) for i in choices)) as line:
            scores += choose_by_perplexity(model, tokenizer, choices, line.advance)[0]
    talks = tokenizer.has_chat_template  # else a base model, which is asked nothing
    talks = talks and not (base_only and ends is not None)
    for name, find, heat in (
        (OWN, own_questions, 0.0),
        (ABOUT, text_questions, TALKING),
    ):
        own = find(run, options.own_items) if talks else []
        drawn = SamplingOptions(heat, max_new_tokens=options.max_new_tokens, seed=0)
        with ProgressLine(name, len(own)) as line:

            def reply(some: list[OwnQuestion]) -> list[dict[str, Any]]:
                return answer_own(model, tokenizer, some, drawn, line.advance)  # noqa: B023

            found = in_time(own, reply, ends, 0.4)
        replies += found
        scores += manner_of([record["answer"] for record in found], name)
        scores += tone_of(run, found) if name == ABOUT else []
    questions = read_jsonl(run.eval_items / "questions.jsonl") if talks else []
    if items := mixed([QuestionItem.from_json(record) for record in questions], ends):
        with ProgressLine("questions", len(items)) as line:

            def answer(some: list[QuestionItem]) -> list[str]:
                asked = [item.question for item in some]
                return chat_answers(model, tokenizer, asked, options.max_new_tokens, line.advance)

            texts = in_time(items, answer, ends, 0.9)
        items = items[: len(texts)]
        answers = [
            {
                "category": item.category,
                "question": item.question,
                "answer": text,
                "right": item.is_right(text),
            }
            for item, text in zip(items, texts, strict=True)
        ]
        right = [record["right"] for record in answers]
        scores += (
            by_category("questions", [item.category for item in items], right) if right else []
        )
    cloze = read_jsonl(run.eval_items / CLOZE) if is_before(ends) else []
    if gaps := [ChoiceItem.from_json(record) for record in cloze]:
        with ProgressLine("cloze questions", sum(len(i.options) for i in gaps)) as line:

            def choose(some: list[ChoiceItem]) -> list[int]:
                return choose_by_perplexity(model, tokenizer, some, line.advance)[1]

            picked = in_time(gaps, choose, ends, 0.9)
        scores += chosen(gaps[: len(picked)], picked, "cloze")
    talks = talks and is_before(ends)
    kept = heldout_preferences(run, options.preference_pairs) if talks else []
    pairs, single = ([p for p in kept if p.is_pair is whole] for whole in (True, False))
    work = (2 * len(pairs) + len(single)) * (3 if reference else 1)
    with ProgressLine("preferences", work) as line:
        for held_against in [None, reference] if reference else [None]:
            given = (held_against, beta, line.advance)
            scores += prefer(model, tokenizer, pairs, *given) if pairs else []
            scores += prefer_single(model, tokenizer, single, *given) if single else []
    return StageEvaluation(scores, answers, replies)


def mixed(items: list[T], ends: float | None) -> list[T]:
    """In an order of which every beginning is like the whole, where the time may end it."""
    return items if ends is None else random.Random(0).sample(items, len(items))


def is_before(ends: float | None) -> bool:
    return ends is None or time.monotonic() < ends


def in_time(
    items: list[T], work: Callable[[list[T]], list[R]], ends: float | None, share: float
) -> list[R]:
    """What the work gives for the items: for all of them, or for as many as the time allows.

    Args:
        ends: where `time.monotonic` is when all must be over. share: of what is left that this
            may take.
    """
    if ends is None:
        return work(items)
    began, found = time.monotonic(), list[R]()
    room = share * (ends - began)
    for start in range(0, len(items), CHUNK):
        spent = time.monotonic() - began
        if spent * (1 + CHUNK / max(start, CHUNK)) > room:
            break
        found += work(items[start : start + CHUNK])
    return found


def heldout_preferences(run: RunDir, count: int) -> list[Preference]:
    """The built-in held-out pairs, or those kept out of the user's."""
    path = run.eval_items / "preferences.jsonl"
    if not path.exists():
        path = run.corpus / "dpo" / "heldout" / "preferences.jsonl"
    return [to_preference(record) for record in read_jsonl(path)][:count]


def changed_answers(
    before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Questions whose answer is another than before, with both answers."""
    old = {record["question"]: record for record in before}
    return [
        {"question": now["question"], "before": then["answer"], "after": now["answer"],
         "right_before": then["right"], "right_after": now["right"]}
        for now in after
        if (then := old.get(now["question"])) and then["answer"] != now["answer"]
    ]  # fmt: skip
