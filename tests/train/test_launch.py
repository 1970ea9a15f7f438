"""Whole command lines under torchrun: a chain of stages, a mistake, a process that fails or dies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from miao.files import read_json, read_jsonl
from miao.model import load_model

ROOT = Path(__file__).parent.parent.parent
RECIPE = """
name: tiny
device: cpu
corpus: {heldout: 0.05, seedbed: {characters: 30K, conversations: 30, preferences: 20}}
tokenizer: {vocab_size: 400}
model: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1,
        max_position_embeddings: 256}
pretrain: {tokens: 6K, seq_len: 64, batch_tokens: 512, log_every: 3, precision: fp32, compile: off}
sft: {enabled: false}
dpo: {epochs: 0.3, seq_len: 256, batch_tokens: 1024, precision: fp32, compile: off}
evaluate: {choice_items: 4, question_items: 2, preference_pairs: 2, heldout_tokens: 300,
           max_new_tokens: 2}
"""
FAILING = """
import os, signal, sys
from miao.errors import MiaoError
from miao.train.world import join_world
how = sys.argv[1]
try:
    with join_world("cpu") as world:
        world.barrier()
        if world.rank == 1 and how == "bug":
            raise ZeroDivisionError("a bug")
        if world.rank == 1 and how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "all alike":
            raise MiaoError("nobody likes it", where="here", fix="turn it down")
        world.barrier()
except MiaoError as error:
    print("miao:", error, file=sys.stderr)
    sys.exit(2)
"""


def torchrun(*words: str, directory: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TORCHELASTIC_ERROR_FILE": "",
    }  # fmt: skip
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            *words,
        ],
        capture_output=True,
        text=True,
        cwd=directory,
        env=environment,
        timeout=240,
    )


def test_a_chain_of_stages_and_again(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(RECIPE, encoding="utf-8")
    done = torchrun("-m", "miao", "run", "tiny.yaml", directory=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "runs" / "tiny"
    assert done.stdout.count("2 processes, DDP") == 2  # pretrain and dpo, said by one process
    assert (run / "report.html").exists() and not (run / "models" / "sft").exists()
    assert read_json(run / "manifest.json")["processes"] == 2
    load_model(run / "model")
    lines = read_jsonl(run / "metrics.jsonl")
    steps = [(line["stage"], line["step"]) for line in lines if "loss" in line]
    assert len(steps) == len(set(steps)) >= 5
    assert {line["stage"] for line in read_jsonl(run / "eval_results.jsonl")} == {"pretrain", "dpo"}
    again = torchrun("-m", "miao", "run", "tiny.yaml", directory=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("done before") == 6
    wrong = torchrun("-m", "miao", "run", "tiny.yaml", "--seeed", "1", directory=tmp_path)
    assert wrong.returncode != 0 and wrong.stderr.count("miao: ") == 1, wrong.stderr


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("bug", "ZeroDivisionError: a bug"),
        ("killed", "SIGKILL"),
        ("all alike", " of 2, here: nobody likes it\n  -> turn it down"),
    ],
)
def test_a_failure_ends_all_and_is_said_once(tmp_path: Path, how: str, message: str) -> None:
    (tmp_path / "failing.py").write_text(FAILING, encoding="utf-8")
    done = torchrun("failing.py", how, directory=tmp_path)
    assert done.returncode != 0
    said = done.stderr.count("miao: ") + done.stderr.count("ZeroDivisionError: a bug")
    assert message in done.stderr, done.stderr
    # Of a process that was killed torchrun speaks, and may end the other before it does too.
    assert said <= 1 if how == "killed" else said == 1, done.stderr
