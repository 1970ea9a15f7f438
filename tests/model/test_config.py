"""Configurations: which architecture they are, what they count, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from transformers import AutoConfig

from miao.errors import MiaoError
from miao.model import (
    Decoder,
    ModelConfig,
    count_parameters,
    flops_per_token,
    native_architecture,
    round_up,
)
from miao.model.hf_config import from_hf, to_hf

SHAPE: dict[str, Any] = {
    "vocab_size": 1000,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 160,
}
SMALL = ModelConfig(1000, 64, 3, 4, 2, 32, 160)
HF: dict[str, Any] = {
    "model_type": "qwen3",
    "vocab_size": 1000,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 160,
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("qk_norm", "bias"), [(True, False), (False, True), (False, False)])
def test_num_parameters_is_the_real_count(
    make_model: Callable[..., Decoder], tied: bool, qk_norm: bool, bias: bool
) -> None:
    model = make_model(tie_word_embeddings=tied, qk_norm=qk_norm, attention_bias=bias)
    assert count_parameters(model.config).total == sum(p.numel() for p in model.parameters())


def test_flops_per_token_by_hand() -> None:
    # Weights of one block: q 64·128, k and v 64·64 each, o 128·64, three of the MLP 64·160.
    block = 8192 + 2 * 4096 + 8192 + 3 * 10240
    assert block == 55296
    head = 64 * 1000
    # Attention, forward: q·k and weights·v are 2·2·128 FLOPs per visible key; backward twice that.
    attention = 3 * (2 * 2 * 128) * 512 * 3
    assert flops_per_token(SMALL, 512, causal=False) == 6 * (3 * block + head) + attention
    assert flops_per_token(SMALL, 512) == 6 * (3 * block + head) + attention / 2
    untied = ModelConfig(1000, 64, 3, 4, 2, 32, 160, tie_word_embeddings=False)
    assert flops_per_token(untied, 512) == flops_per_token(SMALL, 512)


@pytest.mark.parametrize(
    ("qk_norm", "bias", "model_type"),
    [(True, False, "qwen3"), (False, True, "qwen2"), (False, False, "llama")],
)
def test_every_shape_is_one_architecture(qk_norm: bool, bias: bool, model_type: str) -> None:
    config = ModelConfig(1000, 64, 3, 4, 2, 16, 160, qk_norm=qk_norm, attention_bias=bias)
    assert native_architecture(config) == model_type
    assert from_hf(to_hf(config), "config.json") == config


EXPERTS = {"num_experts": 4, "moe_intermediate_size": 32}
LATENT = {"kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attention_bias": True}, "both QK-norm and q/k/v biases"),
        ({"qk_norm": False, "attention_bias": True, "head_dim": 32}, "4 heads of 32 in a width"),
        ({"qk_norm": False, "hidden_size": 66}, "a width of 66 for 4 heads"),
        (EXPERTS | {"qk_norm": False}, "experts without QK-norm"),
        (EXPERTS | {"n_shared_experts": 1}, "softmax routing with shared experts"),
        (EXPERTS | {"scoring_func": "sigmoid"}, "sigmoid routing without a shared expert"),
        (LATENT | {"attention_bias": True}, "latent attention with q/k/v biases"),
        (LATENT | EXPERTS, "latent attention with softmax routing"),
        (LATENT | EXPERTS | {"scoring_func": "sigmoid"}, "but no shared one"),
    ],
)
def test_what_no_architecture_has_is_refused_with_a_remedy(
    changes: dict[str, Any], said: str
) -> None:
    config = ModelConfig(**SHAPE | changes)
    with pytest.raises(MiaoError, match=said) as caught:
        native_architecture(config)
    assert caught.value.fix


def test_both_generations_of_transformers_find_the_rope_base() -> None:
    written = to_hf(ModelConfig(1000, 64, 3, 4, 2, 32, 160, rope_theta=5e5))
    assert written["rope_theta"] == 5e5
    assert written["rope_parameters"] == {"rope_type": "default", "rope_theta": 5e5}
    read = AutoConfig.for_model(**written)
    assert read.rope_parameters["rope_theta"] == 5e5


def test_every_way_to_write_the_rope_base_is_read() -> None:
    for keys in (
        {"rope_theta": 5e5},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        {"rope_theta": 5e5, "rope_scaling": None},
        {"rope_theta": 5e5, "rope_scaling": {"type": "default"}},
    ):
        assert from_hf(HF | keys, "config.json").rope_theta == 5e5
    assert from_hf(HF, "config.json").rope_theta == 10_000.0


def test_defaults_of_a_sparse_config() -> None:
    left_out = {"num_key_value_heads", "head_dim"}
    config = from_hf({k: v for k, v in HF.items() if k not in left_out}, "config.json")
    assert (config.num_key_value_heads, config.head_dim) == (4, 16)
    assert not config.tie_word_embeddings  # transformers' default


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}, "rope_type 'longrope'"),
        ({"rope_scaling": {"type": "su", "factor": 2.0}}, "rope_type 'su'"),
        ({"rope_scaling": {"type": "linear"}}, "rope scaling 'linear' needs factor"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}, "head_dim": 2}, "size 2 is too"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": "4"}}, "needs factor"),
        (
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}},
            "needs low_freq_factor, high_freq_factor",
        ),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding attention"),
        ({"model_type": "qwen3_moe", "decoder_sparse_step": 2}, "decoder_sparse_step"),
        ({"model_type": "qwen3_moe", "mlp_only_layers": [1]}, "dense block between sparse"),
        ({"model_type": "deepseek_v3"}, "the key 'kv_lora_rank' is missing"),
        ({"num_attention_heads": 3}, "does not divide the 3 query heads"),
        ({"model_type": "gpt2"}, "'gpt2'"),
        ({"model_type": None}, "model_type None"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"model_type": "llama", "mlp_bias": True}, "mlp_bias"),
        ({"model_type": "llama", "attention_bias": True}, "attention_bias"),
        ({"vocab_size": "many"}, "wrong type: invalid literal for int() with base 10: 'many'"),
        ({"hidden_size": None}, "wrong type"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(MiaoError) as caught:
        from_hf(HF | changes, "there/config.json")
    assert named in str(caught.value)
    assert "there/config.json" in str(caught.value)


@pytest.mark.parametrize(
    "key", [key for key in HF if key not in ("num_key_value_heads", "head_dim")]
)
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(MiaoError, match=key):
        from_hf({k: v for k, v in HF.items() if k != key}, "config.json")


def test_token_ids_pass_through() -> None:
    config = from_hf(HF | {"bos_token_id": 3, "eos_token_id": [4, 5]}, "config.json")
    assert (config.bos_token_id, config.eos_token_id) == (3, [4, 5])
    assert to_hf(config)["eos_token_id"] == [4, 5]


@pytest.mark.parametrize(
    ("value", "multiple", "expected"), [(1, 64, 64), (64, 64, 64), (64.1, 64, 128)]
)
def test_round_up(value: float, multiple: int, expected: int) -> None:
    assert round_up(value, multiple) == expected
