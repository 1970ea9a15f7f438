"""The loop: accumulation equals one batch, and a killed run continues to the bit."""

from __future__ import annotations

import math
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from miao.errors import Interrupted, MiaoError
from miao.files import read_jsonl
from miao.model import Decoder, ModelConfig
from miao.recipe import PretrainOptions
from miao.shards import Batch, PackedLoader, PackedSource, TokenDataset
from miao.train.checkpoint import list_checkpoints
from miao.train.loop import Trainer
from miao.train.metrics import MetricsLog
from miao.train.objectives import LanguageObjective

SEQ_LEN = 32


@pytest.fixture
def sources(make_dataset: Callable[..., TokenDataset]) -> list[TokenDataset]:
    generator = torch.Generator().manual_seed(1)

    def documents(count: int) -> list[list[int]]:
        lengths = torch.randint(3, 60, (count,), generator=generator).tolist()
        return [torch.randint(0, 97, (n,), generator=generator).tolist() for n in lengths]

    return [
        make_dataset(documents(60), name="first", vocab_size=97),
        make_dataset(documents(40), name="second", vocab_size=97),
    ]


def options(**changes: Any) -> PretrainOptions:
    values: dict[str, Any] = {
        "tokens": 4000, "seq_len": SEQ_LEN, "batch_tokens": 8 * SEQ_LEN, "micro_batch": 4,
        "save_every": 600, "log_every": 2, "eval_every": 0, "sample_every": 0, "keep_last": 3,
    }  # fmt: skip
    return PretrainOptions(**values | changes)


def trainer(
    sources: list[TokenDataset], directory: Path, model: Decoder | None = None, **changes: Any
) -> Trainer:
    if model is None:
        model = Decoder(ModelConfig(97, 32, 2, 2, 1, 16, 48, max_position_embeddings=64))
        model.initialize(0)
    packed = [PackedSource(d.manifest.source, d, SEQ_LEN, seed=5) for d in sources]
    chosen = options(**changes)
    return Trainer(
        "pretrain",
        chosen,
        model,
        PackedLoader(packed, SEQ_LEN, window_rows=16),
        LanguageObjective(),
        float(chosen.tokens or 0),
        directory / "checkpoints",
        MetricsLog(directory / "metrics.jsonl", "pretrain"),
        peak_flops=1e12,
    )


def weights(model: Decoder) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_same_bits(left: Decoder, right: Decoder) -> None:
    other = weights(right)
    for name, value in weights(left).items():
        assert torch.equal(value, other[name]), name


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
    cut._accumulate(rows)
    whole = trainer(sources, tmp_path / "whole", micro_batch=8).model
    labels = rows.labels_bt
    logits = whole(rows.ids_bt, rows.positions_bt, rows.segments_bt)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
    total = torch.nn.utils.clip_grad_norm_(whole.parameters(), 1.0)
    assert float(total) > 0
    for (name, ours), truth in zip(cut.model.named_parameters(), whole.parameters(), strict=True):
        assert ours.grad is not None and truth.grad is not None
        torch.testing.assert_close(ours.grad, truth.grad, atol=2e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("stop_after", [1, 5, 9])
def test_interrupted_and_resumed_equals_never_stopped(
    sources: list[TokenDataset], tmp_path: Path, stop_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trainer(sources, tmp_path / "whole")
    result = whole.run()

    stopped = trainer(sources, tmp_path / "stopped")
    step = stopped._train_step

    def train_and_interrupt(rows: Batch, waited: float) -> None:
        step(rows, waited)
        if stopped.step == stop_after:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(stopped, "_train_step", train_and_interrupt)
    with pytest.raises(Interrupted) as stop:
        stopped.run()
    assert stop.value.exit_code == 143
    assert stopped.step == stop_after
    resumed = trainer(sources, tmp_path / "stopped")
    assert resumed.run().steps == result.steps
    assert_same_bits(whole.model, resumed.model)

    def curve(name: str) -> list[tuple[int, float]]:
        lines = read_jsonl(tmp_path / name / "metrics.jsonl")
        return [(line["step"], line["grad_norm"]) for line in lines]

    shared = dict(curve("whole")).keys() & dict(curve("stopped")).keys()
    assert len(shared) > 3
    for at in shared:
        assert dict(curve("whole"))[at] == dict(curve("stopped"))[at]


def test_a_resume_from_any_checkpoint_equals_never_stopped(
    sources: list[TokenDataset], tmp_path: Path
) -> None:
    """What a SIGKILL leaves behind is some checkpoint; each leads to the same end."""
    whole = trainer(sources, tmp_path / "whole", keep_last=99)
    whole.run()
    checkpoints = list_checkpoints(tmp_path / "whole" / "checkpoints")
    assert len(checkpoints) >= 5
    for checkpoint in checkpoints[:-1]:
        directory = tmp_path / checkpoint.name
        shutil.copytree(checkpoint, directory / "checkpoints" / checkpoint.name)
        resumed = trainer(sources, directory)
        resumed.run()
        assert_same_bits(whole.model, resumed.model)


def test_a_damaged_checkpoint_is_passed_over(
    sources: list[TokenDataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = trainer(sources, tmp_path)
    whole.run()
    newest = list_checkpoints(tmp_path / "checkpoints")[-1] / "optimizer.safetensors"
    content = bytearray(newest.read_bytes())
    content[-20] ^= 1
    newest.write_bytes(content)
    resumed = trainer(sources, tmp_path)
    resumed.run()
    assert "damaged" in capsys.readouterr().out
    assert_same_bits(whole.model, resumed.model)


def test_all_checkpoints_damaged_is_an_error(sources: list[TokenDataset], tmp_path: Path) -> None:
    trainer(sources, tmp_path).run()
    for checkpoint in list_checkpoints(tmp_path / "checkpoints"):
        (checkpoint / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(MiaoError, match="no checkpoint can be read"):
        trainer(sources, tmp_path).run()


def test_a_gradient_that_is_not_finite_is_skipped_and_named(
    sources: list[TokenDataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poisoned = trainer(sources, tmp_path)
    before = weights(poisoned.model)
    objective = poisoned.objective.loss

    def poison(model: Any, batch: Batch) -> Any:
        loss, metrics = objective(model, batch)
        return loss * math.nan, metrics

    poisoned.objective.loss = poison  # type: ignore[method-assign]
    with pytest.raises(MiaoError, match="not finite"):
        poisoned.run()
    assert "first sequence" in capsys.readouterr().out
    for name, value in weights(poisoned.model).items():
        assert torch.equal(value, before[name])


def test_the_disk_filling_up_keeps_the_older_checkpoints(
    sources: list[TokenDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = trainer(sources, tmp_path)
    saves = 0

    def save_file(tensors: Any, path: Path, **more: Any) -> None:
        nonlocal saves
        saves += 1
        Path(path).write_bytes(b"half")
        if saves > 2:
            raise OSError(28, "No space left on device")
        original(tensors, path, **more)

    from miao.train import checkpoint

    original = checkpoint.save_file
    monkeypatch.setattr(checkpoint, "save_file", save_file)
    with pytest.raises(MiaoError, match="disk is full"):
        filled.run()
    (kept,) = (tmp_path / "checkpoints").iterdir()
    monkeypatch.undo()
    resumed = trainer(sources, tmp_path)
    resumed._resume()
    assert kept.name == f"step-{resumed.step:08d}"
