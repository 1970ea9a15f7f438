"""Writes a model as a Hugging Face directory, complete for any program that reads one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from miao.errors import MiaoError
from miao.files import read_json, write_json
from miao.model import Decoder, load_model, save_model
from miao.tokenizer import Tokenizer
from miao.tokenizer.tokenizer import token_text

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.9}
"""Suggested to programs that read generation_config.json, where the model brings nothing else."""
SHARD_BYTES = 5 * 10**9


@dataclass(frozen=True)
class Exported:
    """A model as it was written: its weights are float32 here, but of the values on disk."""

    model: Decoder
    tokenizer: Tokenizer
    rounding: float
    """How far the type on disk moved the logits of the text at most; 0 for float32."""


def write_huggingface(
    source: Path,
    target: Path,
    dtype: str = "bfloat16",
    max_shard_bytes: int = SHARD_BYTES,
) -> Exported:
    """Writes config, weights, tokenizer with its chat template, and generation settings.

    Args:
        source: a model directory. target: an empty directory.
        dtype: of the weights on disk: float32, bfloat16 or float16.
        max_shard_bytes: weights above this are cut into several files with an index.

    Raises:
        MiaoError: a damaged or unsupported model; weights that are not finite, or that float16
            cannot hold; a tokenizer larger than the model's vocabulary.
    """
    model, tokenizer = load_model(source), Tokenizer.from_directory(source)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise MiaoError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model only "
            f"{model.config.vocab_size}",
            where=source,
            fix="put the tokenizer of this model beside it",
        )
    before = _probe(model, tokenizer)
    _round(model, DTYPES[dtype], source)
    rounding = float((_probe(model, tokenizer) - before).abs().max())
    save_model(model, target, DTYPES[dtype], max_shard_bytes)
    tokenizer.save(target, model_max_length=model.config.context_length)
    settings = _generation_settings(source, tokenizer)
    write_json(target / "generation_config.json", settings)
    return Exported(model, tokenizer, rounding)


def _round(model: Decoder, dtype: torch.dtype, where: Path) -> None:
    """Gives every weight the value that it has on disk."""
    for name, parameter in model.named_parameters():
        largest = float(parameter.detach().abs().max()) if parameter.numel() else 0.0
        if not largest < float("inf"):
            raise MiaoError(
                f"{name} holds values that are not finite",
                where=where,
                fix="export an earlier checkpoint: this one is broken",
            )
        if largest > torch.finfo(dtype).max:
            raise MiaoError(
                f"{name} holds {largest:g}, which {str(dtype).removeprefix('torch.')} cannot",
                where=where,
                fix="use --dtype bfloat16 or --dtype float32",
            )
        parameter.data.copy_(parameter.data.to(dtype))


@torch.inference_mode()
def _probe(model: Decoder, tokenizer: Tokenizer) -> torch.Tensor:
    ids = tokenizer.encode("苗在长大。The seedling grew a little every day.")
    return model(torch.tensor([ids[: model.config.context_length]]))


def _generation_settings(source: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """The model's own settings, with every token that ends an answer; else sensible ones."""
    file = source / "generation_config.json"
    own = {k: v for k, v in (read_json(file) if file.is_file() else {}).items() if v is not None}
    sampling = {} if "do_sample" in own or "temperature" in own else SAMPLING
    named = read_json(source / "tokenizer_config.json")
    ids: dict[str, Any] = {"eos_token_id": list(tokenizer.stop_ids)}
    for role in ("bos", "pad"):
        text = token_text(named.get(f"{role}_token"))
        id = None if text is None else tokenizer.token_to_id(text)
        if id is not None:
            ids[f"{role}_token_id"] = id
    ids.setdefault("pad_token_id", tokenizer.document_boundary_id)
    return sampling | own | ids
