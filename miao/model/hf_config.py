"""`config.json`: which native architecture a shape is, and its keys there, in both directions."""

from __future__ import annotations

from typing import Any

from miao.errors import MiaoError
from miao.model.config import ModelConfig, check_config
from miao.ops.rope_scaling import ROPE_TYPES

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "dots1": "Dots1ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
}
SIGMOID_ROUTED = ("dots1", "deepseek_v3")
_FALLBACK_THETA = 10000.0
_LATENT_KEYS = (
    "kv_lora_rank",
    "q_lora_rank",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
)
_ROUTING_KEYS = ("n_group", "topk_group", "routed_scaling_factor", "first_k_dense_replace")


def native_architecture(config: ModelConfig) -> str:
    """The `model_type` with exactly these parts.

    Raises:
        MiaoError: no architecture of transformers has this combination; says which part to change.
    """
    if config.is_latent:
        if config.attention_bias:
            raise _no_home("latent attention with q/k/v biases", "switch model.attention_bias off")
        if config.num_experts and config.scoring_func != "sigmoid":
            raise _no_home(
                "latent attention with softmax routing", "choose model.scoring_func sigmoid"
            )
        if config.num_experts and not config.n_shared_experts:
            raise _no_home(
                "latent attention with experts but no shared one", "give model.n_shared_experts"
            )
        return "deepseek_v3"
    if config.qk_norm and config.attention_bias:
        raise _no_home(
            "both QK-norm and q/k/v biases",
            "switch one of them off: Qwen3 has the norm, Qwen2 the biases",
        )
    if not config.num_experts:
        return "qwen3" if config.qk_norm else _without_norm(config)
    if not config.qk_norm:
        raise _no_home("experts without QK-norm", "switch model.qk_norm on, attention_bias off")
    if config.scoring_func == "softmax":
        if config.n_shared_experts:
            raise _no_home(
                "softmax routing with shared experts",
                "choose model.scoring_func sigmoid, or no shared experts",
            )
        return "qwen3_moe"
    if not config.n_shared_experts:
        raise _no_home(
            "sigmoid routing without a shared expert",
            "give model.n_shared_experts 1, or choose model.scoring_func softmax",
        )
    return "dots1"


def _without_norm(config: ModelConfig) -> str:
    heads, hidden = config.num_attention_heads, config.hidden_size
    if config.attention_bias:
        if heads * config.head_dim != hidden:
            raise _no_home(
                f"q/k/v biases and {heads} heads of {config.head_dim} in a width of {hidden}",
                "leave model.head_dim out, or use QK-norm instead of biases",
            )
        return "qwen2"
    if hidden % heads:
        raise _no_home(
            f"neither QK-norm nor biases and a width of {hidden} for {heads} heads",
            "make hidden_size a multiple of the heads, or switch model.qk_norm on",
        )
    return "llama"


def _no_home(combination: str, fix: str) -> MiaoError:
    return MiaoError(f"no native architecture has {combination}", where="model", fix=fix)


def to_hf(config: ModelConfig) -> dict[str, Any]:
    """The content of `config.json`, readable by transformers 4 and 5.

    transformers 5 looks for `rope_parameters`, 4.x for `rope_theta` and `rope_scaling` (and falls
    back to 10000 without a word): all are written.
    """
    model_type = native_architecture(config)
    scaling = dict(config.rope_scaling) if config.rope_scaling else {}
    rope = {"rope_type": "default"} | scaling | {"rope_theta": config.rope_theta}
    keys = {
        "architectures": [ARCHITECTURES[model_type]],
        "model_type": model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "rope_theta": config.rope_theta,
        "rope_parameters": rope,
        "rope_scaling": scaling or None,
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": config.tie_word_embeddings,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "torch_dtype": "float32",
        "dtype": "float32",
    }
    if model_type != "qwen2":
        keys["attention_bias"] = False
    if model_type == "llama":
        keys["mlp_bias"] = False
    if model_type in ("qwen2", "qwen3", "qwen3_moe"):
        keys["use_sliding_window"] = False
    if model_type == "qwen3_moe":
        keys |= {
            "num_experts": config.num_experts,
            "num_experts_per_tok": config.num_experts_per_tok,
            "moe_intermediate_size": config.moe_intermediate_size,
            "norm_topk_prob": config.norm_topk_prob,
            "router_aux_loss_coef": config.router_aux_loss_coef,
            "decoder_sparse_step": 1,
            "mlp_only_layers": list(range(config.first_k_dense_replace)),
        }
    if model_type in SIGMOID_ROUTED:
        keys |= _sigmoid_routed_keys(config)
    if model_type == "dots1":
        full = ["full_attention"] * config.num_hidden_layers
        keys |= {"sliding_window": None, "layer_types": full}
    if model_type == "deepseek_v3":
        keys |= {key: getattr(config, key) for key in _LATENT_KEYS}
        keys |= {"rope_interleave": True, "num_nextn_predict_layers": 0}
    return keys


def _sigmoid_routed_keys(config: ModelConfig) -> dict[str, Any]:
    keys: dict[str, Any] = {key: getattr(config, key) for key in _ROUTING_KEYS}
    keys |= {
        "n_routed_experts": config.num_experts or 1,
        "num_experts_per_tok": config.num_experts_per_tok if config.num_experts else 1,
        "n_shared_experts": config.n_shared_experts or 1,
        "moe_intermediate_size": config.moe_intermediate_size or config.intermediate_size,
        "norm_topk_prob": config.norm_topk_prob,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
    }
    if not config.num_experts:  # a dense model: every block stands before the first sparse one
        keys["first_k_dense_replace"] = config.num_hidden_layers
    return keys


def from_hf(keys: dict[str, Any], where: str) -> ModelConfig:
    """Reads the content of a `config.json`.

    Raises:
        MiaoError: an architecture, activation or rope type that is not supported; a key that is
            missing or of the wrong type; sizes that do not fit. With the place.
    """
    if not isinstance(keys, dict):
        raise MiaoError("a JSON object was expected here", where=where)
    model_type = keys.get("model_type")
    if model_type not in ARCHITECTURES:
        raise MiaoError(
            f"model_type {model_type!r} is not supported",
            where=where,
            fix="supported: " + ", ".join(ARCHITECTURES),
        )
    _refuse_unsupported(keys, model_type, where)
    try:
        config = _read(keys, model_type)
    except KeyError as error:
        raise MiaoError(f"the key {error} is missing", where=where) from error
    except (TypeError, ValueError) as error:
        raise MiaoError(f"a value is of the wrong type: {error}", where=where) from error
    check_config(config, where)
    return config


def _refuse_unsupported(keys: dict[str, Any], model_type: str, where: str) -> None:
    rope_type = _rope(keys).get("rope_type", "default")
    layer_types = keys.get("layer_types") or ["full_attention"]
    dense_first = list(range(len(keys.get("mlp_only_layers") or [])))
    unsupported = {
        f"rope_type {rope_type!r}": rope_type not in ROPE_TYPES,
        f"hidden_act {keys.get('hidden_act')!r}": keys.get("hidden_act", "silu") != "silu",
        "use_sliding_window": bool(keys.get("use_sliding_window")),
        "a layer with sliding attention": any(kind != "full_attention" for kind in layer_types),
        "mlp_bias": bool(keys.get("mlp_bias")),
        "attention_bias": bool(keys.get("attention_bias")),
        "decoder_sparse_step": keys.get("decoder_sparse_step", 1) != 1,
        "a dense block between sparse ones": list(keys.get("mlp_only_layers") or []) != dense_first,
        "rope_interleave false": model_type == "deepseek_v3"
        and not keys.get("rope_interleave", True),
        "a scoring_func other than sigmoid": model_type in SIGMOID_ROUTED
        and keys.get("scoring_func", "sigmoid") != "sigmoid",
    }
    for what, wrong in unsupported.items():
        if wrong:
            raise MiaoError(f"{what} is not supported", where=where)


def _rope(keys: dict[str, Any]) -> dict[str, Any]:
    """The rope parameters, wherever a version of transformers has put them."""
    rope = dict(keys.get("rope_parameters") or keys.get("rope_scaling") or {})
    if "type" in rope:
        rope.setdefault("rope_type", rope.pop("type"))
    return rope


def _read(keys: dict[str, Any], model_type: str) -> ModelConfig:
    heads, hidden = int(keys["num_attention_heads"]), int(keys["hidden_size"])
    rope = _rope(keys)
    theta = float(rope.pop("rope_theta", None) or keys.get("rope_theta") or _FALLBACK_THETA)
    context = int(keys.get("max_position_embeddings", 2048))
    scaled = rope.get("rope_type", "default") != "default"
    if scaled and rope["rope_type"] in ("yarn", "llama3"):
        rope.setdefault("original_max_position_embeddings", context)
    parts: dict[str, Any] = {
        "num_key_value_heads": int(keys.get("num_key_value_heads") or heads),
        "head_dim": int(keys.get("head_dim") or hidden // heads),
    }
    if model_type == "deepseek_v3":
        rank = keys.get("q_lora_rank")
        parts = {key: int(keys[key]) for key in _LATENT_KEYS if key != "q_lora_rank"}
        parts |= {
            "q_lora_rank": None if rank is None else int(rank),
            "head_dim": parts["qk_rope_head_dim"],
            "num_key_value_heads": heads,
        }
    return ModelConfig(
        vocab_size=int(keys["vocab_size"]),
        hidden_size=hidden,
        num_hidden_layers=int(keys["num_hidden_layers"]),
        num_attention_heads=heads,
        intermediate_size=int(keys["intermediate_size"]),
        max_position_embeddings=context,
        rope_theta=theta,
        rope_scaling=rope if scaled else None,
        rms_norm_eps=float(keys.get("rms_norm_eps", 1e-6)),
        tie_word_embeddings=bool(keys.get("tie_word_embeddings", False)),
        qk_norm=model_type in ("qwen3", "qwen3_moe", "dots1"),
        attention_bias=model_type == "qwen2",
        bos_token_id=keys.get("bos_token_id"),
        eos_token_id=keys.get("eos_token_id"),
        **parts,
        **_read_experts(keys, model_type),
    )


def _read_experts(keys: dict[str, Any], model_type: str) -> dict[str, Any]:
    common: dict[str, Any] = {
        "num_experts_per_tok": int(keys.get("num_experts_per_tok") or 1),
        "moe_intermediate_size": int(keys.get("moe_intermediate_size") or 0),
        "norm_topk_prob": bool(keys.get("norm_topk_prob", model_type == "deepseek_v3")),
    }
    if model_type == "qwen3_moe":
        num_experts = keys.get("num_experts", keys.get("num_local_experts"))
        return common | {
            "num_experts": int(num_experts or 0),
            "first_k_dense_replace": len(keys.get("mlp_only_layers") or []),
            "router_aux_loss_coef": float(keys.get("router_aux_loss_coef", 0.001)),
        }
    if model_type in SIGMOID_ROUTED:
        dense = int(keys.get("first_k_dense_replace") or 0)
        if dense >= int(keys["num_hidden_layers"]):
            return {}
        return common | {
            "num_experts": int(keys["n_routed_experts"]),
            "n_shared_experts": int(keys.get("n_shared_experts") or 0),
            "first_k_dense_replace": dense,
            "scoring_func": "sigmoid",
            "n_group": int(keys.get("n_group") or 1),
            "topk_group": int(keys.get("topk_group") or 1),
            "routed_scaling_factor": float(keys.get("routed_scaling_factor", 1.0)),
        }
    return {}
