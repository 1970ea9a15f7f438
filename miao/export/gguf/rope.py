"""The rotary embedding in llama.cpp's terms, so that both rotate and scale alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from miao.errors import MiaoError

_FIXED_YARN = {"beta_fast": 32, "beta_slow": 1, "truncate": True}
"""What llama.cpp reads from no file of these architectures."""


def rope_type(rope: Mapping[str, Any]) -> str:
    """The kind of scaling in `rope_parameters` or the older `rope_scaling`."""
    return str(rope.get("rope_type", rope.get("type", "default")))


def rope_settings(
    rope: Mapping[str, Any], model_type: str, *, head_dim: int, positions: int, where: Path
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Arguments of `GGUFWriter.add_<key>`, and constant tensors by name.

    Args:
        rope: `rope_parameters` of config.json, the base (`rope_theta`) included.
        head_dim: numbers of a head that are rotated.
        positions: `max_position_embeddings`.
        where: the config.json, for messages.

    Raises:
        MiaoError: a kind of scaling that llama.cpp does not have for this architecture.
    """
    from gguf import RopeScalingType

    kind, is_latent = rope_type(rope), model_type == "deepseek_v3"
    theta = float(rope.get("rope_theta") or 10000.0)
    original = rope.get("original_max_position_embeddings") or positions
    settings: dict[str, Any] = {"rope_freq_base": theta}
    if kind == "default":
        return settings, {}
    if kind == "llama3" and model_type == "llama":
        return settings, {"rope_freqs.weight": _llama3_factors(rope, theta, head_dim, original)}
    if kind not in ("linear", "yarn"):
        reasons = {
            "dynamic": "llama.cpp has no dynamic NTK scaling",
            "llama3": f"llama.cpp reads Llama 3's frequency factors for llama, not {model_type}",
        }
        raise MiaoError(
            reasons.get(kind, f"llama.cpp has no rope scaling of type '{kind}'"),
            where=where,
            fix="it has linear and yarn; or export without scaling, for the trained length",
        )
    factor = float(rope.get("factor") or positions / original)
    log = 0.1 * math.log(factor) if factor > 1 else 0.0
    is_yarn = kind == "yarn"
    settings["rope_scaling_type"] = RopeScalingType.YARN if is_yarn else RopeScalingType.LINEAR
    settings["rope_scaling_factor"] = factor
    scale = _yarn_scale(rope, log, model_type, where) if is_yarn else 1.0
    if is_yarn:
        settings["rope_scaling_orig_ctx_len"] = int(original)
        # Of the scale of cos and sin, llama.cpp has 1 + log in already.
        settings["rope_scaling_attn_factors"] = scale / (1 + log)
    if is_latent and log:
        # For deepseek2, llama.cpp's scores are times (a (1 + m log))^2 by the multiplier m, where
        # a is the scale of cos and sin, and for linear scaling 1 + log. transformers' are times
        # (1 + mscale_all_dim log)^2; m makes up the difference.
        given = scale if is_yarn else 1 + log
        multiplier = ((1 + log * float(rope.get("mscale_all_dim") or 0)) / given - 1) / log
        if multiplier:  # then llama.cpp leaves cos and sin to attn_factor
            settings["rope_scaling_yarn_log_mul"] = 0.1 * multiplier
            settings |= {"rope_scaling_attn_factors": scale} if is_yarn else {}
    return settings, {}


def _yarn_scale(rope: Mapping[str, Any], log: float, model_type: str, where: Path) -> float:
    """YaRN's scale of cos and sin as transformers has it; `log` is 0.1 ln(factor)."""
    for key, value in _FIXED_YARN.items():
        if rope.get(key) not in (None, value):
            raise MiaoError(
                f"llama.cpp's yarn has {key} {value} for {model_type}, not {rope[key]}",
                where=where,
            )
    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    mscale, mscale_all = rope.get("mscale"), rope.get("mscale_all_dim")
    return (1 + log * mscale) / (1 + log * mscale_all) if mscale and mscale_all else 1 + log


def _llama3_factors(
    rope: Mapping[str, Any], theta: float, head_dim: int, original: int
) -> np.ndarray:
    """What llama.cpp divides each frequency by: 1 for the short waves, `factor` for the long ones,
    harmonically between them for the rest (Llama 3.1)."""
    waves = 2 * np.pi * theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    keep = np.clip((original / waves - low) / (high - low), 0, 1)
    return (1 / ((1 - keep) / float(rope["factor"]) + keep)).astype(np.float32)
