"""What a run writes of itself: the options that its models were made with, why a stage is done
again, and that one command at a time is at work in it. Training itself is left out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from miao.cli import main
from miao.files import read_json
from miao.run.chain import Chain
from miao.run.changes import changes
from miao.rundir import RunDir
from tests.test_run import TINY

Command = Callable[..., str]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts" / "days.txt"
    path.parent.mkdir()
    path.write_text("\n\n".join(f"第{n}天，天气很好。" * 9 for n in range(60)), encoding="utf-8")
    return path


@pytest.fixture
def command(
    tmp_path: Path,
    texts: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """Runs a verb on a recipe of that text; returns what it said."""
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(TINY, encoding="utf-8")

    def train(chain: Chain, stage: str, base: Path | None, inputs: object) -> None:
        chain.run.model(stage).mkdir(parents=True, exist_ok=True)
        (chain.run.model(stage) / "config.json").write_text("{}")

    monkeypatch.setattr("miao.run.models._train", train)

    def run(verb: str, *words: str) -> str:
        given = ["--out_dir", str(tmp_path), "--corpus.paths", str(texts.parent)]
        given += ["--evaluate.enabled", "false", "--tokenizer.vocab_size", "300"]
        assert main([verb, str(recipe), *given, *words]) == 0
        return capsys.readouterr().out

    return run


def kept(tmp_path: Path) -> dict[str, Any]:
    return yaml.safe_load((tmp_path / "tiny" / "recipe.yaml").read_text("utf-8"))


def test_the_recipe_of_a_run_is_what_its_models_were_made_with(
    command: Command, tmp_path: Path
) -> None:
    command("sft", "--pretrain.learning_rate", "0.002")
    machine = read_json(tmp_path / "tiny" / "manifest.json")
    (tmp_path / "tiny" / "manifest.json").write_text("{}")
    words = ["--pretrain.learning_rate", "50", "--model.hidden_size", "64", "--seed", "7"]
    said = command("tokenizer", *words[:4], "--device", "cpu", "--sft.enabled", "false")
    assert said.count("done before") == 2
    recipe = kept(tmp_path)
    assert recipe["pretrain"]["learning_rate"] == 0.002
    assert recipe["model"]["hidden_size"] == 32 and recipe["device"] == "auto"
    assert recipe["sft"]["enabled"] is False, "what belongs to a run is asked for anew"
    assert read_json(tmp_path / "tiny" / "manifest.json") == {}, "no model was made on this machine"
    command("pretrain", *words, "--device", "cpu")
    recipe = kept(tmp_path)
    assert recipe["pretrain"]["learning_rate"] == 50 and recipe["model"]["hidden_size"] == 64
    assert (recipe["seed"], recipe["device"]) == (7, "cpu")
    assert read_json(tmp_path / "tiny" / "manifest.json").keys() == machine.keys()


def test_a_new_time_of_a_file_trains_nothing(command: Command, texts: Path, tmp_path: Path) -> None:
    command("pretrain")
    os.utime(texts, (1, 1))
    said = command("pretrain")
    assert f"again, changed: {texts} (changed)" in said
    assert said.count("done before") == 3, "what was written is the same"
    shutil.copytree(texts.parent, tmp_path / "copy")
    said = command("pretrain", "--corpus.paths", str(tmp_path / "copy"))
    assert "● corpus\n" in said
    with open(texts, "a", encoding="utf-8") as file:
        file.write("\n\n" + "又一天，下雨了。" * 20)
    said = command("pretrain")
    assert "done before" not in said
    assert "the pretrain corpus" in said and "the pretrain shards" in said
    assert "another --name would keep it" in said


def test_why_a_stage_is_done_again(command: Command, tmp_path: Path) -> None:
    assert "again," not in command("sft")
    said = command("sft", "--sft.learning_rate", "0.5", "--sft.adapter.rank", "3")
    assert "  again, changed: sft.learning_rate 0.003 -> 0.5, sft.adapter.rank 16 -> 3" in said
    shutil.rmtree(tmp_path / "tiny" / "models" / "pretrain")
    assert "again, not all of its files are there" in command("pretrain")


def test_changes_in_words() -> None:
    old = {
        "corpus": "1",
        "sft": {"a": {"b": 1}, "c": None},
        "files": {"x": [1], "y": [2]},
        "seed": 1,
    }
    new = {
        "corpus": "2",
        "sft": {"a": {"b": 2}, "c": "t" * 99},
        "files": {"x": [2], "z": [3]},
        "seed": 1,
    }
    found = changes(old, new)
    assert found == f"the corpus, sft.a.b 1 -> 2, sft.c None -> {'t' * 37}... and 3 more"
    assert (
        changes({"files": old["files"]}, {"files": new["files"]})
        == "x (changed), z (new), y (gone)"
    )
    assert changes(old, old) == ""


def test_one_command_at_a_time(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command("corpus")
    recipe = ["corpus", str(tmp_path / "tiny.yaml"), "--out_dir", str(tmp_path)]
    with RunDir(tmp_path / "tiny").alone():
        assert main(recipe) == 2
        assert "another miao is at work in this run" in capsys.readouterr().err
    assert main(recipe) == 0
