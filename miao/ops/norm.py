"""RMS normalisation (arXiv:1910.07467)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm_reference(x: Tensor, weight_d: Tensor, eps: float) -> Tensor:
    """The plain twin."""
    return F.rms_norm(x, x.shape[-1:], weight_d.to(x.dtype), eps)


def rms_norm(x: Tensor, weight_d: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) · weight over the last dimension.

    GPUs have a kernel for it, and a compiler fuses it; an eager CPU would make some twenty passes
    over the memory, so there the gradient is written out by hand.
    """
    if x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling():
        return _RMSNorm.apply(x, weight_d, eps)
    return rms_norm_reference(x, weight_d, eps)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        size = x.shape[-1]
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = norm.square_().div_(size).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        product = (grads[0] * x).flatten(0, -2)
        grad_weight = product.T @ scale.flatten()
        # d/dx: scale·(g·w) - x·scale³·sum(g·w·x)/size
        along_x = (product @ weight).view(scale.shape) * scale**3 / x.shape[-1]
        grad_x = (grads[0] * weight).mul_(scale)
        return grad_x.addcmul_(x, along_x, value=-1), grad_weight, None
