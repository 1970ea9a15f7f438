"""The benchmarks run, and what they conclude from measurements is right. No seconds are asserted."""

from __future__ import annotations

import argparse
import importlib
import json
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from miao import device
from miao.model import ModelConfig, flops_per_token

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = ROOT / "benchmarks"
FAKE = """
import os, sys, json
sys.path.insert(0, {scripts!r})
from common import Commands
commands = Commands()
print("this goes to the log")
spec = json.loads(sys.argv[1])
if spec.get("dies"):
    raise SystemExit("no such card")
total = 0
while True:
    command = commands.next()
    total += spec["speed"]
    commands.reply(
        tokens=spec["speed"], seconds=1.0, steps=1, all_tokens=total, peak_mib=2048.0,
        bits_per_byte=10.0 / total,
    )
"""


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def loaded(name: str) -> ModuleType:
        return importlib.import_module(name)

    return loaded


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """An arm that trains at whatever speed it is told."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE.format(scripts=str(SCRIPTS)), encoding="utf-8")
    return script


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The result of a script, run in this process: starting one takes longer than what it does."""

    def of(script: str, *words: str) -> dict[str, Any]:
        path, out = str(SCRIPTS / script), tmp_path / "result.json"
        monkeypatch.syspath_prepend(str(SCRIPTS))
        monkeypatch.setattr(sys, "argv", [path, "--quick", "--device=cpu", f"--out={out}", *words])
        monkeypatch.setattr(device, "keep_freed_memory", lambda: True)  # for a process's whole life
        monkeypatch.setattr(device, "_best_seconds", lambda *_: 1.0)
        with pytest.raises(SystemExit) as end:
            runpy.run_path(path, run_name="__main__")
        assert not end.value.code
        result = json.loads(out.read_text(encoding="utf-8"))
        assert result["quick"] and result["versions"]["torch"] and result["cores"]
        assert script in result["command"]
        return dict(result)

    return of


def test_optimizer(run: Any) -> None:
    result = run("optimizer.py")
    rows = {row["arm"]: row for row in result["rows"]}
    assert rows["torch Muon + AdamW"]["difference"] == 0
    # Three updates of 0.02 each; the same type of Newton-Schulz, in another order of products.
    assert rows["MuonAdamW bf16"]["difference"] < 2e-3
    assert rows["torch AdamW for all"]["difference"] is None


def test_ops(run: Any) -> None:
    result = run("ops.py", "--precision=fp32")
    found = {row["operation"] for row in result["rows"]}
    assert found == {"head + cross-entropy", "RMSNorm", "RoPE", "SwiGLU", "attention", "experts"}
    for row in result["rows"]:
        assert "failed" not in row, row
        if "other result" not in row["variant"]:
            assert row["difference"] < 1e-4 and row["gradient's"] < 1e-4, row


def test_data(run: Any) -> None:
    result = run("data.py", "--only=loader,packing,checkpoint")
    value = {row["what"]: row["value"] for row in result["rows"]}
    packed, padded = value["rows of 512: real tokens"], value["rows of 512: padded to the row"]
    assert padded < value["rows of 512: padded to the longest of 8"] < packed <= 1


def test_trainer_measures_a_real_arm(run: Any) -> None:
    result = run("trainer.py", "--arms=miao", "--precision=fp32")
    (row,) = result["rows"]
    assert row["arm"] == "miao fp32" and row["tokens/s median"] > 0
    assert len(row["blocks"]) == 2 and row["miao is faster by"] == 1


def test_trainer_compares_medians_of_turns(
    load: Any, fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = load("trainer")
    monkeypatch.setattr(trainer, "SCRIPT", fake)
    monkeypatch.setattr(trainer, "matmul_peak", lambda spec: 1e9)
    fields = load("material").shape("tiny", 64)
    each = {"log_every": 1, "compile": False}
    specs = {
        "miao fp32": {"speed": 300} | each,
        "hf-padded fp32": {"speed": 100} | each,
        "hf-packed fp32": {"dies": True} | each,
    }
    options = argparse.Namespace(rounds=3, seconds=1.0, budget="1000", target=0.01, seq_len=64)
    rows = {row["arm"]: row for row in trainer.speeds(specs, options, tmp_path, fields)}
    per_token = flops_per_token(ModelConfig(**fields), 64)
    assert rows["miao fp32"]["mfu"] == pytest.approx(300 * per_token / 1e9)
    assert rows["hf-padded fp32"]["miao is faster by"] == 3
    assert rows["hf-packed fp32"] == {"arm": "hf-packed fp32", "failed": True}
    races = {row["arm"]: row for row in trainer.races(specs, options, tmp_path)}
    # 10/total <= 0.01 after 1,000 tokens, the first 300 or 100 of which were the warm-up.
    assert races["miao fp32"]["seconds"] == 3 and races["hf-padded fp32"]["seconds"] == 9


def test_gpu_keeps_what_it_has_when_an_arm_fails(
    load: Any, fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = load("gpu")
    monkeypatch.setattr(gpu, "ARMS_SCRIPT", fake)
    options = argparse.Namespace(
        out=tmp_path / "gpu.json", minutes=5.0, quick=True, rounds=2, seconds=1.0, seq_len=64
    )
    board = gpu.Board(options, "cpu")
    plan, fields = gpu.Plan("26m", 1_300_000), gpu.fields_of("26m", options)
    spec = {"precision": "fp32", "device": "cpu", "seq_len": 64, "log_every": 1}

    def arms() -> list[Any]:
        return [
            gpu.Arm(plan, "miao", fields, spec | {"speed": 500}),
            gpu.Arm(plan, "HF Trainer, compiled", fields, spec | {"dies": True}),
        ]

    gpu.run_wave(arms(), tmp_path, board, options)
    miao, theirs = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["rows"]
    assert miao["tokens/s"] == 500 and miao["GiB"] == 2 and miao["MFU causal"].endswith("%")
    assert miao["target"] == 1_300_000 and miao["blocks"] == [500, 500]
    assert theirs["note"].startswith("failed:") and "no such card" in theirs["note"]
    board.ends = time.monotonic() + 5
    options.quick = False
    gpu.run_wave(arms(), tmp_path, board, options)
    assert [row["note"] for row in board.content["rows"][2:]] == ["not run: out of time"] * 2


def test_ceilings(load: Any) -> None:
    found = load("gpu_ceilings").ceilings("cpu", quick=True)
    assert all(value >= 0 for value in found.values()) and len(found) == 5


def test_scaling_compares_with_the_first_that_ran(load: Any) -> None:
    scaling = load("scaling")
    options = argparse.Namespace(processes="1,2", threads_total=2)
    settings = scaling.wanted(options, "cpu")
    assert list(settings.values()) == [(1, 1), (1, 2), (2, 1)]
    assert list(scaling.wanted(options, "cuda").values()) == [(1, 1), (2, 1)]
    one, two, pair = settings
    rows = scaling.result_rows(
        settings,
        {one: [10.0, 12.0], two: [], pair: [22.0]},
        {one: [3.0, 2.0], pair: [3.0, 2.5]},
        {two: "no memory"},
    )
    assert rows[1]["failed"] == "no memory"
    assert rows[2]["times the first"] == 2 and rows[2]["loss differs by"] == 0.5


def test_a_silent_worker_is_given_up(load: Any, tmp_path: Path) -> None:
    common = load("common")
    script = tmp_path / "silent.py"
    script.write_text("import time; time.sleep(60)", encoding="utf-8")
    worker = common.Worker(script, {}, tmp_path / "log")
    with pytest.raises(RuntimeError, match="no answer"):
        worker.ask(0.2, steps=1)
    assert worker.process.poll() is not None


def test_calls_take_turns(load: Any) -> None:
    common = load("common")
    order: list[str] = []
    calls = {name: lambda n=name: (order.append(n), time.sleep(0.03)) for name in "ab"}
    times = common.side_by_side(calls, rounds=3)
    assert "".join(order) == "aabb" + "abbaab" and all(len(v) == 3 for v in times.values())
    assert list(common.table(["x", "y"], [{"x": 1234, "y": None}, {"x": 0.5}])) == [
        "| x | y |",
        "|---|---|",
        "| 1,234 | – |",
        "| 0.5 | – |",
    ]


def test_mixed_shapes_are_accounted_for_to_the_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    found = importlib.import_module("corpus_accounts").measure(300, tmp_path)
    assert all(stage["duplicates"] and stage["out"] for stage in found["stages"].values())
    assert found["stages"]["sft"]["problems"]


def test_the_checks_of_a_gpu_s_first_hour_run_on_a_cpu(
    load: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_checks.py", "--device", "cpu"])
    code = load("gpu_checks").main()
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == 0 and "fail" not in {row["result"] for row in rows}, rows
    assert {row["check"][:3] for row in rows if row["result"] == "pass"} >= {
        "1.1",
        "1.4",
        "1.6",
        "1.7",
    }


def test_the_page_is_held_against_wllama_turn_by_turn(load: Any) -> None:
    made = {"made": 11, "first": 1.0}
    results = {
        "page (wasm)": [made | {"seconds": 2.0}, made | {"seconds": 6.0}, made | {"seconds": 2.0}],
        "wllama Q8_0": [made | {"seconds": 3.0}, made | {"seconds": 11.0}, made | {"seconds": 5.0}],
    }
    page, wllama = load("page").rows_of("26m", 26_000_000, 35_000_000, results)
    assert (page["tokens/s"], page["x wllama"], wllama["x wllama"]) == (10.0, 2.0, 1.0)
    assert page["page MB"] == 35.0


def test_a_page_says_what_the_engine_says(
    load: Any, make_model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    from miao.model import save_model
    from miao.page.node import has_node

    if not has_node():
        pytest.skip("Node.js is not installed")
    save_model(make_model(vocab_size=384, max_position_embeddings=256), tmp_path)
    tokenizer.save(tmp_path)
    for row in load("page_tokens").compare(tmp_path, 20, 16):
        assert row["equal"] + row["part at a tie"] == 20 and not row["part"]
        assert row["tokens"] > 20
