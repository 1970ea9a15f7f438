"""Questions answered in the chat, and checked."""

from __future__ import annotations

from collections.abc import Sequence

from miao.corpus.records import Message
from miao.corpus.seedbed.items import QuestionItem
from miao.engine import SamplingOptions
from miao.evaluate.measure.likelihood import Advance, nothing
from miao.evaluate.measure.writing import write_texts
from miao.evaluate.scores import Score, by_category
from miao.model.decoder import Decoder
from miao.tokenizer import Tokenizer


def chat_answers(
    model: Decoder,
    tokenizer: Tokenizer,
    questions: Sequence[str],
    max_new_tokens: int,
    advance: Advance = nothing,
) -> list[str]:
    """The greedy answer to each question, asked as the only turn of a conversation."""
    prompts = [
        tokenizer.chat_template.encode_prompt(tokenizer, [Message("user", question)])
        for question in questions
    ]
    options = SamplingOptions(temperature=0.0, max_new_tokens=max_new_tokens)
    texts = write_texts(model, tokenizer, prompts, options, advance=advance)
    return [text.strip() for text in texts]


def answer_questions(
    model: Decoder,
    tokenizer: Tokenizer,
    items: Sequence[QuestionItem],
    max_new_tokens: int,
    advance: Advance = nothing,
) -> tuple[list[Score], list[str]]:
    """Accuracy by category, and every answer."""
    answers = chat_answers(model, tokenizer, [i.question for i in items], max_new_tokens, advance)
    return judged(items, answers), answers


def judged(items: Sequence[QuestionItem], answers: Sequence[str]) -> list[Score]:
    """Accuracy by category."""
    right = [item.is_right(answer) for item, answer in zip(items, answers, strict=True)]
    return by_category("questions", [item.category for item in items], right) if items else []
