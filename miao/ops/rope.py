"""Rotary position embedding (arXiv:2104.09864) in Hugging Face's half-split layout. How it is
stretched over a longer context than the model was trained on: `rope_scaling.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def inverse_frequencies(head_dim: int, theta: float) -> Tensor:
    """theta^(-2i/head_dim) for i < head_dim/2, float32."""
    return 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim)


def rope_tables(
    positions_bt: Tensor,
    inverse_frequency: Tensor,
    dtype: torch.dtype,
    attention_factor: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """cos and sin [b, t, 1, head_dim/2] of every position's angles, computed in float32."""
    angles = positions_bt[:, :, None, None].float() * inverse_frequency
    cos, sin = angles.cos(), angles.sin()
    if attention_factor != 1.0:
        cos, sin = cos * attention_factor, sin * attention_factor
    return cos.to(dtype), sin.to(dtype)


def apply_rope_reference(x_bthd: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The plain twin, which a compiler fuses by itself."""
    first, second = x_bthd.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def apply_rope(x_bthd: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the pairs (x[i], x[i + head_dim/2]) by their position's angles."""
    if x_bthd.device.type == "cpu" and not torch.compiler.is_compiling():
        return _Rope.apply(x_bthd, cos, sin)
    return apply_rope_reference(x_bthd, cos, sin)


class _Rope(torch.autograd.Function):
    """The rotation written into one buffer; its gradient is the rotation back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _rotated(grads[0], cos, sin, -1), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, direction: int) -> Tensor:
    result = torch.empty_like(x, memory_format=torch.contiguous_format)
    (first, second), (left, right) = x.chunk(2, dim=-1), result.chunk(2, dim=-1)
    torch.mul(first, cos, out=left).addcmul_(second, sin, value=-direction)
    torch.mul(second, cos, out=right).addcmul_(first, sin, value=direction)
    return result
