"""Model directories in Hugging Face's layout: `config.json` and `model.safetensors`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from miao.errors import MiaoError
from miao.files import read_json, refuse_lfs_pointer, usual_mode, write_json
from miao.hubs.files import INDEX, WEIGHTS, weights_files
from miao.model.config import ModelConfig
from miao.model.decoder import Decoder
from miao.model.hf_config import from_hf, to_hf

EXPERTS = ".mlp.experts."
Named = Iterator[tuple[str, Tensor]]


def save_model(
    model: Decoder,
    directory: Path,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = 5 * 10**9,
    weights: Named | None = None,
) -> None:
    """Writes `config.json`, `generation_config.json` and the weights into `directory`.

    Args:
        dtype: the type on disk (default: as the weights are, float32 while training).
        max_shard_bytes: weights above this are cut into several files with an index.
        weights: whole, under the model's names, one after the other (default: the model's own).
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors = on_disk(iter(own_tensors(model).items()) if weights is None else weights)
    if dtype is not None:
        tensors = ((name, _stored_as(name, tensor, dtype)) for name, tensor in tensors)
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


def _save_weights(tensors: Named, directory: Path, max_shard_bytes: int) -> None:
    """Takes the tensors one by one, and holds no more of them than one file's."""
    shard: dict[str, Tensor] = {}
    files: list[list[str]] = []
    size = total = 0

    def flush() -> None:
        write_safetensors(shard, directory / f"{len(files):05d}.part")
        files.append(list(shard))
        shard.clear()

    for name, tensor in tensors:
        if shard and size + tensor.nbytes > max_shard_bytes:
            flush()
            size = 0
        shard[name] = tensor
        size += tensor.nbytes
        total += tensor.nbytes
    flush()
    weight_map: dict[str, str] = {}
    for number, names in enumerate(files):
        file = f"model-{number + 1:05d}-of-{len(files):05d}.safetensors"
        (directory / f"{number:05d}.part").rename(directory / (file if len(files) > 1 else WEIGHTS))
        weight_map |= dict.fromkeys(names, file)
    if len(files) > 1:
        content = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_json(directory / INDEX, content)


def own_tensors(model: Decoder) -> dict[str, Tensor]:
    """Parameters and buffers that belong to the model, a tied head once."""
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        del state["lm_head.weight"]
    return state


def on_disk(tensors: Named) -> Named:
    """The same by their name on disk, on the CPU: every expert stands alone (as Hugging Face's)."""
    for name, tensor in tensors:
        for alone, part in _unstacked(name, tensor):
            yield alone, part.detach().cpu().contiguous()


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
    model = Decoder(config_for(directory, tokens))
    stored = StoredWeights(directory, model)
    for name, target in own_tensors(model).items():
        target.copy_(stored.rows(name))
    return model.eval()


def config_for(directory: Path, tokens: int | None = None) -> ModelConfig:
    """The configuration of a directory's model, as `load_model` reads it."""
    config = load_config(directory)
    tokens = tokens or _tokens_beside(directory) or config.vocab_size
    return replace(config, num_tokens=tokens) if tokens < config.vocab_size else config


class StoredWeights:
    """The weights of a model directory, read one at a time, and of each only the rows asked for.

    Args:
        model: that they are for; it may be one on the meta device.

    Raises:
        MiaoError: as `load_model`.
    """

    def __init__(self, directory: Path, model: Decoder):
        self.files: dict[str, Any] = {}
        """The open file of every tensor."""
        for path in (directory / name for name in weights_files(directory)):
            file = open_safetensors(path)
            self.files |= dict.fromkeys(file.keys(), file)
        self.own = {name: tensor.shape for name, tensor in own_tensors(model).items()}
        expected = {
            alone: shape
            for name, whole in self.own.items()
            for alone, shape in self._alone(name, 0, whole[0], whole)
        }
        unasked = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
        found = {
            name: tuple(file.get_slice(name).get_shape())
            for name, file in self.files.items()
            if name not in unasked
        }
        check_tensors(expected, found, directory)

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows `start:stop` (of stacked experts: the experts so numbered) of what the model calls
        `name`."""
        shape = self.own[name]
        stop = shape[0] if stop is None else stop
        if EXPERTS not in name:
            return self.files[name].get_slice(name)[start:stop]
        parts = [self.files[alone].get_tensor(alone) for alone, _ in self._alone(name, start, stop)]
        return torch.stack(parts) if parts else torch.empty(0, *shape[1:])

    @staticmethod
    def _alone(
        name: str, start: int, stop: int, shape: Sequence[int] = ()
    ) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names on disk with their shapes; `mlp.experts.up_proj` is `mlp.experts.0.up_proj.weight`
        and so on."""
        before, experts, kind = name.partition(EXPERTS)
        if not experts:
            yield name, tuple(shape)
            return
        for number in range(start, stop):
            yield f"{before}{EXPERTS}{number}.{kind}.weight", tuple(shape[1:])


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


def write_safetensors(
    tensors: dict[str, Tensor], path: Path, more: dict[str, str] | None = None
) -> None:
    """Writes a file of tensors; use it inside `atomic_directory`.

    Args:
        more: for its header.

    Raises:
        OSError: as of any file. (safetensors hides the system's error in a text, and a full disk
            must be told from a defect.)
    """
    try:
        save_file(tensors, path, metadata={"format": "pt"} | (more or {}))
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
    file = open_safetensors(path)
    return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def open_safetensors(path: Path) -> Any:
    """A file of tensors, closed with its last reader.

    Raises:
        MiaoError: missing or damaged.
    """
    if not path.exists():
        raise MiaoError("the weights file is missing", where=path)
    try:
        return safe_open(path, framework="pt").__enter__()  # closed with its last reference
    except (SafetensorError, OSError, ValueError) as error:
        refuse_lfs_pointer(path)
        raise MiaoError(
            f"the file is damaged: {error}", where=path, fix="restore it from a copy or train again"
        ) from error


def check_tensors(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], directory: Path
) -> None:
    """Raises:
    MiaoError: tensors that are missing, unknown or of the wrong shape.
    """
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
