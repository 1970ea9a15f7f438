"""Checkpoints in parts: every process writes and reads its own rows, and none has it all.

The files are those of `torch.distributed.checkpoint` with `HuggingFaceStorageWriter(
save_distributed=True)`: `shard-00001-model-00001-of-00001.safetensors` and so on, whose header says
where each tensor's rows belong. Any number of processes reads what any other number wrote, and so
does PyTorch's `HuggingFaceStorageReader`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from miao.model.directory import read_safetensors, write_safetensors

MODEL = "model.safetensors"
KEY, OFFSETS = "DCP_SHARDING_INFO", "saved_offsets"


@dataclass
class Stored:
    """A tensor on disk, of which any rows can be read."""

    parts: list[tuple[int, Any]]
    """The first row of each part, and its slice in a file; in order."""

    @property
    def shape(self) -> torch.Size:
        shapes = [part.get_shape() for _, part in self.parts]
        rows = [sum(shape[0] for shape in shapes)] if shapes[0] else []
        return torch.Size([*rows, *shapes[0][1:]])

    def rows(self, start: int, stop: int) -> Tensor:
        found = []
        for first, part in self.parts:
            begin, end = max(start - first, 0), min(stop - first, part.get_shape()[0])
            if begin < end:
                found.append(part[begin:end])
        return torch.cat(found) if found else self.parts[0][1][:0]

    def whole(self) -> Tensor:
        return torch.cat([part[:] for _, part in self.parts]) if self.shape else self.parts[0][1][:]


def holds_weights(checkpoint: Path) -> bool:
    """Whether this is the directory of a checkpoint, whole or in parts."""
    return any((checkpoint / name).is_file() for name in (MODEL, part_name(0)))


def weights_of(checkpoint: Path) -> dict[str, Tensor]:
    """The whole weights of a checkpoint, however it was written."""
    if (checkpoint / MODEL).is_file():
        return read_safetensors(checkpoint / MODEL)
    stored = stored_parts(checkpoint)
    names = [name for name in stored if name.startswith("model.")]
    return {name.removeprefix("model."): stored[name].whole() for name in names}


def part_name(rank: int) -> str:
    return f"shard-{rank + 1:05d}-model-00001-of-00001.safetensors"


def write_part(path: Path, tensors: dict[str, Tensor], firsts: dict[str, int]) -> None:
    """Writes what one process holds.

    Args:
        firsts: the row of the whole tensor that each begins with.
    """
    places = {
        name: {OFFSETS: [firsts[name], *[0] * (tensor.ndim - 1)][: tensor.ndim]}
        for name, tensor in tensors.items()
    }
    write_safetensors(tensors, path, {KEY: json.dumps(places), "DCP_VERSION": "1.0"})


def stored_parts(directory: Path) -> dict[str, Stored]:
    """Every tensor of a checkpoint that was written in parts."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for path in sorted(directory.glob("shard-*.safetensors")):
        file = safe_open(path, framework="pt")
        places = json.loads(file.metadata()[KEY])
        for name in file.keys():  # noqa: SIM118
            first = (places[name][OFFSETS] or [0])[0]
            found.setdefault(name, []).append((first, file.get_slice(name)))
    return {name: Stored(sorted(parts, key=lambda part: part[0])) for name, parts in found.items()}
