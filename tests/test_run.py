"""The whole chain, tiny: what it leaves behind, what it skips, what a kill does to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from miao.cli import main
from miao.commands.export import MARK
from miao.files import read_json, read_jsonl, write_json, write_jsonl
from miao.run.chain import Chain
from miao.rundir import RunDir, find_model, list_checkpoints, step_of
from miao.shards import TokenDataset
from miao.tokenizer import Tokenizer
from miao.train.safety.checkpoint import CheckpointStore
from tests.train.pair import run_processes

TINY = """
name: tiny
corpus: {heldout: 0.05, seedbed: {characters: 30K, conversations: 120, preferences: 40}}
tokenizer: {vocab_size: 700}
model: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1,
        max_position_embeddings: 256}
pretrain: {tokens: 12K, seq_len: 128, batch_tokens: 1024, save_every: 0.1, precision: fp32, compile: off}
sft: {epochs: 1, seq_len: 128, batch_tokens: 1024, precision: fp32, compile: off}
dpo: {epochs: 1, seq_len: 256, batch_tokens: 1024, precision: fp32, compile: off}
evaluate: {choice_items: 16, question_items: 12, preference_pairs: 8, heldout_tokens: 1K,
           max_new_tokens: 8}
sample_texts: ["从前，"]
sample_prompts: ["你好"]
"""
OLD_SAMPLE = {"stage": "dpo", "tokens": 10**9, "prompt": "?", "answer": "of another model"}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run_dir(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    assert main(["run", str(recipe), "--out_dir", str(out)]) == 0
    return out / "tiny"


def test_a_run_leaves_everything_behind(run_dir: Path) -> None:
    for name in ("recipe.yaml", "manifest.json", "metrics.jsonl", "samples.jsonl", "report.html"):
        assert (run_dir / name).stat().st_size > 0, name
    results = read_jsonl(run_dir / "eval_results.jsonl")
    assert [line["stage"] for line in results] == ["pretrain", "sft", "dpo"]
    tasks = {stage["stage"]: {score["task"] for score in stage["scores"]} for stage in results}
    own = {"bits per byte", "multiple choice", "questions", "preference (likelihood)"}
    assert tasks["pretrain"] == tasks["sft"] == own, "every stage has its before"
    assert tasks["dpo"] == tasks["sft"] | {"preference (reward)", "preference margin"}
    stages = {line["stage"] for line in read_jsonl(run_dir / "metrics.jsonl")}
    assert stages == {"pretrain", "sft", "dpo"}
    final, last = (load_file(run_dir / d / "model.safetensors") for d in ("model", "models/dpo"))
    assert all((final[name] == last[name]).all() for name in last)


def test_the_model_directory_chats_in_transformers(run_dir: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(run_dir / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(run_dir / "model")
    turns = [{"role": "user", "content": "你好"}]
    inputs = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**inputs, do_sample=False, max_new_tokens=8)
    theirs = tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    from miao.evaluate.measure.quality import chat_answers
    from miao.model import load_model
    from miao.tokenizer import Tokenizer

    ours = chat_answers(
        load_model(run_dir / "model"), Tokenizer.from_directory(run_dir / "model"), ["你好"], 8
    )
    assert ours == [theirs.strip()]


def test_a_second_run_does_nothing_again(
    recipe: Path, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run_dir / "models" / "dpo" / "model.safetensors").stat().st_mtime_ns
    assert main(["run", str(recipe), "--out_dir", str(run_dir.parent)]) == 0
    assert (run_dir / "models" / "dpo" / "model.safetensors").stat().st_mtime_ns == before
    assert capsys.readouterr().out.count("done before") == 7


def test_a_changed_option_redoes_only_what_depends_on_it(
    recipe: Path, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "tiny"
    shutil.copytree(run_dir, copy)
    before = written(copy)
    write_jsonl(copy / "samples.jsonl", [*read_jsonl(copy / "samples.jsonl"), OLD_SAMPLE])
    words = [str(recipe), "--out_dir", str(tmp_path), "--dpo.learning_rate", "0.01"]
    assert main(["dpo", *words]) == 0
    after = written(copy)
    changed = {path.parent.name for path in before if before[path] != after[path]}
    assert changed == {"dpo", "model"}
    assert OLD_SAMPLE not in read_jsonl(copy / "samples.jsonl")
    assert not equal(copy / "models" / "dpo", run_dir / "models" / "dpo")
    assert equal(copy / "model", copy / "models" / "dpo")
    assert find_model(copy) == copy / "models" / "dpo"
    assert [line["stage"] for line in read_jsonl(copy / "eval_results.jsonl")] == [
        "pretrain", "sft", "dpo",
    ]  # fmt: skip
    capsys.readouterr()
    assert main(["run", *words]) == 0
    assert capsys.readouterr().out.count("done before") == 6, "all but the report"


def test_the_model_of_a_run_is_never_an_old_one(
    recipe: Path, run_dir: Path, tmp_path: Path
) -> None:
    """SFT is done again and DPO is not: the run is the new SFT, for all who ask for its model."""
    copy = tmp_path / "tiny"
    shutil.copytree(run_dir, copy)
    words = [str(recipe), "--out_dir", str(tmp_path), "--evaluate.enabled", "false"]
    assert main(["sft", *words]) == 0
    assert find_model(copy) == copy / "models" / "dpo", "nothing was changed"
    assert main(["sft", *words, "--sft.learning_rate", "0.001"]) == 0
    assert find_model(copy) == copy / "models" / "sft"
    assert equal(copy / "model", copy / "models" / "sft")
    assert not equal(copy / "models" / "sft", run_dir / "models" / "sft")
    assert RunDir(copy).stage_of(copy / "model") == "sft"
    out = tmp_path / "exported"
    assert main(["export", str(copy), "--to", "hf", "--no-check", "--out", str(out)]) == 0
    assert read_json(out / MARK)["stage"] == "sft"


def test_what_stands_beside_the_models_stops_no_run(
    recipe: Path,
    run_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(run_dir, tmp_path / "tiny")
    words = ["run", str(recipe), "--out_dir", str(tmp_path), "--sft.learning_rate", "2e-3"]

    def broken(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("no such luck")

    with monkeypatch.context() as patch:
        patch.setattr("miao.evaluate.stage.evaluate_stage", broken)
        patch.setattr("miao.report.write_report", broken)
        patch.setattr("miao.train.watch.samples.chat_answers", broken)
        assert main(words) == 2
    out = capsys.readouterr()
    assert "could not be made: the evaluation after sft, the evaluation after dpo, the report" in (
        out.err + out.out
    )
    assert "the samples could not be made" in out.out
    assert equal(tmp_path / "tiny" / "model", tmp_path / "tiny" / "models" / "dpo")
    assert not equal(tmp_path / "tiny" / "model", run_dir / "model")
    trained = written(tmp_path / "tiny")
    assert main(words) == 0, "only what is missing is made"
    assert written(tmp_path / "tiny") == trained
    assert [line["stage"] for line in read_jsonl(tmp_path / "tiny" / "eval_results.jsonl")][-1] == (
        "dpo"
    )


def test_what_a_run_begins_with_is_looked_at_again(
    recipe: Path, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base, a teacher or a tokenizer at the same place that is another now: trained again."""
    shutil.copytree(run_dir, tmp_path / "tiny")
    base, teacher = (tmp_path / name for name in ("base", "teacher"))
    for copy in (base, teacher):
        shutil.copytree(run_dir / "models" / "pretrain", copy)
    trained: list[str] = []

    def train(chain: Chain, stage: str, base: Path | None, inputs: object) -> None:
        trained.append(stage)
        chain.run.model(stage).mkdir(parents=True, exist_ok=True)
        (chain.run.model(stage) / "config.json").write_text("{}")

    monkeypatch.setattr("miao.run.models._train", train)
    words = ["sft", str(recipe), "--out_dir", str(tmp_path), "--evaluate.enabled", "false"]
    words += ["--pretrain.enabled", "false", "--model.path", str(base)]
    words += ["--tokenizer.path", str(base), "--sft.teacher.path", str(teacher)]

    def trains() -> bool:
        trained.clear()
        assert main(words) == 0
        return bool(trained)

    assert trains() and not trains()
    for file in (base / "model.safetensors", teacher / "model.safetensors"):
        content = file.read_bytes()
        file.write_bytes(content)
        assert not trains(), "only its time has changed"
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert trains() and not trains(), file
    for file in (base / "tokenizer_config.json", teacher / "config.json"):
        file.write_text(json.dumps(read_json(file) | {"note": "changed"}))
        assert trains() and not trains(), file
    (base / "README.md").write_text("changed")
    assert not trains()


def written(run: Path) -> dict[Path, int]:
    """When each of the models' files was written."""
    files = [*run.glob("models/*/*"), *run.glob("model/*")]
    return {file: file.stat().st_mtime_ns for file in files}


def equal(model: Path, other: Path) -> bool:
    return all(file.read_bytes() == (other / file.name).read_bytes() for file in model.iterdir())


def killed_at_the_first_checkpoint(words: list[str]) -> int:
    """The command, ended by SIGKILL as soon as there is a checkpoint."""
    save = CheckpointStore.save

    def save_and_die(store: CheckpointStore, *arguments: Any, **options: Any) -> None:
        save(store, *arguments, **options)
        store.failure(wait=True)
        os.kill(os.getpid(), signal.SIGKILL)

    CheckpointStore.save = save_and_die  # type: ignore[method-assign]
    return main(words)


@pytest.fixture(scope="module")
def half_trained(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What SIGKILL in the middle of pretraining leaves, to be copied."""
    out = tmp_path_factory.mktemp("killed")
    words = ["pretrain", str(recipe), "--out_dir", str(out), "--evaluate.enabled", "false"]
    (killed,) = run_processes(1, killed_at_the_first_checkpoint, words, directory=out)
    assert killed.code == -signal.SIGKILL, killed.said
    return out / "tiny"


def without_the_compiler(words: list[str]) -> int:
    """The command, which asks for no compiling and does not spend seconds on importing it."""
    for name in [name for name in sys.modules if name.startswith("torch._dynamo")]:
        del sys.modules[name]  # imported before this process was forked (`pair.py`)
    vars(torch).pop("_dynamo", None)
    code = main(words)
    assert "torch._dynamo" not in sys.modules
    return code


def test_a_killed_run_continues_and_ends_the_same(
    recipe: Path, run_dir: Path, half_trained: Path, tmp_path: Path
) -> None:
    """SIGKILL in the middle of pretraining: run again, and the weights are the same to the bit."""
    words = ["pretrain", str(recipe), "--out_dir", str(tmp_path), "--evaluate.enabled", "false"]
    shutil.copytree(half_trained, tmp_path / "tiny")
    (saved,) = list_checkpoints(tmp_path / "tiny" / "checkpoints" / "pretrain")
    assert not (tmp_path / "tiny" / "models" / "pretrain").exists()
    (done,) = run_processes(1, without_the_compiler, words, directory=tmp_path)
    assert done.code == 0 and f"resumed at step {step_of(saved)} (" in done.said, done.said
    assert step_of(saved) > 0
    ours = load_file(tmp_path / "tiny" / "models" / "pretrain" / "model.safetensors")
    whole = load_file(run_dir / "models" / "pretrain" / "model.safetensors")
    assert all((ours[name] == whole[name]).all() for name in whole)


def test_a_half_trained_stage_goes_on_with_other_options(
    recipe: Path, half_trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pretrain", str(recipe), "--out_dir", str(tmp_path), "--evaluate.enabled", "false"]
    shutil.copytree(half_trained, tmp_path / "tiny")
    checkpoints = tmp_path / "tiny" / "checkpoints"
    words += ["--pretrain.tokens", "16K", "--pretrain.learning_rate", "1e-3"]
    assert main([*words, "--resume-with-changes"]) == 0
    said = capsys.readouterr().out
    assert (
        "goes on from what was half trained, although changed: pretrain.tokens 12K -> 16K" in said
    )
    assert "pretrain.learning_rate 0.003 -> 0.001" in said and "resumed at step" in said
    assert not (checkpoints / "pretrain.before").exists()


def test_a_refused_model_leaves_half_trained_work_as_it_was(
    recipe: Path, half_trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pretrain", str(recipe), "--out_dir", str(tmp_path), "--evaluate.enabled", "false"]
    shutil.copytree(half_trained, tmp_path / "tiny")
    checkpoints = tmp_path / "tiny" / "checkpoints"
    mark, saved = checkpoints / "pretrain" / "stage.json", checkpoints / "pretrain"
    before = mark.read_bytes(), list_checkpoints(saved)
    wide = [*words, "--model.hidden_size", "64"]
    assert main([*wide, "--resume-with-changes"]) == 2
    assert "the checkpoints are of another model" in capsys.readouterr().err
    assert before == (mark.read_bytes(), list_checkpoints(saved))
    assert main(wide) == 0, "begun anew, as the message says"
    said = capsys.readouterr().out
    assert "begun anew, changed: model.hidden_size 32 -> 64" in said and "resumed" not in said
    assert "pretrain.before, half trained with other options, is removed" in said
    assert not (checkpoints / "pretrain.before").exists()


def test_a_run_goes_on_when_the_text_is_gone(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Named files, and those of the folder that needs no naming."""
    monkeypatch.chdir(tmp_path)
    texts, chats = tmp_path / "texts", tmp_path / "data" / "chinese" / "chats.jsonl"
    for path in (texts / "one.txt", chats):
        path.parent.mkdir(parents=True)
    (texts / "one.txt").write_text("春天来了，小草绿了。\n\n" * 200, encoding="utf-8")
    write_jsonl(chats, [{"instruction": f"{n}是几？", "output": f"是{n}。"} for n in range(40)])
    words = [str(recipe), "--out_dir", str(tmp_path), "--corpus.paths", str(texts)]
    words += ["--tokenizer.vocab_size", "300", "--evaluate.enabled", "false"]
    assert main(["shards", *words]) == 0
    shutil.rmtree(texts)
    shutil.rmtree(tmp_path / "data")
    made = {path: path.read_bytes() for path in (tmp_path / "tiny" / "shards").rglob("*.bin")}
    assert made
    capsys.readouterr()
    assert main(["pretrain", *words, "--pretrain.tokens", "2K"]) == 0
    assert main(["sft", *words, "--pretrain.tokens", "2K", "--sft.learning_rate", "1e-3"]) == 0
    said = capsys.readouterr().out
    gone = f"gone since: {texts}, data/chinese/chats.jsonl; what was made from it is used as it is"
    assert said.count(gone) == 2, "once a command"
    assert made == {path: path.read_bytes() for path in made}
    for option, value in (("corpus.clean.min_chinese", "0.5"), ("seed", "7")):
        assert main(["run", *words, f"--{option}", value]) == 2
        error = capsys.readouterr().err
        assert f"changed: {option} " in error and "is gone" in error and str(texts) in error


def test_shards_are_enough_to_train_and_never_removed_without_their_corpus(
    recipe: Path, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run_dir, tmp_path / "tiny")
    for path in (tmp_path / "tiny" / "corpus").glob("*/*/*.jsonl"):
        path.unlink()
    made = {path: path.read_bytes() for path in (tmp_path / "tiny" / "shards").rglob("*.bin")}
    words = [str(recipe), "--out_dir", str(tmp_path), "--evaluate.enabled", "false"]
    assert main(["sft", *words, "--sft.learning_rate", "1e-3"]) == 0
    for change in (["--tokenizer.vocab_size", "600"], ["--sft.last_turn_only", "true"]):
        assert main(["sft", *words, *change]) == 2
        assert "files are gone (" in capsys.readouterr().err
    assert made and made == {path: path.read_bytes() for path in made}


def test_training_on_your_own_files(recipe: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(30):
        (texts / f"{number}.txt").write_text(
            f"第{number}课：春天来了，小草绿了。" * 8, encoding="utf-8"
        )
    (texts / "more.md").write_text("# Notes\n\nSpring is here and the grass is green.\n" * 9)
    with open(tmp_path / "chats.jsonl", "w", encoding="utf-8") as file:
        for number in range(30):
            turn = {"instruction": f"第{number}个问题？", "output": f"第{number}个回答。"}
            file.write(json.dumps(turn, ensure_ascii=False) + "\n")
    words = ["sft", str(recipe), "--out_dir", str(tmp_path), "--name", "mine"]
    words += ["--corpus.paths", str(texts), "--corpus.conversations", str(tmp_path / "chats.jsonl")]
    words += [
        "--tokenizer.vocab_size",
        "300",
        "--pretrain.tokens",
        "3000",
        "--corpus.heldout",
        "0.2",
    ]
    assert main(words) == 0
    manifest = read_json(tmp_path / "mine" / "corpus" / "manifest.json")
    assert manifest["origin"] == {"pretrain": "files", "sft": "files", "dpo": "seedbed"}
    assert manifest["sources"]["sft"].keys() == {"conversations", "built-in"}
    counts = manifest["sources"]["pretrain"]["texts"]
    assert counts["train"] + counts["heldout"] == 31
    results = read_jsonl(tmp_path / "mine" / "eval_results.jsonl")
    assert "multiple choice" not in {score["task"] for score in results[0]["scores"]}
    asked = {s["category"] for s in results[-1]["scores"] if s["task"] == "questions"}
    assert {"identity", "general"} <= asked and "knowledge" not in asked, "what nobody told it"
    own = {score["category"] for score in results[-1]["scores"] if score["task"] == "own questions"}
    assert own == {"empty answers", "answers in circles", "repeated 4-grams"}
    answers = read_jsonl(tmp_path / "mine" / "answers" / "sft.own.jsonl")
    assert answers and all(one["reference"].endswith("个回答。") for one in answers)


def test_chat_answers_once(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["chat", str(run_dir), "-p", "你好", "--temperature", "0", "--max-new-tokens", "4"]
    assert main(words) == 0
    assert capsys.readouterr().out.endswith("\n")


def test_inspect_shows_pieces(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenizer", "inspect", str(run_dir), "--text", "春天 12"]) == 0
    shown = capsys.readouterr().out
    assert "春" in shown and "1" in shown
    records = run_dir / "corpus" / "sft" / "train" / "conversations.jsonl"
    assert main(["tokenizer", "inspect", str(run_dir), "--file", str(records), "--count", "1"]) == 0
    assert "im_end" in capsys.readouterr().out


@pytest.fixture(scope="module")
def base_model(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model: no chat template, and no tokens for one."""
    directory = tmp_path_factory.mktemp("base") / "model"
    shutil.copytree(run_dir / "models" / "pretrain", directory)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (directory / name).read_text(encoding="utf-8")
        text = text.replace("<|im_start|>", "<|unused_1|>").replace("<|im_end|>", "<|unused_2|>")
        (directory / name).write_text(text, encoding="utf-8")
    config = read_json(directory / "tokenizer_config.json")
    del config["chat_template"]
    config["eos_token"] = "<|endoftext|>"
    write_json(directory / "tokenizer_config.json", config)
    return directory


def test_a_stage_that_is_off_makes_no_demands(
    recipe: Path, base_model: Path, tmp_path: Path
) -> None:
    """A base model is continued with SFT and DPO off: no chat template is asked for, their options
    need not fit, nothing is tokenised for them."""
    words = ["run", str(recipe), "--out_dir", str(tmp_path), "--model.path", str(base_model)]
    words += ["--tokenizer.path", str(base_model), "--pretrain.tokens", "2K"]
    off = ["--sft.enabled", "false", "--dpo.enabled", "false", "--sft.epochs", "-1"]
    assert main([*words, *off]) == 0
    run = tmp_path / "tiny"
    assert sorted(path.name for path in (run / "shards").iterdir()) == ["pretrain"]
    assert [line["stage"] for line in read_jsonl(run / "eval_results.jsonl")] == ["pretrain"]
    before = written(run / "models")
    more = ["--tokenizer.path", str(base_model), "--sft.enabled", "true"]
    assert main([*words, *more]) == 2  # said before anything is done
    assert written(run / "models") == before


def test_a_file_of_a_stage_that_is_off_is_not_read(recipe: Path, tmp_path: Path) -> None:
    """Be it broken or gone; a stage that is switched on later, or off, does nothing else again."""
    story, talk, bad = (tmp_path / name for name in ("a.txt", "talk.jsonl", "bad.jsonl"))
    story.write_text("\n\n".join(f"第{n}天，小猫找到了 {n} 条鱼。" for n in range(200)), "utf-8")
    talk.write_text('{"messages": [{"role": "user"\n', encoding="utf-8")
    bad.write_text("no JSON", encoding="utf-8")
    words = ["run", str(recipe), "--out_dir", str(tmp_path), "--evaluate.enabled", "false"]
    words += ["--tokenizer.vocab_size", "300", "--pretrain.tokens", "2K", "--pretrain.epochs"]
    words += ["null", "--corpus.paths", f'["{story}"]', "--corpus.conversations", f'["{talk}"]']
    off, gone = ["--sft.enabled", "false"], tmp_path / "gone.jsonl"
    words += ["--dpo.enabled", "false", "--corpus.preferences", f'["{bad}", "{gone}"]']
    assert main([*words, *off]) == 0
    run = tmp_path / "tiny"
    assert sorted(path.name for path in run.glob("corpus/*/")) == ["pretrain"]
    before = written(run / "tokenizer") | written(run / "models" / "pretrain")
    assert main(words) == 2, "now it is needed"
    turns = [{"role": "user", "content": "小猫呢？"}, {"role": "assistant", "content": "在。"}]
    write_jsonl(
        talk, [{"messages": [turns[0] | {"content": f"{n}？"}, turns[1]]} for n in range(40)]
    )
    assert main([*words, "--sft.tokens", "1K", "--sft.epochs", "null"]) == 0
    assert (run / "models" / "sft").exists()
    assert written(run / "tokenizer") | written(run / "models" / "pretrain") == before
    corpus = written(run / "corpus")
    assert main([*words, *off]) == 0
    assert written(run / "corpus") == corpus, "it stays for the day when SFT is on again"
    assert written(run / "tokenizer") | written(run / "models" / "pretrain") == before


def test_a_base_model_gets_a_template_and_rows_for_its_tokens(
    recipe: Path, base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", str(recipe), "--out_dir", str(tmp_path), "--model.path", str(base_model)]
    words += ["--tokenizer.path", str(base_model), "--pretrain.enabled", "false"]
    words += ["--dpo.enabled", "false", "--tokenizer.special_tokens", '["<|cite|>"]']
    assert main(words) == 2
    said = "".join(capsys.readouterr())
    assert "no chat template" in said and "--tokenizer.chat_template" in said
    assert main([*words, "--tokenizer.chat_template", "chatml"]) == 0
    run = tmp_path / "tiny"
    old, new = (Tokenizer.from_directory(d) for d in (base_model, run / "model"))
    assert new.vocab_size == old.vocab_size + 3
    assert new.id_to_token(new.end_of_turn_id) == "<|im_end|>"
    rows, grown = (
        load_file(directory / "model.safetensors")["model.embed_tokens.weight"]
        for directory in (base_model, run / "models" / "base")
    )
    assert (grown[: len(rows)] == rows).all() and len(grown) == len(rows) + 3
    torch.testing.assert_close(grown[len(rows) :], rows.mean(0).expand(3, -1))
    assert len(load_file(run / "model" / "model.safetensors")["model.embed_tokens.weight"]) == (
        len(rows) + 3
    )
    lines = [line["stage"] for line in read_jsonl(run / "eval_results.jsonl")]
    assert lines == ["before", "sft"]
    lora = ["--name", "lora", "--tokenizer.chat_template", "chatml", "--sft.adapter.kind", "lora"]
    assert main([*words, *lora]) == 0  # the new rows are trained beside the adapter
    adapter = tmp_path / "lora" / "adapters" / "sft"
    new_ids = [old.vocab_size + number for number in range(3)]
    assert read_json(adapter / "adapter_config.json")["trainable_token_indices"] == new_ids
    trained = load_file(tmp_path / "lora" / "model" / "model.safetensors")
    moved = trained["model.embed_tokens.weight"] != grown
    assert moved.any(dim=1).nonzero().squeeze(1).tolist()[0] == old.vocab_size


def test_own_control_tokens_are_trained_where_a_source_means_them(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [
        {"text": f"<|cite|>{n} 今天天气很好。The rain was kind to it. <|im_end|>"}
        for n in range(90)
    ]
    write_jsonl(tmp_path / "notes.jsonl", texts)
    words = ["shards", str(recipe), "--out_dir", str(tmp_path)]
    words += ["--corpus.paths", f'["{tmp_path / "notes.jsonl"}"]', "--corpus.dedup.near", "false"]
    words += ["--tokenizer.special_tokens", '["<|cite|>"]', "--tokenizer.vocab_size", "500"]
    assert main(words) == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert "<|cite|>: no shard holds them" in said
    assert "<|cite|> " in said and "learned as letters" in said
    assert main([*words, "--tokenizer.meant", '{"nots": ["<|cite|>"]}']) == 2
    assert "there is no source 'nots'" in "".join(capsys.readouterr())
    assert main([*words, "--tokenizer.meant", '{"notes": ["<|cite|>"]}']) == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert "no shard holds them" not in said and "tokenizer: done before" in said
    run = tmp_path / "tiny"
    data = TokenDataset(run / "shards" / "pretrain" / "train" / "notes")
    tokenizer = Tokenizer.from_directory(run / "tokenizer")
    cite, end = (tokenizer.token_to_id(token) for token in ("<|cite|>", "<|im_end|>"))
    ids = data.tokens(0).tolist()
    assert ids[1] == cite and end not in ids
