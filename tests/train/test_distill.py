"""Distillation within the loop: it beats plain training, and refuses teachers that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from miao.errors import MiaoError
from miao.model import Decoder, save_model
from miao.ops.linear_distillation import linear_distillation_reference
from miao.recipe.stages import TeacherOptions
from miao.shards import PackedLoader, PackedSource, TokenDataset
from miao.tokenizer import Tokenizer, train_tokenizer
from miao.train.objectives import DistillObjective, LanguageObjective
from miao.train.prepare import load_teacher
from tests.conftest import SENTENCES
from tests.train.tiny import trainer


def written_by(model: Decoder, count: int, seed: int) -> list[list[int]]:
    """Sequences of 24 tokens that the model says at temperature 1."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(97, (count, 1), generator=generator)
    with torch.no_grad():
        for _ in range(23):
            probabilities = model(ids)[:, -1].softmax(-1)
            ids = torch.cat((ids, torch.multinomial(probabilities, 1, generator=generator)), 1)
    return ids.tolist()


@pytest.mark.parametrize("kl", ["forward", "reverse"])
def test_loss_equals_the_plain_computation_on_packed_rows(
    kl: Any, make_model: Callable[..., Decoder], make_dataset: Callable[..., TokenDataset]
) -> None:
    teacher, model = make_model(1, hidden_size=48), make_model(0)
    sequences = written_by(teacher, 5, seed=1)
    masks = [[False] * 9 + [True] * 15] * 5
    dataset = make_dataset(sequences, "conversation", masks, vocab_size=97)
    (batch,) = PackedLoader([PackedSource("talk", dataset, 60, seed=0)], 60).one_pass(9)
    objective = DistillObjective(TeacherOptions(None, 0.4, 1.7, kl), teacher, model)
    assert objective.weight(batch) == 5 * 15
    loss, metrics = objective.loss(model, batch)
    expected = torch.zeros(())
    for ids, mask in zip(sequences, masks, strict=True):
        labels = torch.tensor(ids[1:]).where(torch.tensor(mask[1:]), -100)
        inputs = torch.tensor([ids[:-1]])
        own, other = (m(inputs, output="hidden")[0] for m in (model, teacher))
        expected = expected + linear_distillation_reference(
            own, model.lm_head.weight, labels, other, teacher.lm_head.weight, objective.mixture
        )
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-3)
    assert float(metrics["teacher_kl"]) > 0
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_distillation_beats_plain_training_on_the_same_tokens(
    make_model: Callable[..., Decoder], make_dataset: Callable[..., TokenDataset], tmp_path: Path
) -> None:
    teacher = make_model(1)
    dataset = make_dataset(written_by(teacher, 40, seed=1), vocab_size=97, name="train")
    heldout = torch.tensor(written_by(teacher, 60, seed=2))
    losses = {}
    for name in ("plain", "distilled"):
        student = trainer([dataset], tmp_path / name, tokens=6_000)
        if name == "distilled":
            student.gradients.objective = DistillObjective(
                TeacherOptions(weight=0.9), teacher, student.model
            )
        else:
            assert isinstance(student.gradients.objective, LanguageObjective)
        student.run()
        with torch.no_grad():
            logits = student.model.eval()(heldout[:, :-1])
            losses[name] = float(
                torch.nn.functional.cross_entropy(logits.flatten(0, 1), heldout[:, 1:].flatten())
            )
    assert losses["distilled"] < losses["plain"] - 0.05, losses


def test_teachers_that_do_not_fit_are_refused(
    make_model: Callable[..., Decoder], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    size = tokenizer.vocab_size
    student = make_model(0, vocab_size=size)
    other = train_tokenizer(SENTENCES[3:] * 2, vocab_size=size)
    larger = train_tokenizer(SENTENCES * 2, vocab_size=size + 8)
    cases = [("good", size, tokenizer), ("sizes", size + 8, larger), ("pieces", size, other)]
    cases.append(("padded", size + 24, tokenizer))  # rows that are no tokens
    for name, vocab_size, its_tokenizer in cases:
        save_model(make_model(1, vocab_size=vocab_size), tmp_path / name)
        its_tokenizer.save(tmp_path / name, model_max_length=64)
    teacher = load_teacher(tmp_path / "good", student, tokenizer, 64)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert load_teacher(tmp_path / "padded", student, tokenizer, 64).config.tokens == size
    with pytest.raises(MiaoError, match="another tokenizer"):
        load_teacher(tmp_path / "pieces", student, tokenizer, 64)
    with pytest.raises(MiaoError, match=f"{size + 8} tokens"):
        load_teacher(tmp_path / "sizes", student, tokenizer, 64)
    with pytest.raises(MiaoError, match="reads 64 tokens"):
        load_teacher(tmp_path / "good", student, tokenizer, 65)
