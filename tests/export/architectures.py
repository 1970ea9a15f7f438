"""The models that the export is tested with: a transformers class, and its settings on top of
`COMMON`. Each difference from one architecture to the next that a GGUF must carry is among them."""

from __future__ import annotations

from typing import Any

COMMON: dict[str, Any] = {
    "vocab_size": 384,  # more than the tokenizer's 360
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
EXPERTS: dict[str, Any] = {"moe_intermediate_size": 64, "num_experts_per_tok": 2}
ROUTED: dict[str, Any] = EXPERTS | {
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "routed_scaling_factor": 1.7,
    "norm_topk_prob": True,
    "tie_word_embeddings": False,
}
LATENT: dict[str, Any] = ROUTED | {
    "num_key_value_heads": 4,
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "q_lora_rank": 48,  # no multiple of 32: must stay f16 when quantised
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 32,
    "v_head_dim": 64,
    "n_group": 4,
    "topk_group": 2,
}
YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
LLAMA3: dict[str, Any] = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR: dict[str, Any] = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"head_dim": 64}),
    "llama with biases": (
        "Llama",
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
    ),
    "llama, llama3 rope": ("Llama", {"head_dim": 64, "rope_parameters": LLAMA3}),
    "llama, linear rope": ("Llama", {"head_dim": 64, "rope_parameters": LINEAR}),
    "qwen2": ("Qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen3": ("Qwen3", {"head_dim": 64}),
    "qwen3 untied": ("Qwen3", {"head_dim": 64, "tie_word_embeddings": False}),
    "qwen3, yarn": ("Qwen3", {"head_dim": 64, "rope_parameters": YARN}),
    "qwen3, yarn with a factor": (
        "Qwen3",
        {"head_dim": 64, "rope_parameters": YARN | {"attention_factor": 1.3}},
    ),
    "qwen3_moe": (
        "Qwen3Moe",
        EXPERTS | {"head_dim": 64, "num_experts": 8, "norm_topk_prob": True},
    ),
    "deepseek_v3": ("DeepseekV3", LATENT),
    "deepseek_v3 without groups": (
        "DeepseekV3",
        LATENT | {"n_group": 1, "topk_group": 1, "n_shared_experts": 2, "norm_topk_prob": False},
    ),
    "deepseek_v3 dense": (
        "DeepseekV3",
        LATENT
        | {"first_k_dense_replace": 3, "q_lora_rank": None, "rope_interleave": False}
        | {"tie_word_embeddings": True},
    ),
    "deepseek_v3, yarn": ("DeepseekV3", LATENT | {"rope_parameters": YARN}),
    "deepseek_v3, yarn with mscale": (
        "DeepseekV3",
        LATENT | {"rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}},
    ),
    "deepseek_v3, linear rope": ("DeepseekV3", LATENT | {"rope_parameters": LINEAR}),
    "deepseek_v3, one head": (
        "DeepseekV3",
        LATENT | {"num_attention_heads": 1, "num_key_value_heads": 1},
    ),
    "deepseek_v3, no shared expert": ("DeepseekV3", LATENT | {"n_shared_experts": 0}),
    "dots1": ("Dots1", ROUTED | {"num_key_value_heads": 4, "first_k_dense_replace": 1}),
    "dots1 tied, shared heads": (
        "Dots1",
        ROUTED | {"num_key_value_heads": 2, "tie_word_embeddings": True, "head_dim": 64},
    ),
    "dots1 with one key head": (
        "Dots1",
        ROUTED | {"num_key_value_heads": 1, "first_k_dense_replace": 2},
    ),
}
