"""Sampling against distributions worked out by hand and against transformers' processors."""

from __future__ import annotations

from dataclasses import replace
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
from miao.engine.sampling import (
    COLDEST,
    HOTTEST,
    LARGEST,
    NOTHING,
    REPETITION,
    Draw,
    changed_logits,
    next_tokens,
)
from miao.engine.scheduler import top_logprobs
from miao.errors import MiaoError

DRAWS = 5_000
# Unordered, so that a mix-up of ranks and ids shows.
PROBABILITIES = torch.tensor([0.05, 0.42, 0.08, 0.25, 0.20])
LOGITS = PROBABILITIES.log() + 3.0


def draws_of(
    count: int, options: SamplingOptions, vocab_size: int, prompts: list[list[int]] | None = None
) -> list[Draw]:
    cpu = torch.device("cpu")
    return [
        Draw(options, prompts[index] if prompts else [], vocab_size, cpu, index)
        for index in range(count)
    ]


def frequencies(logits_v: Tensor, options: SamplingOptions) -> list[float]:
    rows = logits_v.expand(DRAWS, -1)
    draws = draws_of(DRAWS, replace(options, seed=17), len(logits_v))
    tokens = next_tokens(rows, draws)
    return (torch.bincount(tokens, minlength=len(logits_v)) / DRAWS).tolist()


def choose(logits: Tensor, options: SamplingOptions) -> Tensor:
    return next_tokens(logits, draws_of(len(logits), options, logits.shape[1]))


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
        ({"min_p": 0.5}, [0, 0.42 / 0.67, 0, 0.25 / 0.67, 0]),
        ({"min_p": 0.1}, [0.05, 0.42, 0.08, 0.25, 0.20]),
        ({"min_p": 0.15, "top_p": 0.94}, [0, 0.42 / 0.95, 0.08 / 0.95, 0.25 / 0.95, 0.20 / 0.95]),
    ],
)
def test_distributions_by_hand(options: dict[str, Any], expected: list[float]) -> None:
    found = frequencies(LOGITS, SamplingOptions(temperature=1.0, **options))
    assert found == pytest.approx(expected, abs=0.03)
    assert [f == 0 for f in found] == [e == 0 for e in expected]


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.5, 10.0])
def test_temperature_divides_the_logits(temperature: float) -> None:
    expected = (PROBABILITIES ** (1 / temperature)) / (PROBABILITIES ** (1 / temperature)).sum()
    found = frequencies(LOGITS, SamplingOptions(temperature=temperature))
    assert found == pytest.approx(expected.tolist(), abs=0.03)


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
    assert float((found - expected).abs().max()) < 0.03
    assert not found[expected == 0].any()
    assert bool(found[expected > 0.003].all())


def test_temperature_zero_and_top_k_one_take_the_likeliest() -> None:
    logits = torch.randn(50, 30, generator=torch.Generator().manual_seed(1))
    likeliest = logits.argmax(-1)
    for options in (
        SamplingOptions(temperature=0.0),
        SamplingOptions(temperature=0.0, top_k=5, top_p=0.3),
        SamplingOptions(temperature=5.0, top_k=1),
        SamplingOptions(temperature=5.0, top_p=1e-6),
    ):
        assert torch.equal(choose(logits, options), likeliest)


def test_rows_are_drawn_independently() -> None:
    """Each row from its own distribution, in one call."""
    logits = torch.full((3, 6), float("-inf"))
    logits[0, 4] = logits[1, 0] = logits[2, 5] = 1.0
    tokens = choose(logits, SamplingOptions(temperature=1.0))
    assert tokens.tolist() == [4, 0, 5]


@pytest.mark.parametrize("penalty", [1.3, 0.8, 5.0])
def test_the_repetition_penalty_equals_transformers(penalty: float) -> None:
    logits = torch.randn(4, 12, generator=torch.Generator().manual_seed(2))
    seen = [[0, 3, 3, 5], [1, 1, 1, 1], [11, 10, 9, 8], [int(i) for i in logits[3].topk(4)[1]]]
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor(seen), logits.clone())
    before = logits.clone()
    draws = draws_of(4, SamplingOptions(repetition_penalty=penalty), 12, seen)
    assert torch.equal(next_tokens(logits, draws), expected.argmax(-1))
    torch.testing.assert_close(changed_logits(logits, draws), expected)
    assert torch.equal(logits, before), "the caller's logits stay as they are"


def test_presence_frequency_and_bias_by_hand() -> None:
    options = SamplingOptions(
        presence_penalty=0.5, frequency_penalty=0.25, logit_bias={3: -100.0, 0: 2.0}
    )
    (draw,) = draws_of(1, options, 5, [[1, 1, 4]])
    for token in (2, 2, 2, 4):
        draw.note(token)
    # The prompt's tokens are not penalised; token 2 came three times, token 4 once.
    expected = [2.0, 0.0, -0.5 - 3 * 0.25, -100.0, -0.5 - 0.25]
    assert changed_logits(torch.zeros(1, 5), [draw])[0].tolist() == expected


def test_rows_have_options_of_their_own() -> None:
    """One batch of everything draws what each row draws alone."""
    logits = 3 * torch.randn(6, 400, generator=torch.Generator().manual_seed(5))
    several = [
        SamplingOptions(),
        SamplingOptions(temperature=1.0, seed=1),
        SamplingOptions(temperature=0.7, top_k=5, seed=2),
        SamplingOptions(temperature=1.5, top_p=0.5, seed=3),
        SamplingOptions(temperature=1.0, min_p=0.2, logit_bias={7: 50.0}, seed=4),
        SamplingOptions(temperature=2.0, top_k=300, top_p=0.9, seed=5),
    ]
    cpu = torch.device("cpu")
    alone = [
        [int(next_tokens(logits[row][None], [draw])) for _ in range(20)]
        for row, options in enumerate(several)
        for draw in [Draw(options, [], 400, cpu)]
    ]
    draws = [Draw(options, [], 400, cpu) for options in several]
    together = [next_tokens(logits, draws).tolist() for _ in range(20)]
    assert [list(column) for column in zip(*together, strict=True)] == alone
    assert set(alone[4]) == {7} and len(set(alone[0])) == 1 and len(set(alone[1])) > 3


@pytest.mark.parametrize("options", [{"top_p": 0.8}, {"min_p": 0.05}, {"top_k": 90, "top_p": 0.7}])
def test_the_shortlist_changes_nothing(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sharp and flat rows, for which the shortlist is and is not enough."""
    generator = torch.Generator().manual_seed(6)
    for scale in (0.1, 1.0, 6.0):
        logits = scale * torch.randn(300, 1000, generator=generator)
        sampling = SamplingOptions(temperature=1.0, seed=3, **options)
        short = choose(logits, sampling)
        with monkeypatch.context() as patch:
            patch.setattr("miao.engine.sampling._width", lambda *given: None)
            assert torch.equal(choose(logits, sampling), short)


def test_a_temperature_too_small_to_divide_by_is_greedy() -> None:
    logits = 30 * torch.randn(4, 9, generator=torch.Generator().manual_seed(1))
    assert torch.equal(choose(logits, SamplingOptions(temperature=1e-30)), logits.argmax(-1))
    assert torch.equal(choose(logits, SamplingOptions(temperature=1e-4)), logits.argmax(-1))


def test_forbidden_tokens_are_never_drawn() -> None:
    logits = torch.zeros(500, 50)
    logits[:, 10:] = float("-inf")
    assert int(choose(logits, SamplingOptions(temperature=5.0, seed=1)).max()) < 10


def test_logprobs_are_those_of_the_model() -> None:
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(2))
    chosen, ids, values = top_logprobs(logits, torch.tensor([4, 0, 19]), 3)
    expected = logits.log_softmax(-1)
    assert chosen.tolist() == expected[[0, 1, 2], [4, 0, 19]].tolist()
    assert torch.equal(values, expected.sort(descending=True).values[:, :3])
    assert torch.equal(ids, expected.sort(descending=True).indices[:, :3])
    assert top_logprobs(logits, torch.tensor([0, 0, 0]), 99)[1].shape == (3, 20)


def test_the_seed_makes_it_repeatable() -> None:
    logits = torch.randn(20, 50, generator=torch.Generator().manual_seed(1))
    draws = [
        choose(logits, SamplingOptions(temperature=1.0, seed=seed)).tolist()
        for seed in (5, 5, 6, None, None)
    ]
    assert draws[0] == draws[1] != draws[2]
    assert draws[3] != draws[4]


def test_answers_with_one_seed_have_dice_of_their_own() -> None:
    row = torch.zeros(30, 1000)
    tokens = choose(row, SamplingOptions(temperature=1.0, seed=9))
    assert len(set(tokens.tolist())) > 20


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"repetition_penalty": 1e-38}, "repetition_penalty"),
        ({"temperature": 1e300}, "temperature"),
        ({"presence_penalty": 1e300}, "finite"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"min_p": 1.5}, "min_p"),
        ({"frequency_penalty": float("nan")}, "finite"),
        ({"logit_bias": {1: float("inf")}}, "finite"),
        ({"stop": ("a", "")}, "empty"),
        ({"logprobs": -1}, "logprobs"),
    ],
)
def test_impossible_options_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(MiaoError, match=named):
        SamplingOptions(**options)


EXTREMES: dict[str, list[float]] = {
    "temperature": [0.0, 1e-300, COLDEST, 1.0, HOTTEST],
    "top_p": [0.0, 1e-300, 1e-38, 1 - 1e-16, 1.0],
    "min_p": [0.0, 1e-300, 1 - 1e-16, 1.0],
    "repetition_penalty": [*REPETITION, 1.0],
    "presence_penalty": [-LARGEST, 1e-300, LARGEST],
    "frequency_penalty": [-LARGEST, 1e-300, LARGEST],
}


@pytest.mark.parametrize("vocab_size", [40, 400])
@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in EXTREMES.items() for v in vs])
def test_whatever_is_allowed_yields_a_token_in_float32(
    name: str, value: float, vocab_size: int
) -> None:
    """Alone and beside every other extreme; a forbidden token is never drawn."""
    logits_bv = 30 * torch.randn(1, vocab_size, generator=torch.Generator().manual_seed(1))
    logits_bv[0, 5:20] = float("-inf")
    for beside, others in EXTREMES.items():
        for other in others:
            given: dict[str, Any] = {"temperature": 1.0, beside: other} | {name: value}
            bias = {1: LARGEST, 2: -LARGEST} if beside == "presence_penalty" else {}
            options = SamplingOptions(**given, logit_bias=bias)
            draw = Draw(options, [1, 2, 3], vocab_size, torch.device("cpu"))
            for _ in range(3):
                token = int(next_tokens(logits_bv, [draw])[0])
                assert 0 <= token < vocab_size and not 5 <= token < 20, given
                draw.note(token)


def test_top_p_of_zero_is_the_likeliest_token() -> None:
    logits = torch.randn(50, 300, generator=torch.Generator().manual_seed(2))
    for tiny in (0.0, 1e-300):
        options = SamplingOptions(temperature=1.0, top_p=tiny)
        assert torch.equal(choose(logits, options), logits.argmax(-1))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("top_k", [0, 5])
def test_a_row_without_a_possible_token_says_so(temperature: float, top_k: int) -> None:
    logits = torch.randn(3, 50)
    logits[1], logits[2] = float("-inf"), float("nan")
    tokens = choose(logits, SamplingOptions(temperature=temperature, top_k=top_k)).tolist()
    assert tokens[0] >= 0 and tokens[1:] == [NOTHING, NOTHING]
