"""A run directory to look into, made without training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from miao.files import write_text
from miao.model import Decoder, new_config, save_model
from miao.model.directory import own_tensors, write_safetensors
from miao.recipe.reading import load_recipe
from miao.rundir import RunDir
from miao.shards.dataset import Manifest
from miao.shards.write import write_dataset
from miao.tokenizer import Tokenizer

RECIPE = """name: tiny
model: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1,
  head_dim: 16, max_position_embeddings: 64, tie_word_embeddings: true, qk_norm: true}
pretrain: {seq_len: 24, tokens: 1K}
sft: {seq_len: 24}
dpo: {seq_len: 24}
"""


def grown_run(path: Path, tokenizer: Tokenizer) -> RunDir:
    """A run with shards, the model of its pretraining and a checkpoint of its fine-tuning."""
    run = RunDir(path)
    write_text(run.path / "recipe.yaml", RECIPE)
    tokenizer.save(run.tokenizer)
    recipe = load_recipe(run.path / "recipe.yaml")
    model = Decoder(new_config(recipe.model, tokenizer.vocab_size, tokenizer.end_of_turn_id))
    for parameter in model.parameters():
        parameter.data = 0.2 * torch.randn(
            parameter.shape, generator=torch.Generator().manual_seed(1)
        )
    save_model(model, run.model("pretrain"))
    tokenizer.save(run.model("pretrain"))
    step = run.checkpoints("sft") / "step-00000007"
    step.mkdir(parents=True)
    model.model.norm.weight.data += 1
    write_safetensors(own_tensors(model), step / "model.safetensors")
    for stage, kind, split, count in [
        ("pretrain", "document", "train", 9),
        ("pretrain", "document", "heldout", 4),
        ("sft", "conversation", "train", 9),
    ]:
        manifest = Manifest(kind, "some", tokenizer.fingerprint(), tokenizer.vocab_size, "uint16")
        rng = np.random.default_rng(count)
        sequences = []
        for _ in range(count):
            ids = rng.integers(20, tokenizer.vocab_size, int(rng.integers(5, 12)))
            mask = None if kind == "document" else [0] * 3 + [1] * (len(ids) - 3)
            sequences.append((ids, mask, len(ids)))
        write_dataset(run.shards(stage, split) / "some", manifest, sequences)
    return run
