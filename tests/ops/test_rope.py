"""Rotary positions against transformers' and against their definition by complex numbers."""

from __future__ import annotations

import cmath

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from miao.ops.rope import apply_rope, apply_rope_reference, inverse_frequencies, rope_tables

HEAD_DIM = 12


@pytest.mark.parametrize("theta", [10_000.0, 1_000_000.0])
def test_equals_transformers(theta: float) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 7, 4, HEAD_DIM, generator=generator)
    key = torch.randn(2, 7, 2, HEAD_DIM, generator=generator)
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3], [5, 6, 7, 8, 100, 101, 4000]])
    config = LlamaConfig(
        hidden_size=48,
        num_attention_heads=4,
        head_dim=HEAD_DIM,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
    )
    cos, sin = LlamaRotaryEmbedding(config)(query, positions)
    theirs = apply_rotary_pos_emb(query.transpose(1, 2), key.transpose(1, 2), cos, sin)
    tables = rope_tables(positions, inverse_frequencies(HEAD_DIM, theta), torch.float32)
    for x, expected in zip((query, key), theirs, strict=True):
        torch.testing.assert_close(apply_rope(x, *tables), expected.transpose(1, 2))


def test_turns_each_pair_by_its_angle() -> None:
    x = torch.randn(1, 1, 1, HEAD_DIM, generator=torch.Generator().manual_seed(1))
    tables = rope_tables(torch.tensor([[9]]), inverse_frequencies(HEAD_DIM, 500.0), torch.float32)
    turned = apply_rope(x, *tables)[0, 0, 0].tolist()
    half = HEAD_DIM // 2
    for i in range(half):
        pair = complex(x[0, 0, 0, i], x[0, 0, 0, i + half])
        expected = pair * cmath.exp(1j * 9 * 500.0 ** (-2 * i / HEAD_DIM))
        assert complex(turned[i], turned[i + half]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("contiguous", [True, False])
def test_equals_its_plain_twin_forward_and_backward(contiguous: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    wide = torch.randn(2, 7, 6, HEAD_DIM, generator=generator)
    x = wide[:, :, :3].contiguous() if contiguous else wide[:, :, :3]
    upstream = wide.flip(-1)[:, :, 3:]
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3], [5, 6, 7, 8, 100, 101, 4000]])
    tables = rope_tables(positions, inverse_frequencies(HEAD_DIM, 10_000.0), torch.float32)
    results = []
    for function in (apply_rope, apply_rope_reference):
        leaf = x.detach().requires_grad_()
        output = function(leaf, *tables)
        output.backward(upstream)
        assert leaf.grad is not None
        results.append((output.detach(), leaf.grad))
    for ours, truth in zip(*results, strict=True):
        torch.testing.assert_close(ours, truth)
    assert not torch.allclose(results[0][0], x), "it did turn"


def test_products_depend_on_the_distance_only() -> None:
    generator = torch.Generator().manual_seed(2)
    query, key = (torch.randn(1, 1, 1, HEAD_DIM, generator=generator) for _ in range(2))
    frequencies = inverse_frequencies(HEAD_DIM, 10_000.0)

    def product(query_position: int, key_position: int) -> float:
        turned = [
            apply_rope(x, *rope_tables(torch.tensor([[p]]), frequencies, torch.float32))
            for x, p in ((query, query_position), (key, key_position))
        ]
        return float((turned[0] * turned[1]).sum())

    assert product(7, 3) == pytest.approx(product(104, 100), abs=1e-4)
    assert abs(product(7, 3) - product(7, 4)) > 0.01


def test_tables_are_computed_in_float32_before_rounding() -> None:
    """Angles of thousands would be off by whole turns in bfloat16."""
    frequencies = inverse_frequencies(HEAD_DIM, 10_000.0)
    positions = torch.tensor([[4001]])
    exact = rope_tables(positions, frequencies, torch.float32)
    rounded = rope_tables(positions, frequencies, torch.bfloat16)
    for ours, truth in zip(rounded, exact, strict=True):
        assert torch.equal(ours, truth.bfloat16())
