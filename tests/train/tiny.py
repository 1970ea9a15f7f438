"""A trainer so small that a whole stage takes a second, and what compares two of them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import torch

from miao.files import read_jsonl
from miao.model import Decoder, ModelConfig
from miao.recipe import PretrainOptions
from miao.shards import PackedLoader, PackedSource, TokenDataset
from miao.train.loop import Trainer
from miao.train.objectives import LanguageObjective
from miao.train.watch.metrics import MetricsLog

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
