"""What DPO and its relatives need beside the model: objective, labels, the reference's column."""

from __future__ import annotations

from dataclasses import replace

from miao.console import ProgressLine, say
from miao.model import Decoder
from miao.recipe import DpoOptions
from miao.rundir import RunDir
from miao.shards import PackedLoader
from miao.shards.answers import LabelledAnswers
from miao.train.objectives import KtoObjective, Objective, PreferenceObjective, cache_reference

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


def attach_reference(model: Decoder, loader: PackedLoader, run: RunDir, mark: str) -> None:
    """Computes, or reads back, the log-probabilities of the model that the stage begins with.

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
            source.reference = cache_reference(model, source, batches, path, line.advance)
