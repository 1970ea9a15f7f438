"""Routing against transformers' routers, and the grouped experts against a loop."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import DeepseekV3Config, Qwen3MoeConfig
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter
from transformers.models.qwen3_moe.modeling_qwen3_moe import (
    Qwen3MoeTopKRouter,
    load_balancing_loss_func,
)

from miao.ops import experts as ops


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_expert(weights_nk: Tensor, experts_nk: Tensor, count: int) -> Tensor:
    """The same choice as a dense [n, e], whatever the order of the k."""
    return torch.zeros(len(weights_nk), count).scatter(1, experts_nk, weights_nk)


@pytest.mark.parametrize("normalize", [True, False])
def test_softmax_routing_equals_transformers(normalize: bool) -> None:
    config = Qwen3MoeConfig(
        hidden_size=16, num_experts=6, num_experts_per_tok=3, norm_topk_prob=normalize
    )
    router = Qwen3MoeTopKRouter(config)
    router.weight.data = numbers(6, 16)
    logits, weights, chosen = router(numbers(40, 16, seed=1))
    ours = ops.route_softmax(logits, 3, normalize)
    torch.testing.assert_close(by_expert(*ours, 6), by_expert(weights, chosen, 6))


@pytest.mark.parametrize("groups", [(1, 1), (4, 2), (2, 1)])
@pytest.mark.parametrize("normalize", [True, False])
def test_sigmoid_routing_equals_transformers(groups: tuple[int, int], normalize: bool) -> None:
    config = DeepseekV3Config(
        hidden_size=16,
        n_routed_experts=8,
        num_experts_per_tok=3,
        n_group=groups[0],
        topk_group=groups[1],
        norm_topk_prob=normalize,
        routed_scaling_factor=2.5,
    )
    router = DeepseekV3TopkRouter(config)
    router.weight.data = numbers(8, 16)
    router.e_score_correction_bias.data = 0.3 * numbers(8, seed=2)
    logits, weights, chosen = router(numbers(40, 16, seed=1))
    bias = router.e_score_correction_bias
    ours = ops.route_sigmoid(logits, bias, 3, normalize, *groups, 2.5)
    torch.testing.assert_close(by_expert(*ours, 8), by_expert(weights, chosen, 8))
    unbiased = ops.route_sigmoid(logits, torch.zeros(8), 3, normalize, *groups, 2.5)
    assert not torch.equal(unbiased[1].sort(dim=1)[0], ours[1].sort(dim=1)[0])


def test_balance_loss_equals_transformers_with_and_without_padding() -> None:
    logits, real = numbers(30, 6), torch.tensor([1.0] * 22 + [0.0] * 8)
    chosen = ops.route_softmax(logits, 2, normalize=True)[1]
    theirs = load_balancing_loss_func((logits,), 6, 2)
    torch.testing.assert_close(ops.balance_loss(logits, chosen), theirs)
    theirs = load_balancing_loss_func((logits,), 6, 2, attention_mask=real.view(2, 15))
    torch.testing.assert_close(ops.balance_loss(logits, chosen, real), theirs)


def test_balance_loss_is_top_k_when_even_and_larger_when_not() -> None:
    even = torch.eye(6).repeat(4, 1)
    chosen = torch.arange(6).repeat(4)[:, None]
    assert float(ops.balance_loss(even, chosen)) == pytest.approx(1.0)
    greedy = torch.zeros(24, 6)
    greedy[:, 2] = 8.0
    assert float(ops.balance_loss(greedy, torch.full((24, 1), 2))) > 5


def test_counts_leave_padding_out() -> None:
    chosen = torch.tensor([[0, 2], [2, 3], [2, 1]])
    assert ops.expert_counts(chosen, 5).tolist() == [1, 1, 3, 1, 0]
    assert ops.expert_counts(chosen, 5, torch.tensor([1.0, 1.0, 0.0])).tolist() == [1, 0, 2, 1, 0]


@settings(max_examples=25)
@given(
    tokens=st.integers(1, 33),
    count=st.integers(1, 7),
    top=st.integers(1, 3),
    one_for_all=st.booleans(),
    seed=st.integers(0, 9),
)
def test_grouped_and_dense_equal_the_loop_forward_and_backward(
    tokens: int, count: int, top: int, one_for_all: bool, seed: int
) -> None:
    top = min(top, count)
    generator = torch.Generator().manual_seed(seed)
    inputs = [
        torch.randn(shape, generator=generator, requires_grad=True)
        for shape in ((tokens, 16), (count, 8, 16), (count, 8, 16), (count, 16, 8), (tokens, top))
    ]
    x, gate, up, down, weights = inputs
    scores = torch.rand(tokens, count, generator=generator)
    if one_for_all:  # and every other expert has nothing to do
        scores[:, :top] += 1
    chosen = scores.topk(top, dim=1).indices
    assert ops._grouped_mm_takes(x, gate)
    upstream = torch.randn(tokens, 16, generator=generator)
    results = []
    for run in (ops.experts_swiglu_reference, ops.experts_swiglu, ops.experts_swiglu_dense):
        result = run(x, gate, up, down, weights, chosen)
        results.append((result, *torch.autograd.grad(result, inputs, upstream)))
    for ours in results[1:]:
        for mine, truth in zip(ours, results[0], strict=True):
            # Sums of numbers that nearly cancel are as exact as what was added.
            atol = 1e-5 * max(1.0, float(truth.detach().abs().max()))
            torch.testing.assert_close(mine, truth, atol=atol, rtol=1e-4)


def test_sizes_that_the_grouped_product_refuses_take_the_loop() -> None:
    x, gate, down = numbers(5, 6), numbers(3, 7, 6), numbers(3, 6, 7)
    assert not ops._grouped_mm_takes(x, gate)
    weights, chosen = torch.ones(5, 1), torch.zeros(5, 1, dtype=torch.int64)
    result = ops.experts_swiglu(x, gate, gate, down, weights, chosen)
    hidden = torch.nn.functional.silu(x @ gate[0].T) * (x @ gate[0].T)
    torch.testing.assert_close(result, hidden @ down[0].T)


@pytest.mark.parametrize(
    ("capability", "dtype", "never"),
    [
        ((9, 0), torch.bfloat16, True),
        ((10, 0), torch.bfloat16, True),
        ((9, 0), torch.float16, False),
        ((8, 9), torch.bfloat16, False),
        ((12, 0), torch.bfloat16, False),
        (None, torch.bfloat16, False),
    ],
)
def test_which_cards_have_the_fast_product(
    capability: tuple[int, int] | None,
    dtype: torch.dtype,
    never: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    ops.experts_never_wait.cache_clear()
    assert ops.experts_never_wait(dtype) == never
    ops.experts_never_wait.cache_clear()
