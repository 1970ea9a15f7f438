"""The model that a stage begins with: random or a trained one, whole or to be spread."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from miao.console import say, warn
from miao.device import (
    choose_device,
    choose_dtype,
    find_compiler,
    flash_attention,
    keep_freed_memory,
    unused_gpu,
)
from miao.errors import MiaoError
from miao.model import (
    Decoder,
    ModelConfig,
    flops_per_token,
    load_model,
    new_config,
    with_longer_context,
)
from miao.model.build import longer_config
from miao.model.directory import StoredWeights, config_for
from miao.model.roofline import COMPILE_PAYS_AFTER
from miao.recipe import Recipe, StageOptions
from miao.tokenizer import Tokenizer
from miao.train.adapters import Rows, adapted_values, rows_within
from miao.train.distributed.fsdp import Filling, fill, spread
from miao.train.distributed.parallel import Parallel

PROBE = "苗 grew: 1+2=3\n" * 2
"""The same pieces may still be put together by other rules."""


def prepare_model(
    recipe: Recipe,
    options: StageOptions,
    tokenizer: Tokenizer,
    base: Path | None,
    on_meta: bool = False,
) -> Decoder:
    """The model of a stage on its device, in its number type.

    Args:
        on_meta: without memory, to be filled with `filling_of` when it is spread.
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
    if on_meta:
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
    if not on_meta:
        model.to(device)
    model.set_compute_dtype(choose_dtype(options.precision, device))
    return model


def filling_of(recipe: Recipe, base: Path | None) -> Filling:
    """The weights that `prepare_model` leaves out, and those of an adapter that was added since."""

    def values(model: Decoder) -> Iterator[tuple[str, Rows]]:
        if base is None:
            for name, whole in model.initial_values(recipe.seed):
                yield name, partial(rows_within, whole)
        else:
            yield from adapted_values(model, recipe.seed, _stored_rows(base, model.config))

    return Filling(choose_device(recipe.device), values)


def beside_model(directory: Path, like: Decoder, mesh: Any, device: torch.device) -> Decoder:
    """A trained model that only computes (a teacher, a reference), in the compute type of the one
    that is trained.

    Args:
        mesh: the processes that it is spread over; None: this one has all of it.
    """
    if mesh is None:
        model = load_model(directory, like.config.tokens).to(device)
        model.set_compute_dtype(like.compute_dtype)
        return model.requires_grad_(False).eval()
    with torch.device("meta"):
        model = Decoder(config_for(directory, like.config.tokens)).requires_grad_(False).eval()
    model.set_compute_dtype(like.compute_dtype)
    spread(model, mesh, device)
    fill(model, iter(_stored_rows(directory, model.config).items()))
    return model


def _stored_rows(directory: Path, config: ModelConfig) -> dict[str, Rows]:
    with torch.device("meta"):
        stored = StoredWeights(directory, Decoder(config))
    return {name: partial(stored.rows, name) for name in stored.own}


def compile_if_it_pays(
    options: StageOptions, parallel: Parallel, budget: float, peak_flops: float
) -> None:
    """Compiles where the option says so, or where `auto` expects it to be worth its time."""
    model = parallel.model
    work = budget * flops_per_token(model.config, options.seq_len) / (0.4 * peak_flops)
    seconds = work if options.minutes is None else budget
    can = platform.system() != "Windows" and find_compiler() is not None
    pays = model.device.type == "cuda" or (can and seconds > COMPILE_PAYS_AFTER)
    if options.compile in ("on", "graphs") or (options.compile == "auto" and pays):
        parallel.compile()
        say("  compiling the model: the first step takes about half a minute")


def load_teacher(
    directory: Path,
    student: Decoder,
    tokenizer: Tokenizer,
    seq_len: int,
    device: torch.device | None = None,
    mesh: Any = None,
) -> Decoder:
    """A teacher in the student's compute type, on its device (default) and spread as it will be.

    Raises:
        MiaoError: its tokenizer or vocabulary is another, its context is too short, or the
            student's routing needs a balance loss, which distillation does not compute.
    """
    teacher = config_for(directory)
    if teacher.tokens != student.config.tokens:
        raise MiaoError(
            f"the teacher has {teacher.tokens} tokens, the student {student.config.tokens}",
            where=directory,
            fix="give the student the teacher's tokenizer: --tokenizer.path DIR",
        )
    theirs = Tokenizer.from_directory(directory)
    if _pieces(theirs) != _pieces(tokenizer) or theirs.encode(PROBE) != tokenizer.encode(PROBE):
        raise MiaoError(
            "the teacher has another tokenizer: its tokens mean something else",
            where=directory,
            fix="give the student the teacher's tokenizer: --tokenizer.path DIR; "
            "or learn from what the teacher says: miao corpus distill",
        )
    if teacher.context_length < seq_len:
        raise MiaoError(
            f"the teacher reads {teacher.context_length} tokens, a row has {seq_len}",
            where=directory,
            fix="lower seq_len",
        )
    if any(mixture.has_balance_loss for mixture in student.mixtures().values()):
        raise MiaoError(
            "a student with softmax-routed experts cannot be distilled: nothing would balance them",
            where="teacher.path",
            fix="use a dense student, or sigmoid routing (model.scoring_func)",
        )
    return beside_model(directory, student, mesh, device or student.device)


def _pieces(tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.decode([number]) for number in range(tokenizer.vocab_size)]
