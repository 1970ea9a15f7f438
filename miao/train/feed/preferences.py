"""What DPO and its relatives need beside the model: objective, labels, the reference's column."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from miao.console import ProgressLine, say
from miao.errors import MiaoError
from miao.files import atomic_open
from miao.model import Decoder
from miao.recipe import DpoOptions
from miao.rundir import RunDir
from miao.shards import PackedLoader, PackedSource
from miao.shards.answers import LabelledAnswers
from miao.shards.loader import Batch
from miao.train.distributed.world import World
from miao.train.objectives import KtoObjective, Objective, PreferenceObjective
from miao.train.objectives.base import token_logprobs

READ_TOKENS = 8192
"""Tokens that the reference reads at once: without a gradient they need little memory, and a GPU is
busy with so many."""


def preference_objective(options: DpoOptions, loader: PackedLoader) -> Objective:
    """What the stage minimises."""
    if options.loss != "kto":
        replayed = [s.name for s in loader.sources if s.dataset.manifest.kind != "preference"]
        return PreferenceObjective(options, replayed)
    labels = {
        source.name: source.dataset.desirable
        for source in loader.sources
        if isinstance(source.dataset, LabelledAnswers)
    }
    good = sum(int(label.sum()) for label in labels.values())
    bad = sum(len(label) for label in labels.values()) - good
    say(f"  {good:,} desirable and {bad:,} undesirable answers")
    return KtoObjective(options, labels)


def attach_reference(
    model: Decoder, loader: PackedLoader, run: RunDir, mark: str, world: World
) -> None:
    """Computes, or reads back, the log-probabilities of the model that the stage begins with. All
    processes share the rows.

    Args:
        mark: fingerprint of the stage's inputs, names the files in the run's cache.
    """
    for source in loader.sources:
        if source.dataset.manifest.kind != "preference":
            continue
        one = PackedLoader([replace(source)], loader.seq_len)
        rows = -(-source.total_tokens // loader.seq_len)
        path = run.path / "cache" / "reference" / f"{mark}-{source.name}.f32"
        with ProgressLine("reference log-probabilities", rows) as line:
            batches = one.one_pass(max(1, READ_TOKENS // loader.seq_len))
            source.reference = cache_reference(model, source, batches, path, line.advance, world)


def cache_reference(
    model: Decoder,
    source: PackedSource,
    batches: Iterable[Batch],
    path: Path,
    advance: Callable[[int], None] = lambda rows: None,
    world: World | None = None,
) -> np.ndarray:
    """The reference log-probability of every token of a source, computed once and kept on disk.

    Args:
        batches: one pass over the source's rows, the same in every process: of so many neighbours
            each reads one, and all run equally many. path: float32 file, aligned with the tokens.

    Returns:
        A read-only memory map, float32 [tokens].
    """
    size, world = int(source.dataset.lengths.sum()), world or World()
    if not world.from_main(path.exists() and path.stat().st_size == 4 * size):
        values = np.zeros(size if world.is_main else 0, dtype=np.float32)
        model.eval()
        rest = iter(batches)
        while shared := list(islice(rest, world.size)):
            batch = shared[min(world.rank, len(shared) - 1)]
            places = batch.document_places if model.has_varlen else None
            with torch.no_grad():
                logprobs = token_logprobs(model, batch.to(model.device, places)).cpu()
            for batch, found in zip(shared, world.gather_objects(logprobs), strict=False):
                if world.is_main:
                    _scatter_to_tokens(values, found, batch, source)
                advance(len(batch.sequences))
        if not np.isfinite(values).all():
            raise MiaoError("the reference model gives log-probabilities that are not finite")
        if world.is_main:
            with atomic_open(path, "wb") as file:
                file.write(values.tobytes())
        world.barrier()
    return np.memmap(path, dtype=np.float32, mode="r")


def _scatter_to_tokens(
    values: np.ndarray, logprobs_bt: Tensor, batch: Batch, source: PackedSource
) -> None:
    for b, row in enumerate(batch.sequences):
        for number, (_, sequence) in enumerate(row, start=1):
            slots = (batch.segments_bt[b] == number).nonzero().squeeze(1)
            first = source.dataset.flat_offset(sequence) + 1
            values[first : first + len(slots)] = logprobs_bt[b, slots].numpy()
