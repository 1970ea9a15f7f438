"""Trackers: what they are sent, that a resumed curve goes on, and that they never stop training."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from miao.errors import Interrupted, MiaoError
from miao.files import read_jsonl
from miao.recipe.reading import load_recipe
from miao.shards import TokenDataset
from miao.train.loop import Trainer
from miao.train.watch.trackers import TrackedLog, require_trackers
from tests.train.tiny import stop_after, trainer

Log = list[tuple[int, dict[str, float]]]


class FakeWandb(ModuleType):
    """Takes a module's place and notes what it is told; `fails` in the call of that name."""

    def __init__(self, fails: str = ""):
        super().__init__("wandb")
        self.fails, self.begun, self.sent, self.finished = fails, [], [], 0

    def init(self, **options: Any) -> Any:
        self.begun.append(options)
        if self.fails == "init":
            raise RuntimeError("no network")
        return SimpleNamespace(log=self.log, finish=self.finish)

    def log(self, values: dict[str, float], step: int) -> None:
        if self.fails == "log":
            raise SystemExit("quota")
        self.sent.append((step, values))

    def finish(self) -> None:
        self.finished += 1
        if self.fails == "finish":
            raise OSError("gone")


def tracked(
    sources: list[TokenDataset], directory: Path, *names: str, **more: Any
) -> tuple[Trainer, TrackedLog]:
    made = trainer(sources, directory, tokens=2000, log_every=1)
    log = TrackedLog(
        directory / "metrics.jsonl",
        "pretrain",
        list(names),
        directory / "trackers",
        "tiny",
        {"seed": 42},
        **more,
    )
    made.keeper.metrics = log
    return made, log


def expected(directory: Path) -> Log:
    """metrics.jsonl, as a tracker gets it."""
    leave = {"step", "seconds", "stage"}
    return [
        (line["step"], {k: v for k, v in line.items() if k not in leave})
        for line in read_jsonl(directory / "metrics.jsonl")
    ]


@pytest.mark.parametrize("name", ["wandb", "swanlab"])
@pytest.mark.parametrize("offline", [False, True])
def test_the_numbers_arrive_and_a_resumed_run_goes_on_with_its_curve(
    sources: list[TokenDataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    offline: bool,
) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, name, fake)
    running, log = tracked(sources, tmp_path, name, offline=offline)
    stop_after(running, 5)
    with pytest.raises(Interrupted), log:
        running.run()
    resumed, log = tracked(sources, tmp_path, name, offline=offline)
    with log:
        resumed.run()
    assert fake.sent == expected(tmp_path) and len(fake.sent) > 5
    assert fake.finished == 2
    first, second = fake.begun
    assert first == second
    assert (first["name"], first["group"], first["project"]) == ("tiny-pretrain", "tiny", "miao")
    assert first.get("mode") == ("offline" if offline else None)
    if name == "wandb" or not offline:
        assert first["resume"] == "allow" and len(first["id"]) == 16
    anew, log = tracked(sources, tmp_path / "other", name, offline=offline)
    with log:
        anew.run()
    assert fake.begun[-1].get("id", "") != first.get("id", None)


@pytest.mark.parametrize("fails", ["init", "log", "finish"])
def test_a_tracker_that_fails_is_named_once_and_training_goes_on(
    sources: list[TokenDataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fails: str,
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb(fails))
    good = FakeWandb()
    monkeypatch.setitem(sys.modules, "swanlab", good)
    running, log = tracked(sources, tmp_path, "wandb", "swanlab")
    with log:
        running.run()
    said = capsys.readouterr().out
    assert said.count("training goes on") == said.count("wandb fails") == 1
    assert good.sent == expected(tmp_path)


def test_an_event_is_sent_with_its_numbers_only(tmp_path: Path) -> None:
    log = TrackedLog(tmp_path / "m.jsonl", "sft", [], tmp_path, "tiny", {})
    fake = FakeWandb()
    log.trackers["wandb"] = SimpleNamespace(log=fake.log, close=fake.finish)
    log.write(
        step=3,
        tokens=9,
        event="skipped",
        documents={"a": [1]},
        step_loss="nan",
        loss=float("nan"),
        kl=torch.tensor(0.5),
        expert_load=[[1.0]],
    )
    assert fake.sent == [(3, {"tokens": 9.0, "kl": 0.5})]


def test_what_is_not_installed_is_said_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MiaoError, match=r"wandb, swanlab[\s\S]*pip install wandb swanlab"):
        require_trackers(["wandb", "swanlab"])
    require_trackers([])


def test_an_unknown_tracker_is_a_mistake_in_the_recipe() -> None:
    with pytest.raises(MiaoError, match="'wandbe' is none of tensorboard, wandb, swanlab"):
        load_recipe(None, ["--trackers", "wandbe"])
    assert load_recipe(None, ["--trackers", "wandb", "tensorboard"]).trackers[1] == "tensorboard"


def test_nothing_is_imported_unasked(sources: list[TokenDataset], tmp_path: Path) -> None:
    running, log = tracked(sources, tmp_path)
    with log:
        running.run()
    assert not (tmp_path / "trackers").exists()
    assert not {"wandb", "swanlab"} & set(sys.modules)


def test_tensorboard_reads_one_curve_of_a_resumed_run(
    sources: list[TokenDataset], tmp_path: Path
) -> None:
    """Lines behind the checkpoint, which the resumed run writes again, are there once."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    running, log = tracked(sources, tmp_path, "tensorboard")
    stop_after(running, 7)
    running._save = lambda **_: None  # type: ignore[method-assign]  # as if killed: nothing saved
    with pytest.raises(Interrupted), log:
        running.run()
    resumed, log = tracked(sources, tmp_path, "tensorboard")
    with log:
        resumed.run()
    events = EventAccumulator(str(tmp_path / "trackers" / "tensorboard" / "pretrain"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    truth = [(step, values["loss"]) for step, values in expected(tmp_path)]
    assert [step for step, _ in found] == [step for step, _ in truth]
    assert [value for _, value in found] == pytest.approx([value for _, value in truth])


@pytest.mark.parametrize("name", ["wandb", "swanlab"])
def test_the_real_one_offline(
    sources: list[TokenDataset], tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(name)
    running, log = tracked(sources, tmp_path, name, offline=True)
    with log:
        running.run()
    assert "fails" not in capsys.readouterr().out
    written = [p for p in (tmp_path / "trackers").rglob("*") if p.is_file()]
    assert len(written) > 1
    assert json.loads((tmp_path / "trackers" / "pretrain.json").read_text())["id"]
