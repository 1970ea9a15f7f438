"""From the options of a recipe to a configuration, and a trained model with a longer context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from miao.errors import MiaoError
from miao.model.config import ModelConfig, round_up
from miao.model.decoder import Decoder
from miao.model.hf_config import native_architecture
from miao.recipe import DEFAULT_CONTEXT, ModelOptions, RopeScalingOptions

SAME_NAMES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "rope_theta",
    "rms_norm_eps",
    "tie_word_embeddings",
    "attention_bias",
)
EXPERT_NAMES = (
    "num_experts",
    "num_experts_per_tok",
    "n_shared_experts",
    "first_k_dense_replace",
    "scoring_func",
    "norm_topk_prob",
    "n_group",
    "topk_group",
    "routed_scaling_factor",
    "router_aux_loss_coef",
)


def new_config(options: ModelOptions, vocab_size: int, end_of_turn: int | None) -> ModelConfig:
    """The configuration of a model that begins with random weights.

    Raises:
        MiaoError: a combination that no native architecture has: it could not be exported.
    """
    inner = options.intermediate_size or round_up(options.hidden_size * 8 / 3, 64)
    parts: dict[str, Any] = {name: getattr(options, name) for name in SAME_NAMES}
    if options.kv_lora_rank is not None:
        parts |= {
            "num_key_value_heads": options.num_attention_heads,
            "head_dim": options.qk_rope_head_dim,
            "qk_norm": False,
            "kv_lora_rank": options.kv_lora_rank,
            "q_lora_rank": options.q_lora_rank,
            "qk_nope_head_dim": options.qk_nope_head_dim,
            "qk_rope_head_dim": options.qk_rope_head_dim,
            "v_head_dim": options.v_head_dim,
        }
    else:
        parts |= {
            "num_key_value_heads": options.num_key_value_heads,
            "head_dim": options.head_dim or options.hidden_size // options.num_attention_heads,
            "qk_norm": options.qk_norm,
        }
    if options.num_experts:
        parts |= {name: getattr(options, name) for name in EXPERT_NAMES}
        parts["moe_intermediate_size"] = options.moe_intermediate_size or round_up(
            inner / options.num_experts_per_tok, 16
        )
    length = options.max_position_embeddings or DEFAULT_CONTEXT
    config = ModelConfig(
        vocab_size=vocab_size,
        intermediate_size=inner,
        max_position_embeddings=length,
        eos_token_id=end_of_turn,
        **parts,
    )
    scaling = options.rope_scaling
    if scaling.rope_type != "default":
        config = _scaled(config, scaling, int(length / scaling.factor), length)
    native_architecture(config)
    return config


def with_longer_context(model: Decoder, options: ModelOptions) -> Decoder:
    """A trained model with `longer_config`."""
    config = longer_config(model.config, options)
    if config == model.config:
        return model
    longer = Decoder(config)
    longer.load_state_dict(model.state_dict())
    return longer.eval()


def longer_config(config: ModelConfig, options: ModelOptions) -> ModelConfig:
    """A trained model's configuration made ready for `options.max_position_embeddings` (default:
    its own context times the factor), where that is longer than its own context, with the rope
    scaling of the options.

    Raises:
        MiaoError: the model is scaled already, in another way.
    """
    scaling = options.rope_scaling
    wanted = options.max_position_embeddings
    if wanted is None and not config.rope_scaling:
        wanted = int(config.context_length * scaling.factor)
    length = max(wanted or 0, config.context_length)
    if scaling.rope_type == "default" and length == config.context_length:
        return config
    own = config.rope_scaling or {}
    same = (own.get("rope_type"), own.get("factor")) == (scaling.rope_type, scaling.factor)
    if same and length == config.context_length:
        return config  # by an earlier stage of the same recipe
    if config.rope_scaling and scaling.rope_type != "default":
        raise MiaoError(
            f"the model's positions are scaled already ({config.rope_scaling['rope_type']})",
            where="model.rope_scaling",
            fix="begin with the model before its context was extended",
        )
    if scaling.rope_type == "default":
        return replace(config, max_position_embeddings=length)
    return _scaled(config, scaling, config.max_position_embeddings, length)


def with_tokens(model: Decoder, tokens: int, made_of: Mapping[int, Sequence[int]]) -> Decoder:
    """A trained model with rows for new tokens, each the mean of the rows of what it was made of
    (of nothing: of all tokens), so that the model reads them as before, nearly, until it has
    learned better. Rows that a padded vocabulary has to spare are used first.

    Args:
        tokens: how many there are then.
        made_of: ids of old tokens by new id.
    """
    old, rows = model.state_dict(), max(tokens, model.config.vocab_size)
    grown = Decoder(replace(model.config, vocab_size=rows, num_tokens=None))
    known = model.config.tokens
    with torch.no_grad():
        for name, value in grown.state_dict().items():
            value[: len(old[name])] = old[name]
            if name in ("model.embed_tokens.weight", "lm_head.weight"):
                value[len(old[name]) :] = old[name][:known].mean(dim=0)
                for id, parts in made_of.items():
                    value[id] = old[name][[*parts] or slice(known)].mean(dim=0)
    return grown.eval()


def _scaled(
    config: ModelConfig, scaling: RopeScalingOptions, trained: int, length: int
) -> ModelConfig:
    trained = scaling.original_max_position_embeddings or trained
    rope: dict[str, Any] = {"rope_type": scaling.rope_type, "factor": scaling.factor}
    if scaling.rope_type == "yarn":
        rope["original_max_position_embeddings"] = trained
    if scaling.rope_type == "dynamic":
        length = trained
    return replace(config, rope_scaling=rope, max_position_embeddings=length)
