"""KTO: losses against TRL's, the estimate of KL by hand, and steps that are cut in any way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from miao.model import Decoder
from miao.recipe import DpoOptions
from miao.shards import PackedLoader, PackedSource, TokenDataset
from miao.shards.answers import LabelledAnswers
from miao.train.distributed.parallel import Parallel
from miao.train.distributed.world import World
from miao.train.feed.preferences import cache_reference
from miao.train.gradients import StepGradients
from miao.train.objectives import KtoObjective
from miao.train.objectives.kto import kto_loss
from tests.train.shared_cases import Case, model_of, train

# Summed log-probabilities of five answers, and of the same prompts with answers to others; the
# losses are TRL 1.16's own on them.
POLICY = [-7.457726, -3.417756, -5.415662, -6.535658, -1.165157]
REFERENCE = [-7.375462, -2.908499, -5.251007, -5.914628, -0.926131]
LABELS = [True, False, False, True, True]
MIXED_POLICY = [-1.315937, -1.853003, -1.756812, -3.06855, -3.374686]
MIXED_REFERENCE = [-1.187891, -1.792123, -1.793791, -3.282022, -3.379413]


@pytest.mark.parametrize(
    ("beta", "desirable", "undesirable", "sign", "expected"),
    [
        (0.5, 1.0, 1.0, 1, 0.5069777965545654),
        (0.5, 1.0, 1.5, 1, 0.5982609987258911),
        (0.1, 1.33, 1.0, 1, 0.6020278334617615),
        (0.5, 1.0, 1.0, -1, 0.5066498517990112),  # an estimate below 0 counts as 0
    ],
)
def test_the_loss_equals_trls(
    beta: float, desirable: float, undesirable: float, sign: int, expected: float
) -> None:
    options = DpoOptions(
        loss="kto", beta=beta, desirable_weight=desirable, undesirable_weight=undesirable
    )
    objective = KtoObjective(options, {})
    mixed = sign * (torch.tensor(MIXED_POLICY) - torch.tensor(MIXED_REFERENCE))
    objective.begin_step([float(mixed.sum()), 5, 3, 2])
    ratio = torch.tensor(POLICY) - torch.tensor(REFERENCE)
    loss = kto_loss(options, ratio, torch.tensor(LABELS), objective.step.origin)
    assert float(loss.mean()) == pytest.approx(expected, rel=1e-5)


PROMPTS = ([1, 2], [5, 6, 7], [8, 9], [11, 12])
ANSWERS = (([30, 31], None), ([40], [50, 51, 52]), (None, [60, 61, 62]), ([70, 71, 72], [73]))
GOOD = {tuple(good) for good, _ in ANSWERS if good}


@pytest.fixture
def source(make_dataset: Callable[..., TokenDataset]) -> PackedSource:
    sequences, masks = [], []
    for prompt, sides in zip(PROMPTS, ANSWERS, strict=True):
        for side in sides:
            sequences.append(prompt + side if side else [])
            masks.append([False] * len(prompt) + [True] * len(side) if side else [])
    dataset = make_dataset(sequences, "preference", masks, vocab_size=97)
    return PackedSource("thumbs", LabelledAnswers(dataset, seed=1), 16, seed=0)


def answer_logprob(model: Decoder, ids: list[int], begin: int) -> torch.Tensor:
    logprobs = model(torch.tensor([ids])).float().log_softmax(-1)[0]
    return torch.stack([logprobs[i - 1, ids[i]] for i in range(begin, len(ids))]).sum()


def reference_of(model: Decoder, source: PackedSource, path: Path) -> None:
    one = PackedLoader([replace(source)], 16)
    source.reference = cache_reference(model, source, one.one_pass(2), path / "reference.f32")


def objective_of(source: PackedSource, **options: Any) -> KtoObjective:
    assert isinstance(source.dataset, LabelledAnswers)
    return KtoObjective(DpoOptions(loss="kto", **options), {source.name: source.dataset.desirable})


def gradients(model: Decoder, objective: KtoObjective, rows: int, micro_batch: int) -> Any:
    options = DpoOptions(micro_batch=micro_batch, seq_len=16, grad_clip=0.0)
    parallel = Parallel(model, options, World())
    return StepGradients("dpo", options, parallel, objective, rows)


@pytest.mark.parametrize("micro_batch", [1, 2, 8])
def test_loss_gradient_and_estimate_equal_the_formula(
    make_model: Callable[..., Decoder], source: PackedSource, tmp_path: Path, micro_batch: int
) -> None:
    """However the step is cut, z is that of all of it."""
    reference, model, plain = make_model(0), make_model(1), make_model(1)
    reference_of(reference, source, tmp_path)
    beta = 0.3
    objective = objective_of(source, beta=beta, undesirable_weight=1.5, desirable_weight=0.8)
    (batch,) = PackedLoader([source], 16).one_pass(9)
    step = gradients(model, objective, len(batch.ids_bt), micro_batch).of(batch)

    view = source.dataset
    ratios: dict[int, torch.Tensor] = {}
    for number in range(len(view)):
        ids, mask = view.tokens(number).tolist(), view.mask(number)
        assert mask is not None
        begin = mask.tolist().index(True)
        with torch.no_grad():
            before = answer_logprob(reference, ids, begin)
        ratios[number] = answer_logprob(plain, ids, begin) - before
    mixed = [float(ratio.detach()) for number, ratio in ratios.items() if number % 2]
    z = max(0.0, sum(mixed) / len(mixed))
    expected, right = torch.zeros(()), 0
    for number in range(0, len(view), 2):
        ids, mask = view.tokens(number), view.mask(number)
        good = tuple(ids[mask].tolist()) in GOOD
        sign, weight = (1, 0.8) if good else (-1, 1.5)
        expected = expected + weight * (1 - torch.sigmoid(sign * beta * (ratios[number] - z)))
        right += int((float(ratios[number].detach()) > z) == good)
    (expected / 6).backward()
    assert step.weight == 6 and float(step.metrics["accuracy"]) == right
    assert float(step.metrics["origin"]) / 6 == pytest.approx(z, rel=1e-4)
    torch.testing.assert_close(step.loss, expected.detach(), atol=1e-5, rtol=1e-5)
    for ours, truth in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, truth.grad, atol=1e-5, rtol=1e-3)


def test_half_before_the_first_step(
    make_model: Callable[..., Decoder], source: PackedSource, tmp_path: Path
) -> None:
    """Policy and reference are one: z = 0, and every answer's loss is sigmoid(0)."""
    model = make_model(0)
    reference_of(model, source, tmp_path)
    (batch,) = PackedLoader([source], 16).one_pass(9)
    step = gradients(model, objective_of(source), 9, 9).of(batch)
    assert float(step.loss) / step.weight == pytest.approx(0.5, abs=1e-5)
    assert float(step.metrics["kl"]) == pytest.approx(0, abs=1e-5)


def test_labels_move_apart_and_means_are_those_of_their_kind(
    make_model: Callable[..., Decoder], source: PackedSource, tmp_path: Path
) -> None:
    model = make_model(0)
    reference_of(model, source, tmp_path)
    (batch,) = PackedLoader([source], 16).one_pass(9)
    taken = gradients(model, objective_of(source, beta=0.3), 9, 2)
    margins = []
    for _ in range(4):
        step = taken.of(batch)
        margins.append(float(step.metrics["margin"]) / step.weight)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.05 * parameter.grad
    assert margins[0] == pytest.approx(0, abs=1e-5) and margins == sorted(margins)
    assert margins[-1] > margins[0] + 1e-3
    tokens = [float(step.metrics[f"{kind}_tokens"]) / 6 for kind in ("chosen", "rejected")]
    assert tokens == pytest.approx([(2 + 1 + 3) / 3, (3 + 3 + 1) / 3])


@pytest.mark.parametrize("micro_batch", [1, 9])
def test_replayed_conversations_and_the_desirable_ones_cross_entropy(
    micro_batch: int,
    make_model: Callable[..., Decoder],
    make_dataset: Callable[..., TokenDataset],
    source: PackedSource,
    tmp_path: Path,
) -> None:
    model = make_model(1)
    reference_of(make_model(0), source, tmp_path)
    talk = [[1, 2, 40, 41, 42], [1, 2, 50], [1, 2, *range(20, 35)]]  # the last fills a row
    masks = [[False, False] + [True] * (len(ids) - 2) for ids in talk]
    replayed = PackedSource("talk", make_dataset(talk, "conversation", masks, "talk", 97), 16, 0)
    (alone,) = PackedLoader([source], 16).one_pass(9)
    (batch,) = PackedLoader([source, replayed], 16).one_pass(9)
    without = gradients(model, objective_of(source), 9, 2).of(alone)
    step = gradients(model, objective_of(source, sft_weight=0.5), 9, micro_batch).of(batch)
    assert step.weight == without.weight == 6
    with torch.no_grad():
        added = sum(-answer_logprob(model, ids, 2) / (len(ids) - 2) for ids in talk)
        for prompt, (good, _) in zip(PROMPTS, ANSWERS, strict=True):
            if good:
                logprob = answer_logprob(model, prompt + good, len(prompt))
                added = added - 0.5 * logprob / len(good)
    torch.testing.assert_close(step.loss, without.loss + added, atol=1e-4, rtol=1e-5)
    only_talk = batch.only([(b, n + 1) for b, row in enumerate(batch.sequences)
                            for n, (name, _) in enumerate(row) if name == "talk"])  # fmt: skip
    nothing = gradients(model, objective_of(source), 9, 2).of(only_talk)
    assert nothing.weight == 0


def test_length_normalized(
    make_model: Callable[..., Decoder], source: PackedSource, tmp_path: Path
) -> None:
    reference_of(make_model(0), source, tmp_path)
    (batch,) = PackedLoader([source], 16).one_pass(9)
    both = [
        gradients(make_model(1), objective_of(source, length_normalized=on), 9, 2).of(batch)
        for on in (True, False)
    ]
    assert 0 < abs(float(both[0].metrics["origin"])) < abs(float(both[1].metrics["origin"])) or (
        float(both[0].metrics["margin"]) != float(both[1].metrics["margin"])
    )


def test_memory_that_runs_out_while_reading_ahead(
    make_model: Callable[..., Decoder],
    source: PackedSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The micro-batch is halved, and the step is the same."""
    reference_of(make_model(0), source, tmp_path)
    (batch,) = PackedLoader([source], 16).one_pass(9)
    truth = gradients(make_model(1), objective_of(source), 4, 4).of(batch)
    objective, failures = objective_of(source), [torch.OutOfMemoryError("CUDA out of memory")]
    read = objective.read_ahead

    def fails_once(*arguments: Any) -> list[float]:
        if failures:
            raise failures.pop()
        return read(*arguments)

    monkeypatch.setattr(objective, "read_ahead", fails_once)
    taken = gradients(make_model(1), objective, 4, 4)
    step = taken.of(batch)
    assert taken.micro_batch == 2
    torch.testing.assert_close(step.loss, truth.loss, atol=1e-5, rtol=1e-5)


def test_memory_that_runs_out_in_another_process(
    make_model: Callable[..., Decoder], source: PackedSource, tmp_path: Path
) -> None:
    """Nobody waits for its numbers: all give up the pass, and halve together."""

    class Beside(World):
        size = 2
        exchanged = 0

        def gather(self, numbers: list[int]) -> list[list[int]]:
            return [numbers, [0] * len(numbers)]

        def gather_objects(self, value: Any) -> list[Any]:
            self.exchanged += 1
            return [value, None if self.exchanged == 1 else [0.0] * 4]

    model = make_model(1)
    reference_of(make_model(0), source, tmp_path)
    (batch,) = PackedLoader([source], 16).one_pass(9)
    options = DpoOptions(micro_batch=4, seq_len=16)
    world = Beside()
    parallel = Parallel(model, options, world)
    taken = StepGradients("dpo", options, parallel, objective_of(source), 8)
    first = taken.micro_batch
    taken._accumulate_or_go_eager = taken._accumulate  # type: ignore[method-assign]
    taken._over_processes = lambda loss, sums, weights: (loss, sums)  # type: ignore[method-assign]
    step = taken.of(batch)
    assert taken.micro_batch == first // 2 and world.exchanged == 2 and step.weight == 6


def test_stopped_and_resumed_to_the_bit(
    make_dataset: Callable[..., TokenDataset], tmp_path: Path
) -> None:
    """Partners, estimate and order are what they were."""
    generator = torch.Generator().manual_seed(2)
    lengths = torch.randint(4, 14, (60,), generator=generator).tolist()
    sequences = [torch.randint(0, 97, (n,), generator=generator).tolist() for n in lengths]
    for single in range(0, 60, 6):
        sequences[single] = []
    masks = [[False, False] + [True] * (len(ids) - 2) if ids else [] for ids in sequences]
    dataset = make_dataset(sequences, "preference", masks, name="thumbs", vocab_size=97)
    reference = tmp_path / "reference.f32"
    shape = {"batch_tokens": 96, "tokens": 900}
    case = Case([str(dataset.directory)], "auto", {}, shape, str(reference), loss="kto")
    source = PackedSource("thumbs", LabelledAnswers(dataset, 5), 32, 0)
    cache_reference(model_of(case), source, PackedLoader([source], 32).one_pass(4), reference)
    whole = train(World(), case, tmp_path / "whole")
    stopped = train(World(), replace(case, stop=(0, 4)), tmp_path / "stopped")
    assert stopped["steps"] == 4 < whole["steps"]
    resumed = train(World(), case, tmp_path / "stopped")
    assert resumed["steps"] == whole["steps"] and resumed["checksum"] == whole["checksum"]
