"""Sampling against distributions worked out by hand and against transformers' processors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from miao.engine import SamplingOptions
from miao.engine.sampling import _penalise, next_tokens
from miao.errors import MiaoError

DRAWS = 20_000
# Unordered, so that a mix-up of ranks and ids shows.
PROBABILITIES = torch.tensor([0.05, 0.42, 0.08, 0.25, 0.20])
LOGITS = PROBABILITIES.log() + 3.0


def frequencies(logits_v: Tensor, options: SamplingOptions) -> list[float]:
    rows = logits_v.expand(DRAWS, -1)
    generator = torch.Generator().manual_seed(17)
    tokens = next_tokens(rows, [[]] * DRAWS, options, generator)
    return (torch.bincount(tokens, minlength=len(logits_v)) / DRAWS).tolist()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.05, 0.42, 0.08, 0.25, 0.20]),
        ({"top_k": 2}, [0, 0.42 / 0.67, 0, 0.25 / 0.67, 0]),
        ({"top_k": 99}, [0.05, 0.42, 0.08, 0.25, 0.20]),
        ({"top_p": 0.4}, [0, 1, 0, 0, 0]),
        ({"top_p": 0.6}, [0, 0.42 / 0.67, 0, 0.25 / 0.67, 0]),
        ({"top_p": 0.9}, [0, 0.42 / 0.95, 0.08 / 0.95, 0.25 / 0.95, 0.20 / 0.95]),
        # 0.42 is 63% of what top_k leaves, so the nucleus of 60% is one token.
        ({"top_k": 2, "top_p": 0.6}, [0, 1, 0, 0, 0]),
    ],
)
def test_distributions_by_hand(options: dict[str, Any], expected: list[float]) -> None:
    found = frequencies(LOGITS, SamplingOptions(temperature=1.0, **options))
    assert found == pytest.approx(expected, abs=0.015)
    assert [f == 0 for f in found] == [e == 0 for e in expected]


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.5, 10.0])
def test_temperature_divides_the_logits(temperature: float) -> None:
    expected = (PROBABILITIES ** (1 / temperature)) / (PROBABILITIES ** (1 / temperature)).sum()
    found = frequencies(LOGITS, SamplingOptions(temperature=temperature))
    assert found == pytest.approx(expected.tolist(), abs=0.015)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(0.7, 0, 0.9), (1.3, 5, 1.0), (1.0, 6, 0.8), (0.5, 12, 0.95), (2.0, 3, 0.5)],
)
def test_equals_the_processors_of_transformers(
    temperature: float, top_k: int, top_p: float
) -> None:
    logits = 2 * torch.randn(1, 16, generator=torch.Generator().manual_seed(3))
    warped = TemperatureLogitsWarper(temperature)(None, logits)
    if top_k:
        warped = TopKLogitsWarper(top_k)(None, warped)
    if top_p < 1:
        warped = TopPLogitsWarper(top_p)(None, warped)
    expected = warped.softmax(-1)[0]
    options = SamplingOptions(temperature=temperature, top_k=top_k, top_p=top_p)
    found = torch.tensor(frequencies(logits[0], options))
    assert float((found - expected).abs().max()) < 0.015
    assert not found[expected == 0].any()
    assert bool(found[expected > 0.001].all())


def test_temperature_zero_and_top_k_one_take_the_likeliest() -> None:
    logits = torch.randn(50, 30, generator=torch.Generator().manual_seed(1))
    likeliest = logits.argmax(-1)
    for options in (
        SamplingOptions(temperature=0.0),
        SamplingOptions(temperature=0.0, top_k=5, top_p=0.3),
        SamplingOptions(temperature=5.0, top_k=1),
        SamplingOptions(temperature=5.0, top_p=1e-6),
    ):
        assert torch.equal(next_tokens(logits, [[]] * 50, options, None), likeliest)


def test_rows_are_drawn_independently() -> None:
    """Each row from its own distribution, in one call."""
    logits = torch.full((3, 6), float("-inf"))
    logits[0, 4] = logits[1, 0] = logits[2, 5] = 1.0
    tokens = next_tokens(logits, [[]] * 3, SamplingOptions(temperature=1.0), None)
    assert tokens.tolist() == [4, 0, 5]


@pytest.mark.parametrize("penalty", [1.3, 0.8, 5.0])
def test_the_repetition_penalty_equals_transformers(penalty: float) -> None:
    logits = torch.randn(4, 12, generator=torch.Generator().manual_seed(2))
    seen = [[0, 3, 3, 5], [1, 1, 1, 1], [11, 10, 9, 8], [int(i) for i in logits[3].topk(4)[1]]]
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor(seen), logits.clone())
    before = logits.clone()
    options = SamplingOptions(repetition_penalty=penalty)
    assert torch.equal(next_tokens(logits, seen, options, None), expected.argmax(-1))
    assert torch.equal(logits, before), "the caller's logits stay as they are"
    torch.testing.assert_close(_penalise(logits, seen, penalty), expected)


def test_the_generator_makes_it_repeatable() -> None:
    logits = torch.randn(20, 50, generator=torch.Generator().manual_seed(1))
    options = SamplingOptions(temperature=1.0)
    draws = [
        next_tokens(logits, [[]] * 20, options, torch.Generator().manual_seed(seed)).tolist()
        for seed in (5, 5, 6)
    ]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": float("nan")}, "temperature"),
    ],
)
def test_impossible_options_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(MiaoError, match=named):
        SamplingOptions(**options)
