"""How fast this machine trains a shape: two real trainings of a second, and a line through them."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from typing import Any

import torch

from miao.device import choose_device, choose_dtype, memory_bytes
from miao.doctor.trial import run_trial
from miao.model import ModelConfig, flops_per_token, new_config
from miao.recipe import ModelOptions, PretrainOptions
from miao.train.distributed.world import World
from miao.train.microbatch import cpu_micro_batch

SEQ_LEN = 256
TRIED = ((128, 2, 2048), (256, 6, 6400))
"""Width, blocks and vocabulary of the shapes that are tried on a CPU."""
TRIED_ON_GPU = ((256, 6, 6400), (768, 12, 6400))


USABLE = 0.7
"""Of the memory."""


@dataclass(frozen=True)
class Speed:
    """Seconds of training per token: what every token costs, and what its arithmetic does."""

    device: str
    precision: str
    per_token: float
    per_flop: float
    memory: int
    """Bytes that the device has; 0: unknown."""
    threads: int
    host: str
    """The machine's name; of several processes with their number."""
    processes: int = 1

    def tokens_per_second(self, config: ModelConfig) -> float:
        return 1 / (self.per_token + self.per_flop * flops_per_token(config, SEQ_LEN))

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
    """Trains two shapes for about so many seconds in all; several processes do so at the same
    time, and their speeds are added up (what they tell each other in a step is not in it).

    Args:
        asked: the recipe's `device`.
    """
    device = choose_device(asked)
    dtype = choose_dtype("auto", device)
    options = PretrainOptions(seq_len=SEQ_LEN, batch_tokens=2048)
    points = []
    for width, blocks, vocabulary in TRIED if device.type == "cpu" else TRIED_ON_GPU:
        config = shape_config(width, blocks, vocabulary)
        rows = cpu_micro_batch(config, SEQ_LEN, 8)
        world.barrier()
        found = run_trial(config, options, rows, device, dtype, seconds=seconds / 2)
        rate = sum(world.gather_objects(found.tokens_per_second))
        points.append((flops_per_token(config, SEQ_LEN), 1 / rate))
    (x, y), (z, w) = points
    slope = max((w - y) / (z - x), 0.1 * w / z)
    constant = max(y - slope * x, 0.0)
    precision = str(dtype).removeprefix("torch.")
    threads, memory = torch.get_num_threads(), memory_bytes(device)[1]
    host = platform.node() + (f" x{world.size}" if world.size > 1 else "")
    return Speed(device.type, precision, constant, slope, memory, threads, host, world.size)


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
