"""What a shape costs: parameters, arithmetic per token, memory per token of context."""

from __future__ import annotations

from dataclasses import dataclass

from miao.model.config import ModelConfig

Matrices = list[tuple[int, int]]


@dataclass(frozen=True)
class ParameterCount:
    """Trainable numbers; tied embeddings counted once."""

    total: int
    active: int
    """Those that work on one token: of the routed experts only the chosen ones."""
    embedding: int
    """Input embedding and output head."""

    @property
    def inner(self) -> int:
        """All outside of embedding and head: what scaling laws call the size."""
        return self.total - self.embedding


def count_parameters(config: ModelConfig) -> ParameterCount:
    """The parameters of a `Decoder` of this shape."""
    c = config
    table = c.vocab_size * c.hidden_size
    embedding = table if c.tie_word_embeddings else 2 * table
    total = active = embedding + c.hidden_size  # the final norm
    for layer in range(c.num_hidden_layers):
        block = 2 * c.hidden_size + numbers_in(attention_matrices(c)) + _attention_vectors(c)
        block += c.num_experts * c.hidden_size * c.is_sparse(layer)  # the router
        total += block + numbers_in(feed_forward_matrices(c, layer, all_experts=True))
        active += block + numbers_in(feed_forward_matrices(c, layer))
    return ParameterCount(total, active, embedding)


def attention_matrices(c: ModelConfig) -> Matrices:
    """(inputs, outputs) of the projections of a block; of some the products are joined."""
    queries = c.num_attention_heads * c.query_dim
    if not c.is_latent:
        keys = 2 * c.num_key_value_heads * c.head_dim
        return [(c.hidden_size, queries + keys), (queries, c.hidden_size)]
    rank, values = c.kv_lora_rank or 0, c.num_attention_heads * c.v_head_dim
    made = c.num_attention_heads * (c.qk_nope_head_dim + c.v_head_dim)
    matrices = [(c.hidden_size, rank + c.qk_rope_head_dim), (rank, made), (values, c.hidden_size)]
    if c.q_lora_rank is None:
        return [*matrices, (c.hidden_size, queries)]
    return [*matrices, (c.hidden_size, c.q_lora_rank), (c.q_lora_rank, queries)]


def feed_forward_matrices(c: ModelConfig, layer: int, all_experts: bool = False) -> Matrices:
    """Those that one token visits, or all."""
    if not c.is_sparse(layer):
        return [(c.hidden_size, 2 * c.intermediate_size), (c.intermediate_size, c.hidden_size)]
    inner = c.moe_intermediate_size
    expert = [(c.hidden_size, 2 * inner), (inner, c.hidden_size)]
    visited = c.num_experts if all_experts else c.num_experts_per_tok
    return expert * (visited + c.n_shared_experts)


def numbers_in(matrices: Matrices) -> int:
    return sum(inner * outer for inner, outer in matrices)


def matmul_weights(config: ModelConfig) -> int:
    """Weights that multiply one token: the input embedding is a look-up, the head counts once."""
    count = count_parameters(config)
    c = config
    vectors = c.hidden_size + c.num_hidden_layers * (2 * c.hidden_size + _attention_vectors(c))
    return count.active - count.embedding - vectors + c.vocab_size * c.hidden_size


def flops_per_token(config: ModelConfig, seq_len: float, causal: bool = True) -> float:
    """Training FLOPs (forward and backward) of one token in a row of `seq_len`; of one in a
    document twice the tokens that it sees count for that (`attended`).

    6 per weight of a matrix product, plus attention: 6·L·heads·(query size + value size)·T over the
    full square (the PaLM convention, appendix B of arXiv:2204.02311), or half of it when `causal`.
    """
    value = config.v_head_dim if config.is_latent else config.head_dim
    square = config.num_attention_heads * (config.query_dim + value) * seq_len
    attention = 6 * config.num_hidden_layers * square
    return 6.0 * matmul_weights(config) + (attention / 2 if causal else attention)


def muon_flops(config: ModelConfig, fp32: bool) -> float:
    """FLOPs of the five Newton-Schulz steps on every matrix in the blocks, r x k of them r the
    smaller side: 20·r²·k + 10·r³; in float32 4·r²·k + 34·r³ where that is less (`train/gram.py`).
    """
    c, total = config, 0.0
    queries, keys = c.num_attention_heads * c.query_dim, c.num_key_value_heads * c.head_dim
    for layer in range(c.num_hidden_layers):
        matrices = [(c.hidden_size, size) for size in (queries, keys, keys, queries)]
        if c.is_latent:
            matrices = attention_matrices(c)
        inner = [c.intermediate_size]
        if c.is_sparse(layer):
            shared = c.n_shared_experts * c.moe_intermediate_size
            inner = [shared, *[c.moe_intermediate_size] * c.num_experts]
        for short, long in map(sorted, [*matrices, *[(c.hidden_size, size) for size in inner] * 3]):
            plain, gram = 20 * short**2 * long + 10 * short**3, 4 * short**2 * long + 34 * short**3
            total += min(plain, gram) if fp32 else plain
    return total


def bitbrain_flops_per_token(config: ModelConfig, seq_len: int) -> float:
    """BitBrain's `6N(1 + s/12h + V/16Lh)` per token, N being all active parameters.

    Both fractions are Megatron's (arXiv:2104.04473, section 5.1), where they multiply 12Lh², the
    weights of the blocks alone. This N has the embedding in it as well: the head, which the last
    term adds, is counted twice, and attention grows with the vocabulary.
    """
    c = config
    attention = seq_len / (12 * c.hidden_size)
    head = c.vocab_size / (16 * c.num_hidden_layers * c.hidden_size)
    return 6.0 * count_parameters(c).active * (1 + attention + head)


def mfu_conventions(
    config: ModelConfig, seq_len: int, seen: float | None = None
) -> dict[str, float]:
    """Training FLOPs per token as each convention of model FLOPs utilization counts them, under
    the names that metrics.jsonl uses: `mfu` only what a causal model needs.

    Args:
        seen: tokens that a token sees, on average: those of its own document up to itself
            (default: half the row). The other conventions count whole rows.
    """
    return {
        "mfu": flops_per_token(config, seq_len if seen is None else 2 * seen),
        "mfu_palm": flops_per_token(config, seq_len, causal=False),
        "mfu_bitbrain": bitbrain_flops_per_token(config, seq_len),
    }


def kv_bytes_per_token(config: ModelConfig, bytes_per_number: int = 2) -> int:
    """Cache memory that one token of context takes, over all blocks."""
    numbers = sum(heads * size for heads, size in config.cache_shapes)
    return config.num_hidden_layers * numbers * bytes_per_number


def _attention_vectors(c: ModelConfig) -> int:
    """Norms and biases inside attention."""
    if c.is_latent:
        return (c.kv_lora_rank or 0) + (c.q_lora_rank or 0)
    biases = (c.num_attention_heads + 2 * c.num_key_value_heads) * c.head_dim
    return (2 * c.head_dim if c.qk_norm else 0) + (biases if c.attention_bias else 0)
