"""The options of every stage, as dataclasses; a recipe is one YAML file of them.

Defaults < recipe YAML < `--key.sub value` on the command line. Quantities of training are in
tokens; a number below 1 is a fraction of the stage's budget. `4M` and `1.5B` are understood.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from miao.recipe.corpus import CorpusOptions, SeedbedOptions, TokenizerOptions
from miao.recipe.grpo import GrpoOptions
from miao.recipe.model import DEFAULT_CONTEXT, ModelOptions, RopeScalingOptions
from miao.recipe.quantities import Quantity, of_budget, parse_quantity
from miao.recipe.stages import (
    DpoOptions,
    DuringOptions,
    EvaluateOptions,
    PretrainOptions,
    SftOptions,
    StageOptions,
)

STAGES = ("pretrain", "sft", "dpo", "grpo")
TRACKERS = ("tensorboard", "wandb", "swanlab")
Parallelism = Literal["auto", "none", "ddp", "fsdp", "hsdp", "zero1", "zero2", "zero3"]


@dataclass
class Recipe:
    """One model from raw text to chat. A recipe YAML has these keys."""

    name: str = "run"
    """The run's name; its directory is out_dir/name."""
    out_dir: str = "runs"
    """Where run directories go."""
    seed: int = 42
    """Everything random follows from it."""
    device: str = "auto"
    """auto (GPU when there is one), cpu, cuda, cuda:1, mps."""
    minutes: float | None = None
    """The whole run in so many minutes of work, from reading to the report, without interruptions:
    stages whose budgets are in minutes share what is left, in that proportion."""
    until: str | None = None
    """The same up to a time of the clock instead: 07:30 or 2026-11-29T07:30."""
    parallel: Parallelism = "auto"
    """How processes that a launcher started (torchrun, accelerate, deepspeed) train together: ddp
    (auto; each has the whole model), fsdp (PyTorch's FSDP2), hsdp (the same within
    each machine, a copy per machine), zero1, zero2, zero3 (DeepSpeed)."""
    corpus: CorpusOptions = field(default_factory=CorpusOptions)
    """Raw text."""
    tokenizer: TokenizerOptions = field(default_factory=TokenizerOptions)
    """Text to tokens."""
    model: ModelOptions = field(default_factory=ModelOptions)
    """The decoder."""
    pretrain: PretrainOptions = field(default_factory=PretrainOptions)
    """Stage 1."""
    sft: SftOptions = field(default_factory=SftOptions)
    """Stage 2."""
    dpo: DpoOptions = field(default_factory=DpoOptions)
    """Stage 3."""
    grpo: GrpoOptions = field(default_factory=GrpoOptions)
    """Stage 4."""
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)
    """Measuring."""
    trackers: list[str] = field(default_factory=list)
    """Send the curves of training also to these: tensorboard, wandb, swanlab."""
    trackers_offline: bool = False
    """wandb and swanlab write to the run directory only (runs/NAME/trackers), nothing is sent."""
    sample_texts: list[str] = field(
        default_factory=lambda: [
            "从前，",
            "中国的首都是",
            "Once upon a time, ",
            "The capital of France is",
        ]
    )
    """Beginnings that pretraining samples continue, to look at with your own eyes."""
    sample_prompts: list[str] = field(
        default_factory=lambda: [
            "你好，你是谁？",
            "37加45等于多少？",
            "法国的首都是哪里？",
            "讲一个关于小猫的故事。",
            "Who are you?",
            "What is 62 minus 27?",
            "What is the capital of France?",
            "Tell me a story about a rabbit.",
        ]
    )
    """Questions asked in the chat during and after SFT and DPO."""

    @property
    def run_dir(self) -> Path:
        return Path(self.out_dir) / self.name


def to_dict(options: Any) -> dict[str, Any]:
    """A dataclass of options as plain JSON-like values."""
    return dataclasses.asdict(options)
