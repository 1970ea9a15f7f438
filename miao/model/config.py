"""The decoder's shape, in Hugging Face's key names; each shape is one native architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from miao.errors import MiaoError


@dataclass(frozen=True)
class ModelConfig:
    """What a decoder is made of. Sizes are counts of numbers, positions are tokens."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    """Size of a query/key/value head (of the rotary part alone with latent attention)."""
    intermediate_size: int
    """Width inside the feed-forward of dense blocks."""
    max_position_embeddings: int = 512
    rope_theta: float = 10000.0
    rope_scaling: dict[str, Any] | None = None
    """Hugging Face's rope parameters without the base: rope_type, factor, ..."""
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    qk_norm: bool = True
    attention_bias: bool = False

    kv_lora_rank: int | None = None
    """Size of the latent that keys and values are made from; given: multi-head latent attention."""
    q_lora_rank: int | None = None
    """Size of the latent that queries are made from; None: made directly."""
    qk_nope_head_dim: int = 0
    """Size of the part of a query/key head without position."""
    qk_rope_head_dim: int = 0
    """Size of the part with position; the keys' part is shared by all heads."""
    v_head_dim: int = 0

    num_experts: int = 0
    """Routed experts of a mixture-of-experts block; 0: every block is dense."""
    num_experts_per_tok: int = 2
    moe_intermediate_size: int = 0
    n_shared_experts: int = 0
    """Experts that every token visits."""
    first_k_dense_replace: int = 0
    """So many blocks at the beginning are dense."""
    scoring_func: Literal["softmax", "sigmoid"] = "softmax"
    norm_topk_prob: bool = True
    n_group: int = 1
    topk_group: int = 1
    routed_scaling_factor: float = 1.0
    router_aux_loss_coef: float = 0.001
    """Weight of the load-balancing loss (softmax routing)."""

    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    num_tokens: int | None = None
    """Tokens that the tokenizer has, where the vocabulary is padded: the rows of the weights behind
    them stand for nothing (not in `config.json`; read from the tokenizer beside the weights)."""

    @property
    def tokens(self) -> int:
        """Ids below this are tokens; no others are drawn, predicted, or have a probability."""
        return min(self.num_tokens or self.vocab_size, self.vocab_size)

    @property
    def is_latent(self) -> bool:
        """Whether attention is multi-head latent attention (MLA)."""
        return self.kv_lora_rank is not None

    def is_sparse(self, layer: int) -> bool:
        """Whether a block's feed-forward is a mixture of experts."""
        return self.num_experts > 0 and layer >= self.first_k_dense_replace

    @property
    def query_dim(self) -> int:
        """Size of one query head."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim if self.is_latent else self.head_dim

    @property
    def rope_dim(self) -> int:
        """How many numbers of a head are rotated."""
        return self.qk_rope_head_dim if self.is_latent else self.head_dim

    @property
    def context_length(self) -> int:
        """The longest sequence the model is meant for, in tokens. Dynamic NTK keeps the trained
        length in `max_position_embeddings` and stretches from there."""
        scaling = self.rope_scaling or {}
        if scaling.get("rope_type") == "dynamic":
            return int(self.max_position_embeddings * scaling["factor"])
        return self.max_position_embeddings

    @property
    def cache_shapes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """What one token leaves in a layer's cache, as two (heads, size): key and value, or with
        latent attention the latent and the shared rotary key."""
        if self.is_latent:
            return (1, self.kv_lora_rank or 0), (1, self.qk_rope_head_dim)
        return ((self.num_key_value_heads, self.head_dim),) * 2


def round_up(value: float, multiple: int) -> int:
    """The smallest multiple not below `value`."""
    return -int(-value // multiple) * multiple


def check_config(config: ModelConfig, where: str = "model") -> None:
    """Everything that cannot be built, said at once.

    Raises:
        MiaoError: sizes that do not fit each other.
    """
    c = config
    problems: list[str] = []

    def need(condition: bool, message: str) -> None:
        if not condition:
            problems.append(message)

    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"):
        need(getattr(c, name) > 0, f"{name}: must be positive")
    need(c.rope_dim > 0 and c.rope_dim % 2 == 0, f"rotary size {c.rope_dim}: must be even")
    if c.rope_scaling:
        kind = c.rope_scaling.get("rope_type")
        wanted = ["factor"]
        if kind in ("yarn", "llama3"):
            wanted += ["original_max_position_embeddings"]
        if kind == "llama3":
            wanted += ["low_freq_factor", "high_freq_factor"]
        lacking = [k for k in wanted if not isinstance(c.rope_scaling.get(k), int | float)]
        # Its base is raised to rope_dim / (rope_dim - 2).
        need(
            kind != "dynamic" or c.rope_dim > 2,
            "rope scaling 'dynamic': rotary size 2 is too small",
        )
        need(not lacking, f"rope scaling {kind!r} needs {', '.join(lacking)} (numbers)")
    if c.is_latent:
        for name in ("kv_lora_rank", "qk_nope_head_dim", "v_head_dim"):
            need((getattr(c, name) or 0) > 0, f"{name}: must be positive with latent attention")
        need(c.q_lora_rank is None or c.q_lora_rank > 0, "q_lora_rank: must be positive or null")
    else:
        kv = c.num_key_value_heads
        need(
            kv > 0 and c.num_attention_heads % kv == 0,
            f"num_key_value_heads: {kv} does not divide the {c.num_attention_heads} query heads",
        )
    if c.num_experts:
        top = c.num_experts_per_tok
        need(0 < top <= c.num_experts, f"num_experts_per_tok: {top} of {c.num_experts} experts")
        need(c.moe_intermediate_size > 0, "moe_intermediate_size: must be positive with experts")
        need(c.n_shared_experts >= 0, "n_shared_experts: must not be negative")
        need(
            0 <= c.first_k_dense_replace < c.num_hidden_layers,
            f"first_k_dense_replace: {c.first_k_dense_replace} of {c.num_hidden_layers} blocks",
        )
        need(
            c.n_group > 0 and c.num_experts % c.n_group == 0,
            f"n_group: {c.n_group} does not divide the {c.num_experts} experts",
        )
        need(0 < c.topk_group <= c.n_group, f"topk_group: {c.topk_group} of {c.n_group} groups")
        room = c.topk_group * c.num_experts // max(c.n_group, 1)
        need(top <= room, f"num_experts_per_tok: {top}, but topk_group leaves {room} experts")
    else:
        need(c.intermediate_size > 0, "intermediate_size: must be positive")
    if problems:
        raise MiaoError(
            "the model's shape does not hold together:\n"
            + "\n".join(f"  - {line}" for line in problems),
            where=where,
        )
