"""Sums kept on the device between log lines, and the numbers made of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from miao import rules
from miao.console import count, warn
from miao.errors import MiaoError
from miao.files import append_jsonl, read_jsonl, write_jsonl
from miao.shards.loader import Batch


@dataclass
class Summed:
    """What one step adds to the log line, once the guard has found it good."""

    loss: Tensor
    metrics: dict[str, Tensor]
    weight: int
    tokens: int
    """Real tokens of the step."""
    seen: int
    """Real tokens seen after it."""
    context: float
    """`context_of` the rows of this process."""
    waited: float
    lr: float


@dataclass
class Meter:
    """What happened since the last log line."""

    conventions: Callable[[float], dict[str, float]]
    """FLOPs per token, by the tokens that a token sees on average (`mfu_conventions`)."""
    peak_flops: float
    loss: Tensor | None = None
    weight: int = 0
    tokens: int = 0
    seen: float = 0.0
    """Pairs of a token and one that it sees, of all steps since the beginning."""
    of_tokens: int = 0
    data_wait: float = 0.0
    metrics: dict[str, Tensor] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)

    def add(self, step: Summed) -> None:
        """Adds one step."""
        self.loss = step.loss if self.loss is None else self.loss + step.loss
        for name, value in step.metrics.items():
            self.metrics[name] = self.metrics[name] + value if name in self.metrics else value
        self.weight += step.weight
        self.tokens += step.tokens
        self.seen += step.context * step.tokens
        self.of_tokens += step.tokens
        self.data_wait += step.waited

    def state(self) -> dict[str, Tensor]:
        """The sums, for a checkpoint; their weight is kept beside them."""
        sums = {} if self.loss is None else {"sum.loss": self.loss}
        return sums | {f"sum.metric.{name}": value for name, value in self.metrics.items()}

    def restore(self, weight: int, tensors: dict[str, Tensor]) -> None:
        """Takes back what `state` gave, from among others."""
        self.weight, self.loss = weight, tensors.get("sum.loss")
        mine = {name: t for name, t in tensors.items() if name.startswith("sum.metric.")}
        self.metrics = {name.removeprefix("sum.metric."): t for name, t in mine.items()}

    def read(self) -> dict[str, float]:
        """The means since the last reading, and starts over. Synchronises with the device."""
        weight = max(self.weight, 1)
        values = {"loss": float(self.loss) / weight if self.loss is not None else float("nan")}
        values |= {name: float(value) / weight for name, value in self.metrics.items()}
        seconds = max(time.perf_counter() - self.began, 1e-9)
        speed = self.tokens / seconds
        values |= {
            "tokens_per_second": round(speed, 1),
            **self.utilization(speed),
            "data_wait": round(self.data_wait / seconds, 4),
        }
        self.loss, self.metrics, self.weight, self.tokens, self.data_wait = None, {}, 0, 0, 0.0
        self.began = time.perf_counter()
        return values

    def utilization(self, tokens_per_second: float) -> dict[str, float]:
        """Model FLOPs utilization at this speed, in every convention: `mfu` (causal) first."""
        per_second = tokens_per_second / self.peak_flops
        counted = self.conventions(self.seen / max(self.of_tokens, 1))
        return {name: round(flops * per_second, 4) for name, flops in counted.items()}

    def pause(self, seconds: float) -> None:
        """Leaves time that was not training (evaluation, saving) out of the speed."""
        self.began += seconds


def context_of(rows: Batch) -> float:
    """How many tokens a token of these packed rows (on the host) sees on average, itself
    included."""
    seen = rows.positions_bt.numpy()[rows.segments_bt.numpy() > 0] + 1
    return float(seen.mean()) if seen.size else 0.0


class MetricsLog:
    """`metrics.jsonl`: one line per log interval and per held-out evaluation, of every stage; the
    same for a run that was interrupted. `breaks.jsonl` beside it says where such a one went on."""

    def __init__(self, path: Path, stage: str):
        self.path, self.stage = path, stage
        self.breaks = path.with_name("breaks.jsonl")

    def write(self, **values: Any) -> None:
        clean = {k: float(v) if isinstance(v, torch.Tensor) else v for k, v in values.items()}
        append_jsonl(self.path, {"stage": self.stage, **clean})

    def went_on(self, **values: Any) -> None:
        """Notes where training goes on after a break."""
        append_jsonl(self.breaks, {"stage": self.stage, **values})

    def forget_after(self, step: int) -> None:
        """Drops this stage's lines behind `step`: a resumed run writes them again."""
        for path in filter(Path.exists, (self.path, self.breaks)):
            lines = read_jsonl(path, warn)
            kept = [r for r in lines if r.get("stage") != self.stage or r.get("step", 0) <= step]
            write_jsonl(path, kept)


class DespiteFullDisk:
    """Around log lines: one that cannot be written is no reason to stop; said once."""

    def __init__(self) -> None:
        self.warned = False

    @contextmanager
    def __call__(self) -> Iterator[None]:
        try:
            yield
        except MiaoError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            if not self.warned:
                warn(f"a log line is lost, training goes on: {error}")
            self.warned = True


def foretold(
    share: float, tokens: float, bits: float, parameters: float, decay: float
) -> dict[str, float]:
    """Where the held-out loss of a pretraining will end (`rules.forecast`), for its log."""
    found = rules.forecast(share, tokens, bits, parameters, decay)
    if found is None:
        return {}
    numbers = {"forecast": found.value, "forecast_low": found.low, "forecast_high": found.high}
    return {name: round(value, 4) for name, value in numbers.items()}


def status_line(step: int, last: dict[str, float]) -> str:
    """What the progress line says of the newest figures."""
    if "tokens_per_second" not in last:
        return "warming up" if step > 1 else "first step"
    text = f"loss {last['loss']:.3f}"
    if "reward" in last:
        text = f"reward {last['reward']:.3f}"
    if "accuracy" in last:
        text += f" accuracy {last['accuracy']:.0%} margin {last['margin']:.2f}"
    if "heldout_bits_per_byte" in last:
        text += f" held-out {last['heldout_bits_per_byte']:.3f} bits/byte"
    if "forecast" in last:
        half = (last["forecast_high"] - last["forecast_low"]) / 2
        text += f" (in the end {last['forecast']:.2f} ± {half:.2f})"
    text += f" | {count(last['tokens_per_second'])} tok/s MFU {last['mfu']:.0%}"
    return text + (f" data wait {last['data_wait']:.0%}" if last["data_wait"] >= 0.005 else "")


@dataclass
class TrainResult:
    """What a stage's training came to."""

    steps: int
    tokens: int
    seconds: float
    loss: float
    tokens_per_second: float
    mfu: float
    """Causal: attention within documents, up to each token (docs, page 13)."""
    mfu_palm: float = math.nan
    mfu_bitbrain: float = math.nan
    metrics: dict[str, float] = field(default_factory=dict, init=False)
    """What the last log lines said."""
