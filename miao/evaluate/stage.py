"""What is measured after a stage, and what of it can be measured with this run's data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from miao.console import ProgressLine
from miao.corpus.read.formats import to_preference
from miao.corpus.records import Preference
from miao.corpus.seedbed.items import ChoiceItem, QuestionItem
from miao.evaluate.measure.likelihood import (
    bits_per_byte,
    choose_by_perplexity,
    prefer,
    prefer_single,
)
from miao.evaluate.measure.questions import answer_questions
from miao.evaluate.own import CLOZE, answer_own, own_questions
from miao.evaluate.scores import Score
from miao.files import read_jsonl
from miao.model.decoder import Decoder
from miao.recipe import EvaluateOptions, parse_quantity
from miao.rundir import RunDir
from miao.shards.dataset import TokenDataset
from miao.tokenizer import Tokenizer


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
) -> StageEvaluation:
    """Bits per byte by source, multiple choice, chat questions, preferences: after every stage the
    same, so that each has its before. A pretrained model meets the chat's marks for the first time.

    Args:
        reference: the model before DPO, for the implicit reward; None for other stages.
    """
    scores: list[Score] = []
    answers: list[dict[str, Any]] = []
    replies: list[dict[str, Any]] = []
    budget = parse_quantity(options.heldout_tokens, "evaluate.heldout_tokens")
    for directory in sorted(run.shards("pretrain", "heldout").glob("*/")):
        scores.append(bits_per_byte(model, TokenDataset(directory), tokenizer, budget))
    if choices := [ChoiceItem.from_json(r) for r in read_jsonl(run.eval_items / "choice.jsonl")]:
        with ProgressLine("multiple choice", sum(len(i.options) for i in choices)) as line:
            scores += choose_by_perplexity(model, tokenizer, choices, line.advance)[0]
    cloze = read_jsonl(run.eval_items / CLOZE)
    if items := [ChoiceItem.from_json(record) for record in cloze]:
        with ProgressLine("cloze questions", sum(len(i.options) for i in items)) as line:
            scores += choose_by_perplexity(model, tokenizer, items, line.advance, "cloze")[0]
    talks = tokenizer.has_chat_template  # else a base model, which is asked nothing
    if questions := [
        QuestionItem.from_json(r)
        for r in (read_jsonl(run.eval_items / "questions.jsonl") if talks else [])
    ]:
        with ProgressLine("questions", len(questions)) as line:
            found, texts = answer_questions(
                model, tokenizer, questions, options.max_new_tokens, line.advance
            )
        scores += found
        answers = [
            {
                "category": item.category,
                "question": item.question,
                "answer": text,
                "right": item.is_right(text),
            }
            for item, text in zip(questions, texts, strict=True)
        ]
    if own := own_questions(run, options.own_items) if talks else []:
        with ProgressLine("own questions", len(own)) as line:
            found, replies = answer_own(model, tokenizer, own, options.max_new_tokens, line.advance)
        scores += found
    kept = heldout_preferences(run, options.preference_pairs) if talks else []
    pairs, single = ([p for p in kept if p.is_pair is whole] for whole in (True, False))
    work = (2 * len(pairs) + len(single)) * (3 if reference else 1)
    with ProgressLine("preferences", work) as line:
        for held_against in [None, reference] if reference else [None]:
            given = (held_against, beta, line.advance)
            scores += prefer(model, tokenizer, pairs, *given) if pairs else []
            scores += prefer_single(model, tokenizer, single, *given) if single else []
    return StageEvaluation(scores, answers, replies)


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
