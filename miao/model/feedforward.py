"""The feed-forward of a block. (The other kind, a choice of experts: `mixture.py`.)"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from miao.model.layers import Linear


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) · up(x)) (arXiv:2002.05202)."""

    def __init__(self, hidden_size: int, intermediate_size: int):
        super().__init__()
        self.gate_proj = Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x_btd: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_btd)) * self.up_proj(x_btd))
