"""Shared beginnings, shared rows and batches change nothing: a full forward pass per text agrees."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from miao.evaluate.measure import continuations, long_context
from miao.evaluate.measure.continuations import (
    Continuation,
    _best_intervals,
    continuation_logprobs,
    rolling,
)
from miao.evaluate.measure.prefix import SharedPrefix
from miao.model import Decoder

Make = Callable[..., Decoder]
LIMIT = 40
KINDS: dict[str, dict[str, Any]] = {
    "gqa": {},
    "latent": {"kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8,
               "num_key_value_heads": 4, "qk_norm": False},
    "experts": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
}  # fmt: skip


def some_continuations(seed: int) -> list[Continuation]:
    """Subjects with common examples, questions with options of one or several tokens, wholes."""
    rng = random.Random(seed)
    found = []
    for length in (0, 20, 45):
        examples = [rng.randrange(97) for _ in range(length)]
        for _ in range(3):
            context = examples + [rng.randrange(4) for _ in range(rng.randrange(1, 25))]
            for _ in range(4):
                ending = [rng.randrange(97) for _ in range(rng.choice([1, 1, 2, 6]))]
                scored = rng.choice([len(ending), len(context) + len(ending) - 1])
                found.append(Continuation(context + ending, scored))
    return found


@torch.inference_mode()
def plain(model: Decoder, one: Continuation, limit: int) -> tuple[float, bool, int]:
    ids = list(one.ids)[-limit - 1 :]
    logprobs = model(torch.tensor([ids[:-1]]))[0].float().log_softmax(-1)
    targets, count = torch.tensor(ids[1:]), min(one.scored, len(ids) - 1)
    values = logprobs.gather(1, targets[:, None])[-count:]
    greedy = (logprobs.argmax(-1) == targets)[-count:].all()
    return float(values.double().sum()), bool(greedy), len(one.ids) - len(ids)


@pytest.mark.parametrize("least", [1, 30, 10**9])
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_a_full_pass_per_text(
    make_model: Make, monkeypatch: pytest.MonkeyPatch, least: int, kind: str
) -> None:
    monkeypatch.setattr(continuations, "LEAST_SAVED", least)
    monkeypatch.setattr(continuations, "ROW_TOKENS", 60)
    model = make_model(**KINDS[kind])
    asked = some_continuations(seed=least % 7)
    done: list[int] = []
    found = continuation_logprobs(model, asked, LIMIT, done.append)
    for one, value in zip(asked, found, strict=True):
        logprob, greedy, cut = plain(model, one, LIMIT)
        assert value.logprob == pytest.approx(logprob, abs=2e-4)
        assert (value.is_greedy, value.cut) == (greedy, cut)
    assert sum(done) == len(asked)
    assert any(value.cut for value in found) and any(value.cut == 0 for value in found)


def test_options_of_one_token_are_one_row_and_examples_are_read_once(
    make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuations, "LEAST_SAVED", 1)
    model = make_model()
    examples, read = list(range(30)), []
    forward = model.forward

    def counted(ids: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        read.append(tuple(ids.shape))
        return forward(ids, *args, **kwargs)

    monkeypatch.setattr(model, "forward", counted)
    asked = [
        Continuation([*examples, 50 + question, 60, letter], 1)
        for question in range(5)
        for letter in (70, 71, 72, 73)
    ]
    continuation_logprobs(model, asked)
    assert read == [(1, 30), (1, 10)], "the examples once, then all questions end to end"


def test_dynamic_scaling_shares_nothing(make_model: Make) -> None:
    """Its keys depend on the length of the whole text, so that a shared beginning would be wrong."""
    scaling = {"rope_type": "dynamic", "factor": 2.0}
    model = make_model(rope_scaling=scaling, max_position_embeddings=32)
    asked = [Continuation([*range(30), *range(40, 40 + n)], 2) for n in range(3, 28, 4)]
    for one, value in zip(asked, continuation_logprobs(model, asked, 64), strict=True):
        assert value.logprob == pytest.approx(plain(model, one, 64)[0], abs=2e-4)


@given(st.lists(st.integers(0, 40), max_size=9), st.integers(1, 60))
@settings(max_examples=200)
def test_the_rows_are_cut_where_much_is_saved(common: list[int], least: int) -> None:
    shared = [0, *common]
    groups = _best_intervals(shared, least)
    for (_, last, _), (first, _, _) in pairwise(groups):
        assert last < first, "no row is in two groups"
    for first, last, prefix in groups:
        assert prefix == min(shared[first + 1 : last + 1]) and prefix >= continuations.SHORTEST
        assert prefix * (last - first) >= least
    saved = sum(prefix * (last - first) for first, last, prefix in groups)
    for first in range(len(shared)):
        for last in range(first + 1, len(shared)):
            prefix = min(shared[first + 1 : last + 1])
            if prefix >= continuations.SHORTEST and prefix * (last - first) >= least:
                assert saved >= prefix * (last - first), "better than any one group"


def test_a_prefix_of_nothing(make_model: Make) -> None:
    cache, hidden = SharedPrefix.read(make_model(), [], 0)
    assert cache.prefix_length == 0 and hidden.shape == (0, 32)


@pytest.mark.parametrize("seed", range(4))
def test_batches_are_whole_and_as_large_as_they_may_be(make_model: Make, seed: int) -> None:
    rng = random.Random(seed)
    lengths = sorted(rng.choice([20, 22, 60, 61, 200, 3000, 5000]) for _ in range(60))
    rows = [continuations._Row(tuple(range(length))) for length in lengths]
    batches = list(continuations._batches(rows, 10, make_model()))
    assert [row for batch in batches for row in batch] == rows, "in their order, each once"
    tokens = [sum(len(row.ids) - 10 for row in batch) for batch in batches]
    for batch, count in zip(batches, tokens, strict=True):
        assert len(batch) == 1 or count <= continuations.ROW_TOKENS
    for one, (following, _) in zip(tokens, zip(batches[1:], tokens[1:], strict=True), strict=False):
        assert one + len(following[0].ids) - 10 > continuations.ROW_TOKENS
    assert list(continuations._batches([], 10, make_model())) == []


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_wanted_of_the_last_block(make_model: Make, kind: str) -> None:
    model = make_model(**KINDS[kind]).eval()
    ids = torch.arange(30).view(2, 15)
    wanted = torch.tensor([3, 14, 15, 29])
    with torch.inference_mode():
        whole = model(ids, output="hidden").flatten(0, 1)
        found = model(ids, wanted_n=wanted, output="hidden")
    assert found.shape == (1, 4, whole.shape[1])
    torch.testing.assert_close(found[0], whole[wanted])


def test_rows_of_a_padded_vocabulary_have_no_probability(make_model: Make) -> None:
    """The log-probabilities, and what is likeliest, are those of a model without these rows."""
    model = make_model(tie_word_embeddings=False)
    texts = [Continuation([5, 9, 7, token], 2) for token in range(80)]
    expected = []
    for padded in (False, True):
        model.config = replace(model.config, num_tokens=80)
        if padded:
            with torch.no_grad():
                model.lm_head.weight[80:] *= 50
            assert continuation_logprobs(model, texts) == expected
        else:
            expected = continuation_logprobs(model, texts)
            first = next(iter(expected)).logprob
            logits = model(torch.tensor([[5, 9, 7]])).detach()[0, 1:, :80].float().log_softmax(-1)
            assert first == pytest.approx(float(logits[0, 7] + logits[1, 0]), abs=1e-5)


@pytest.mark.parametrize("count", [2, 3, 5, 8, 9, 10, 17, 40])
def test_a_long_text_is_scored_token_by_token_once(count: int) -> None:
    """In pieces as long as the context; the last has as much before it as fits."""
    ids, limit = list(range(count)), 8
    pieces = rolling(ids, limit)
    assert [id for piece in pieces for id in piece.ids[-piece.scored :]] == ids[1:]
    assert all(len(piece.ids) == min(limit + 1, count) for piece in pieces)


def test_a_passkey_is_found_where_every_token_of_it_is_the_likeliest(
    monkeypatch: pytest.MonkeyPatch, bigram_model: Callable[..., Decoder]
) -> None:
    """Of texts longer than the context, too."""
    model = bigram_model({(7, 8): 5.0, (8, 9): 5.0, (6, 3): 5.0})
    made = iter([[7, 8, 9], [7, 8, 5], [6, 8, 9]] * 8)

    def prompt(tokenizer: Any, rng: Any, tokens: int, depth: float) -> tuple[list[int], int]:
        ends = next(made)
        return [3] * (tokens - len(ends)) + ends, 2

    monkeypatch.setattr(long_context, "_passkey_prompt", prompt)
    done: list[int] = []
    share = long_context._passkey_share(model, None, 600, 0, done.append)  # type: ignore[arg-type]
    assert share == (pytest.approx(1 / 3), 24) and sum(done) == 24
