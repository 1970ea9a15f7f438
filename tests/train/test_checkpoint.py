"""Checkpoints: written aside, whole or not at all, and what a damaged or missing one leads to."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from miao.errors import Interrupted, MiaoError
from miao.files import read_json
from miao.model import Decoder, ModelConfig, directory
from miao.rundir import list_checkpoints, step_of
from miao.shards import TokenDataset
from miao.train.distributed.world import World
from miao.train.loop import Trainer
from miao.train.safety.checkpoint import random_states, set_random_states
from tests.conftest import dataset_maker
from tests.train.conftest import two_sources
from tests.train.tiny import assert_same_bits, curve, stop_after, trainer, weights

FILES = ["checksums.json", "model.safetensors", "optimizer.safetensors", "state.json"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[TokenDataset]:
    return two_sources(dataset_maker(tmp_path_factory.mktemp("sources")))


@pytest.fixture(scope="module")
def whole(sources: list[TokenDataset], tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """One that was never stopped, with all its checkpoints, to look at."""
    running = trainer(sources, tmp_path_factory.mktemp("whole"), keep_last=99)
    running.run()
    return running


@pytest.fixture(scope="module")
def half(sources: list[TokenDataset], tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """One of half as many tokens, to be copied."""
    running = trainer(sources, tmp_path_factory.mktemp("half"), tokens=2000)
    running.run()
    return running


def steps(directory: Path) -> list[int]:
    return [step_of(path) for path in list_checkpoints(directory / "checkpoints")]


def test_a_resume_from_any_checkpoint_equals_never_stopped(
    sources: list[TokenDataset], whole: Trainer, tmp_path: Path
) -> None:
    """What a SIGKILL leaves behind is some checkpoint; each leads to the same end."""
    checkpoints = list_checkpoints(whole.store.directory)
    assert len(checkpoints) >= 5
    for path in checkpoints[:-1]:
        directory = tmp_path / path.name
        shutil.copytree(path, directory / "checkpoints" / path.name)
        resumed = trainer(sources, directory, seed=1)
        resumed.run()
        assert_same_bits(whole.model, resumed.model)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["a flipped bit", "cut short", "gone"])
def test_a_damaged_checkpoint_is_named_and_passed_over(
    sources: list[TokenDataset],
    half: Trainer,
    tmp_path: Path,
    name: str,
    damage: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(half.store.directory.parent, tmp_path, dirs_exist_ok=True)
    newest, before = (list_checkpoints(tmp_path / "checkpoints")[i] for i in (-1, -2))
    file = newest / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content if damage == "a flipped bit" else content[: len(content) // 2])
    resumed = trainer(sources, tmp_path, tokens=2000, seed=1)
    resumed.keeper.begin()
    said = capsys.readouterr().out
    assert newest.name in said and "trying the checkpoint before it" in said
    assert f"resumed at step {step_of(before)}" in said
    resumed.run()
    assert_same_bits(half.model, resumed.model)


def test_a_half_written_checkpoint_is_named_and_removed(
    sources: list[TokenDataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a kill leaves in the middle of a save."""
    trainer(sources, tmp_path, tokens=1000).run()
    half = tmp_path / "checkpoints" / ".step-00000099.abc.tmp"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    trainer(sources, tmp_path, tokens=1000).keeper.begin()
    assert "the save of step-00000099 was cut short" in capsys.readouterr().out
    assert not half.exists()


def test_all_checkpoints_damaged_is_an_error(sources: list[TokenDataset], tmp_path: Path) -> None:
    trainer(sources, tmp_path).run()
    for path in list_checkpoints(tmp_path / "checkpoints"):
        (path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(MiaoError, match="no checkpoint can be read"):
        trainer(sources, tmp_path).run()


def test_what_is_kept(sources: list[TokenDataset], whole: Trainer, tmp_path: Path) -> None:
    """The newest ones, and for good those that cross a multiple of keep_every."""
    kept = trainer(sources, tmp_path / "kept", keep_last=2, keep_every=1500)
    kept.run()
    every = list_checkpoints(whole.store.directory)
    tokens = [read_json(path / "state.json")["tokens"] for path in every]
    permanent = [
        path / "state.json"
        for path in list_checkpoints(tmp_path / "kept" / "checkpoints")
        if read_json(path / "state.json")["permanent"]
    ]
    found = [read_json(path)["tokens"] for path in permanent]
    assert [n // 1500 for n in found] == [1, 2]
    assert steps(tmp_path / "kept") == sorted(
        {step_of(path.parent) for path in permanent} | set(map(step_of, every[-2:]))
    )
    assert len(steps(tmp_path / "kept")) == 4 < len(tokens)
    assert_same_bits(whole.model, kept.model)


class HeldSave:
    """Stands in the way of the writing thread until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.go, self.calls, self.original = threading.Event(), 0, directory.save_file
        monkeypatch.setattr(directory, "save_file", self)

    def __call__(self, *arguments: Any, **more: Any) -> None:
        self.calls += 1
        assert self.go.wait(30)
        self.original(*arguments, **more)


def save(running: Trainer) -> None:
    running.keeper.save()


def test_training_goes_on_while_a_checkpoint_is_written(
    sources: list[TokenDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The save returns before anything is on disk; what is written is the state at the save."""
    running = trainer(sources, tmp_path)
    held = HeldSave(monkeypatch)
    running.step = 5
    running.keeper.save()
    copied = weights(running.model)
    assert not list_checkpoints(tmp_path / "checkpoints")
    assert running.store.failure() is None
    with torch.no_grad():
        for parameter in running.model.parameters():
            parameter.add_(1.0)
    held.go.set()
    assert running.store.failure(wait=True) is None
    assert running.store.newest_step == 5
    resumed = trainer(sources, tmp_path, seed=1)
    resumed.keeper.begin()
    for name, value in weights(resumed.model).items():
        assert torch.equal(value, copied[name])


def test_at_most_one_save_is_in_flight(
    sources: list[TokenDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = trainer(sources, tmp_path)
    held = HeldSave(monkeypatch)
    running.keeper.save()
    running.step = 1
    second = threading.Thread(target=running.keeper.save)
    second.start()
    second.join(0.2)
    assert second.is_alive() and held.calls == 1
    held.go.set()
    second.join(30)
    assert running.store.failure(wait=True) is None
    assert steps(tmp_path) == [0, 1]


class FullDisk:
    """The disk is full while `full`; half a file is left, as the system would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, full: range):
        self.calls, self.full, self.original = 0, full, directory.save_file
        monkeypatch.setattr(directory, "save_file", self)

    def __call__(self, tensors: Any, path: Path, **more: Any) -> None:
        self.calls += 1
        if self.calls in self.full:
            Path(path).write_bytes(b"half")
            raise directory.SafetensorError(
                f"Error while serializing: I/O error: No space left (os error {errno.ENOSPC})"
            )
        self.original(tensors, path, **more)


def test_a_full_disk_loses_neither_the_run_nor_the_older_checkpoints(
    sources: list[TokenDataset],
    whole: Trainer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    FullDisk(monkeypatch, range(3, 18))  # of two files each; two smaller forms are tried, too
    running = trainer(sources, tmp_path / "full", keep_last=99)
    running.run()
    assert_same_bits(whole.model, running.model)
    said = capsys.readouterr().out
    assert said.count("could not be written; training goes on") == 5
    assert "the disk is full" in said and "free some space" in said
    assert len(steps(tmp_path / "full")) >= 2 and steps(tmp_path / "full")[-1] == whole.step
    assert not list((tmp_path / "full" / "checkpoints").glob(".*"))


@pytest.mark.parametrize("when", ["end", "signal"])
def test_the_last_save_must_succeed(
    sources: list[TokenDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    running = trainer(sources, tmp_path)
    FullDisk(monkeypatch, range(3, 999))
    if when == "signal":
        stop_after(running, 5)
    with pytest.raises(MiaoError, match=r"disk is full[\s\S]*free some space"):
        running.run()
    assert running.stop.number == (15 if when == "signal" else None)
    (kept,) = (tmp_path / "checkpoints").iterdir()
    monkeypatch.undo()
    resumed = trainer(sources, tmp_path)
    resumed.keeper.begin()
    assert kept.name == f"step-{resumed.step:08d}"


def test_a_log_that_cannot_be_written_does_not_stop_training(
    sources: list[TokenDataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    running = trainer(sources, tmp_path)

    def full(*arguments: Any) -> None:
        raise MiaoError("the disk is full") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("miao.train.watch.metrics.append_jsonl", full)
    running.run()
    assert capsys.readouterr().out.count("a log line is lost, training goes on") == 1


def test_a_defect_while_saving_is_told_too(
    sources: list[TokenDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **more: Any) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(directory, "save_file", broken)
    with pytest.raises(ZeroDivisionError):
        trainer(sources, tmp_path).run()


def test_only_the_writer_writes(
    sources: list[TokenDataset], whole: Trainer, tmp_path: Path
) -> None:
    silent = trainer(sources, tmp_path / "silent")

    class AnotherProcess(World):
        is_main = False

    silent.world.__class__ = AnotherProcess
    silent.store.writes = False
    silent.run()
    assert_same_bits(whole.model, silent.model)
    assert not (tmp_path / "silent").exists()


def test_an_interrupted_run_leaves_one_whole_checkpoint_more(
    sources: list[TokenDataset], tmp_path: Path
) -> None:
    running = trainer(sources, tmp_path, save_every=0)
    stop_after(running, 4)
    with pytest.raises(Interrupted) as stopped:
        running.run()
    assert stopped.value.whole and steps(tmp_path) == [4]
    assert sorted(p.name for p in list_checkpoints(tmp_path / "checkpoints")[0].iterdir()) == FILES
    assert [line["step"] for line in curve(tmp_path)] == [2, 4]


def test_what_is_stopped_on_a_full_disk_does_not_say_that_everything_is_saved(
    sources: list[TokenDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = trainer(sources, tmp_path, save_every=0)
    stop_after(running, 4)
    no_room_for_an_optimizer(monkeypatch, lambda: True)
    with pytest.raises(Interrupted) as stopped:
        running.run()
    assert not stopped.value.whole and steps(tmp_path) == [4]


def test_random_states_come_back() -> None:
    import random

    import numpy as np

    def draw() -> tuple[float, float, float]:
        return float(torch.rand(())), float(np.random.rand()), random.random()

    cpu = torch.device("cpu")
    states = random_states(cpu)
    first = draw()
    assert draw() != first
    set_random_states(states, cpu)
    assert draw() == first and not states


def no_room_for_an_optimizer(patch: pytest.MonkeyPatch, full: Callable[[], bool]) -> None:
    original = directory.save_file

    def save_file(tensors: Any, path: Path, **more: Any) -> None:
        if full() and any(name.startswith(("momentum.", "exp_avg")) for name in tensors):
            raise directory.SafetensorError(f"No space left (os error {errno.ENOSPC})")
        original(tensors, path, **more)

    patch.setattr(directory, "save_file", save_file)


def test_a_save_that_cannot_succeed_ends_training_with_a_smaller_form(
    sources: list[TokenDataset],
    whole: Trainer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    running = trainer(sources, tmp_path)
    no_room_for_an_optimizer(monkeypatch, lambda: running.step > 1)
    with pytest.raises(
        MiaoError, match=r"the disk is full, training ends after step \d+ "
    ) as caught:
        running.run()
    assert 1 < running.step < whole.step, "not at the last step"
    assert "it goes on from there" in str(caught.value)
    assert "is kept without the optimizer's state" in capsys.readouterr().out
    monkeypatch.undo()
    resumed = trainer(sources, tmp_path)
    result = resumed.run()
    assert f"resumed at step {running.step} " in (said := capsys.readouterr().out)
    assert "the optimizer begins anew" in said
    assert result.tokens == whole.tokens and abs(result.loss - whole.last["loss"]) < 0.5


def test_the_disk_is_asked_before_training(
    sources: list[TokenDataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    running = trainer(sources, tmp_path, keep_last=3)
    model = 4 * sum(p.numel() for p in running.model.parameters())
    buffers = sum(
        4 * dict(running.model.named_parameters())[name.partition(".")[2]].numel()
        for name in running.optimizer.buffer_names
    )
    free = model + 3 * (model + buffers) + 9
    monkeypatch.setattr("miao.train.safety.checkpoint.free_space", lambda path: free)
    running.run()
    assert "room for 2 checkpoints beside the newest, not 3" in capsys.readouterr().out
    assert running.store.keep_last == 2 and len(steps(tmp_path)) == 2
    free = model + 2 * (model + buffers) - 9
    none = trainer(sources, tmp_path / "none", keep_last=1)
    with pytest.raises(MiaoError, match=r"a checkpoint takes .* MiB of disk are free"):
        none.run()
    assert none.step == 0


def test_another_budget_of_wsd_goes_on_from_before_the_decay(
    sources: list[TokenDataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rate falls over the last half of 4,000 tokens: what is gone on from has seen fewer than
    2,000, and the end is that of a run which had the new budget all along."""
    wsd: dict[str, Any] = {"schedule": "wsd", "warmup": 200, "decay": 0.5, "keep_last": 99}
    first = trainer(sources, tmp_path, tokens=4000, **wsd)
    stop_after(first, 14)
    with pytest.raises(Interrupted):
        first.run()
    saved = list_checkpoints(tmp_path / "checkpoints")
    tokens = {step_of(path): read_json(path / "state.json")["tokens"] for path in saved}
    stable = max(step for step, seen in tokens.items() if seen <= 2000)
    assert stable < max(tokens)
    resumed = trainer(sources, tmp_path, seed=1, tokens=5000, **wsd)
    resumed.keeper.begin()
    assert resumed.step == stable and f"resumed at step {stable} " in capsys.readouterr().out
    assert max(steps(tmp_path)) == stable, "the path that was left is gone"
    resumed.run()
    whole = trainer(sources, tmp_path / "whole", tokens=5000, **wsd)
    whole.run()
    assert_same_bits(whole.model, resumed.model)


def test_another_budget_of_wsd_with_nothing_left_from_before_the_decay(
    sources: list[TokenDataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wsd: dict[str, Any] = {"schedule": "wsd", "decay": 0.5, "keep_last": 1}
    first = trainer(sources, tmp_path, tokens=4000, **wsd)
    stop_after(first, 14)
    with pytest.raises(Interrupted):
        first.run()
    resumed = trainer(sources, tmp_path, seed=1, tokens=5000, **wsd)
    resumed.keeper.begin()
    assert resumed.step == 14
    assert "no checkpoint is left from before the rate fell" in capsys.readouterr().out


def test_checkpoints_of_another_model_are_refused_and_stay(
    sources: list[TokenDataset], tmp_path: Path
) -> None:
    trainer(sources, tmp_path, tokens=2000).run()
    before = steps(tmp_path)
    other = Decoder(ModelConfig(97, 32, 3, 2, 1, 16, 48, max_position_embeddings=64))
    other.initialize(0)
    with pytest.raises(MiaoError, match="of another model") as error:
        trainer(sources, tmp_path, model=other, tokens=2000).run()
    assert "restore the options of the model" in str(error.value.fix)
    assert steps(tmp_path) == before
