"""Stretched rotary positions against transformers, type by type."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from miao.ops.rope import rope_tables
from miao.ops.rope_scaling import dynamic_frequencies, scaled_frequencies

TRAINED = 64


def theirs(
    head_dim: int, theta: float, scaling: dict[str, Any], context: int
) -> LlamaRotaryEmbedding:
    return LlamaRotaryEmbedding(
        LlamaConfig(
            hidden_size=4 * head_dim,
            num_attention_heads=4,
            head_dim=head_dim,
            max_position_embeddings=context,
            rope_parameters=scaling | {"rope_theta": theta},
        )
    )


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
TRAINED_LENGTH = {"original_max_position_embeddings": TRAINED}
CASES: list[dict[str, Any]] = [
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "yarn", "factor": 4.0} | TRAINED_LENGTH,
    {"rope_type": "yarn", "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.7} | TRAINED_LENGTH,
    {"rope_type": "yarn", "factor": 4.0, "beta_fast": 8, "beta_slow": 2} | TRAINED_LENGTH,
    {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.3} | TRAINED_LENGTH,
    LLAMA3 | TRAINED_LENGTH,
]


@pytest.mark.parametrize("scaling", CASES, ids=lambda case: f"{case['rope_type']}-{len(case)}")
@pytest.mark.parametrize("theta", [10_000.0, 1_000_000.0])
def test_tables_equal_transformers(scaling: dict[str, Any], theta: float) -> None:
    positions = torch.tensor([[0, 1, 5, 63, 64, 200, 255]])
    cos, sin = theirs(24, theta, scaling, 4 * TRAINED)(torch.zeros(1), positions)
    frequencies, factor = scaled_frequencies(24, theta, scaling)
    ours = rope_tables(positions, frequencies, torch.float32, factor)
    for table, expected in zip(ours, (cos, sin), strict=True):
        torch.testing.assert_close(table[:, :, 0], expected[..., :12], atol=2e-6, rtol=1e-5)


@settings(max_examples=30)
@given(
    head_dim=st.sampled_from([4, 6, 16, 64]),
    theta=st.sampled_from([1e4, 5e5]),
    factor=st.floats(1.01, 40),
    trained=st.integers(8, 4096),
    kind=st.sampled_from(["linear", "yarn"]),
)
def test_any_scaling_equals_transformers(
    head_dim: int, theta: float, factor: float, trained: int, kind: str
) -> None:
    scaling: dict[str, Any] = {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        scaling["original_max_position_embeddings"] = trained
    other = theirs(head_dim, theta, scaling, int(trained * factor) + 1)
    frequencies, attention_factor = scaled_frequencies(head_dim, theta, scaling)
    torch.testing.assert_close(frequencies, other.inv_freq, atol=0, rtol=1e-5)
    assert attention_factor == pytest.approx(other.attention_scaling)


@pytest.mark.parametrize("length", [1, TRAINED, TRAINED + 1, 100, 4 * TRAINED])
def test_dynamic_equals_transformers_at_every_length(length: int) -> None:
    scaling = {"rope_type": "dynamic", "factor": 4.0}
    positions = torch.arange(length)[None]
    cos, sin = theirs(24, 1e4, scaling, TRAINED)(torch.zeros(1), positions)
    frequencies = dynamic_frequencies(torch.tensor([length]), TRAINED, 24, 1e4, 4.0)
    for table, expected in zip(
        rope_tables(positions, frequencies, torch.float32), (cos, sin), strict=True
    ):
        torch.testing.assert_close(table[:, :, 0], expected[..., :12], atol=1e-5, rtol=1e-5)


def test_dynamic_treats_every_row_by_itself() -> None:
    both = dynamic_frequencies(torch.tensor([10, 200]), TRAINED, 24, 1e4, 4.0)
    alone = dynamic_frequencies(torch.tensor([200]), TRAINED, 24, 1e4, 4.0)
    torch.testing.assert_close(both[1:], alone)
    torch.testing.assert_close(both[0, 0, 0], scaled_frequencies(24, 1e4, None)[0])
