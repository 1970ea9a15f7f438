"""What the tests of runners share: kinds of models, and passes one after the other (prompts,
tokens, several at once)."""

from __future__ import annotations

from typing import Any

from miao.engine.runner import Piece

LATENT: dict[str, Any] = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 10,
}
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
PLAIN_KINDS: dict[str, dict[str, Any]] = {
    "qk_norm": {"qk_norm": True},
    "plain": {"qk_norm": False, "tie_word_embeddings": False},
    "bias": {"qk_norm": False, "attention_bias": True},
    "multi-query": {"num_attention_heads": 6, "num_key_value_heads": 1, "head_dim": 32},
    "yarn": {
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 16,
        }
    },
}
"""Models that compiled code reads too."""
PIECES = [
    [Piece(0, [1, 2, 3, 4, 5], 0), Piece(1, [9, 8], 0), Piece(2, [7, 7, 7, 6], 0)],
    [Piece(0, [11], 5), Piece(1, [12], 2), Piece(2, [13], 4)],
    [Piece(1, [20, 21, 22], 3)],
    [Piece(0, [30], 6)],
    [Piece(2, [40], 5), Piece(0, [41], 7)],
]
