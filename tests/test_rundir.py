"""A run directory: what is done, what is begun, and which model is meant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from miao.errors import MiaoError
from miao.files import read_json, read_jsonl
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
    assert run.finished("sft", "other") and run.finished("dpo", "two")


def test_half_done_work_is_continued_for_the_same_inputs_only(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert not run.begin("pretrain", "one")
    assert not run.begin("pretrain", "one"), "begun, but nothing was saved"
    checkpoint = run.checkpoints("pretrain") / "step-00000010"
    checkpoint.mkdir()
    assert run.begin("pretrain", "one")
    assert not run.begin("pretrain", "other")
    assert not checkpoint.exists()
    assert read_json(run.checkpoints("pretrain") / "stage.json") == {"fingerprint": "other"}


def test_lines_of_a_stage_are_replaced_and_others_kept(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.replace_lines(run.eval_results, "sft", [{"stage": "sft", "value": 1}])
    run.replace_lines(run.eval_results, "dpo", [{"stage": "dpo", "value": 2}])
    run.replace_lines(run.eval_results, "sft", [{"stage": "sft", "value": n} for n in (3, 4)])
    assert [r["value"] for r in read_jsonl(run.eval_results)] == [2, 3, 4]


def model_at(path: Path, age: int = 0) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    os.utime(path / "config.json", (1e9 - age, 1e9 - age))
    return path


def test_find_model(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(MiaoError, match="neither a finished run nor a model") as caught:
            find_model(path)
        assert str(path) in str(caught.value)
    newer = model_at(tmp_path / "models" / "pretrain", age=1)
    model_at(tmp_path / "models" / "sft", age=5)
    assert find_model(tmp_path) == newer
    final = model_at(tmp_path / "model")
    assert find_model(tmp_path) == final == find_model(str(final))
