"""The model that a stage begins with: random or a trained one, whole or to be spread."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from miao.console import say, warn
from miao.device import choose_device, choose_dtype, flash_attention, keep_freed_memory, unused_gpu
from miao.errors import MiaoError
from miao.model import Decoder, load_model, new_config, with_longer_context
from miao.model.build import longer_config
from miao.model.directory import StoredWeights, config_for
from miao.recipe import Recipe, StageOptions
from miao.tokenizer import Tokenizer
from miao.train.distributed.fsdp import Filling
from miao.train.distributed.parallel import Rows


def prepare_model(
    recipe: Recipe,
    options: StageOptions,
    tokenizer: Tokenizer,
    base: Path | None,
    spread: bool = False,
) -> Decoder:
    """The model of a stage on its device, in its number type.

    Args:
        spread: without memory, to be filled with `filling_of` when it is spread.
    """
    device = choose_device(recipe.device)
    if flash_attention(device) == 3:
        say("  attention: FlashAttention-3")
    if device.type == "cpu":
        keep_freed_memory()
        if reason := unused_gpu(device):
            warn(f"TRAINING ON THE CPU: {reason}")
    if base is None:
        config = new_config(recipe.model, tokenizer.vocab_size, tokenizer.end_of_turn_id)
    else:
        config = longer_config(config_for(base, tokenizer.vocab_size), recipe.model)
    if spread:
        with torch.device("meta"):
            model = Decoder(config)
    elif base is None:
        model = Decoder(config)
        model.initialize(recipe.seed)
    else:
        model = with_longer_context(load_model(base, tokenizer.vocab_size), recipe.model)
    if model.config.vocab_size < tokenizer.vocab_size:
        raise MiaoError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, "
            f"the model only {model.config.vocab_size}",
            where=base or "model",
            fix="use the model's own tokenizer: --tokenizer.path",
        )
    if options.seq_len > model.config.context_length:
        raise MiaoError(
            f"seq_len {options.seq_len} is above the model's context of "
            f"{model.config.context_length} tokens",
            where=base or "model",
            fix="lower seq_len, or raise model.max_position_embeddings",
        )
    torch.manual_seed(recipe.seed)
    if not spread:
        model.to(device)
    model.set_compute_dtype(choose_dtype(options.precision, device))
    return model


def filling_of(recipe: Recipe, base: Path | None) -> Filling:
    """The weights that `prepare_model` leaves out."""

    def values(model: Decoder) -> Iterator[tuple[str, Rows]]:
        if base is None:
            for name, whole in model.initial_values(recipe.seed):
                yield name, partial(_rows_of, whole)
        else:
            stored = StoredWeights(base, model)
            for name in stored.own:
                yield name, partial(stored.rows, name)

    return Filling(choose_device(recipe.device), values)


def _rows_of(whole: Tensor, start: int, stop: int) -> Tensor:
    return whole[start:stop]
