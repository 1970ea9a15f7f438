"""The one decoder. Parameter names are Hugging Face's, so saving is a copy.

Weights are float32 masters; every matrix product casts its weight to the type of its input, and
that type is chosen once, at the embedding (`compute_dtype`). There is no autocast.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miao.model.cache import KVCache
from miao.model.config import ModelConfig
from miao.ops.attention import attention, cache_mask, document_mask
from miao.ops.linear_cross_entropy import linear_cross_entropy, linear_logprobs
from miao.ops.norm import rms_norm
from miao.ops.rope import apply_rope, inverse_frequencies, rope_tables

Output = Literal["logits", "hidden", "loss", "logprobs"]


class Linear(nn.Linear):
    """y = x·Wᵀ + b, with W cast to the type of x."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class RMSNorm(nn.Module):
    """`ops.rms_norm` with its weight."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


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

    def forward(
        self,
        x_btd: Tensor,
        rope: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: KVCache | None,
        positions_bt: Tensor,
    ) -> Tensor:
        query_bthd = self.q_proj(x_btd).unflatten(-1, (-1, self.head_dim))
        key_btkd = self.k_proj(x_btd).unflatten(-1, (-1, self.head_dim))
        value_btkd = self.v_proj(x_btd).unflatten(-1, (-1, self.head_dim))
        if self.q_norm is not None and self.k_norm is not None:
            query_bthd, key_btkd = self.q_norm(query_bthd), self.k_norm(key_btkd)
        query_bthd, key_btkd = apply_rope(query_bthd, *rope), apply_rope(key_btkd, *rope)
        if cache is not None:
            key_btkd, value_btkd = cache.update(self.layer, key_btkd, value_btkd, positions_bt)
        return self.o_proj(attention(query_bthd, key_btkd, value_btkd, mask))


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) · up(x)) (arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x_btd: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_btd)) * self.up_proj(x_btd))


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(
        self,
        x_btd: Tensor,
        rope: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: KVCache | None,
        positions_bt: Tensor,
    ) -> Tensor:
        x_btd = x_btd + self.self_attn(self.input_layernorm(x_btd), rope, mask, cache, positions_bt)
        return x_btd + self.mlp(self.post_attention_layernorm(x_btd))


class Backbone(nn.Module):
    """Embedding, blocks and final norm: token ids in, hidden states out."""

    inverse_frequency: Tensor

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        frequencies = inverse_frequencies(config.head_dim, config.rope_theta)
        self.register_buffer("inverse_frequency", frequencies, persistent=False)

    def forward(
        self,
        ids_bt: Tensor,
        positions_bt: Tensor,
        segments_bt: Tensor | None,
        cache: KVCache | None,
    ) -> Tensor:
        x_btd = self.embed_tokens(ids_bt).to(self.compute_dtype)
        rope = rope_tables(positions_bt, self.inverse_frequency, self.compute_dtype)
        mask: Tensor | None = None
        if cache is not None:
            mask = cache_mask(positions_bt, cache.visible, self.compute_dtype)
        elif segments_bt is not None:
            mask = document_mask(segments_bt, self.compute_dtype)
        for block in self.layers:
            x_btd = block(x_btd, rope, mask, cache, positions_bt)
        return self.norm(x_btd)


class Decoder(nn.Module):
    """A causal language model of the Llama / Qwen2 / Qwen3 family."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        self.is_compiled = False

    def forward(
        self,
        ids_bt: Tensor,
        positions_bt: Tensor | None = None,
        segments_bt: Tensor | None = None,
        cache: KVCache | None = None,
        labels_bt: Tensor | None = None,
        output: Output = "logits",
    ) -> Tensor:
        """Reads token ids; the one entry, so that any wrapper (DDP, FSDP) sees all of it.

        Args:
            ids_bt: token ids [b, t].
            positions_bt: position of each token in its document (default 0, 1, 2, ...).
            segments_bt: document number of each slot of a packed row (0 is padding);
                None: each row is one document.
            cache: keys and values read before; a token sees the positions up to its own.
            labels_bt: the token that each slot should predict, -100 for none.
            output: "logits" [b, t, v] and "hidden" [b, t, d] in the compute type;
                "loss": summed cross-entropy of the labels in nats, and "logprobs": log p(label)
                per slot [b, t], both float32 and without ever holding all logits.
        """
        if positions_bt is None:
            positions_bt = torch.arange(ids_bt.shape[1], device=ids_bt.device).expand_as(ids_bt)
        # Only the training pass has one static shape and so repays compiling.
        backbone = self.model if self.training and cache is None else self.model.forward
        hidden_btd = backbone(ids_bt, positions_bt, segments_bt, cache)
        if output == "hidden":
            return hidden_btd
        if output == "logits":
            return self.lm_head(hidden_btd)
        assert labels_bt is not None, f"output={output!r} needs labels"
        head = linear_cross_entropy if output == "loss" else linear_logprobs
        result = head(hidden_btd.flatten(0, 1), self.lm_head.weight, labels_bt.flatten())
        return result if output == "loss" else result.view(labels_bt.shape)

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """The type of activations and matrix products; weights stay as they are."""
        self.model.compute_dtype = dtype

    @property
    def compute_dtype(self) -> torch.dtype:
        return self.model.compute_dtype

    @property
    def device(self) -> torch.device:
        return self.model.embed_tokens.weight.device

    def compile_for_training(self) -> None:
        """Compiles the backbone's training pass; evaluation and generation stay eager."""
        self.model.compile(dynamic=False)
        self.is_compiled = True

    def initialize(self, seed: int) -> None:
        """Random weights: N(0, 1/fan_in) for matrices, N(0, 0.02²) for embeddings, and zero for
        the two matrices that write to the residual stream, so that every block starts as the
        identity."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(parameter)
            else:
                embedding = "embed_tokens" in name or "lm_head" in name
                std = 0.02 if embedding else 1 / math.sqrt(parameter.shape[1])
                values = torch.randn(parameter.shape, generator=generator) * std
                with torch.no_grad():
                    parameter.copy_(values)
