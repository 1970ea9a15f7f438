"""The ways to stretch rotary positions over a longer context than a model was trained on."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from miao.ops.rope import inverse_frequencies

ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "llama3")


def scaled_frequencies(
    head_dim: int, theta: float, scaling: dict[str, Any] | None
) -> tuple[Tensor, float]:
    """Inverse frequencies after scaling [head_dim/2], and the factor on cos and sin.

    Args:
        scaling: Hugging Face's rope parameters. `linear` (arXiv:2306.15595) divides every position;
            `yarn` (arXiv:2309.00071) only the slow rotations, and sharpens attention; `llama3`
            divides the slow ones without sharpening; `dynamic` begins unscaled
            (`dynamic_frequencies`).
    """
    plain = inverse_frequencies(head_dim, theta)
    kind = (scaling or {}).get("rope_type", "default")
    if scaling is None or kind in ("default", "dynamic"):
        return plain, 1.0
    if kind == "linear":
        return plain / scaling["factor"], 1.0
    if kind == "llama3":
        return _llama3(plain, scaling), 1.0
    assert kind == "yarn", kind
    return _yarn(plain, head_dim, theta, scaling), yarn_attention_factor(scaling)


def dynamic_frequencies(
    length_b: Tensor, trained_length: int, head_dim: int, theta: float, factor: float
) -> Tensor:
    """Dynamic NTK: the base grows with the length of each sequence beyond the trained one.

    Args:
        length_b: tokens of each row so far.

    Returns:
        Inverse frequencies per row, float32 [b, 1, 1, head_dim/2].
    """
    stretch_b = length_b.clamp(min=trained_length).float() * factor / trained_length - (factor - 1)
    base_b = theta * stretch_b ** (head_dim / (head_dim - 2))
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device=length_b.device) / head_dim
    return (1.0 / base_b[:, None] ** exponent)[:, None, None, :]


def yarn_attention_factor(scaling: dict[str, Any]) -> float:
    """The factor that YaRN puts on cos and sin (its square acts on the attention scores)."""
    if scaling.get("attention_factor") is not None:
        return float(scaling["attention_factor"])
    factor = scaling["factor"]
    both, all_dims = scaling.get("mscale"), scaling.get("mscale_all_dim")
    if both and all_dims:
        return yarn_mscale(factor, both) / yarn_mscale(factor, all_dims)
    return yarn_mscale(factor, 1.0)


def yarn_mscale(factor: float, weight: float) -> float:
    """0.1 · weight · ln(factor) + 1: how much sharper attention must be over `factor` times as
    many tokens."""
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _yarn(plain: Tensor, head_dim: int, theta: float, scaling: dict[str, Any]) -> Tensor:
    """Pairs that turn more than `beta_fast` times within the trained length stay, those that turn
    less than `beta_slow` times are interpolated, with a ramp between."""
    trained = scaling["original_max_position_embeddings"]

    def pair_that_turns(times: float) -> float:
        return head_dim * math.log(trained / (times * 2 * math.pi)) / (2 * math.log(theta))

    low = pair_that_turns(scaling.get("beta_fast") or 32)
    high = pair_that_turns(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    pairs = torch.arange(head_dim // 2, dtype=torch.float32)
    ramp = ((pairs - low) / (high - low if high != low else 0.001)).clamp(0, 1)
    return plain / scaling["factor"] * ramp + plain * (1 - ramp)


def _llama3(plain: Tensor, scaling: dict[str, Any]) -> Tensor:
    """Llama 3.1: wavelengths beyond the trained length are interpolated, short ones stay."""
    trained = scaling["original_max_position_embeddings"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = trained * plain / (2 * math.pi)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return plain * smooth + plain / scaling["factor"] * (1 - smooth)
