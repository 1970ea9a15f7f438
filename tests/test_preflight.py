"""What is known before the first stage is said before it, and all of it at once."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest

from miao.cli import main
from miao.errors import MiaoError
from miao.recipe import DpoOptions, PretrainOptions, Recipe, SftOptions, StageOptions
from miao.recipe.reading import load_recipe
from miao.recipe.stages import TeacherOptions
from miao.run.models import warn_if_diverged
from miao.run.preflight import preflight
from miao.train.loop import TrainResult

DOCUMENT = {"text": "春天来了。"}
PAIR = {"prompt": "你好", "chosen": "你好！", "rejected": "走开"}
LORA = ("--sft.adapter.kind", "lora")


def told(*words: str, up_to: str = "report") -> str:
    with pytest.raises(MiaoError) as caught:
        preflight(load_recipe(None, words), up_to)
    return str(caught.value)


def passes(*words: str, up_to: str = "report") -> None:
    preflight(load_recipe(None, words), up_to)


@pytest.fixture(autouse=True)
def nothing_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, *records: Any) -> str:
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    Path(name).write_text("".join(lines), encoding="utf-8")
    return name


def without(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda other, *a: None if other == name else find(other, *a)
    )


def test_the_default_recipe_may_begin() -> None:
    passes()


def test_a_layer_that_the_shape_does_not_have() -> None:
    message = told(*LORA, "--sft.adapter.targets", "q_prj", "v_proj")
    assert message.startswith("sft.adapter.targets: the model has no linear layer 'q_prj'")
    assert "did you mean 'q_proj'? it has: down_proj, gate_proj, k_proj" in message
    passes(*LORA, "--sft.adapter.targets", "q_proj")
    passes("--sft.adapter.targets", "q_prj")  # no adapter
    latent = ("--model.kv_lora_rank", "16", "--sft.adapter.targets", "k_proj")
    assert "kv_b_proj" in told(*LORA, *latent)


def test_layers_of_a_model_that_is_given(make_model: Any) -> None:
    from miao.model import save_model

    save_model(make_model(), Path("base"))
    words = ("--pretrain.enabled", "false", "--model.path", "base", *LORA)
    passes(*words, "--sft.adapter.targets", "o_proj")
    assert "'oo_proj'" in told(*words, "--sft.adapter.targets", "oo_proj")


def test_a_model_that_is_given_keeps_its_tokenizer(make_model: Any) -> None:
    """Another one of the same size would make nonsense of its weights without a word."""
    from miao.model import save_model

    save_model(make_model(), Path("base"))
    words = ("--pretrain.enabled", "false", "--model.path", "base")
    passes(*words)
    Path("base/tokenizer.json").write_text("{}")
    message = told(*words)
    assert message.startswith("base: this model knows the tokens of its own tokenizer")
    assert "--tokenizer.path base" in message


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    without("peft", monkeypatch)
    without("wandb", monkeypatch)
    message = told(*LORA, "--trackers", "wandb")
    assert message.startswith("2 mistakes:\n  - trackers: not installed: wandb\n")
    assert "\n  - sft.adapter.kind: adapters need the 'peft' package\n" in message
    passes(*LORA, "--trackers", "wandb", up_to="shards")
    assert "peft" in told(*LORA, up_to="sft")
    passes(*LORA, up_to="pretrain")
    passes(*LORA, "--sft.enabled", "false")


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "the device 'cuda:7' cannot be used" in told("--device", "cuda:7")
    passes("--device", "cuda:7", up_to="tokenizer")
    monkeypatch.setenv("WORLD_SIZE", "2")  # who gets which is found out together
    passes("--device", "cuda:7")


def test_a_vocabulary_that_holds_no_bytes() -> None:
    assert "100 is too small" in told("--tokenizer.vocab_size", "100")
    assert "need 272" in told("--tokenizer.vocab_size", "271")
    passes("--tokenizer.vocab_size", "272")
    own = ("--tokenizer.special_tokens", "<|user|>")
    assert "need 273" in told("--tokenizer.vocab_size", "272", *own)
    passes("--tokenizer.vocab_size", "100", up_to="corpus")


def test_paths_that_lead_nowhere() -> None:
    assert told("--tokenizer.path", "tok").startswith("tok: ")
    assert told("--model.path", "base").startswith("base: ")
    assert told("--sft.teacher.path", "runs/teacher").startswith("runs/teacher: ")
    passes("--sft.teacher.path", "runs/run/models/pretrain")
    assert "sft has no model to begin with" in told("--pretrain.enabled", "false")
    passes("--pretrain.enabled", "false", up_to="shards")
    assert "grpo.rewards" in told("--grpo.enabled", "true", "--grpo.rewards", "{exact_anser: 1}")
    assert told("--corpus.paths", "my_texts").startswith("my_texts: no such file or folder")


@pytest.mark.parametrize(
    ("key", "record"),
    [("conversations", PAIR), ("preferences", DOCUMENT), ("conversations", DOCUMENT)],
)
def test_a_file_under_the_wrong_option(key: str, record: Any) -> None:
    name = write("mine.jsonl", record, record)
    message = told(f"--corpus.{key}", name, up_to="corpus")
    assert message.startswith("mine.jsonl:1: ")
    passes(f"--corpus.{key}", name, "--corpus.skip_bad_records", "true")


def test_files_under_the_right_option() -> None:
    words = ("--corpus.paths", write("texts.jsonl", DOCUMENT, {"txet": ""}))
    passes(*words, "--corpus.preferences", write("pairs.jsonl", PAIR))
    passes("--corpus.paths", write("empty.jsonl"))  # told when everything was read


def test_names_of_sources() -> None:
    message = told("--corpus.weights", "{storys: 2}")
    assert message.startswith("corpus.weights: there is no source 'storys'")
    assert "did you mean 'stories'?" in message
    passes("--corpus.weights", "{stories: 2}")
    Path("tang").mkdir()
    Path("tang/1.txt").write_text("床前明月光", encoding="utf-8")
    assert "sources: tang" in told("--corpus.paths", "tang", "--corpus.weights", "{xy: 2}")
    passes("--corpus.paths", "tang", "--corpus.weights", "{tang: 2}")
    named = write("named.jsonl", DOCUMENT | {"source": "xy"})
    passes("--corpus.paths", "tang", named, "--corpus.weights", "{xy: 2}")


def test_everything_at_once_and_nothing_written(capsys: pytest.CaptureFixture[str]) -> None:
    Path("my.yaml").write_text("name: mine\ntokenizer: {vocab_size: 100}\ndevice: cuda:7\n")
    assert main(["run", "my.yaml"]) == 2
    message = capsys.readouterr().err
    assert "2 mistakes:" in message and "cuda:7" in message and "tokenizer.vocab_size" in message
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("stage", "options", "loss", "steps", "warned"),
    [
        ("pretrain", PretrainOptions(), 8.4, 100, True),
        ("pretrain", PretrainOptions(), 8.2, 100, False),
        ("pretrain", PretrainOptions(), 8.4, 3, False),  # it had hardly begun
        ("pretrain", PretrainOptions(), 21_725_131.0, 8, True),
        ("sft", SftOptions(), 79480.0, 100, True),
        ("sft", SftOptions(teacher=TeacherOptions("t")), 9.0, 100, False),
        ("sft", SftOptions(teacher=TeacherOptions("t")), 900.0, 100, True),
        ("dpo", DpoOptions(), 9.0, 100, False),
    ],
)
def test_a_training_that_diverged_is_no_success(
    capsys: pytest.CaptureFixture[str],
    stage: str,
    options: StageOptions,
    loss: float,
    steps: int,
    warned: bool,
) -> None:
    warn_if_diverged(stage, options, TrainResult(steps, 1, 1.0, loss, 1.0, 0.1), 4096)
    printed = capsys.readouterr()
    said = printed.out + printed.err
    assert (f"guessing ({math.log(4096):.2f}): the training diverged" in said) is warned
    if warned:
        assert f"lower {stage}.learning_rate and {stage}.muon_learning_rate" in said


def test_the_disk_is_asked_before_the_first_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("从前有一棵小苗。\n" * 1000, encoding="utf-8")
    recipe = Recipe(out_dir=str(tmp_path / "runs"))
    recipe.corpus.paths = [str(text)]
    recipe.sft.enabled = recipe.dpo.enabled = recipe.grpo.enabled = False
    monkeypatch.setattr("miao.run.preflight.free_space", lambda path: 2**40)
    preflight(recipe)
    monkeypatch.setattr("miao.run.preflight.free_space", lambda path: 2**20)
    with pytest.raises(MiaoError, match=r"the run writes [\d,]+ MiB or more .* 1 MiB of disk"):
        preflight(recipe)


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"margin": 0.0004, "kl": 1e-7}, "moved nothing: margin 0.0004, KL 1.0e-07"),
        ({"margin": -0.0004, "kl": 1e-7}, "raise dpo.learning_rate"),
        ({"margin": 0.3, "kl": 0.02}, ""),
        ({"margin": 0.001, "kl": 0.02}, ""),  # it moved, if not to where it should
        ({"margin": 0.3}, ""),  # no reference, no beginning to compare with
        ({"margin": 9.0, "kl": 5.0, "chosen_logprob": -900.0, "chosen_tokens": 30.0}, "diverged"),
    ],
)
def test_preferences_that_moved_nothing_or_too_much_are_said(
    capsys: pytest.CaptureFixture[str], metrics: dict[str, float], said: str
) -> None:
    result = TrainResult(50, 1, 1.0, math.log(2), 1.0, 0.1)
    result.metrics |= metrics
    warn_if_diverged("dpo", DpoOptions(), result, 4096)
    printed = " ".join(capsys.readouterr().out.split())
    assert said in printed if said else not printed
