"""DeepSeek's attention, whose keys and values are made from one small latent per token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from miao.model.attention import Context
from miao.model.config import ModelConfig
from miao.model.layers import Linear, RMSNorm
from miao.ops.attention import Mask, attention
from miao.ops.rope_scaling import yarn_mscale

LATENT_NORM_EPS = 1e-6
"""DeepSeek-V3's norms on the latents do not follow `rms_norm_eps`."""


class LatentAttention(nn.Module):
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1).

    Keys and values of all heads are made from one small latent per token, beside one rotary key
    that all heads share. The cache holds only these two. While generating, the matrices that would
    make keys and values from the latent are applied to the query and to the result instead
    ("absorbed"), so that the heads' keys and values never exist.
    """

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        assert config.kv_lora_rank is not None
        self.layer = layer
        self.nope, self.rotary = config.qk_nope_head_dim, config.qk_rope_head_dim
        self.value_dim, self.rank = config.v_head_dim, config.kv_lora_rank
        heads, hidden = config.num_attention_heads, config.hidden_size
        self.q_proj: Linear | None = None
        if config.q_lora_rank is None:
            self.q_proj = Linear(hidden, heads * config.query_dim, bias=False)
        else:
            self.q_a_proj = Linear(hidden, config.q_lora_rank, bias=False)
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, LATENT_NORM_EPS)
            self.q_b_proj = Linear(config.q_lora_rank, heads * config.query_dim, bias=False)
        self.kv_a_proj_with_mqa = Linear(hidden, self.rank + self.rotary, bias=False)
        self.kv_a_layernorm = RMSNorm(self.rank, LATENT_NORM_EPS)
        self.kv_b_proj = Linear(self.rank, heads * (self.nope + self.value_dim), bias=False)
        self.o_proj = Linear(heads * self.value_dim, hidden, bias=False)
        self.scale = config.query_dim**-0.5 * _score_factor(config)

    def forward(self, x_btd: Tensor, context: Context) -> Tensor:
        query_bthn, query_bthr = self._queries(x_btd).split((self.nope, self.rotary), dim=-1)
        latent_btc, key_btr = self.kv_a_proj_with_mqa(x_btd).split((self.rank, self.rotary), dim=-1)
        latent_btkc = self.kv_a_layernorm(latent_btc)[:, :, None]
        query_bthr = apply_rope_interleaved(query_bthr, *context.rope)
        key_btkr = apply_rope_interleaved(key_btr[:, :, None], *context.rope)
        if context.cache is not None:
            latent_btkc, key_btkr = context.cache.update(
                self.layer, latent_btkc, key_btkr, context.positions_bt
            )
        one_each = context.cache is not None and x_btd.shape[1] == 1
        absorbed = one_each and isinstance(self.kv_b_proj, Linear)  # an adapter is no matrix
        attend = self._absorbed if absorbed else self._expanded
        return self.o_proj(attend(query_bthn, query_bthr, latent_btkc, key_btkr, context.mask))

    def _queries(self, x_btd: Tensor) -> Tensor:
        if self.q_proj is not None:
            query = self.q_proj(x_btd)
        else:
            query = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x_btd)))
        return query.unflatten(-1, (-1, self.nope + self.rotary))

    def _expanded(
        self,
        query_bthn: Tensor,
        query_bthr: Tensor,
        latent_bskc: Tensor,
        key_bskr: Tensor,
        mask: Mask,
    ) -> Tensor:
        """Every head's keys and values are made: the cheaper way for many queries."""
        made = self.kv_b_proj(latent_bskc[:, :, 0]).unflatten(-1, (-1, self.nope + self.value_dim))
        key_bshn, value_bshv = made.split((self.nope, self.value_dim), dim=-1)
        shared_bshr = key_bskr.expand(*key_bshn.shape[:3], self.rotary)
        query_bthd = torch.cat((query_bthn, query_bthr), dim=-1)
        key_bshd = torch.cat((key_bshn, shared_bshr), dim=-1)
        return attention(query_bthd, key_bshd, value_bshv, mask, self.scale)

    def _absorbed(
        self,
        query_bthn: Tensor,
        query_bthr: Tensor,
        latent_bskc: Tensor,
        key_bskr: Tensor,
        mask: Mask,
    ) -> Tensor:
        """The same in the space of the latent: multi-query attention with one wide head."""
        matrices = self.kv_b_proj.weight.to(query_bthn.dtype).unflatten(
            0, (-1, self.nope + self.value_dim)
        )
        key_hnc, value_hvc = matrices.split((self.nope, self.value_dim), dim=1)
        query_bthc = torch.einsum("bthn,hnc->bthc", query_bthn, key_hnc)
        query_bthd = torch.cat((query_bthc, query_bthr), dim=-1)
        key_bskd = torch.cat((latent_bskc, key_bskr), dim=-1)
        seen = attention(query_bthd, key_bskd, latent_bskc, mask, self.scale)
        seen_bthc = seen.unflatten(-1, (-1, self.rank))
        return torch.einsum("bthc,hvc->bthv", seen_bthc, value_hvc).flatten(2)


def _score_factor(config: ModelConfig) -> float:
    """DeepSeek applies YaRN's sharpening to the scores, by `mscale_all_dim`."""
    scaling = config.rope_scaling or {}
    all_dims = scaling.get("mscale_all_dim")
    return yarn_mscale(scaling["factor"], all_dims) ** 2 if all_dims else 1.0


def apply_rope_interleaved(x_bthd: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the pairs (x[2i], x[2i + 1]), DeepSeek's layout; the result is half-split."""
    first, second = x_bthd[..., 0::2], x_bthd[..., 1::2]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
