"""Rotary position embedding (arXiv:2104.09864) in Hugging Face's half-split layout."""

from __future__ import annotations

import torch
from torch import Tensor


def inverse_frequencies(head_dim: int, theta: float) -> Tensor:
    """theta^(-2i/head_dim) for i < head_dim/2, float32."""
    return 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim)


def rope_tables(
    positions_bt: Tensor, inverse_frequency: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """cos and sin [b, t, 1, head_dim/2] of every position's angles, computed in float32."""
    angles = positions_bt[:, :, None, None].float() * inverse_frequency
    return angles.cos().to(dtype), angles.sin().to(dtype)


def apply_rope(x_bthd: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the pairs (x[i], x[i + head_dim/2]) by their position's angles."""
    first, second = x_bthd.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
