"""Whole stages of every kind, so small that they take a moment; for one process or for several."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partialmethod
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from miao.model import Decoder, ModelConfig, save_model
from miao.recipe import DpoOptions, GrpoOptions, Parallelism, Recipe, SftOptions
from miao.recipe.grpo import ArithmeticOptions
from miao.recipe.stages import AdapterOptions, TeacherOptions
from miao.rundir import RunDir
from miao.shards.dataset import Manifest
from miao.shards.write import write_dataset
from miao.tokenizer import Tokenizer
from miao.train.distributed.choice import make_parallel
from miao.train.distributed.world import World
from miao.train.stage import train_stage
from tests.train.shared_cases import Case, model_of
from tests.train.tiny import options

SEQ_LEN = 48
COMMON: dict[str, Any] = {
    "seq_len": SEQ_LEN, "batch_tokens": 7 * SEQ_LEN, "micro_batch": 2, "learning_rate": 5e-3,
    "save_every": 0, "eval_every": 0.5, "sample_every": 0, "log_every": 1, "warmup": 0,
    "precision": "fp32", "compile": "off", "enabled": True,
}  # fmt: skip


@dataclass
class Whole:
    """A stage to train.

    Args:
        kind: sft, dpo or grpo. options: of the stage; adapter and teacher as their classes.
    """

    kind: str
    tokenizer: Path
    base: Path
    parallel: Parallelism = "fsdp"
    options: dict[str, Any] = field(default_factory=dict)
    machines: int = 1


def random_model(tokenizer: Tokenizer, directory: Path, seed: int, **shape: Any) -> Path:
    """A model directory with its tokenizer."""
    config = {"num_hidden_layers": 2, "hidden_size": 32, **shape}
    fixed = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    more = {"intermediate_size": 48, "max_position_embeddings": 128}
    model = Decoder(ModelConfig(tokenizer.vocab_size, **config, **fixed, **more))
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        values = torch.randn(parameter.shape, generator=generator)
        parameter.data = 1 + 0.1 * values if parameter.ndim == 1 else 0.15 * values
    save_model(model, directory)
    tokenizer.save(directory, model_max_length=128)
    return directory


def ready(run: RunDir, case: Whole) -> Recipe:
    """The recipe; the run's shards are written where they are not there yet."""
    chosen: dict[str, Any] = COMMON | case.options
    recipe = Recipe(name="spread", device="cpu", seed=3, parallel=case.parallel)
    recipe.model.path = str(case.base)
    if case.kind == "grpo":
        recipe.grpo = GrpoOptions(
            **{
                "arithmetic": ArithmeticOptions(count=12), "heldout": 3, "prompts_per_rollout": 5,
                "group_size": 3, "max_new_tokens": 6, "rewards": {"tests.train.grpo_cases:ascii_share": 1.0}, "tokens": 700,
                "seq_len": 64, **{k: v for k, v in chosen.items() if k != "seq_len"}, "learning_rate": 5e-4,
            }
        )  # fmt: skip
        return recipe
    kinds = {"sft": ("conversation", SftOptions), "dpo": ("preference", DpoOptions)}
    kind, options = kinds[case.kind]
    setattr(recipe, case.kind, options(**{"tokens": 1800, **chosen}))
    getattr(recipe, case.kind).replay = 0.0
    size = Tokenizer.from_directory(case.tokenizer).vocab_size
    generator = torch.Generator().manual_seed(2)
    lengths = torch.randint(4, 20, (80,), generator=generator).tolist()
    rows = []
    for length in lengths:
        ids = torch.randint(0, size, (length,), generator=generator).tolist()
        rows.append((ids, [False, False] + [True] * (length - 2), 1))
    place = run.shards(case.kind, "train") / "made"
    if not place.exists():
        write_dataset(place, Manifest(kind, "made", "none", size, "uint16"), rows)
    return recipe


def train_whole(world: World, case: Whole, directory: Path) -> dict[str, Any]:
    """Trains the stage in `directory`, with `train_stage`."""
    run = RunDir(directory)
    with world.main_first():
        recipe = ready(run, case)
    world.local_size = world.size // case.machines
    tokenizer = Tokenizer.from_directory(case.tokenizer)
    # As the compiler sees it, without machine code.
    plain = partialmethod(torch.nn.Module.compile, backend="aot_eager")
    torch.manual_seed(0)
    with patch.object(torch.nn.Module, "compile", plain):
        result = train_stage(case.kind, recipe, run, tokenizer, case.base, "mark", world)
    return {"steps": result.steps}


def muon_beside_torch(world: World) -> tuple[float, int, int]:
    """Two steps of a spread model, and of a whole one by `torch.optim.Muon`: the largest
    difference of a matrix, the exchanges of one step, and the different shapes."""
    model, whole = model_of(Case([])), model_of(Case([]))
    chosen = options(muon_learning_rate=0.02, weight_decay=0.1)
    parallel = make_parallel("fsdp", model, chosen, world)
    parallel.optimizer.orthogonalizer.dtype = torch.float32
    matrices = {n: p for n, p in whole.named_parameters() if ".layers." in n and p.ndim == 2}
    theirs = torch.optim.Muon(
        matrices.values(), lr=0.02, weight_decay=0.1, momentum=chosen.muon_momentum, nesterov=True
    )
    ids = torch.arange(40).view(2, 20)
    exchange = torch.distributed.all_to_all_single
    for _ in range(2):
        parallel.forget_gradients()
        whole.zero_grad()
        whole(ids, labels_bt=ids, output="loss").backward()
        loss = parallel.module(ids, labels_bt=ids, output="loss")
        parallel.backward(loss / world.size, last=True)
        with patch.object(torch.distributed, "all_to_all_single", wraps=exchange) as counted:
            parallel.step()
        with patch.object(torch.Tensor, "bfloat16", torch.Tensor.clone):  # it knows no other type
            theirs.step()
        for name, weight in parallel.weights():
            if name not in matrices:  # AdamW's
                whole.get_parameter(name).data.copy_(weight)
    difference = max(
        float((weight - matrices[name]).abs().max())
        for name, weight in parallel.weights()
        if name in matrices
    )
    return difference, counted.call_count, len({m.shape for m in matrices.values()})


__all__ = [
    "AdapterOptions",
    "TeacherOptions",
    "Whole",
    "muon_beside_torch",
    "random_model",
    "train_whole",
]
