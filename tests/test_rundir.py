"""A run directory: what is done, what is begun, and which model is meant."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from miao.errors import MiaoError
from miao.files import read_json, read_jsonl, write_jsonl
from miao.rundir import RunDir, find_model


def test_a_stage_is_finished_for_its_inputs_only(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert not run.finished("sft", "one")
    run.mark_finished("sft", "one", seconds=3)
    run.mark_finished("dpo", "two")
    assert run.finished("sft", "one")
    assert not run.finished("sft", "other") and not run.finished("dpo", "one")
    assert run.facts() == {
        "sft": {"fingerprint": "one", "seconds": 3},
        "dpo": {"fingerprint": "two"},
    }
    run.mark_finished("sft", "other")
    assert run.finished("sft", "other")
    assert not run.finished("dpo", "two"), "its model began with one that is gone"


def test_half_done_work_is_continued_for_the_same_inputs_and_else_set_aside(
    tmp_path: Path,
) -> None:
    run = RunDir(tmp_path)
    one, other = {"rate": 1}, {"rate": 2}
    assert run.begin("pretrain", "one", one) is None
    directory = run.checkpoints("pretrain")
    (directory / "step-00000010").mkdir()
    assert run.begin("pretrain", "one", one) is None and (directory / "step-00000010").exists()
    assert run.begin("pretrain", "other", other) == one
    assert not (directory / "step-00000010").exists()
    assert (tmp_path / "checkpoints" / "pretrain.before" / "step-00000010").exists()
    assert run.begin("pretrain", "other", other, despite_changes=True) == one
    assert (directory / "step-00000010").exists(), "taken back"
    assert read_json(directory / "stage.json") == {"fingerprint": "other", "inputs": other}


def test_every_half_done_work_is_kept_and_comes_back_for_its_own_options(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    directory = run.checkpoints("sft")
    for number, name in enumerate(("one", "two", "three"), 1):
        run.begin("sft", name, {"rate": number})
        (directory / f"step-0000000{number}").mkdir()
    run.begin("sft", "four", {"rate": 4})  # and killed before its first checkpoint
    run.begin("sft", "five", {"rate": 5})
    names = ["sft.before", "sft.before2", "sft.before3"]
    assert [path.name for path in run.set_aside("sft")] == names
    assert run.begin("sft", "two", {"rate": 2}) is None
    assert [path.name for path in directory.glob("step-*")] == ["step-00000002"]
    assert run.begin("sft", "one", {"rate": 1}) == {"rate": 2}, "what was half trained since"
    assert [path.name for path in directory.glob("step-*")] == ["step-00000001"]
    steps = [path.name for aside in run.set_aside("sft") for path in aside.glob("step-*")]
    assert sorted(steps) == ["step-00000002", "step-00000003"]


def test_lines_of_a_stage_are_replaced_and_others_kept(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.replace_lines(run.eval_results, "sft", [{"stage": "sft", "value": 1}])
    run.replace_lines(run.eval_results, "dpo", [{"stage": "dpo", "value": 2}])
    run.replace_lines(run.eval_results, "sft", [{"stage": "sft", "value": n} for n in (3, 4)])
    assert [r["value"] for r in read_jsonl(run.eval_results)] == [2, 3, 4]


CLOCK = itertools.count(10**9)


def model_at(path: Path, weights: str = "") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_text(weights)
    time = next(CLOCK)  # that of a file system may stand still for some milliseconds
    for file in path.iterdir():
        os.utime(file, (time, time))
    return path


def finish(run: RunDir, stage: str, fingerprint: str) -> Path:
    """A training stage that is done; its weights are its name and fingerprint."""
    model = model_at(run.model(stage), f"{stage} {fingerprint}")
    run.mark_finished(stage, fingerprint)
    return model


def weights(directory: Path) -> str:
    return (directory / "model.safetensors").read_text()


def test_find_model(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(MiaoError, match="neither a finished run nor a model") as caught:
            find_model(path)
        assert str(path) in str(caught.value)
    sft = model_at(tmp_path / "models" / "sft")
    model_at(tmp_path / "models" / "pretrain")  # later on the clock, earlier in the chain
    assert find_model(tmp_path) == sft
    final = model_at(tmp_path / "model")
    assert find_model(tmp_path) == final == find_model(str(final))


def test_the_model_of_a_run_is_that_of_the_last_stage_which_is_done(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for stage in ("pretrain", "sft", "dpo"):
        model = finish(run, stage, "one")
        assert find_model(tmp_path) == model
        run.update_final_model()
    assert weights(run.final_model) == "dpo one"
    assert run.stage_of(run.final_model) == "dpo"

    model_at(run.model("grpo"))  # written, and killed before it was noted
    assert find_model(tmp_path) == run.model("dpo")
    finish(run, "sft", "two")
    assert find_model(tmp_path) == run.model("sft"), "DPO began with weights that are gone"
    assert run.stage_of(run.final_model) == "dpo", "the copy is not yet another"
    run.update_final_model()
    assert weights(run.final_model) == "sft two"
    assert run.stage_of(run.final_model) == "sft"

    finish(run, "dpo", "two")
    finish(run, "sft", "two")  # made again, the same
    assert find_model(tmp_path) == run.model("dpo")
    run.mark_left_out("dpo")
    assert find_model(tmp_path) == run.model("sft")
    run.update_final_model()
    assert weights(run.final_model) == "sft two"


def test_without_models_the_copy_is_the_model(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    finish(run, "pretrain", "one"), finish(run, "sft", "one")
    run.update_final_model()
    shutil.rmtree(run.model("sft"))
    assert find_model(tmp_path) == run.final_model
    assert run.stage_of(run.final_model) is None
    run.update_final_model()
    assert weights(run.final_model) == "sft one"


def test_a_copied_run_still_knows_which_stage_its_model_is(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    finish(run, "pretrain", "a"), finish(run, "sft", "b")
    run.update_final_model()
    shutil.copytree(run.path, tmp_path / "copy", copy_function=shutil.copyfile)
    assert RunDir(tmp_path / "copy").stage_of(tmp_path / "copy" / "model") == "sft"


def test_the_final_model_is_whole_or_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(tmp_path)
    finish(run, "pretrain", "one")
    run.update_final_model()
    before = (run.final_model / "config.json").stat().st_mtime_ns
    run.update_final_model()
    assert (run.final_model / "config.json").stat().st_mtime_ns == before
    finish(run, "sft", "one")

    def full(source: Path, target: Path, **more: Any) -> None:
        (Path(target) / "config.json").write_text("{")
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr("shutil.copytree", full)
    with pytest.raises(MiaoError, match="the disk is full"):
        run.update_final_model()
    assert weights(run.final_model) == "pretrain one"
    monkeypatch.undo()
    left = model_at(tmp_path / ".model.abc.tmp")  # by a kill
    run.update_final_model()
    assert weights(run.final_model) == "sft one" and not left.exists()


def test_a_stage_begun_anew_has_no_old_samples(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.begin("sft", "one", {})
    lines = [{"stage": stage, "tokens": 1} for stage in ("pretrain", "sft")]
    write_jsonl(run.samples, lines)
    run.begin("sft", "one", {})
    assert read_jsonl(run.samples) == lines
    run.begin("sft", "two", {})
    assert read_jsonl(run.samples) == lines[:1]


def test_a_run_that_has_no_model_yet(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.begin("pretrain", "a", {})
    with pytest.raises(MiaoError, match="it is in pretrain"):
        find_model(tmp_path)
