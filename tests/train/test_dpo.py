"""DPO against the formula computed by hand, and its packing of pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from miao.model import Decoder
from miao.shards import PackedLoader, PackedSource, TokenDataset
from miao.train.objectives import DpoObjective, cache_reference
from miao.train.objectives.dpo import segment_sums, segments_of

PAIRS = [
    ([1, 2, 3, 4, 5], [1, 2, 9]),
    ([7, 8, 20, 21], [7, 8, 30, 31, 32, 33]),
    ([5, 6, 7], [5, 6, 8]),
]


@pytest.fixture
def source(make_dataset: Callable[..., TokenDataset]) -> PackedSource:
    sequences = [ids for pair in PAIRS for ids in pair]
    masks = [[False, False] + [True] * (len(ids) - 2) for ids in sequences]
    dataset = make_dataset(sequences, "preference", masks, vocab_size=97)
    return PackedSource("pairs", dataset, seq_len=16, seed=0)


def answer_logprob(model: Decoder, ids: list[int]) -> torch.Tensor:
    """log p of the tokens after the first two, the plain way."""
    logprobs = model(torch.tensor([ids])).float().log_softmax(-1)[0]
    return torch.stack([logprobs[i - 1, ids[i]] for i in range(2, len(ids))]).sum()


def reference_of(model: Decoder, source: PackedSource, path: Path) -> None:
    batches = PackedLoader([source], 16).one_pass(2)
    source.reference = cache_reference(model, source, batches, path / "reference.f32")


def test_reference_column_holds_each_answers_logprob(
    make_model: Callable[..., Decoder], source: PackedSource, tmp_path: Path
) -> None:
    model = make_model()
    reference_of(model, source, tmp_path)
    assert source.reference is not None
    start = 0
    for pair in PAIRS:
        for ids in pair:
            found = source.reference[start : start + len(ids)].sum()
            np.testing.assert_allclose(found, answer_logprob(model, ids).item(), rtol=1e-5)
            start += len(ids)


def test_loss_is_ln2_before_the_first_step(
    make_model: Callable[..., Decoder], source: PackedSource, tmp_path: Path
) -> None:
    model = make_model()
    reference_of(model, source, tmp_path)
    for batch in PackedLoader([source], 16).one_pass(2):
        objective = DpoObjective(beta=0.3)
        loss, metrics = objective.loss(model, batch)
        assert float(loss.detach()) / objective.weight(batch) == pytest.approx(
            math.log(2), abs=1e-5
        )
        assert float(metrics["kl"]) == pytest.approx(0, abs=1e-6)


def test_loss_and_gradient_equal_the_formula(
    make_model: Callable[..., Decoder], source: PackedSource, tmp_path: Path
) -> None:
    reference, model, plain = make_model(0), make_model(1), make_model(1)
    reference_of(reference, source, tmp_path)
    objective, beta = DpoObjective(beta=0.3), 0.3
    total = torch.zeros(())
    accuracy = 0.0
    for batch in PackedLoader([source], 16).one_pass(2):
        loss, metrics = objective.loss(model, batch)
        total = total + loss
        accuracy += float(metrics["accuracy"])
    total.backward()

    expected, right = torch.zeros(()), 0
    for chosen, rejected in PAIRS:
        with torch.no_grad():
            before = answer_logprob(reference, chosen) - answer_logprob(reference, rejected)
        now = answer_logprob(plain, chosen) - answer_logprob(plain, rejected)
        expected = expected - torch.log(1 / (1 + torch.exp(-beta * (now - before))))
        right += int(now > before)
    expected.backward()
    torch.testing.assert_close(total, expected, atol=1e-4, rtol=1e-5)
    assert accuracy == right
    for ours, truth in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, truth.grad, atol=1e-4, rtol=1e-3)


def test_segment_sums_keep_sides_and_pairs_apart(source: PackedSource) -> None:
    loader = PackedLoader([source], 16)
    (batch,) = list(loader.one_pass(9))
    ones = torch.ones_like(batch.labels_bt, dtype=torch.float32)
    sums = segment_sums(ones, batch, segments_of(batch)[0]).view(-1, 2)
    sizes = sorted((len(a) - 1, len(b) - 1) for a, b in PAIRS)
    assert sorted(tuple(int(v) for v in row) for row in sums) == sizes


def test_the_cache_is_read_back_and_not_computed_again(
    make_model: Callable[..., Decoder], source: PackedSource, tmp_path: Path
) -> None:
    reference_of(make_model(0), source, tmp_path)
    first = np.array(source.reference)
    reference_of(make_model(1), source, tmp_path)
    np.testing.assert_array_equal(first, source.reference)


def test_replayed_conversations_add_their_mean_cross_entropy(
    make_model: Callable[..., Decoder],
    make_dataset: Callable[..., TokenDataset],
    source: PackedSource,
    tmp_path: Path,
) -> None:
    model = make_model(1)
    reference_of(make_model(0), source, tmp_path)
    conversations = [[1, 2, 40, 41, 42], [1, 2, 50]]
    masks = [[False, False] + [True] * (len(ids) - 2) for ids in conversations]
    replayed = PackedSource(
        "talk", make_dataset(conversations, "conversation", masks, vocab_size=97), 16, seed=0
    )
    (batch,) = PackedLoader([source, replayed], 16).one_pass(9)
    assert {name for row in batch.sequences for name, _ in row} == {"pairs", "talk"}
    (alone,) = PackedLoader([source], 16).one_pass(9)
    objective = DpoObjective(0.3, sft_weight=0.5, replayed=["talk"])
    assert objective.weight(batch) == objective.weight(alone) == len(PAIRS)
    with torch.no_grad():
        loss, metrics = objective.loss(model, batch)
        without, same = objective.loss(model, alone)
        added = sum(-answer_logprob(model, ids) / (len(ids) - 2) for ids in conversations)
    torch.testing.assert_close(loss, without + added, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(metrics, same, atol=1e-4, rtol=1e-5)
