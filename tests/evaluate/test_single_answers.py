"""Held-out single answers: how well two models tell the desirable ones from the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from miao.corpus.records import Message, Preference
from miao.evaluate.measure.likelihood import prefer_single
from miao.evaluate.scores import ranked
from miao.tokenizer import Tokenizer


def test_the_area_under_the_curve_by_hand() -> None:
    """0.8 beats both, 0.4 beats one, 0.35 ties one and beats none: 2 + 1 + 0.5 of 6."""
    score = ranked("t", "c", [0.8, 0.4, 0.35], [0.35, 0.7])
    assert score.value == pytest.approx(3.5 / 6) and score.count == 5 and score.chance == 0.5
    area = 3.5 / 6
    above, below = area / (2 - area), 2 * area * area / (1 + area)
    spread = area * (1 - area) + 2 * (above - area**2) + 1 * (below - area**2)
    assert score.stderr == pytest.approx(math.sqrt(spread / 6))
    assert (ranked("t", "c", [2, 3], [1]).value, ranked("t", "c", [2], [2]).value) == (1.0, 0.5)


def test_single_answers_by_likelihood_and_by_reward(
    tokenizer: Tokenizer, bigram_model: Callable[..., Any]
) -> None:
    nine, two = tokenizer.encode("9")[0], tokenizer.encode("2")[0]
    model, reference = bigram_model({(None, nine): 3.0, (None, two): 1.0}), bigram_model({})
    answers = [single("a", "9", True), single("b", "22", False), single("c", "2", True)]
    (score,) = prefer_single(model, tokenizer, answers)
    assert (score.task, score.category) == ("preference (likelihood)", "single answers")
    # Per token, <|im_end|> (logit 0) included: (3 + 0) / 2, (1 + 0) / 2 against (1 + 1 + 0) / 3.
    assert (score.value, score.count) == (0.5, 3)
    (score,) = prefer_single(model, tokenizer, answers, reference, beta=0.5)
    assert score.task == "preference (reward)" and 0 < score.value <= 1
    assert prefer_single(model, tokenizer, answers[1:2]) == []


def single(prompt: str, text: str, good: bool) -> Preference:
    answer = [Message("assistant", text)]
    return Preference([Message("user", prompt)], answer if good else [], [] if good else answer)
