"""Preference losses against TRL's, DPO against the formula by hand, and the packing of pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch

from miao.model import Decoder
from miao.recipe import DpoOptions
from miao.recipe.stages import REFERENCE_FREE
from miao.rundir import RunDir
from miao.shards import PackedLoader, PackedSource, TokenDataset
from miao.train.distributed.world import World
from miao.train.feed import preferences
from miao.train.feed.preferences import cache_reference
from miao.train.objectives import PreferenceObjective
from miao.train.objectives.preference import preference_loss, segment_sums, segments_of

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


def test_the_reference_reads_so_many_tokens_at_once_whatever_a_row_holds(
    make_model: Callable[..., Decoder],
    source: PackedSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, read = make_model(), list[int]()
    model.register_forward_pre_hook(lambda _, given: read.append(given[0].numel()))
    loader = PackedLoader([source], 16)
    for tokens, expected in ((16, [16, 16]), (40, [32]), (5, [16, 16])):
        monkeypatch.setattr(preferences, "READ_TOKENS", tokens)
        read.clear()
        preferences.attach_reference(model, loader, RunDir(tmp_path), f"{tokens}", World())
        assert read == expected


def test_loss_is_ln2_before_the_first_step(
    make_model: Callable[..., Decoder], source: PackedSource, tmp_path: Path
) -> None:
    model = make_model()
    reference_of(model, source, tmp_path)
    for batch in PackedLoader([source], 16).one_pass(2):
        objective = PreferenceObjective(DpoOptions(beta=0.3))
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
    objective, beta = PreferenceObjective(DpoOptions(beta=0.3)), 0.3
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
    objective = PreferenceObjective(DpoOptions(beta=0.3, sft_weight=0.5), replayed=["talk"])
    assert objective.weight(batch) == objective.weight(alone) == len(PAIRS)
    with torch.no_grad():
        loss, metrics = objective.loss(model, batch)
        without, same = objective.loss(model, alone)
        added = sum(-answer_logprob(model, ids) / (len(ids) - 2) for ids in conversations)
    torch.testing.assert_close(loss, without + added, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(metrics, same, atol=1e-4, rtol=1e-5)


# Summed log-probabilities of three pairs and their lengths; the losses are TRL 1.16's own on them.
POLICY = [[-2.038489, -1.472674], [-5.665599, -2.650748], [-2.349576, -5.828927]]
REFERENCE = [[-1.73433, -1.402369], [-5.483033, -3.529014], [-2.980452, -6.215511]]
TOKENS = [[5, 3], [4, 7], [2, 6]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"loss": "sigmoid", "beta": 0.3}, 0.7502982020378113),
        ({"loss": "sigmoid", "beta": 0.3, "label_smoothing": 0.1}, 0.7397941946983337),
        ({"loss": "sigmoid", "beta": 2.0, "length_normalized": True}, 0.6944611668586731),
        ({"loss": "ipo", "beta": 0.4}, 1.5583086013793945),
        ({"loss": "simpo", "beta": 2.0, "simpo_margin": 0.8}, 1.8193265199661255),
        (
            {"loss": "simpo", "beta": 2.0, "simpo_margin": 0.8, "label_smoothing": 0.1},
            1.6621379852294922,
        ),
        ({"loss": "orpo", "beta": 0.25}, 1.2909823656082153),
    ],
)
def test_losses_equal_trls(options: dict[str, Any], expected: float) -> None:
    reference = None if options["loss"] in REFERENCE_FREE else torch.tensor(REFERENCE)
    loss_p, _ = preference_loss(
        DpoOptions(**options), torch.tensor(POLICY), reference, torch.tensor(TOKENS).float()
    )
    assert float(loss_p.mean()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", [*get_args(get_type_hints(DpoOptions)["loss"]), "another"])
def test_a_loss_without_a_branch_is_an_error_not_the_sigmoid(kind: str) -> None:
    options = DpoOptions(loss=kind)  # type: ignore[arg-type]
    pairs = [torch.tensor(numbers) for numbers in (POLICY, REFERENCE, TOKENS)]
    if kind in ("kto", "another"):  # the first has no pairs
        with pytest.raises(ValueError, match=f"no branch for '{kind}'"):
            preference_loss(options, *pairs)
    else:
        losses = preference_loss(options, *pairs).loss_p
        sigmoid = preference_loss(DpoOptions(), *pairs).loss_p
        assert torch.equal(losses, sigmoid) == (kind == "sigmoid")


@pytest.mark.parametrize("kind", ["sigmoid", "ipo", "simpo", "orpo"])
def test_every_loss_widens_the_gap(
    kind: Any, make_model: Callable[..., Decoder], source: PackedSource, tmp_path: Path
) -> None:
    model = make_model(0)
    objective = PreferenceObjective(DpoOptions(loss=kind, beta=0.3))
    if kind not in REFERENCE_FREE:
        reference_of(model, source, tmp_path)
    (batch,) = PackedLoader([source], 16).one_pass(9)
    assert (batch.reference_bt is None) == (kind in REFERENCE_FREE)
    gaps = []
    for _ in range(3):
        loss, metrics = objective.loss(model, batch)
        gaps.append(float(metrics["chosen_logprob"] - metrics["rejected_logprob"]))
        assert math.isfinite(float(loss.detach()))
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 1e-4 * parameter.grad
    assert gaps[0] < gaps[1] < gaps[2]


def test_orpo_and_its_gradient_are_finite_for_a_certain_answer() -> None:
    policy = torch.tensor([[0.0, -90.0]], requires_grad=True)
    loss_p, _ = preference_loss(DpoOptions(loss="orpo"), policy, None, torch.tensor([[2.0, 3.0]]))
    loss_p.sum().backward()
    assert math.isfinite(float(loss_p.detach())) and bool(policy.grad.isfinite().all())
