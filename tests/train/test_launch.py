"""Whole command lines under torchrun: a chain of stages, a mistake, a process that fails or dies."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from miao.cli import main as miao
from miao.files import read_json, read_jsonl
from miao.model import load_model
from miao.rundir import list_checkpoints
from miao.shards import TokenDataset
from miao.train.distributed.peers import FAILURE, GRACE
from miao.train.distributed.world import join_world, meet
from tests.train.pair import run_two
from tests.train.shared_cases import Case, fail, launched_train
from tests.train.tiny import curve

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

KILLED_AND_FAILING = """
import os, signal, sys
from miao.train.distributed.world import join_world

with join_world("cpu") as world:
    world.barrier()
    if world.rank == 1 and not os.path.exists("killed"):
        open("killed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    print(world.gather([world.rank]), flush=True)
    print("again", file=sys.stderr, flush=True)
    world.barrier()
    if world.rank == 1:
        raise ZeroDivisionError("a bug")
    world.barrier()
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
        timeout=600,
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
    again = run_two(in_directory, tmp_path, "run", "tiny.yaml", directory=tmp_path)
    assert [end.code for end in again] == [0, 0], again
    assert again[0].said.count("done before") == 6 and again[1].said == ""
    wrong = run_two(in_directory, tmp_path, "run", "tiny.yaml", "--seeed", "1", directory=tmp_path)
    assert all(end.code == 2 for end in wrong), wrong
    assert [end.said.count("miao: ") for end in wrong] == [1, 0], wrong


def in_directory(directory: Path, *words: str) -> int:
    os.chdir(directory)
    return miao(words)


def test_torchrun_starts_all_anew_after_a_kill_and_ends_all_when_one_fails(tmp_path: Path) -> None:
    """Nothing that the attempt before left in the launcher's store ends the next one; and what
    fails there is said once."""
    (tmp_path / "program.py").write_text(KILLED_AND_FAILING, encoding="utf-8")
    done = torchrun("--max-restarts", "1", "program.py", directory=tmp_path)
    assert done.stdout.count("[[0], [1]]") == 2, done.stdout + done.stderr
    assert done.returncode != 0
    said = done.stderr.partition("again")[2]
    assert said.count("ZeroDivisionError: a bug") == 1, done.stderr
    assert "miao: " not in said


def test_processes_of_an_attempt_meet_whatever_earlier_ones_left(tmp_path: Path) -> None:
    """The first process's name of an attempt that is gone, and answers to it, mislead nobody."""
    from torch.distributed import HashStore

    def all_meet(ranks: list[int]) -> list[Any]:
        with ThreadPoolExecutor(3) as pool:
            met = [pool.submit(meet, store, rank, 3, timedelta(seconds=1)) for rank in ranks]
            return [future.exception() or future.result() for future in met]

    store = HashStore()
    for half in ([0, 1], [2, 0]):
        assert all("are missing" in str(e) or "not answer" in str(e) for e in all_meet(half)[:1])
    for again in range(2):
        stores = all_meet([2, 1, 0])
        assert not stores[0].check([FAILURE])
        stores[0].set(FAILURE, f"attempt {again}")
        assert stores[1].get(FAILURE) == stores[2].get(FAILURE) == f"attempt {again}".encode()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("bug in 0", "ZeroDivisionError: a bug"),
        ("bug in 1", "ZeroDivisionError: a bug"),
        ("all alike", " of 2, here: nobody likes it\n  -> turn it down"),
    ],
)
def test_a_failure_ends_all_and_is_said_once(tmp_path: Path, how: str, message: str) -> None:
    ends = run_two(fail, how, directory=tmp_path)
    said = ends[0].said + ends[1].said
    assert all(end.code not in (0, None) and end.code > 0 for end in ends), ends
    assert said.count(message) == 1 and said.count("Traceback") == how.count("bug"), said
    assert "contact with the other processes is lost" not in said


def test_one_killed_the_other_says_so_and_both_go_on_to_the_bit(
    sources: list[TokenDataset], tmp_path: Path
) -> None:
    """SIGKILL to a process within a step: the survivor ends by itself, whichever kept the store;
    the next start goes on from the checkpoint before, and ends as a run never killed."""
    case = Case([str(source.directory) for source in sources], "ddp")
    whole = tmp_path / "whole"
    assert [end.code for end in run_two(launched_train, case, whole, directory=tmp_path)] == [0, 0]
    truth = load_model(whole / "model").state_dict()
    for victim in (0, 1):
        run = tmp_path / f"{victim} killed"
        killed = Case(**vars(case) | {"killed": (victim, 6)})
        ends = run_two(launched_train, killed, run, directory=tmp_path)
        survivor = ends[1 - victim]
        assert (ends[victim].code, survivor.code) == (-9, 2), ends
        assert survivor.said.count("contact with the other processes is lost") == 1, survivor.said
        assert "run the same command again" in survivor.said
        assert survivor.seconds - ends[victim].seconds < 30 * GRACE
        saved = list_checkpoints(run / "checkpoints")
        assert 0 < read_json(saved[-1] / "state.json")["step"] < 6
        ends = run_two(launched_train, case, run, directory=tmp_path)
        assert [end.code for end in ends] == [0, 0], ends
        assert curve(run) == curve(whole)
        found = load_model(run / "model").state_dict()
        assert all(torch.equal(found[name], truth[name]) for name in truth)


def test_accelerate_s_single_process_on_cpus_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `accelerate launch --cpu --num_processes 2` leaves in the environment."""
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with join_world("cpu") as world:
        assert world.size == 1
    assert "one process only" in capsys.readouterr().out
