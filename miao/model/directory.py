"""Model directories in Hugging Face's layout: `config.json` and `model.safetensors`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from miao.errors import MiaoError
from miao.files import read_json, refuse_lfs_pointer, usual_mode, write_json
from miao.model.config import ModelConfig
from miao.model.decoder import Decoder
from miao.model.hf_config import from_hf, to_hf

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
EXPERTS = ".mlp.experts."


def save_model(
    model: Decoder,
    directory: Path,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = 5 * 10**9,
) -> None:
    """Writes `config.json`, `generation_config.json` and the weights into `directory`.

    Args:
        dtype: the type on disk (default: as the weights are, float32 while training).
        max_shard_bytes: weights above this are cut into several files with an index.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors = weights_of(model)
    if dtype is not None:
        tensors = {name: _stored_as(name, tensor, dtype) for name, tensor in tensors.items()}
    _save_weights(tensors, directory, max_shard_bytes)
    config = to_hf(model.config)
    config["torch_dtype"] = config["dtype"] = str(dtype or torch.float32).removeprefix("torch.")
    write_json(directory / "config.json", config)
    generation: dict[str, Any] = {
        "bos_token_id": model.config.bos_token_id,
        "eos_token_id": model.config.eos_token_id,
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.9,
    }
    write_json(directory / "generation_config.json", generation)


def _stored_as(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    # The bias that balances experts moves by tiny steps: bfloat16 would round it away.
    return tensor if name.endswith("e_score_correction_bias") else tensor.to(dtype)


def _save_weights(tensors: dict[str, Tensor], directory: Path, max_shard_bytes: int) -> None:
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > max_shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    if len(shards) == 1:
        write_safetensors(tensors, directory / WEIGHTS)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(shard, directory / file)
        weight_map |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    write_json(directory / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def weights_of(model: Decoder) -> dict[str, Tensor]:
    """The weights by their name on disk, on the CPU: a tied head is left out and every expert
    stands alone, as Hugging Face does."""
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        del state["lm_head.weight"]
    return {
        alone: part.detach().cpu().contiguous()
        for name, tensor in state.items()
        for alone, part in _unstacked(name, tensor)
    }


def _unstacked(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """`mlp.experts.up_proj` [e, i, d] as `mlp.experts.0.up_proj.weight` and so on."""
    before, experts, kind = name.partition(EXPERTS)
    if not experts:
        yield name, tensor
        return
    for number, part in enumerate(tensor):
        yield f"{before}{EXPERTS}{number}.{kind}.weight", part


def load_model(directory: str | Path, tokens: int | None = None) -> Decoder:
    """Reads any directory of a supported architecture into float32, strictly.

    Args:
        tokens: how many the tokenizer has that the model is used with (default: the one beside it).

    Raises:
        MiaoError: no such directory, unsupported architecture, a tensor that is missing, unknown
            or of the wrong shape (each named), a damaged file.
    """
    directory = Path(directory)
    config = load_config(directory)
    tokens = tokens or _tokens_beside(directory) or config.vocab_size
    if tokens < config.vocab_size:
        config = replace(config, num_tokens=tokens)
    model = Decoder(config)
    tensors = _read_tensors(directory)
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
        del state["lm_head.weight"]
    wanted = {alone: part for name, own in state.items() for alone, part in _unstacked(name, own)}
    _check_tensors(
        {name: tuple(tensor.shape) for name, tensor in wanted.items()},
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        directory,
    )
    for name, target in wanted.items():  # views of the model's own memory
        target.copy_(tensors.pop(name))
    return model.eval()


def load_config(directory: str | Path) -> ModelConfig:
    """Reads `config.json` of a model directory."""
    path = Path(directory) / "config.json"
    if not path.exists():
        raise MiaoError(
            "not a model directory: it has no config.json",
            where=directory,
            fix="give a directory that holds config.json and model.safetensors",
        )
    return from_hf(read_json(path), str(path))


def _tokens_beside(directory: Path) -> int | None:
    """How many ids the tokenizer of a directory has; None: there is none that says it."""
    if not (path := directory / "tokenizer.json").is_file():
        return None
    try:
        spec = read_json(path)
        pieces, added = spec["model"]["vocab"], spec.get("added_tokens") or []
        ids = pieces.values() if isinstance(pieces, dict) else range(len(pieces))
        return 1 + max([*ids, *(token["id"] for token in added)])
    except (MiaoError, KeyError, TypeError, AttributeError, ValueError):
        return None  # whoever reads the tokenizer itself says what is wrong with it


def _read_tensors(directory: Path) -> dict[str, Tensor]:
    index = directory / INDEX
    names = [WEIGHTS]
    if index.exists():
        try:
            names = sorted(set(read_json(index)["weight_map"].values()))
        except (KeyError, TypeError, AttributeError) as error:
            raise MiaoError("the file is damaged: it has no weight_map", where=index) from error
    tensors: dict[str, Tensor] = {}
    for name in names:
        tensors |= read_safetensors(directory / name)
    return tensors


def write_safetensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes a file of tensors; use it inside `atomic_directory`.

    Raises:
        OSError: as of any file. (safetensors hides the system's error in a text, and a full disk
            must be told from a defect.)
    """
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        raise
    path.chmod(usual_mode(0o666))  # safetensors lets only the owner read it


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file.

    Raises:
        MiaoError: missing or damaged.
    """
    if not path.exists():
        raise MiaoError("the weights file is missing", where=path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        refuse_lfs_pointer(path)
        raise MiaoError(
            f"the file is damaged: {error}", where=path, fix="restore it from a copy or train again"
        ) from error


def _check_tensors(
    expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]], directory: Path
) -> None:
    problems = [f"missing: {name} {expected[name]}" for name in expected if name not in found]
    problems += [f"unknown: {name} {found[name]}" for name in found if name not in expected]
    problems += [
        f"shape of {name}: {found[name]} in the file, {expected[name]} by config.json"
        for name in expected
        if name in found and found[name] != expected[name]
    ]
    if problems:
        shown = "\n".join(f"  - {line}" for line in problems[:8])
        more = f"\n  ... and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise MiaoError(f"weights and config.json do not fit:\n{shown}{more}", where=directory)
