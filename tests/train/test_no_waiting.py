"""A step on a GPU asks for no number and sends nothing that the host would wait for, from the first
forward pass to the update. Shown without a GPU, on a device that never answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from miao.model import decoder
from miao.ops import experts
from miao.recipe import DpoOptions, GrpoOptions
from miao.recipe.stages import AdapterOptions, TeacherOptions
from miao.shards import PackedLoader, PackedSource, TokenDataset
from miao.shards.answers import LabelledAnswers
from miao.shards.loader import Batch
from miao.train.adapters import add_adapter
from miao.train.objectives import (
    GrpoObjective,
    KtoObjective,
    LanguageObjective,
    Objective,
    PreferenceObjective,
)
from miao.train.objectives.distill import DistillObjective
from miao.train.objectives.grpo import RolloutBatch
from miao.train.objectives.noise import EmbeddingNoise
from tests.engine.pieces import EXPERTS, LATENT
from tests.on_meta import NothingOfTheHost, model_on_meta, send
from tests.train import tiny

SHAPES: dict[str, dict[str, Any]] = {
    "dense": {},
    "latent attention": LATENT,
    "experts": EXPERTS,
    "sigmoid experts": EXPERTS | {"scoring_func": "sigmoid", "n_shared_experts": 1},
}


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ways that a GPU takes: its kernel of attention, products of groups."""
    monkeypatch.setattr(decoder, "has_varlen", lambda device, dtype, dim: True)
    monkeypatch.setattr(experts, "_grouped_mm_takes", lambda x, weights: True)
    for user in ("shards.batch", "train.objectives.preference", "train.objectives.kto"):
        monkeypatch.setattr(f"miao.{user}.send", send)
    norm = torch.nn.utils.get_total_norm  # on "meta" it knows the slow way only
    monkeypatch.setattr(
        torch.nn.utils, "get_total_norm", lambda tensors, foreach: norm(tensors, foreach=False)
    )


@pytest.mark.parametrize("varlen", [True, False])
@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_a_step_of_pretraining(
    changes: dict[str, Any],
    checkpointing: bool,
    varlen: bool,
    sources: list[TokenDataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoder, "has_varlen", lambda device, dtype, dim: varlen)
    layers = 2 if checkpointing and varlen else 1  # what is alike in all layers is seen in one
    model = model_on_meta(**changes, num_hidden_layers=layers)
    model.set_activation_checkpointing(checkpointing)
    trainer = tiny.trainer(sources, tmp_path, model)
    for _ in range(2):
        rows = trainer.loader.batch(trainer.loader.next_rows(trainer.rows_per_step))
        with NothingOfTheHost():
            trainer._train_step(rows, 0.0)
    assert trainer.step == 2


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_the_compiler_sees_one_graph(changes: dict[str, Any]) -> None:
    model = model_on_meta(**changes, num_hidden_layers=1)  # every block is compiled alike
    torch._dynamo.reset()
    counters.clear()
    model.model.compile(dynamic=False, backend="aot_eager")
    ids_bt = torch.zeros(2, 32, dtype=torch.int64, device="meta")
    starts_n = torch.zeros(257, dtype=torch.int32, device="meta")
    for _ in range(2):
        loss = model(ids_bt, ids_bt, ids_bt, labels_bt=ids_bt, starts_n=starts_n, output="loss")
        loss.backward()
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]


def test_a_step_with_a_loss_scale(sources: list[TokenDataset], tmp_path: Path) -> None:
    trainer = tiny.trainer(sources, tmp_path, model_on_meta(torch.float16))
    assert trainer.gradients.scaler is not None
    rows = trainer.loader.batch(trainer.loader.next_rows(trainer.rows_per_step))
    with NothingOfTheHost():
        trainer._train_step(rows, 0.0)


def pairs(make_dataset: Callable[..., TokenDataset]) -> TokenDataset:
    sides = [[*range(n, n + 4 + n % 3)] for n in range(1, 41)]
    masks = [[False] * 2 + [True] * (len(ids) - 2) for ids in sides]
    return make_dataset(sides, "preference", masks, vocab_size=97)


def batch_of(source: PackedSource, reference: bool = False) -> Batch:
    if reference:
        source.reference = np.zeros(int(source.dataset.lengths.sum()), dtype=np.float32)
    (batch,) = PackedLoader([source], tiny.SEQ_LEN).one_pass(99)
    return batch


def pass_of(objective: Objective, batch: Batch, model: Any) -> None:
    with NothingOfTheHost():
        loss, _ = objective.loss(
            model, batch.to(model.device, batch.document_places if model.has_varlen else None)
        )
        (loss / objective.weight(batch)).backward()
    assert all(p.grad is not None and p.grad.is_meta for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "simpo", "orpo"])
def test_pairs(loss: Any, make_dataset: Callable[..., TokenDataset]) -> None:
    batch = batch_of(PackedSource("pairs", pairs(make_dataset), tiny.SEQ_LEN, seed=0), True)
    pass_of(PreferenceObjective(DpoOptions(loss=loss, sft_weight=0.1)), batch, model_on_meta())


def test_single_answers(make_dataset: Callable[..., TokenDataset]) -> None:
    view = LabelledAnswers(pairs(make_dataset), seed=1)
    batch = batch_of(PackedSource("pairs", view, tiny.SEQ_LEN, seed=0), True)
    objective = KtoObjective(DpoOptions(loss="kto", sft_weight=0.1), {"pairs": view.desirable})
    _, rows = objective.divide(batch)
    pass_of(objective, rows, model_on_meta())


def test_rewarded_answers(sources: list[TokenDataset]) -> None:
    batch = batch_of(PackedSource("said", sources[0], tiny.SEQ_LEN, seed=0))
    numbers = torch.ones(batch.ids_bt.shape)
    names = ("advantages_bt", "shares_bt", "scales_bt", "old_bt", "reference_bt")
    rollouts = RolloutBatch(**vars(batch) | dict.fromkeys(names, numbers))
    model = model_on_meta()
    pass_of(GrpoObjective(GrpoOptions(kl_coef=0.1), model, {"reward": 0.5}), rollouts, model)


def test_a_teacher_noise_and_an_adapter(sources: list[TokenDataset]) -> None:
    batch = batch_of(PackedSource("said", sources[0], tiny.SEQ_LEN, seed=0))
    model, teacher = model_on_meta(), model_on_meta(hidden_size=48).requires_grad_(False)
    pass_of(DistillObjective(TeacherOptions(), teacher, model), batch, model)
    model = model_on_meta()
    pass_of(LanguageObjective(EmbeddingNoise(model, 5.0)), batch, model)
    model = model_on_meta()
    add_adapter(model, AdapterOptions("lora", dropout=0.1), Path("base"), seed=0)
    pass_of(LanguageObjective(), batch, model)
