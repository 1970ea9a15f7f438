"""Options of the decoder's shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

DEFAULT_CONTEXT = 512


@dataclass
class RopeScalingOptions:
    """How rotary positions are stretched over a longer context."""

    rope_type: Literal["default", "linear", "dynamic", "yarn"] = "default"
    """default: not at all; linear: divide positions; dynamic: NTK, by the length at hand; yarn."""
    factor: float = 1.0
    """New context length / trained context length."""
    original_max_position_embeddings: int | None = None
    """yarn: the trained context length (default: that of model.path, or the context / factor)."""


@dataclass
class ModelOptions:
    """The decoder's shape, in the key names of Hugging Face configurations."""

    path: str | None = None
    """Start from this trained model (directory, run, hf:owner/name or modelscope:owner/name)
    instead of random weights. Its shape counts; of the options below only
    max_position_embeddings, when it is longer, and rope_scaling apply: they extend the context."""
    hidden_size: int = 256
    """Width of the residual stream."""
    num_hidden_layers: int = 6
    """Number of blocks."""
    num_attention_heads: int = 4
    """Query heads."""
    num_key_value_heads: int = 2
    """Key/value heads (fewer than query heads: grouped-query attention)."""
    head_dim: int | None = None
    """Size of one head (default: hidden_size / num_attention_heads)."""
    intermediate_size: int | None = None
    """Width inside the SwiGLU feed-forward (default: 8/3 of hidden_size, rounded up to 64)."""
    max_position_embeddings: int | None = None
    """The longest context the model is meant for, in tokens (default: 512; that of model.path,
    times the factor of rope_scaling)."""
    rope_theta: float = 10000.0
    """Base of the rotary position embedding."""
    rope_scaling: RopeScalingOptions = field(default_factory=RopeScalingOptions)
    """Stretching of the rotary positions, to extend a trained model's context."""
    rms_norm_eps: float = 1e-6
    """Epsilon of the RMS norms."""
    tie_word_embeddings: bool = True
    """Share the embedding matrix with the output head."""
    qk_norm: bool = True
    """Normalise queries and keys per head (Qwen3; not with latent attention)."""
    attention_bias: bool = False
    """Biases on the query/key/value projections (Qwen2)."""
    kv_lora_rank: int | None = None
    """Size of the latent that keys and values are made from; given: multi-head latent attention
    (DeepSeek-V3), which caches only the latent and one rotary key per token."""
    q_lora_rank: int | None = None
    """Latent attention: size of the latent that queries are made from (null: made directly)."""
    qk_nope_head_dim: int = 64
    """Latent attention: size of a head's part without position."""
    qk_rope_head_dim: int = 32
    """Latent attention: size of a head's part with rotary position."""
    v_head_dim: int = 64
    """Latent attention: size of a value head."""
    num_experts: int = 0
    """Routed experts per block (0: dense blocks)."""
    num_experts_per_tok: int = 2
    """Routed experts that each token visits."""
    moe_intermediate_size: int | None = None
    """Width inside one expert (default: intermediate_size / num_experts_per_tok)."""
    n_shared_experts: int = 0
    """Experts that every token visits (sigmoid routing only)."""
    first_k_dense_replace: int = 0
    """So many blocks at the beginning stay dense."""
    scoring_func: Literal["softmax", "sigmoid"] = "softmax"
    """softmax: balanced by a loss (Qwen3-MoE); sigmoid: by a bias, loss-free (DeepSeek-V3)."""
    norm_topk_prob: bool = True
    """Make the weights of a token's chosen experts sum to one."""
    n_group: int = 1
    """Sigmoid routing: experts stand in so many groups."""
    topk_group: int = 1
    """Sigmoid routing: a token chooses from its best so many groups."""
    routed_scaling_factor: float = 1.0
    """Sigmoid routing: factor on the routed experts' output."""
    router_aux_loss_coef: float = 0.001
    """Softmax routing: weight of the load-balancing loss."""
