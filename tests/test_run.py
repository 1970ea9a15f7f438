"""The whole chain, tiny: what it leaves behind, what it skips, what a kill does to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from miao.cli import main
from miao.files import read_json, read_jsonl

TINY = """
name: tiny
corpus: {heldout: 0.05, seedbed: {characters: 30K, conversations: 120, preferences: 40}}
tokenizer: {vocab_size: 700}
model: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1,
        max_position_embeddings: 256}
pretrain: {tokens: 12K, seq_len: 128, batch_tokens: 1024, save_every: 0.1, precision: fp32}
sft: {epochs: 1, seq_len: 128, batch_tokens: 1024, precision: fp32}
dpo: {epochs: 1, seq_len: 256, batch_tokens: 1024, precision: fp32}
evaluate: {choice_items: 16, question_items: 12, preference_pairs: 8, heldout_tokens: 1K,
           max_new_tokens: 8}
sample_texts: ["从前，"]
sample_prompts: ["你好"]
"""


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
    assert tasks["pretrain"] == {"bits per byte", "multiple choice"}
    assert tasks["sft"] == tasks["pretrain"] | {"questions", "preference (likelihood)"}
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

    from miao.evaluate import chat_answers
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
    marks = {name: entry["fingerprint"] for name, entry in read_json(copy / "stages.json").items()}
    assert main(["run", str(recipe), "--out_dir", str(tmp_path), "--dpo.beta", "0.5"]) == 0
    after = {name: entry["fingerprint"] for name, entry in read_json(copy / "stages.json").items()}
    changed = {name for name in marks if marks[name] != after[name]}
    assert changed == {"dpo", "evaluate dpo", "report"}
    assert [line["stage"] for line in read_jsonl(copy / "eval_results.jsonl")] == [
        "pretrain", "sft", "dpo",
    ]  # fmt: skip


def test_a_killed_run_continues_and_ends_the_same(
    recipe: Path, run_dir: Path, tmp_path: Path
) -> None:
    """SIGKILL in the middle of pretraining: run again, and the weights are the same to the bit."""
    words = ["pretrain", str(recipe), "--out_dir", str(tmp_path), "--evaluate.enabled", "false"]
    command = [sys.executable, "-m", "miao", *words]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    checkpoints = tmp_path / "tiny" / "checkpoints" / "pretrain"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("step-*/state.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert not (tmp_path / "tiny" / "models" / "pretrain").exists()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    ours = load_file(tmp_path / "tiny" / "models" / "pretrain" / "model.safetensors")
    whole = load_file(run_dir / "models" / "pretrain" / "model.safetensors")
    assert all((ours[name] == whole[name]).all() for name in whole)


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
    words += ["--tokenizer.vocab_size", "300", "--pretrain.tokens", "3000", "--sft.epochs", "1"]
    assert main(words) == 0
    manifest = read_json(tmp_path / "mine" / "corpus" / "manifest.json")
    assert manifest["origin"] == {"pretrain": "files", "sft": "files", "dpo": "seedbed"}
    counts = manifest["sources"]["pretrain"]["texts"]
    assert counts["train"] + counts["heldout"] == 31
    results = read_jsonl(tmp_path / "mine" / "eval_results.jsonl")
    assert "multiple choice" not in {score["task"] for score in results[0]["scores"]}


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
