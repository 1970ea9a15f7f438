"""What the benchmarks train on: token shards of your records, of the built-in corpus, or random
ones of given lengths; and the shapes that are trained."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT
from numpy.typing import NDArray

sys.path.insert(0, str(ROOT))

from miao.model import ModelConfig
from miao.shards.dataset import Manifest
from miao.shards.write import write_dataset

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 32, "intermediate_size": 128,
    },
    "1m": {
        "vocab_size": 6400, "hidden_size": 192, "num_hidden_layers": 3, "num_attention_heads": 3,
        "num_key_value_heads": 1, "head_dim": 64, "intermediate_size": 512,
    },
    "6m": {
        "vocab_size": 6400, "hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 704,
    },
    "27m": {
        "vocab_size": 6400, "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 64, "intermediate_size": 1408,
    },
}  # fmt: skip
"""Qwen3 shapes for CPUs; on a GPU the presets of `miao model list` are used."""


@dataclass
class Material:
    """Token shards, and the tokenizer that made them."""

    train: list[str]
    heldout: list[str]
    tokenizer: str | None


def shape(name: str, seq_len: int) -> dict[str, Any]:
    """Fields of the `ModelConfig` of a shape or a preset, with room for rows of `seq_len`."""
    if name in SHAPES:
        fields: dict[str, Any] = dict(SHAPES[name])
    else:
        from miao.model.presets import preset

        fields = asdict(preset(name).config)
    fields["max_position_embeddings"] = max(seq_len, fields.get("max_position_embeddings", 0))
    ModelConfig(**fields)
    return fields


def built_shards(
    directory: Path,
    kind: str,
    vocab_size: int,
    paths: list[str],
    quick: bool = False,
    more: Sequence[str] = (),
) -> Material:
    """Shards of `kind` ("documents" or "conversations") by `miao shards`; `paths` empty: of the
    built-in corpus. `more`: words for the command."""
    stage = {"documents": "pretrain", "conversations": "sft"}[kind]
    seedbed = (
        {"characters": "40K", "conversations": 200, "preferences": 10}
        if quick
        else {"characters": "4M", "conversations": 12_000, "preferences": 10}
    )
    words = [f"--corpus.seedbed.{key}={value}" for key, value in seedbed.items()]
    if paths:
        key = {"documents": "paths", "conversations": "conversations"}[kind]
        listed = ", ".join(str(Path(path).resolve()) for path in paths)
        words += [f"--corpus.{key}=[{listed}]", "--corpus.skip_bad_records=true"]
    recipe = directory / "bench.yaml"
    recipe.write_text("name: bench\n", encoding="utf-8")
    subprocess.run(
        [
            sys.executable, "-m", "miao", "shards", str(recipe), f"--out_dir={directory}",
            f"--tokenizer.vocab_size={vocab_size}", "--tokenizer.sample=10M", *words, *more,
        ],
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    shards = directory / "bench" / "shards" / stage
    return Material(
        [str(path) for path in sorted((shards / "train").glob("*/"))],
        [str(path) for path in sorted((shards / "heldout").glob("*/"))],
        str(directory / "bench" / "tokenizer"),
    )


def random_shards(directory: Path, vocab_size: int, lengths: Iterable[int]) -> Material:
    """Documents of random tokens; their lengths count predictions, one less than tokens."""
    rng = np.random.default_rng(0)
    dtype = "uint16" if vocab_size <= 2**16 else "uint32"
    sequences = (
        (rng.integers(0, vocab_size, length + 1), None, 4 * (length + 1)) for length in lengths
    )
    write_dataset(directory, Manifest("document", "random", "none", vocab_size, dtype), sequences)
    return Material([str(directory)], [], None)


def chat_lengths(count: int, mean: float = 340.0, longest: int = 2048) -> list[int]:
    """Lengths like those of real conversations: log-normal, few long ones among many short."""
    sigma = 0.8
    values = np.random.default_rng(0).lognormal(np.log(mean) - sigma**2 / 2, sigma, count)
    return [int(value) for value in np.clip(values, 16, longest)]


def document_numbers(rows: int, length: int) -> NDArray[np.int64]:
    """Rows filled with short documents, each slot with the number of its document, from 1."""
    mean = min(340.0, length / 3)
    count = 4 + 4 * int(rows * length / mean) + rows
    numbers = np.repeat(np.arange(count), chat_lengths(count, mean, longest=length))
    flat = numbers[: rows * length].reshape(rows, length)
    return flat - flat[:, :1] + 1
