"""The guard: what is not finite is never applied, a jump is skipped or undone, trouble is named."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from miao.errors import Interrupted, MiaoError
from miao.files import read_jsonl
from miao.model import Decoder, ModelConfig
from miao.shards import Batch, TokenDataset
from miao.train.loop import Trainer
from miao.train.safety.guard import LEFT_OUT_BEFORE, MAX_TROUBLE, Guard, spike_limit
from tests.engine.pieces import EXPERTS
from tests.train.tiny import assert_same_bits, curve, options, stop_after, trainer, weights

Disturb = Callable[[torch.Tensor], torch.Tensor]


def disturb(running: Trainer, steps: set[int], change: Disturb) -> None:
    """Changes the loss of these steps; the batch of a step is the same whenever it is trained."""
    objective = running.gradients.objective

    def loss(model: Any, batch: Batch) -> Any:
        value, sums = objective.loss(model, batch)
        return (change(value) if running.step + 1 in steps else value), sums

    running.gradients.objective = SimpleNamespace(loss=loss, weight=objective.weight)  # type: ignore[assignment]


def on_the_device(running: Trainer) -> None:
    """Judges as on a GPU: verdicts are read when logging, bad updates change nothing."""
    running.guard.at_once, running.guard.every = False, running.options.log_every


def nan(loss: torch.Tensor) -> torch.Tensor:
    return loss * math.nan


def high(loss: torch.Tensor) -> torch.Tensor:
    return loss * 30


def events(directory: Path) -> list[dict[str, Any]]:
    return [line for line in read_jsonl(directory / "metrics.jsonl") if "event" in line]


SPIKES = {"spike_threshold": 8.0, "spike_window": 8, "micro_batch": 8, "log_every": 2}


def test_the_limit_is_that_of_a_robust_normal() -> None:
    """For normal numbers it is close to mean + k·std, and outliers do not move it."""
    numbers = np.random.default_rng(0).normal(3.0, 0.5, 4001).tolist()
    assert spike_limit(numbers, 4, 0.0) == pytest.approx(3 + 4 * 0.5, abs=0.05)
    spoiled = [*numbers, *[1e6] * 50]
    assert spike_limit(spoiled, 4, 0.0) == pytest.approx(3 + 4 * 0.5, abs=0.08)
    assert statistics.fmean(spoiled) > 1e3
    assert spike_limit([2.0] * 9, 10, 0.02) == pytest.approx(2.4)


def test_a_step_that_is_not_finite_changes_nothing_and_is_named(
    sources: list[TokenDataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = trainer(sources, tmp_path)
    disturb(running, {1}, nan)
    before = weights(running.model)
    rows = running.loader.batch(running.loader.next_rows(8))
    running._train_step(rows, 0.0)
    for name, value in weights(running.model).items():
        assert torch.equal(value, before[name])
    assert not running.optimizer.state_tensors() and running.optimizer.num_steps == 0
    said = capsys.readouterr().out
    assert "step 1: the loss is not finite; the step is skipped" in said
    (event,) = events(tmp_path)
    assert (event["event"], event["step"], event["step_loss"]) == ("skipped", 1, "nan")
    assert event["tokens"] == rows.real_tokens
    named = {(source, n) for source, ids in event["documents"].items() for n in ids}
    assert named == {item for row in rows.sequences for item in row}
    assert all(source in said for source in event["documents"])


def test_a_finite_loss_with_a_gradient_that_is_not(
    sources: list[TokenDataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = trainer(sources, tmp_path)
    disturb(running, {3}, lambda loss: loss + (loss - loss).abs().sqrt())  # d sqrt(0) = inf
    running.run()
    assert "step 3: the gradient is not finite" in capsys.readouterr().out
    assert all(bool(value.isfinite().all()) for value in weights(running.model).values())


def test_skipping_goes_on_and_equals_never_having_seen_the_batch(
    sources: list[TokenDataset], tmp_path: Path
) -> None:
    """The skipped step counts its tokens; weights, momenta and loss line are those of a run that
    left the batch out."""
    running = trainer(sources, tmp_path / "skipped")
    disturb(running, {4}, nan)
    running.run()
    other = trainer(sources, tmp_path / "left out")
    other.guard.left_out = {4}
    other.run()
    assert_same_bits(running.model, other.model)
    lines = [line for line in curve(tmp_path / "skipped") if "event" not in line]
    assert lines == curve(tmp_path / "left out")


@pytest.mark.parametrize("where", ["cpu", "as on a gpu"])
def test_repeated_trouble_stops_with_advice(
    sources: list[TokenDataset], tmp_path: Path, where: str
) -> None:
    running = trainer(sources, tmp_path)
    if where != "cpu":
        on_the_device(running)
    before = weights(running.model)
    disturb(running, set(range(1, 99)), nan)
    with pytest.raises(MiaoError, match=r"5 bad steps within 64[\s\S]*lower --pretrain") as stop:
        running.run()
    assert "precision fp32" in str(stop.value)
    assert len(events(tmp_path)) == MAX_TROUBLE - 1
    for name, value in weights(running.model).items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    "change", [{}, EXPERTS | {"scoring_func": "sigmoid"}], ids=["dense", "balanced experts"]
)
def test_a_bad_step_on_the_device_changes_no_weight_and_no_momentum(
    sources: list[TokenDataset],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
) -> None:
    """Without asking the device; it is named at the next reading, with its own number, and is not
    counted in AdamW's correction of the bias."""
    model = Decoder(ModelConfig(97, 32, 2, 2, 1, 16, 48, max_position_embeddings=64, **change))
    model.initialize(0)
    running = trainer(sources, tmp_path / "bad", model, log_every=4)
    on_the_device(running)
    disturb(running, {6}, nan)
    rows = [running.loader.batch(running.loader.next_rows(8)) for _ in range(8)]
    for row in rows[:5]:
        running._train_step(row, 0.0)
    before = weights(running.model)
    momenta = {name: t.clone() for name, t in running.optimizer.state_tensors().items()}
    running._train_step(rows[5], 0.0)
    for name, value in weights(running.model).items():
        assert torch.equal(value, before[name]), name
    for name, value in running.optimizer.state_tensors().items():
        assert torch.equal(value, momenta[name]), name
    assert "not finite" not in capsys.readouterr().out
    running._settle()
    assert "step 6: the loss is not finite" in capsys.readouterr().out
    assert running.optimizer.num_steps == 5
    assert running.meter.weight == sum(row.trained_tokens for row in rows[:5])
    assert math.isfinite(running.meter.read()["loss"])


def test_on_the_device_a_run_without_trouble_is_the_same(
    sources: list[TokenDataset], tmp_path: Path
) -> None:
    plain = trainer(sources, tmp_path / "cpu", log_every=3)
    plain.run()
    running = trainer(sources, tmp_path / "device", log_every=3)
    on_the_device(running)
    running.run()
    assert_same_bits(plain.model, running.model)
    assert curve(tmp_path / "cpu") == curve(tmp_path / "device")


def test_the_device_is_not_asked_between_readings(
    sources: list[TokenDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for a GPU turns a tensor into a Python number; a step does none of that."""
    running = trainer(sources, tmp_path)
    on_the_device(running)
    rows = running.loader.batch(running.loader.next_rows(8)).to(running.device)
    weight = running.gradients.objective.weight
    running.gradients.objective.weight = lambda batch: 99  # type: ignore[method-assign]  # host data
    monkeypatch.setattr(Batch, "real_tokens", 99)
    monkeypatch.setattr(Batch, "trained_tokens", 99)
    running.gradients.places = None  # a CPU's attention reads on the host where documents begin

    def asked(*arguments: Any) -> Any:
        raise AssertionError("the host waits for the device")

    for name in ("item", "__float__", "__bool__", "tolist", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, asked)
    running._train_step(rows, 0.0)
    monkeypatch.undo()
    running.gradients.objective.weight = weight  # type: ignore[method-assign]
    assert running.step == 1 and len(running.guard._watched) == 1


def test_a_jump_is_skipped(
    sources: list[TokenDataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = trainer(sources, tmp_path, spike_action="skip", **SPIKES)
    disturb(running, {9}, high)
    result = running.run()
    assert result.steps == 18
    (event,) = events(tmp_path)
    assert (event["event"], event["step"]) == ("skipped", 9)
    assert "the loss jumped to" in event["reason"]
    other = trainer(sources, tmp_path / "other", **SPIKES)
    other.guard.left_out = {9}
    other.run()
    assert_same_bits(running.model, other.model)


def test_a_jump_of_the_gradient_alone_is_noticed(
    sources: list[TokenDataset], tmp_path: Path
) -> None:
    running = trainer(sources, tmp_path, spike_action="skip", **SPIKES)
    disturb(running, {9}, lambda loss: loss + 30 * (loss - loss.detach()))
    running.run()
    (event,) = events(tmp_path)
    assert "the gradient norm jumped to" in event["reason"] and event["step"] == 9


def test_off_and_a_window_not_yet_full_notice_no_jump(
    sources: list[TokenDataset], tmp_path: Path
) -> None:
    off = trainer(sources, tmp_path / "off", spike_action="off", **SPIKES)
    disturb(off, {9}, high)
    off.run()
    early = trainer(sources, tmp_path / "early", spike_action="skip", **SPIKES)
    disturb(early, {3}, high)
    early.run()
    assert not events(tmp_path / "off") and not events(tmp_path / "early")


@pytest.mark.parametrize("where", ["cpu", "as on a gpu"])
def test_a_rollback_leaves_out_what_led_to_the_jump(
    sources: list[TokenDataset],
    tmp_path: Path,
    where: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Same weights as a run in which those batches had never been trained on."""
    running = trainer(sources, tmp_path / "back", spike_action="rollback", **SPIKES)
    other = trainer(sources, tmp_path / "left out", **SPIKES)
    for each in (running, other):
        if where != "cpu":
            on_the_device(each)
    disturb(running, {13}, high)
    running.run()
    other.guard.left_out = set(range(13 - LEFT_OUT_BEFORE, 14))
    other.run()
    assert running.step == other.step == 18
    assert_same_bits(running.model, other.model)
    (event,) = events(tmp_path / "back")
    assert (event["event"], event["left_out"]) == ("rollback", [9, 13])
    assert event["documents"] and event["step_loss"] > 100
    assert "going back" in capsys.readouterr().out
    lines = [line for line in curve(tmp_path / "back") if "event" not in line]
    assert lines == curve(tmp_path / "left out")


def test_a_rollback_is_the_same_wherever_the_run_is_stopped(
    sources: list[TokenDataset], tmp_path: Path
) -> None:
    """Before the jump, in the steps that are left out, and after it."""

    def one(directory: Path, seed: int = 0) -> Trainer:
        made = trainer(sources, directory, seed=seed, spike_action="rollback", **SPIKES)
        disturb(made, {13}, high)
        return made

    whole = one(tmp_path / "whole")
    whole.run()
    for stop_at in (2, 8, 10, 12, 16):
        stopped = one(tmp_path / str(stop_at))
        stop_after(stopped, stop_at)
        with pytest.raises(Interrupted):
            stopped.run()
        resumed = one(tmp_path / str(stop_at), seed=1)
        resumed.run()
        assert_same_bits(whole.model, resumed.model)


def test_stopped_before_a_jump_is_read_it_goes_back_first(
    sources: list[TokenDataset], tmp_path: Path
) -> None:
    """As on a GPU: the stop comes when the guard does not know of the jump yet."""

    def one(directory: Path, seed: int = 0) -> Trainer:
        chosen = SPIKES | {"log_every": 100}
        made = trainer(sources, directory, seed=seed, spike_action="rollback", **chosen)
        on_the_device(made)
        made.guard.every = 8  # the spike at step 13 would be read at step 16
        disturb(made, {13}, high)
        return made

    whole = one(tmp_path / "whole")
    whole.run()
    stopped = one(tmp_path / "stopped")
    stop_after(stopped, 14)
    with pytest.raises(Interrupted):
        stopped.run()
    assert stopped.store.newest_step == stopped.step < 13, "what was said to be saved is saved"
    (event,) = events(tmp_path / "stopped")
    assert (event["event"], event["left_out"]) == ("rollback", [9, 13])
    resumed = one(tmp_path / "stopped", seed=1)
    resumed.run()
    assert_same_bits(whole.model, resumed.model)


def test_without_a_checkpoint_to_go_back_to_the_step_is_skipped(
    sources: list[TokenDataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = trainer(sources, tmp_path, spike_action="rollback", keep_last=1, **SPIKES)
    disturb(running, {7}, high)  # step 5 has a checkpoint, and 3 would be needed
    running.run()
    assert "no checkpoint before step 3" in capsys.readouterr().out
    (event,) = events(tmp_path)
    assert event["event"] == "skipped"
    other = trainer(sources, tmp_path / "other", **SPIKES)
    other.guard.left_out = {7}
    other.run()
    assert_same_bits(running.model, other.model)


def test_rollbacks_without_end_stop_with_advice(
    sources: list[TokenDataset], tmp_path: Path
) -> None:
    running = trainer(sources, tmp_path, tokens=8000, spike_action="rollback", **SPIKES)
    disturb(running, set(range(10, 99)), high)
    with pytest.raises(MiaoError, match=r"jumped again and again[\s\S]*spike_threshold"):
        running.run()


def test_a_guard_restored_judges_as_before() -> None:
    chosen = options(spike_action="skip", spike_threshold=6.0, spike_window=8)
    guard: Guard[None] = Guard("pretrain", chosen, at_once=True)
    rows = [[("a", 0)]]
    random = np.random.default_rng(0)
    for step in range(1, 21):
        loss = torch.tensor(float(random.normal(2.0, 0.1)))
        guard.watch(step, loss, 1, torch.tensor(1.0), rows, None)
        guard.settle()
    other: Guard[None] = Guard("pretrain", chosen, at_once=True)
    other.restore(guard.state())
    for value in (guard.limits[0] * 0.999, guard.limits[0] * 1.001):
        found = [
            bool(g.watch(21, torch.tensor(value), 1, torch.tensor(1.0), rows, None))
            for g in (guard, other)
        ]
        assert found[0] == found[1] == (value < guard.limits[0])


def test_a_last_step_of_fewer_rows_is_not_compared(
    sources: list[TokenDataset], tmp_path: Path
) -> None:
    """Its gradient is longer because fewer rows are averaged; what is not finite still counts."""
    running = trainer(sources, tmp_path / "high", spike_action="skip", **SPIKES)
    disturb(running, {18}, high)
    last: list[int] = []
    train_step = running._train_step

    def note(rows: Batch, *more: Any) -> None:
        last.append(len(rows.ids_bt))
        train_step(rows, *more)

    running._train_step = note  # type: ignore[method-assign]
    running.run()
    assert last[-1] < 8 == last[-2] and not events(tmp_path / "high")
    broken = trainer(sources, tmp_path / "nan", spike_action="skip", **SPIKES)
    disturb(broken, {18}, nan)
    broken.run()
    assert [event["step"] for event in events(tmp_path / "nan")] == [18]
