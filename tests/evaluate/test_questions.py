"""Questions asked in the chat, to a model whose only answer is known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from miao.corpus.records import Message
from miao.corpus.seedbed.items import QuestionItem
from miao.evaluate.measure.quality import chat_answers
from miao.evaluate.scores import by_category
from miao.model import Decoder
from miao.tokenizer import Tokenizer

ANSWER = "水的温度是42。"


@pytest.fixture
def answering(tokenizer: Tokenizer, bigram_model: Callable[..., Decoder]) -> Decoder:
    """Says ANSWER after the opening of its turn, and then ends the turn."""
    prompt = tokenizer.chat_template.encode_prompt(tokenizer, [Message("user", "?")])
    ids = [prompt[-1], *tokenizer.encode(f" {ANSWER}"), tokenizer.end_of_turn_id]
    assert len(set(ids)) == len(ids), "a bigram model cannot say the same token twice"
    return bigram_model(dict.fromkeys(pairwise(ids), 5.0))


def test_answers_are_the_text_up_to_the_end_of_the_turn(
    tokenizer: Tokenizer, answering: Decoder
) -> None:
    done: list[int] = []
    questions = ["几度？", "How warm is it, and why, and since when?", "?"]
    assert chat_answers(answering, tokenizer, questions, 40, done.append) == [ANSWER] * 3
    assert sum(done) == 3
    short = chat_answers(answering, tokenizer, questions[:1], 2)
    assert short != [ANSWER] and ANSWER.startswith(short[0].rstrip("\ufffd"))


def item(answers: list[str], category: str, **changes: Any) -> QuestionItem:
    return QuestionItem("几度？", answers, category=category, **changes)


def test_accuracy_by_category(tokenizer: Tokenizer, answering: Decoder) -> None:
    items = [
        item(["温度"], "words"),
        item(["湿度"], "words"),
        item(["42"], "numbers", match="number"),
        item(["42"], "numbers", match="number"),
        item(["41"], "numbers", match="number"),
        item(["温度"], "words", wrong=["水"]),
    ]
    answers = chat_answers(answering, tokenizer, [one.question for one in items], 40)
    assert answers == [ANSWER] * 6
    right = [one.is_right(answer) for one, answer in zip(items, answers, strict=True)]
    scores = by_category("questions", [one.category for one in items], right)
    values = {score.category: (score.value, score.count) for score in scores}
    assert values == {
        "numbers": (pytest.approx(2 / 3), 3),
        "words": (pytest.approx(1 / 3), 3),
        "all": (0.5, 6),
    }
