"""Model directories in Hugging Face's layout: `config.json` and `model.safetensors`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from miao.errors import MiaoError
from miao.files import read_json, write_json
from miao.model.config import ModelConfig
from miao.model.decoder import Decoder

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def save_model(model: Decoder, directory: Path, dtype: torch.dtype | None = None) -> None:
    """Writes `config.json`, `generation_config.json` and `model.safetensors` into `directory`.

    Args:
        dtype: the type on disk (default: as the weights are, float32 while training).
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors = weights_of(model)
    if dtype is not None:
        tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    config = model.config.to_hf()
    config["torch_dtype"] = config["dtype"] = str(next(iter(tensors.values())).dtype)[6:]
    write_json(directory / "config.json", config)
    generation: dict[str, Any] = {
        "bos_token_id": model.config.bos_token_id,
        "eos_token_id": model.config.eos_token_id,
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.9,
    }
    write_json(directory / "generation_config.json", generation)


def weights_of(model: Decoder) -> dict[str, Tensor]:
    """The weights by name, on the CPU; a tied head is left out, as Hugging Face does."""
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        del state["lm_head.weight"]
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def load_model(directory: str | Path) -> Decoder:
    """Reads any directory of a supported architecture into float32, strictly.

    Raises:
        MiaoError: no such directory, unsupported architecture, a tensor that is missing, unknown
            or of the wrong shape (each named), a damaged file.
    """
    directory = Path(directory)
    config = load_config(directory)
    with torch.device("meta"):
        model = Decoder(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tensors = _read_tensors(directory)
    if config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
        expected.pop("lm_head.weight")
    _check_tensors(expected, {name: tuple(t.shape) for name, t in tensors.items()}, directory)
    model = Decoder(config)
    model.load_state_dict(
        {name: tensor.float() for name, tensor in tensors.items()}
        | (
            {"lm_head.weight": tensors["model.embed_tokens.weight"].float()}
            if config.tie_word_embeddings
            else {}
        )
    )
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
    return ModelConfig.from_hf(read_json(path), str(path))


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
