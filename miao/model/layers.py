"""The smallest parts: a matrix product and a norm that work in the type of their input."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn, ones

from miao.ops.norm import rms_norm


class Linear(nn.Linear):
    """y = x·Wᵀ + b, with W cast to the type of x."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class RMSNorm(nn.Module):
    """`ops.rms_norm` with its weight."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)
