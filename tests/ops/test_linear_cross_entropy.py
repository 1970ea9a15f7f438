"""The chunked head-and-loss against torch's cross-entropy on all logits at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from miao.ops import head_chunks as module
from miao.ops.head_chunks import IGNORE
from miao.ops.linear_cross_entropy import (
    linear_cross_entropy,
    linear_cross_entropy_reference,
    linear_logprobs,
)

TOKENS, WIDTH, VOCABULARY = 37, 16, 53
CHUNKS = [1, 5, 16, 36, 37, 1000, None]


def inputs(
    ignored: str = "some", dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(11)
    hidden = torch.randn(TOKENS, WIDTH, generator=generator).to(dtype)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator)
    labels = torch.randint(VOCABULARY, (TOKENS,), generator=generator)
    if ignored == "some":
        labels[[0, 3, 4, 5, 20, 36]] = IGNORE
    elif ignored == "a whole chunk":
        labels[:20] = IGNORE
    elif ignored == "all":
        labels[:] = IGNORE
    return hidden.to(device), weight.to(device), labels.to(device)


def gradients(
    function: Callable[[Tensor, Tensor, Tensor], Tensor],
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Value of a scalar function, and its gradients by hidden and weight."""
    hidden, weight = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    value = function(hidden, weight, labels)
    value.backward()
    assert hidden.grad is not None and weight.grad is not None
    return value.detach(), hidden.grad, weight.grad


def full_cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    logits = hidden.float() @ weight.T
    return F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("ignored", ["none", "some", "a whole chunk"])
@pytest.mark.parametrize("leaves_out", [True, False])
def test_loss_and_gradients_equal_full_logits(
    chunk: int | None,
    ignored: str,
    leaves_out: bool,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not leaves_out:  # as on a GPU
        monkeypatch.setattr(module, "host_knows_labels", lambda hidden: False)
    tensors = inputs(ignored, device=device)
    ours = gradients(lambda *x: linear_cross_entropy(*x, chunk), *tensors)
    truth = gradients(full_cross_entropy, *tensors)
    for value, expected in zip(ours, truth, strict=True):
        torch.testing.assert_close(value, expected, atol=3e-6, rtol=1e-5)
    assert torch.allclose(linear_cross_entropy_reference(*tensors), truth[0])


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_scaled_loss_scales_the_gradients(chunk: int | None, device: torch.device) -> None:
    tensors = inputs(device=device)
    ours = gradients(lambda *x: linear_cross_entropy(*x, chunk) / 7, *tensors)
    truth = gradients(lambda *x: full_cross_entropy(*x) / 7, *tensors)
    for value, expected in zip(ours, truth, strict=True):
        torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-5)


def test_a_scaled_loss_is_not_rounded_before_it_scales_bfloat16_gradients() -> None:
    """1/7 in bfloat16 is off by 0.3%, and so would be every gradient of the backbone."""
    tensors = inputs(dtype=torch.bfloat16)
    _, whole, _ = gradients(linear_cross_entropy, *tensors)
    _, scaled, _ = gradients(lambda *x: linear_cross_entropy(*x) / 7, *tensors)
    assert torch.equal(scaled, (whole.float() / 7).bfloat16())


@pytest.mark.parametrize("chunk", CHUNKS)
def test_logprobs_and_their_weighted_gradients_equal_full_logits(
    chunk: int | None, device: torch.device
) -> None:
    hidden, weight, labels = inputs(device=device)
    weights = torch.randn(TOKENS, generator=torch.Generator().manual_seed(1)).to(device)

    def full(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        logits = hidden @ weight.T
        return -F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")

    values = linear_logprobs(hidden, weight, labels, chunk)
    assert values.dtype == torch.float32
    assert values[labels == IGNORE].tolist() == [0.0] * 6
    torch.testing.assert_close(values, full(hidden, weight, labels))
    ours = gradients(
        lambda *x: (linear_logprobs(*x, chunk) * weights).sum(), hidden, weight, labels
    )
    truth = gradients(lambda *x: (full(*x) * weights).sum(), hidden, weight, labels)
    for value, expected in zip(ours, truth, strict=True):
        torch.testing.assert_close(value, expected, atol=3e-6, rtol=1e-5)


@pytest.mark.parametrize("chunk", [5, None])
def test_bfloat16_is_close_and_keeps_its_types(chunk: int | None) -> None:
    hidden, weight, labels = inputs(dtype=torch.bfloat16)
    truth = gradients(full_cross_entropy, hidden, weight, labels)
    for function in (
        lambda *x: linear_cross_entropy(*x, chunk),
        lambda *x: -linear_logprobs(*x, chunk).sum(),
    ):
        value, by_hidden, by_weight = gradients(function, hidden, weight, labels)
        assert (value.dtype, by_hidden.dtype) == (torch.float32, torch.bfloat16)
        assert by_weight.dtype == torch.float32
        torch.testing.assert_close(value, truth[0], rtol=5e-3, atol=0)
        for ours, expected in ((by_hidden.float(), truth[1].float()), (by_weight, truth[2])):
            assert float((ours - expected).norm() / expected.norm()) < 0.02


@pytest.mark.parametrize("function", [linear_cross_entropy, linear_logprobs])
def test_no_labels_give_zero_and_zero_gradients(
    function: Callable[..., Tensor], device: torch.device
) -> None:
    tensors = inputs("all", device=device)
    value, by_hidden, by_weight = gradients(lambda *x: function(*x).sum(), *tensors)
    assert float(value) == float(by_hidden.abs().sum()) == float(by_weight.abs().sum()) == 0.0


def test_without_gradients_it_gives_the_same_value() -> None:
    tensors = inputs()
    with torch.inference_mode():
        value = linear_cross_entropy(*tensors)
    torch.testing.assert_close(value, full_cross_entropy(*tensors))
    assert not value.requires_grad


@pytest.mark.parametrize("frozen", ["head", "hidden", "both", "no gradients"])
@pytest.mark.parametrize("of_loss", [True, False])
def test_what_is_frozen_costs_no_product_and_the_rest_is_right(frozen: str, of_loss: bool) -> None:
    hidden, weight, labels = inputs("none")
    hidden.requires_grad_(frozen not in ("hidden", "both"))
    weight.requires_grad_(frozen not in ("head", "both"))
    in_place = {
        torch.ops.aten.addmm_: lambda _, left, right, **more: 2 * left[0] * math.prod(right)
    }
    counter = FlopCounterMode(display=False, custom_mapping=in_place)
    with counter, torch.set_grad_enabled(frozen != "no gradients"):
        if of_loss:
            value = linear_cross_entropy(hidden, weight, labels, 5)
        else:
            value = -linear_logprobs(hidden, weight, labels, 5).sum()
        if value.requires_grad:
            value.backward()
    truth = gradients(full_cross_entropy, hidden.detach(), weight.detach(), labels)
    torch.testing.assert_close(value.detach(), truth[0])
    found = [hidden.grad, weight.grad]
    for ours, expected in zip(found, truth[1:], strict=True):
        if ours is not None:
            torch.testing.assert_close(ours, expected, atol=3e-6, rtol=1e-5)
    wanted = {"head": [True, False], "hidden": [False, True]}.get(frozen, [False, False])
    assert [ours is not None for ours in found] == wanted
    # The log-probabilities are recomputed where a gradient is wanted.
    products = 1 + sum(wanted) + (any(wanted) and not of_loss)
    assert counter.get_total_flops() == products * 2 * TOKENS * WIDTH * VOCABULARY


def test_extreme_logits_stay_finite() -> None:
    hidden, weight, labels = inputs("none")
    ours = gradients(linear_cross_entropy, 1e3 * hidden, weight, labels)
    truth = gradients(full_cross_entropy, 1e3 * hidden, weight, labels)
    assert all(bool(x.isfinite().all()) for x in ours)
    torch.testing.assert_close(ours[0], truth[0])


def test_the_default_chunk_cuts_long_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = inputs("none")
    sizes: list[int] = []
    inner = module.of_chunk

    def counted(logits: Tensor, *others: Any) -> tuple[Tensor, Tensor | None]:
        sizes.append(len(logits))
        return inner(logits, *others)

    monkeypatch.setattr("miao.ops.linear_cross_entropy.of_chunk", counted)
    monkeypatch.setattr(module, "CPU_CHUNK", 10)
    value = linear_cross_entropy(*tensors)
    assert sizes == [10, 10, 10, 7]
    torch.testing.assert_close(value, full_cross_entropy(*tensors))


@pytest.mark.parametrize("chunk", [5, None])
@pytest.mark.parametrize("rows", [VOCABULARY, 64])
@pytest.mark.parametrize("tokens", [VOCABULARY, 40])
def test_rows_that_are_no_tokens_take_no_part_and_rows_may_be_added(
    chunk: int | None, rows: int, tokens: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padding that came with the weights, and padding for a GPU's kernels: the loss, the
    log-probabilities and all gradients are those of the tokens alone."""
    monkeypatch.setattr(module, "head_rows", lambda weight: rows)
    hidden, weight, labels = inputs(device=device)
    labels = labels.where(labels < tokens, labels - tokens)
    weight[tokens:] = 10.0  # would be the likeliest
    truth = gradients(lambda h, w, y: full_cross_entropy(h, w[:tokens], y), hidden, weight, labels)
    for function in (
        lambda *x: linear_cross_entropy(*x, chunk, tokens),
        lambda *x: -linear_logprobs(*x, chunk, tokens).sum(),
    ):
        ours = gradients(function, hidden, weight, labels)
        assert not ours[2][tokens:].any()
        for value, expected in zip(ours, truth, strict=True):
            torch.testing.assert_close(value, expected, atol=3e-6, rtol=1e-5)


@pytest.mark.parametrize("tokens", [VOCABULARY, 40])
@pytest.mark.parametrize("compiles", [False, True])
def test_the_fused_chunk_equals_the_plain_one(
    compiles: bool, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an expression, and as the graph that a GPU's compiler gets: whole, and made anew neither
    for the last, shorter chunk of later passes nor for another scale."""
    calls: list[int] = []

    def backend(graph: torch.fx.GraphModule, examples: list[Any]) -> Any:
        calls.append(1)
        return graph.forward

    def make(formula: Callable[..., Any]) -> Any:
        if not compiles:
            return formula
        return made.setdefault(formula, torch.compile(formula, fullgraph=True, backend=backend))

    made: dict[Any, Any] = {}
    torch._dynamo.reset()
    monkeypatch.setattr(module, "compiled", make)
    monkeypatch.setattr(module, "host_knows_labels", lambda hidden: False)
    hidden, weight, labels = inputs()
    labels = labels.where(labels < tokens, labels - tokens)
    for scale in (None, torch.tensor(0.25), torch.tensor(8.0)):
        found, truth = (
            gradients(
                lambda *x, f=fused, s=scale: (
                    linear_cross_entropy(*x, 16, tokens, f, s) * (1 if s is None else s)
                ),
                hidden,
                weight,
                labels,
            )
            for fused in (True, False)
        )
        torch.testing.assert_close(found, truth, rtol=1e-5, atol=1e-5)
    found, truth = (
        gradients(
            lambda *x, f=fused: -linear_logprobs(*x, 16, tokens, f).square().sum(),
            hidden,
            weight,
            labels,
        )
        for fused in (True, False)
    )
    torch.testing.assert_close(found, truth, rtol=1e-4, atol=1e-4)
    assert len(calls) == (4 if compiles else 0), "two formulas, each of one shape and of any"


def test_a_loss_scale_keeps_what_float16_would_drop() -> None:
    """Of 50,000 tokens each has a chance of 2e-5, of those that are unlikely 2e-8: rounded to
    float16 first, they are off by a third or gone."""
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(8, 16, generator=generator)
    weight = torch.randn(50_000, 16, generator=generator)
    weight[:25_000] -= 0.4 * hidden.mean(0)
    labels = torch.randint(50_000, (8,), generator=generator)
    hidden, weight = hidden.half(), weight.half().float()
    scale = torch.tensor(1024.0)
    truth = gradients(full_cross_entropy, hidden.float(), weight, labels)[2]
    found = {
        name: gradients(
            lambda *x, s=given: linear_cross_entropy(*x, scale=s) * scale, hidden, weight, labels
        )[2]
        / scale
        for name, given in (("before", scale), ("after", None))
    }
    rare = truth.abs().amax(1) < 1e-6
    off = {n: float((g[rare] - truth[rare]).norm() / truth[rare].norm()) for n, g in found.items()}
    assert off["before"] < 2e-3 < 0.02 < off["after"], off
    common = ~rare
    torch.testing.assert_close(found["before"][common], truth[common], rtol=1e-2, atol=1e-4)
