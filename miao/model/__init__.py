"""The decoder, its configuration, its KV cache, and its directories on disk."""

from miao.model.cache import KVCache
from miao.model.config import ModelConfig, round_up
from miao.model.decoder import Decoder
from miao.model.directory import load_config, load_model, save_model

__all__ = [
    "Decoder",
    "KVCache",
    "ModelConfig",
    "load_config",
    "load_model",
    "round_up",
    "save_model",
]
