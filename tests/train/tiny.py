"""A trainer so small that a whole stage takes a second, and what compares two of them."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from miao.evaluate.tasks.prompts import Encoder
from miao.files import read_jsonl
from miao.model import Decoder, ModelConfig
from miao.recipe import DuringOptions, PretrainOptions
from miao.shards import PackedLoader, PackedSource, TokenDataset
from miao.train.loop import Trainer
from miao.train.objectives import LanguageObjective
from miao.train.watch.metrics import MetricsLog
from miao.train.watch.tasks import TaskWatch

SEQ_LEN = 32
TIMES = {"seconds", "tokens_per_second", "mfu", "mfu_palm", "mfu_bitbrain", "data_wait"}


def options(**changes: Any) -> PretrainOptions:
    values: dict[str, Any] = {
        "tokens": 4000, "seq_len": SEQ_LEN, "batch_tokens": 8 * SEQ_LEN, "micro_batch": 4,
        "save_every": 600, "log_every": 2, "eval_every": 0, "sample_every": 0, "keep_last": 3,
    }  # fmt: skip
    return PretrainOptions(**values | changes)


def trainer(
    sources: list[TokenDataset],
    directory: Path,
    model: Decoder | None = None,
    seed: int = 0,
    **changes: Any,
) -> Trainer:
    """A trainer of `directory`.

    Args:
        seed: of the model's first weights, where none is given. A trainer that resumes gets
            another: training anew instead would then come to other weights.
        changes: options of the stage.
    """
    if model is None:
        model = Decoder(ModelConfig(97, 32, 2, 2, 1, 16, 48, max_position_embeddings=64))
        model.initialize(seed)
    packed = [PackedSource(d.manifest.source, d, SEQ_LEN, seed=5) for d in sources]
    chosen = options(**changes)
    return Trainer(
        "pretrain",
        chosen,
        model,
        PackedLoader(packed, SEQ_LEN, window_rows=16),
        LanguageObjective(),
        float(chosen.tokens or 0),
        directory / "checkpoints",
        MetricsLog(directory / "metrics.jsonl", "pretrain"),
        peak_flops=1e12,
    )


def stop_after(running: Trainer, step: int) -> None:
    """SIGTERM while that step is being trained."""
    train_step = running._train_step

    def train_and_interrupt(*of_step: Any) -> None:
        train_step(*of_step)
        if running.step == step:
            signal.raise_signal(signal.SIGTERM)

    running._train_step = train_and_interrupt  # type: ignore[method-assign]


def weights(model: Decoder) -> dict[str, torch.Tensor]:
    """Parameters and the biases that balance experts."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def assert_same_bits(left: Decoder, right: Decoder) -> None:
    other = weights(right)
    for name, value in weights(left).items():
        assert torch.equal(value, other[name]), name


def curve(directory: Path, stage: str = "pretrain") -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what a clock gave."""
    lines = read_jsonl(directory / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


TASK = """
title: pairs
split: test
sources: [{generated: 0}]
subjects: {grammar_zh: [], grammar_en: []}
prompts: {miao: {question: "", choice: "{{option}}", target_delimiter: "", scoring: option}}
"""


class Letters(Encoder):
    """For models of 97 tokens."""

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return [[ord(letter) % 97 for letter in text] for text in texts]


class Clock:
    """Every asking takes as long as is said."""

    def __init__(self, step: float):
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def watch(path: Path, budget: float = 4000, step: float = 1e-9, **changes: Any) -> TaskWatch:
    """A watch of generated pairs of sentences; its task is written to `path`."""
    path.write_text(TASK, encoding="utf-8")
    chosen = DuringOptions(**{"tasks": [str(path)], "every": 0.2, "questions": 2} | changes)
    tokenizer: Any = SimpleNamespace(own_start=(), document_start=(0,))
    watching = TaskWatch(chosen, tokenizer, budget, Clock(step))
    watching.encoder = Letters(tokenizer)
    tokenizer.encode_batch = watching.encoder._encode
    return watching
