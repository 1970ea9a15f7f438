"""A few real steps of a shape: what the estimate is held against."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from miao.device import choose_muon_dtype, keep_freed_memory, peak_memory_mib
from miao.model import Decoder, ModelConfig
from miao.ops.varlen import document_starts
from miao.recipe import StageOptions, parse_quantity
from miao.train.adapters import adapter_of, add_adapter
from miao.train.optim import MuonAdamW

DOCUMENT_TOKENS = 340
"""Length of the made-up documents that fill the rows."""


@dataclass(frozen=True)
class Trial:
    """What a few steps came to, on random tokens: reading data is not in it."""

    tokens_per_second: float
    pass_seconds: float
    """Best forward and backward pass of one micro-batch."""
    optimizer_seconds: float
    first_pass_seconds: float
    """With compiling, where it compiles."""
    passes: int
    """How many were timed."""
    peak_memory_mib: float


def run_trial(
    config: ModelConfig,
    options: StageOptions,
    micro_batch: int,
    device: torch.device,
    dtype: torch.dtype,
    compiled: bool = False,
    recompute: bool = False,
    beside: Sequence[ModelConfig] = (),
    seconds: float = 8.0,
) -> Trial:
    """Trains a new model of this shape, or the stage's adapter on it, for about `seconds` after its
    first pass.

    A step is put together from its parts, so that a step of many passes need not be waited for:
    passes · the best pass + the best optimizer step.

    Args:
        micro_batch: rows per pass. dtype: of the matrix products.
        compiled, recompute: torch.compile, activation checkpointing.
        beside: models that read the same rows without a gradient.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu":
        keep_freed_memory()
    with device:
        model = Decoder(config)
        readers = [Decoder(other).requires_grad_(False).eval() for other in beside]
    for one in (model, *readers):
        one.initialize(0)  # logits as wild as those of no initialisation take longer
        one.set_compute_dtype(dtype)
    if (adapter := adapter_of(options)) is not None:
        add_adapter(model, adapter, Path(), 0, quiet=True)
    model.set_activation_checkpointing(recompute)
    model.train()
    if compiled:
        model.compile_for_training()
    batch = _rows(config, micro_batch, options.seq_len, device)
    starts = document_starts(batch[2].cpu()).to(device) if model.has_varlen else None
    optimizer = MuonAdamW(
        [(name, p) for name, p in model.named_parameters() if p.requires_grad],
        lr=1e-4,
        muon_lr=1e-4 if options.muon_learning_rate > 0 else 0.0,
        muon_dtype=choose_muon_dtype(device, dtype),
    )

    def one_pass() -> float:
        began = _now(device)
        with torch.no_grad():
            for reader in readers:
                reader(*batch, starts_n=starts, output="hidden")
        loss = model(*batch, labels_bt=batch[0], starts_n=starts, output="loss")
        (loss / batch[0].numel()).backward()
        return _now(device) - began

    def one_step() -> float:
        began = _now(device)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        return _now(device) - began

    first = one_pass()
    steps = [one_step()]
    passes: list[float] = []
    began = time.perf_counter()
    while not passes or (time.perf_counter() - began < seconds and len(passes) < 200):
        passes.append(one_pass())
        if len(steps) < 4:
            steps.append(one_step())
    batch_tokens = parse_quantity(options.batch_tokens, "batch_tokens")
    per_pass = micro_batch * options.seq_len
    step = max(1.0, batch_tokens / per_pass) * min(passes) + min(steps)
    speed = max(batch_tokens, per_pass) / step
    memory = peak_memory_mib(device)
    return Trial(speed, min(passes), min(steps), first, len(passes), memory)


def _rows(
    config: ModelConfig, rows: int, length: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random token ids, positions and segments of full rows of packed documents."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, (rows, length), generator=generator)
    slots = torch.arange(length)
    positions = (slots % DOCUMENT_TOKENS).expand(rows, -1).contiguous()
    segments = (slots // DOCUMENT_TOKENS + 1).expand(rows, -1).contiguous()
    return ids.to(device), positions.to(device), segments.to(device)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
