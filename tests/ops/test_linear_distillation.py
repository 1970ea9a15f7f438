"""The chunked distillation loss against all logits at once, and against hand-made numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from miao.ops import linear_distillation as module
from miao.ops.linear_distillation import (
    Mixture,
    linear_distillation,
    linear_distillation_reference,
)


def tensors(generator: torch.Generator) -> list[torch.Tensor]:
    shapes = ((11, 8), (17, 8), (11, 12), (17, 12))
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize("divergence", ["forward", "reverse"])
@pytest.mark.parametrize(("weight", "temperature"), [(0.0, 1.0), (0.3, 2.5), (1.0, 1.0)])
@pytest.mark.parametrize("chunk", [3, 64])
@pytest.mark.parametrize("leaves_out", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_loss_and_gradients_equal_the_plain_computation(
    fused: bool,
    divergence: Any,
    weight: float,
    temperature: float,
    chunk: int,
    leaves_out: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "host_knows_labels", lambda hidden: leaves_out)  # a GPU's way too
    monkeypatch.setattr(module, "compiled", lambda formula: formula)
    monkeypatch.setattr(module, "BLOCK", 40)
    generator = torch.Generator().manual_seed(0)
    hidden, head, teacher, teacher_head = tensors(generator)
    labels = torch.randint(17, (11,), generator=generator)
    labels[[2, 7]] = -100
    mixture = Mixture(weight, temperature, divergence)
    gradients = []
    losses = []
    for compute in (linear_distillation, linear_distillation_reference):
        own = [hidden.clone().requires_grad_(), head.clone().requires_grad_()]
        more: dict[str, Any] = {}
        if compute is linear_distillation:
            more = {"chunk": chunk, "fused": fused, "scale": torch.tensor(0.7) if fused else None}
        found: Any = compute(own[0], own[1], labels, teacher, teacher_head, mixture, **more)
        loss = found[0] if isinstance(found, tuple) else found
        (0.7 * loss).backward()
        losses.append(loss.detach())
        gradients.append([value.grad for value in own])
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


def test_a_frozen_head_costs_no_product() -> None:
    hidden, head, teacher, teacher_head = tensors(torch.Generator().manual_seed(0))
    labels, mixture = torch.arange(11), Mixture(0.5, 1.5, "forward")
    found, flops = [], []
    for trained in (True, False):
        own = [hidden.clone().requires_grad_(), head.clone().requires_grad_(trained)]
        in_place = {
            torch.ops.aten.addmm_: lambda _, left, right, **more: 2 * left[0] * math.prod(right)
        }
        with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
            loss, *_ = linear_distillation(own[0], own[1], labels, teacher, teacher_head, mixture)
            loss.backward()
        found.append(own[0].grad)
        flops.append(counter.get_total_flops())
    assert own[1].grad is None
    torch.testing.assert_close(found[0], found[1])
    assert flops[0] - flops[1] == 2 * hidden.numel() * len(head)


def test_a_distribution_by_hand() -> None:
    """Student (1/2, 1/2), teacher (3/4, 1/4): both directions, label 0."""
    one, head = torch.ones(1, 1), torch.zeros(2, 1)
    teacher = torch.tensor([[math.log(3.0)], [0.0]])
    forward = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    reverse = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    labels = torch.tensor([0])
    for kind, expected in (("forward", forward), ("reverse", reverse)):
        mixture = Mixture(0.25, 1.0, kind)  # type: ignore[arg-type]
        loss, cross_entropy, divergence = linear_distillation(
            one, head, labels, one, teacher, mixture
        )
        assert float(divergence) == pytest.approx(expected, rel=1e-5)
        assert float(cross_entropy) == pytest.approx(math.log(2), rel=1e-5)
        assert float(loss) == pytest.approx(0.75 * math.log(2) + 0.25 * expected, rel=1e-5)


def test_nothing_to_learn_is_zero() -> None:
    hidden, head, teacher, teacher_head = tensors(torch.Generator().manual_seed(1))
    hidden.requires_grad_()
    loss, *_ = linear_distillation(
        hidden, head, torch.full((11,), -100), teacher, teacher_head, Mixture(0.5, 1.0, "forward")
    )
    loss.backward()
    assert float(loss.detach()) == 0 and not hidden.grad.any()


@pytest.mark.parametrize("divergence", ["forward", "reverse"])
@pytest.mark.parametrize("rows", [0, 64])
def test_heads_may_be_padded_each_its_own_way(
    divergence: Any, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "head_rows", lambda weight: max(rows, len(weight)))
    hidden, head, teacher, teacher_head = tensors(torch.Generator().manual_seed(0))
    wide, labels = torch.cat([teacher_head, torch.full((6, 12), 9.0)]), torch.arange(11)
    mixture, tokens = Mixture(0.4, 1.5, divergence), 15
    found = []
    for own in (head, head[:tokens]):
        parts = [hidden.clone().requires_grad_(), own.clone().requires_grad_()]
        if own is head:
            loss = linear_distillation(*parts, labels, teacher, wide, mixture, 4, tokens)[0]
        else:
            loss = linear_distillation_reference(*parts, labels, teacher, wide[:tokens], mixture)
        loss.backward()
        found.append([loss.detach(), parts[0].grad, parts[1].grad[:tokens]])
    assert not parts[1].grad[tokens:].any()
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)
