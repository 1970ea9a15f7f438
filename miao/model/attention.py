"""Grouped-query attention. (The other kind: `latent_attention.py`.)"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from miao.model.cache import Cache
from miao.model.config import ModelConfig
from miao.model.layers import Linear, RMSNorm
from miao.ops.attention import Mask, attention
from miao.ops.rope import apply_rope


class Context(NamedTuple):
    """What every block needs to know about the tokens it reads."""

    rope: tuple[Tensor, Tensor]
    """cos and sin, as `apply_rope` wants them."""
    mask: Mask
    positions_bt: Tensor
    cache: Cache | None
    real_bt: Tensor | None
    """1 for tokens, 0 for padding, float32; None: all are tokens."""


class Attention(nn.Module):
    """Grouped-query attention with rotary positions; QK-norm and biases are options."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        query = config.num_attention_heads * config.head_dim
        key = config.num_key_value_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, query, bias=config.attention_bias)
        self.k_proj = Linear(config.hidden_size, key, bias=config.attention_bias)
        self.v_proj = Linear(config.hidden_size, key, bias=config.attention_bias)
        self.o_proj = Linear(query, config.hidden_size, bias=False)
        self.q_norm: RMSNorm | None = None
        self.k_norm: RMSNorm | None = None
        if config.qk_norm:
            self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
            self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)

    def forward(self, x_btd: Tensor, context: Context) -> Tensor:
        query_bthd = self.q_proj(x_btd).unflatten(-1, (-1, self.head_dim))
        key_btkd = self.k_proj(x_btd).unflatten(-1, (-1, self.head_dim))
        value_btkd = self.v_proj(x_btd).unflatten(-1, (-1, self.head_dim))
        if self.q_norm is not None and self.k_norm is not None:
            query_bthd, key_btkd = self.q_norm(query_bthd), self.k_norm(key_btkd)
        query_bthd = apply_rope(query_bthd, *context.rope)
        key_btkd = apply_rope(key_btkd, *context.rope)
        if context.cache is not None:
            key_btkd, value_btkd = context.cache.update(
                self.layer, key_btkd, value_btkd, context.positions_bt
            )
        return self.o_proj(attention(query_bthd, key_btkd, value_btkd, context.mask))
