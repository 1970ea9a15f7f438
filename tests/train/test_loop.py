"""The loop: accumulation equals one batch, and a killed run continues to the bit."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from miao.errors import Interrupted, MiaoError
from miao.files import read_jsonl
from miao.model import Decoder
from miao.shards import Batch, TokenDataset
from miao.train.loop import Trainer
from tests.model.shapes import LATENT, SIGMOID
from tests.train.tiny import assert_same_bits, curve, stop_after, trainer, weights


def test_the_loss_falls(sources: list[TokenDataset], tmp_path: Path) -> None:
    trained = trainer(sources, tmp_path, tokens=20_000)
    trained.run()
    losses = [line["loss"] for line in read_jsonl(tmp_path / "metrics.jsonl")]
    assert abs(losses[0] - math.log(97)) < 0.3
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("micro_batch", [1, 3, 8])
def test_accumulation_equals_one_batch(
    sources: list[TokenDataset], tmp_path: Path, micro_batch: int
) -> None:
    """However a step's rows are cut, the gradient is that of the mean over all real tokens."""
    cut = trainer(sources, tmp_path / "cut", micro_batch=micro_batch)
    rows = cut.loader.batch(cut.loader.next_rows(8))
    cut.gradients.of(rows)
    whole = trainer(sources, tmp_path / "whole", micro_batch=8).model
    labels = rows.labels_bt
    logits = whole(rows.ids_bt, rows.positions_bt, rows.segments_bt)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
    total = torch.nn.utils.clip_grad_norm_(whole.parameters(), 1.0)
    assert float(total) > 0
    for (name, ours), truth in zip(cut.model.named_parameters(), whole.parameters(), strict=True):
        assert ours.grad is not None and truth.grad is not None
        torch.testing.assert_close(ours.grad, truth.grad, atol=2e-6, rtol=1e-4, msg=name)


def test_labels_are_counted_once(
    sources: list[TokenDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    count = Batch.trained_tokens.fget
    assert count is not None

    def counting(batch: Batch) -> int:
        counted.append(len(batch.ids_bt))
        return count(batch)

    running = trainer(sources, tmp_path, micro_batch=3)
    rows = running.loader.batch(running.loader.next_rows(8))
    monkeypatch.setattr(Batch, "trained_tokens", property(counting))
    running.gradients.of(rows)
    assert counted == [3, 3, 2]


def test_interrupted_and_resumed_equals_never_stopped(
    sources: list[TokenDataset], tmp_path: Path
) -> None:
    whole = trainer(sources, tmp_path / "whole")
    result = whole.run()
    assert len(curve(tmp_path / "whole")) > 6
    for steps in (1, 5, 9):
        directory = tmp_path / str(steps)
        stopped = trainer(sources, directory)
        stop_after(stopped, steps)
        with pytest.raises(Interrupted) as stop:
            stopped.run()
        assert stop.value.exit_code == 143
        assert stopped.step == steps
        resumed = trainer(sources, directory, seed=1)
        assert resumed.run().steps == result.steps
        assert_same_bits(whole.model, resumed.model)
        assert curve(tmp_path / "whole") == curve(directory)


def test_experts_and_their_balance_resume_to_the_bit(
    sources: list[TokenDataset], tmp_path: Path, make_model: Callable[..., Decoder]
) -> None:
    """Routing bias, loads and loss sums between two log lines are part of a checkpoint."""
    shape = LATENT | SIGMOID
    few: dict[str, Any] = {"tokens": 2600, "log_every": 5}
    whole = trainer(sources, tmp_path / "whole", make_model(**shape), **few)
    whole.run()
    stopped = trainer(sources, tmp_path / "stopped", make_model(**shape), **few)
    stop_after(stopped, 7)
    with pytest.raises(Interrupted):
        stopped.run()
    resumed = trainer(sources, tmp_path / "stopped", make_model(1, **shape), **few)
    resumed.run()
    assert_same_bits(whole.model, resumed.model)
    assert any("expert_load" in line for line in curve(tmp_path / "whole"))
    assert curve(tmp_path / "whole") == curve(tmp_path / "stopped")
    biases = [v for k, v in weights(whole.model).items() if "correction_bias" in k]
    assert len({float(v.std()) for v in biases}) == len(biases) > 1


def test_random_states_are_resumed(sources: list[TokenDataset], tmp_path: Path) -> None:
    """An objective that draws from torch, numpy and python goes on with the same draws."""

    def noisy(directory: Path, seed: int = 0) -> Trainer:
        made = trainer(sources, directory, seed=seed)
        plain = made.gradients.objective.loss

        def loss(model: Any, batch: Batch) -> Any:
            value, sums = plain(model, batch)
            scale = 1 + 0.1 * (float(torch.rand(())) + np.random.rand() + random.random())
            return value * scale, sums

        made.gradients.objective = SimpleNamespace(  # type: ignore[assignment]
            loss=loss, weight=made.gradients.objective.weight
        )
        torch.manual_seed(3), np.random.seed(3), random.seed(3)
        return made

    whole, stopped = noisy(tmp_path / "whole"), None
    whole.run()
    stopped = noisy(tmp_path / "stopped")
    stop_after(stopped, 5)
    with pytest.raises(Interrupted):
        stopped.run()
    resumed = noisy(tmp_path / "stopped", seed=1)
    resumed.run()
    assert_same_bits(whole.model, resumed.model)


@pytest.mark.parametrize("kind", ["dense", "experts"])
def test_out_of_memory_halves_the_micro_batch_and_leaves_no_trace(
    sources: list[TokenDataset],
    tmp_path: Path,
    make_model: Callable[..., Decoder],
    kind: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shape = LATENT | SIGMOID if kind == "experts" else {}
    few: dict[str, Any] = {"tokens": 2000}
    small = trainer(sources, tmp_path / "small", make_model(**shape), micro_batch=2, **few)
    small.run()
    short = trainer(sources, tmp_path / "short", make_model(**shape), micro_batch=4, **few)
    plain, calls = short.gradients.objective.loss, 0

    def loss(model: Any, batch: Batch) -> Any:
        nonlocal calls
        calls += 1
        value = plain(model, batch)
        if calls == 2:  # the first micro-batch of the step has left its gradient
            raise torch.OutOfMemoryError("CUDA out of memory")
        return value

    short.gradients.objective = SimpleNamespace(  # type: ignore[assignment]
        loss=loss, weight=short.gradients.objective.weight
    )
    stop_after(short, 3)
    with pytest.raises(Interrupted):
        short.run()
    assert "going on with micro_batch 2" in capsys.readouterr().out
    resumed = trainer(sources, tmp_path / "short", make_model(1, **shape), micro_batch=4, **few)
    resumed.run()
    assert resumed.gradients.micro_batch == 2
    assert_same_bits(small.model, resumed.model)
    assert curve(tmp_path / "small") == curve(tmp_path / "short")


def test_out_of_memory_with_a_single_row_is_an_error(
    sources: list[TokenDataset], tmp_path: Path
) -> None:
    short = trainer(sources, tmp_path, micro_batch=2)

    def loss(model: Any, batch: Batch) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    short.gradients.objective = SimpleNamespace(  # type: ignore[assignment]
        loss=loss, weight=short.gradients.objective.weight
    )
    with pytest.raises(MiaoError, match=r"single row[\s\S]*seq_len"):
        short.run()


def test_a_finished_stage_that_is_begun_again_does_nothing(
    sources: list[TokenDataset], tmp_path: Path
) -> None:
    """Killed between its last checkpoint and the model directory: same result, same lines."""
    first = trainer(sources, tmp_path, log_every=7).run()
    before = curve(tmp_path)
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "checkpoints").rglob("*")}
    again = trainer(sources, tmp_path, log_every=7).run()
    assert (again.loss, again.steps, again.tokens) == (first.loss, first.steps, first.tokens)
    assert curve(tmp_path) == before
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "checkpoints").rglob("*")} == files
