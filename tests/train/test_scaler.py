"""Loss scaling: the rule of torch's GradScaler, and training in float16 that overflows now and then."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from miao.errors import Interrupted
from miao.files import read_jsonl
from miao.model import Decoder, ModelConfig
from miao.shards import TokenDataset
from miao.train import scaler
from miao.train.scaler import LossScaler
from tests.train.tiny import assert_same_bits, curve, stop_after, trainer

CPU = torch.device("cpu")


def test_it_moves_as_torchs_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaler, "GROWTH_INTERVAL", 3)
    theirs = torch.amp.GradScaler("cpu", growth_interval=3)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    ours = LossScaler(CPU)
    theirs.scale(torch.zeros(()))
    for finite in [True] * 4 + [False, True, False, False] + [True] * 8:
        parameter.grad = torch.tensor([1.0 if finite else math.inf])
        theirs.step(optimizer)
        theirs.update()
        ours.update(torch.tensor(1.0 if finite else math.nan))
        assert float(ours.scale) == theirs.get_scale()


def half(directory: Path, sources: list[TokenDataset], scale: float = 2.0**16):
    model = Decoder(ModelConfig(97, 32, 2, 2, 1, 16, 48, max_position_embeddings=64))
    model.initialize(0)
    model.set_compute_dtype(torch.float16)
    made = trainer(sources, directory, model)
    assert made.gradients.scaler is not None
    made.gradients.scaler.scale.fill_(scale)
    return made


def test_float16_learns_as_float32_does(sources: list[TokenDataset], tmp_path: Path) -> None:
    half(tmp_path / "half", sources).run()
    trainer(sources, tmp_path / "full").run()
    two, one = (curve(tmp_path / name) for name in ("half", "full"))
    assert [line["step"] for line in two] == [line["step"] for line in one]
    for a, b in zip(two, one, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=0.03)


def test_an_overflow_lowers_the_scale_and_is_no_trouble(
    sources: list[TokenDataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scale far too large: steps are left out until it fits, more of them than end a run."""
    running = half(tmp_path, sources, 2.0**40)
    running.run()
    lines = read_jsonl(tmp_path / "metrics.jsonl")
    overflows = [line for line in lines if line.get("event") == "overflow"]
    assert len(overflows) > 5 and not running.guard.bad_steps
    scales = [line["loss_scale"] for line in overflows]
    assert scales == sorted(scales, reverse=True) and scales[1] == scales[0] / 2
    assert "not finite" not in capsys.readouterr().out
    assert all(bool(p.isfinite().all()) for p in running.model.parameters())


def test_what_is_not_finite_without_scaling_stays_trouble(
    sources: list[TokenDataset], tmp_path: Path
) -> None:
    running = half(tmp_path, sources, 1.0)
    plain = running.gradients._finish

    def broken(*arguments: object):
        return plain(*arguments)._replace(norm=torch.tensor(math.inf))

    running.gradients._finish = broken  # type: ignore[method-assign]
    with pytest.raises(Exception, match="not finite again and again"):
        running.run()


def test_its_state_is_resumed(sources: list[TokenDataset], tmp_path: Path) -> None:
    whole = half(tmp_path / "whole", sources, 2.0**30)
    whole.run()
    stopped = half(tmp_path / "stopped", sources, 2.0**30)
    stop_after(stopped, 3)
    with pytest.raises(Interrupted):
        stopped.run()
    resumed = half(tmp_path / "stopped", sources)
    resumed.run()
    assert_same_bits(whole.model, resumed.model)
    assert curve(tmp_path / "whole") == curve(tmp_path / "stopped")
