"""The decoder, its configuration, its KV cache, and its directories on disk."""

from miao.model.build import new_config, with_longer_context, with_tokens
from miao.model.cache import KVCache
from miao.model.config import ModelConfig, round_up
from miao.model.counts import count_parameters, flops_per_token
from miao.model.decoder import Decoder
from miao.model.directory import load_config, load_model, save_model
from miao.model.hf_config import native_architecture
