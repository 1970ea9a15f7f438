"""How fast this machine trains a shape: real trainings of a second, and the line through them."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import torch

from miao.device import choose_device, choose_dtype, memory_bytes
from miao.doctor.trial import run_trial
from miao.model import ModelConfig, flops_per_token, new_config
from miao.recipe import ModelOptions, PretrainOptions
from miao.train.distributed.world import World
from miao.train.microbatch import cpu_micro_batch

SEQ_LEN = 256
TRIED = ((64, 2, 2048), (128, 2, 2048), (256, 6, 6400))
"""Width, blocks and vocabulary of the shapes that are tried on a CPU: the smaller, the less of a
step is arithmetic."""
TRIED_ON_GPU = ((256, 6, 6400), (768, 12, 6400))
USABLE = 0.7
"""Of the memory."""


@dataclass(frozen=True)
class Speed:
    """Seconds of training per token, by the arithmetic that a token takes."""

    device: str
    precision: str
    points: tuple[tuple[float, float], ...]
    """FLOPs and seconds per token of two or more shapes, rising."""
    memory: int
    """Bytes that the device has; 0: unknown."""
    threads: int
    host: str
    """The machine's name; of several processes with their number."""
    processes: int = 1

    def tokens_per_second(self, config: ModelConfig) -> float:
        """By the line through the two shapes that are nearest."""
        flops = flops_per_token(config, SEQ_LEN)
        segments = list(pairwise(self.points))
        (x, y), (z, w) = next((s for s in segments if flops <= s[1][0]), segments[-1])
        slope = max((w - y) / (z - x), 0.1 * w / z)
        return 1 / max(y + slope * (flops - x), y * min(flops / x, 1.0))

    def paced(self, pace: float) -> Speed:
        """So many times as fast."""
        return replace(self, points=tuple((x, y / pace) for x, y in self.points))

    def holds(self, needed: float) -> bool:
        """Whether so many bytes fit the device, as far as that is known."""
        return not self.memory or needed <= USABLE * self.memory

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def line(self) -> str:
        cores = f"{self.threads} threads, " if self.device == "cpu" else ""
        small = self.tokens_per_second(shape_config(128, 4, 2048))
        cores += f"{self.processes} processes, " if self.processes > 1 else ""
        return (
            f"machine: {self.device}, {cores}{self.precision}; a model of 1M parameters learns "
            f"{small:,.0f} tokens per second just now"
        )


def measure(seconds: float, world: World, asked: str = "auto") -> Speed:
    """Trains two or three shapes for about so many seconds in all; several processes do so at the
    same time, and their speeds are added up (what they tell each other in a step is not in it).

    Args:
        asked: the recipe's `device`.
    """
    device = choose_device(asked)
    dtype = choose_dtype("auto", device)
    options = PretrainOptions(seq_len=SEQ_LEN, batch_tokens=2048)
    points = []
    shapes = TRIED if device.type == "cpu" else TRIED_ON_GPU
    for width, blocks, vocabulary in shapes:
        config = shape_config(width, blocks, vocabulary)
        rows = cpu_micro_batch(config, SEQ_LEN, 8)
        world.barrier()
        found = run_trial(config, options, rows, device, dtype, seconds=seconds / len(shapes))
        rate = sum(world.gather_objects(found.tokens_per_second))
        points.append((flops_per_token(config, SEQ_LEN), 1 / rate))
    precision = str(dtype).removeprefix("torch.")
    threads, memory = torch.get_num_threads(), memory_bytes(device)[1]
    host = platform.node() + (f" x{world.size}" if world.size > 1 else "")
    return Speed(device.type, precision, tuple(points), memory, threads, host, world.size)


def shape_options(width: int, blocks: int) -> ModelOptions:
    """A dense model of the Qwen3 architecture: heads of 64 (of 32 where it is narrow), a key/value
    head for two or three of them."""
    size = 64 if width >= 128 else 32
    heads = width // size
    keys = next(max(1, heads // n) for n in (3, 2, 5, heads) if heads % n == 0)
    return ModelOptions(
        hidden_size=width,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=keys,
        max_position_embeddings=2 * SEQ_LEN,
    )


def shape_config(width: int, blocks: int, vocabulary: int) -> ModelConfig:
    return new_config(shape_options(width, blocks), vocabulary, None)
