"""How many rows go through the model at a time, and whether blocks are computed twice for it.

Both are questions of memory alone: the step's rows, its gradient and what is learned stay the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from miao.console import say, warn
from miao.device import known_gpu, memory_bytes
from miao.gpus import Gpu
from miao.model.config import ModelConfig
from miao.model.counts import count_parameters, kv_bytes_per_token
from miao.model.decoder import Decoder
from miao.model.estimate import (
    GIB,
    MICRO_TOKENS,
    PLAIN,
    USABLE,
    Extras,
    activation_bytes_per_token,
    checkpointing_pays,
    fitting_micro_batch,
    gib,
    training_memory,
)
from miao.ops.varlen import document_starts
from miao.recipe import GrpoOptions, StageOptions, parse_quantity

CPU_MICRO_TOKENS = 8192
_CPU_SHARE = 0.25
"""Of a machine's memory, for activations."""
_UNKNOWN_FLOPS, _UNKNOWN_BANDWIDTH = 50e12, 0.6e12
"""Of a card that is not in the table; only their ratio matters here."""


def fit_to_memory(
    stage: str,
    options: StageOptions,
    model: Decoder,
    processes: int = 1,
    beside: Sequence[Decoder] = (),
) -> StageOptions:
    """A stage's options with `micro_batch` and `activation_checkpointing` decided for the memory of
    the model's device; the model is set accordingly. Call it when the model has its adapter, and
    before it is compiled.

    Args:
        processes: how many share the rows of a step.
        beside: models on the same device that only compute: a teacher, a reference.
    """
    extras = extras_of(model, beside)
    later = rollout_bytes(options, model.config, model.device, model.compute_dtype)
    extras = replace(extras, later=later)
    on = set_activation_checkpointing(stage, options, model, extras)
    options = replace(options, activation_checkpointing="on" if on else "off")
    if options.micro_batch != "auto":
        return options
    rows = int(parse_quantity(options.batch_tokens, f"{stage}.batch_tokens")) // options.seq_len
    # A spread model is not tried: one process out of memory would leave the others waiting.
    tried = model.device.type == "cuda" and not hasattr(model.lm_head.weight, "placements")
    fits = trial_pass(model, options, extras) if tried else None
    share = max(1, -(-rows // processes))
    return replace(options, micro_batch=auto_micro_batch(model, options, share, fits, extras))


def extras_of(model: Decoder, beside: Sequence[Decoder] = ()) -> Extras:
    """What training `model` holds that its shape does not tell."""
    frozen = not all(parameter.requires_grad for parameter in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    held = {id(p): p.nbytes for other in beside for p in other.parameters()}
    return Extras(trained if frozen else 0, float(sum(held.values())))


def rollout_bytes(
    options: StageOptions, config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> float:
    """What GRPO's answers keep on a GPU over rollouts, at most: keys and values of all that are
    generated at the same time, and in bfloat16 a copy of the weights (`Examiner`)."""
    if not isinstance(options, GrpoOptions) or device.type != "cuda":
        return 0.0
    rows = min(options.parallel_answers, options.group_size * options.prompts_per_rollout)
    length = min(options.seq_len + 1, config.context_length) + 1
    copied = dtype == torch.bfloat16 and options.adapter.kind == "none"
    kept = rows * length * kv_bytes_per_token(config, dtype.itemsize)
    return kept + (2 * count_parameters(config).total if copied else 0)


def largest_that_fits(rows_per_step: int, first: int, fits: Callable[[int], bool]) -> int:
    """The fewest equal passes over a step's rows that fit the memory, as rows per pass; 0: not
    even a single row fits.

    Passes are equal, so that none is filled up with empty rows: 100 rows of which 64 fit become
    two passes of 50. From `first` on passes are halved while they fit and doubled while they do
    not; in between three more sizes are tried.

    Args:
        rows_per_step: rows of one optimizer step. first: what probably fits, in rows.
        fits: tries so many rows.
    """
    known: dict[int, bool] = {}

    def works(passes: int) -> bool:
        rows = -(-rows_per_step // passes)
        if rows not in known:
            known[rows] = fits(rows)
        return known[rows]

    passes = -(-rows_per_step // max(1, min(first, rows_per_step)))
    too_few = 0
    while not works(passes):
        if passes >= rows_per_step:
            return 0
        too_few, passes = passes, min(2 * passes, rows_per_step)
    while too_few == 0 and passes > 1:
        fewer = passes // 2
        if works(fewer):
            passes = fewer
        else:
            too_few = fewer
    for _ in range(3):
        between = (too_few + passes) // 2
        if not too_few < between < passes:
            break
        if works(between):
            passes = between
        else:
            too_few = between
    return -(-rows_per_step // passes)


def auto_micro_batch(
    model: Decoder,
    options: StageOptions,
    rows_per_step: int,
    fits: Callable[[int], bool] | None,
    extras: Extras = PLAIN,
) -> int:
    """The micro-batch of `micro_batch: auto`, in rows.

    On a GPU the largest that fits, from the estimate on by trial, with at most 65,536 tokens
    (nothing grows faster beyond). On a CPU see `cpu_micro_batch`.

    Args:
        fits: tries a forward and backward pass of so many rows; None: the estimate alone.
    """
    if model.device.type == "cpu":
        return cpu_micro_batch(model.config, options.seq_len, rows_per_step, _number_bytes(model))
    most = max(1, min(rows_per_step, MICRO_TOKENS // options.seq_len))
    if model.device.type != "cuda":
        return most
    total = memory_bytes(model.device)[1] / GIB
    muon, recompute = options.muon_learning_rate > 0, model.model.activation_checkpointing
    first = fitting_micro_batch(
        model.config, total, options.seq_len, rows_per_step, muon, recompute, extras
    )
    if fits is None:
        return first or 1
    found = largest_that_fits(rows_per_step, first or 1, lambda rows: rows <= most and fits(rows))
    return max(1, found)


def trial_pass(
    model: Decoder, options: StageOptions, extras: Extras = PLAIN
) -> Callable[[int], bool]:
    """Tries whether a forward and backward pass of so many rows fits beside what the optimizer
    will hold. Weights, gradients and random state are afterwards as they were.

    Call it before the model is compiled: every size would be compiled anew, and uncompiled passes
    take rather more memory.
    """
    muon = options.muon_learning_rate > 0
    held = training_memory(model.config, 1, options.seq_len, muon, extras=extras)

    def fits(rows: int) -> bool:
        device = model.device
        ids = torch.ones(rows, options.seq_len, dtype=torch.long, device=device)
        segments = torch.ones_like(ids)
        starts = document_starts(segments.cpu()).to(device) if model.has_varlen else None
        torch.cuda.reset_peak_memory_stats(device)
        was_training = model.training
        model.train()
        try:
            for _ in range(2):  # the second finds the gradients of the first
                model(ids, None, segments, labels_bt=ids, starts_n=starts, output="loss").backward()
            room = USABLE * memory_bytes(device)[1]
            return torch.cuda.max_memory_allocated(device) + held.optimizer + extras.later <= room
        except torch.OutOfMemoryError:
            return False
        finally:
            model.zero_grad(set_to_none=True)
            for mixture in model.mixtures().values():
                mixture.take_load()
            model.train(was_training)
            torch.cuda.empty_cache()

    return fits


def cpu_micro_batch(
    config: ModelConfig,
    seq_len: int,
    rows_per_step: int,
    number: int = 4,
    memory: int | None = None,
) -> int:
    """Rows per pass on a CPU, in equal passes: at most 8,192 tokens, and no more than leave their
    activations in a quarter of the memory. Fewer would fit the caches better, and yet are slower:
    so are the products of few rows (docs, page 13).

    Args:
        number: bytes of an activation. memory: bytes of the machine's memory (default: asked of the
            system; 0: unknown).
    """
    memory = memory_bytes(torch.device("cpu"))[1] if memory is None else memory
    tokens = CPU_MICRO_TOKENS
    if memory:
        fitting = _CPU_SHARE * memory / (activation_bytes_per_token(config) * number / 2)
        tokens = min(tokens, int(fitting))
    rows = max(1, min(rows_per_step, tokens // seq_len))
    return -(-rows_per_step // -(-rows_per_step // rows))


def set_activation_checkpointing(
    stage: str, options: StageOptions, model: Decoder, extras: Extras = PLAIN
) -> bool:
    """Switches activation checkpointing as the stage's option says; `auto` decides by the estimate
    for this device's memory, and says so. Returns whether it is on."""
    on = options.activation_checkpointing == "on"
    if options.activation_checkpointing == "auto":
        on = wants_checkpointing(stage, options, model.config, model.device, extras)
    model.set_activation_checkpointing(on)
    return on


def wants_checkpointing(
    stage: str,
    options: StageOptions,
    config: ModelConfig,
    device: torch.device,
    extras: Extras = PLAIN,
) -> bool:
    """Whether `activation_checkpointing: auto` means on: where it lets the device train at all, or
    with so much larger micro-batches that it is faster."""
    total = memory_bytes(device)[1]
    if device.type == "mps" or total <= 0:
        return False
    muon = options.muon_learning_rate > 0
    room = USABLE * total
    plain, least = (
        training_memory(config, 1, options.seq_len, muon, recompute, extras=extras).total
        for recompute in (False, True)
    )
    if device.type == "cuda":
        sheet = known_gpu(device) or Gpu("", 0, _UNKNOWN_FLOPS, _UNKNOWN_BANDWIDTH)
        gpu = Gpu(sheet.name, total / GIB, sheet.flops, sheet.bandwidth)
        batch = parse_quantity(options.batch_tokens, f"{stage}.batch_tokens")
        on = checkpointing_pays(config, gpu, options.seq_len, batch, muon, extras)
    else:
        on = least <= room < plain
    if on:
        say(
            f"  activation checkpointing is on: of {gib(total)}, one row takes {gib(plain)} "
            f"without it and {gib(least)} with it (--{stage}.activation_checkpointing off)"
        )
    elif least > room:
        warn(f"{stage}: a single row takes about {gib(least)}, more than this device can give")
    return on


def _number_bytes(model: Decoder) -> int:
    return torch.empty((), dtype=model.compute_dtype).element_size()
