"""Changes to the tiny shape of conftest that make the other kinds of attention and experts."""

from __future__ import annotations

from typing import Any

LATENT: dict[str, Any] = {
    "qk_norm": False,
    "num_key_value_heads": 4,
    "head_dim": 6,
    "kv_lora_rank": 20,
    "q_lora_rank": 12,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "v_head_dim": 8,
}
EXPERTS: dict[str, Any] = {
    "num_hidden_layers": 3,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "first_k_dense_replace": 1,
}
SIGMOID = EXPERTS | {
    "scoring_func": "sigmoid",
    "n_shared_experts": 2,
    "n_group": 3,
    "topk_group": 2,
    "routed_scaling_factor": 1.7,
}
KINDS: dict[str, dict[str, Any]] = {
    "grouped": {},
    "latent": LATENT,
    "latent without query latent": LATENT | {"q_lora_rank": None},
    "experts": EXPERTS,
    "latent experts": LATENT | SIGMOID,
}
