"""Checkpoints: written whole or not at all, checksummed, enough to go on to the bit."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from miao.errors import MiaoError
from miao.files import atomic_directory, read_json, sha256_of, write_json
from miao.model.decoder import Decoder
from miao.model.directory import read_safetensors, weights_of
from miao.train.optim import MuonAdamW

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"


def save_checkpoint(
    directory: Path, model: Decoder, optimizer: MuonAdamW, state: dict[str, Any], keep_last: int
) -> Path:
    """Writes `step-00000123/` under `directory` and removes all but the last `keep_last`.

    Args:
        state: JSON-like; must have "step". Weights, optimizer buffers and torch's random state
            are added.
    """
    target = directory / f"step-{state['step']:08d}"
    with atomic_directory(target) as temporary:
        save_file(weights_of(model), temporary / MODEL)
        buffers = {
            name: t.detach().cpu().contiguous() for name, t in optimizer.state_tensors().items()
        }
        buffers["torch_rng_state"] = torch.get_rng_state()
        save_file(buffers, temporary / OPTIMIZER)
        checksums = {name: sha256_of(temporary / name) for name in (MODEL, OPTIMIZER)}
        content = state | {"optimizer_steps": optimizer.num_steps, "checksums": checksums}
        write_json(temporary / STATE, content)
    for old in list_checkpoints(directory)[:-keep_last]:
        shutil.rmtree(old)
    return target


def list_checkpoints(directory: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [p for p in directory.glob("step-*") if re.fullmatch(r"step-\d{8}", p.name)]
    return sorted(p for p in found if (p / STATE).exists())


def load_checkpoint(directory: Path, model: Decoder, optimizer: MuonAdamW) -> dict[str, Any]:
    """Puts a checkpoint's content into `model` and `optimizer`; returns its state.

    Raises:
        MiaoError: a file is missing, or its checksum is not the one written.
    """
    state = read_json(directory / STATE)
    for name, checksum in state["checksums"].items():
        path = directory / name
        if not path.exists() or sha256_of(path) != checksum:
            raise MiaoError("this checkpoint file is missing or damaged", where=path)
    tensors = read_safetensors(directory / MODEL)
    buffers = read_safetensors(directory / OPTIMIZER)
    torch.set_rng_state(buffers.pop("torch_rng_state"))
    _copy_weights(model, tensors)
    optimizer.load_state_tensors(buffers, state["optimizer_steps"])
    return state


def resume(
    directory: Path, model: Decoder, optimizer: MuonAdamW, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """The newest checkpoint that is whole; damaged ones are named and passed over.

    Raises:
        MiaoError: there are checkpoints, but every one is damaged.
    """
    checkpoints = list_checkpoints(directory)
    for checkpoint in reversed(checkpoints):
        try:
            return load_checkpoint(checkpoint, model, optimizer)
        except MiaoError as error:
            say(f"{error}; trying the checkpoint before it")
    if checkpoints:
        raise MiaoError(
            "no checkpoint can be read",
            where=directory,
            fix="delete this directory to train the stage from its beginning",
        )
    return None


def _copy_weights(model: Decoder, tensors: dict[str, Tensor]) -> None:
    own = dict(model.named_parameters())
    assert set(own) == set(tensors), sorted(set(own) ^ set(tensors))
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])
