"""The race: one measure for all, other projects' runs read from what they print."""

from __future__ import annotations

import argparse
import importlib
import math
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPTS = Path(__file__).parent.parent.parent / "benchmarks"
NANOCHAT = """
import os, sys
words = dict(word.removeprefix("--").split("=") for word in sys.argv[1:] if "=" in word)
folder = os.path.join(os.environ["NANOCHAT_BASE_DIR"], "base_checkpoints", words["model-tag"])
os.makedirs(folder, exist_ok=True)
print("Total batch size 4,096 => gradient accumulation steps: 1")
steps = int(words["num-iterations"])
for step in range(steps + 1):
    if step and (step == steps or step % int(words["save-every"]) == 0):
        open(os.path.join(folder, f"model_{step:06d}.pt"), "w").close()
    if step < steps:
        print(f"step {step:05d}/{steps:05d} (0.00%) | loss: 1.0 | tok/sec: 1")
"""


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


def test_a_model_that_knows_nothing_needs_log_of_its_vocabulary_for_each_token(load: Any) -> None:
    bits = load("document_bits")
    seen: list[list[int]] = []

    def logits(ids_bt: torch.Tensor) -> torch.Tensor:
        seen.append(ids_bt[0].tolist())
        return torch.zeros(1, ids_bt.shape[1], 8)

    rows = bits.document_bits(["abcdefg", "猫"], lambda t: [ord(c) % 8 for c in t], [1], logits, 3)
    # windows meet in one token, which is read and not counted again; the last has two to read
    assert seen == [[1, 1, 2], [3, 4, 5], [6, 7], [1, ord("猫") % 8]]
    assert rows[0] == (pytest.approx(7 * 3.0), 7) and rows[1] == (pytest.approx(3.0), 3)
    assert bits.bits_per_byte(rows) == pytest.approx(24 / 10)


def test_the_error_of_a_difference_is_paired_by_document(load: Any) -> None:
    bits = load("document_bits")
    ours, theirs = [(10.0, 10), (30.0, 10), (20.0, 10)], [(11.0, 10), (31.0, 10), (21.0, 10)]
    assert bits.standard_error(ours) == pytest.approx(math.sqrt((100 + 100) * 3 / 2) / 30)
    assert bits.standard_error(ours, theirs) == 0  # each document one bit better


def test_a_peers_run_is_read_from_what_it_prints(load: Any, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "scripts").mkdir(parents=True)
    (checkout / "scripts" / "base_train.py").write_text(NANOCHAT, encoding="utf-8")
    peer = load("peers").Peer(
        "nanochat", checkout, tmp_path / "work", sys.executable, 6, 256, 6400, 512, 4096, "fp32", 1
    )
    peer.work.mkdir()
    points = list(peer.run(6, 3, lambda pid: time.perf_counter(), math.inf))
    assert [point["step"] for point in points] == [1, 2, 3, 4, 5, 6]
    assert points[-1]["tokens"] == 6 * 4096
    saved = [Path(p["checkpoint"]).name for p in points if "checkpoint" in p]
    assert saved == ["model_000002.pt", "model_000004.pt", "model_000006.pt"]
    words, _ = peer.command(6, 2)
    assert "--aspect-ratio=42" in words and "--device-batch-size=8" in words


def test_a_peer_that_cannot_start_says_why(load: Any, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "scripts").mkdir(parents=True)
    (checkout / "scripts" / "base_train.py").write_text("import no_such_thing", encoding="utf-8")
    peer = load("peers").Peer(
        "nanochat", checkout, tmp_path, sys.executable, 6, 256, 6400, 512, 4096, "fp32", 1
    )
    with pytest.raises(RuntimeError, match="no_such_thing"):
        list(peer.run(6, 3, lambda pid: time.perf_counter(), math.inf))


def test_the_table_sets_ours_beside_the_best_peer_of_each_seed(load: Any) -> None:
    race = load("race")

    def outcome(arm: str, bits: float, curve: list[list[float]], failed: str = "") -> Any:
        rows = [(bits * 10, 10), (bits * 10, 10)]
        return race.Outcome(
            arm, 0, bits=bits, curve=curve, documents=rows, seconds=100.0, failed=failed
        )

    rows = race.summary(
        [
            outcome("miao", 1.8, [[50.0, 1, 2.2], [100.0, 2, 1.8]]),
            outcome("hf", 2.0, []),
            outcome("nanochat", 2.5, []),
            outcome("minimind", 0.0, [], failed="Traceback\nno such file"),
        ]
    )
    ours = rows[0]
    assert ours["x best peer"].startswith("0.900 ± 0.000 (hf)")
    assert ours["to best peer's end s"] == pytest.approx(75.0)
    assert rows[3]["bits/byte"] == "failed: no such file"


def test_a_race_goes_on_where_it_was_left_and_mixes_no_two(load: Any, tmp_path: Path) -> None:
    race = load("race")
    options = argparse.Namespace(**dict.fromkeys(race.COURSE, 1), seeds=1)
    assert race.finished(tmp_path, options) == []
    done, failed = race.Outcome("miao", 0, documents=[(8.0, 4)]), race.Outcome("hf", 0, failed="x")
    race.write_jsonl(tmp_path / "outcomes.jsonl", [asdict(done), asdict(failed)])
    options.seeds = 2
    assert [(o.arm, o.seed) for o in race.finished(tmp_path, options)] == [("miao", 0)]
    options.budget = 2
    with pytest.raises(SystemExit, match="another budget"):
        race.finished(tmp_path, options)


def test_peers_run_with_a_setting_each(load: Any, tmp_path: Path) -> None:
    race, peers = load("race"), load("peers")
    options = argparse.Namespace(arms="nanochat-eager,minimind-default-eager",
                                 nanochat=tmp_path, minimind=tmp_path)  # fmt: skip
    assert list(race.arms_of(options)) == options.arms.split(",")
    plain, own = (peers.Peer(arm, tmp_path, tmp_path, "python", 2, 64, 300, 64, 512, "fp32", 1)
                  for arm in options.arms.split(","))  # fmt: skip
    assert (plain.project, plain.own_settings, plain.row_length) == ("nanochat", False, 64)
    assert (own.project, own.own_settings, own.row_length) == ("minimind", True, 340)
    (tmp_path / "module.py").write_text("import sys, torch\n@torch.compile(fullgraph=True)\n"
        "def f(x):\n    return [torch._dynamo.is_compiling(), *sys.argv[1:]]\n"
        "print(f(1), torch.compile(f)(2))")  # fmt: skip
    words = [word.replace("scripts.base_train", "module") for word in plain.command(9, 3)[0][1:3]]
    done = subprocess.run([sys.executable, *words, "module", "--depth=2"], cwd=tmp_path, text=True,
                          capture_output=True, check=True)  # fmt: skip
    assert done.stdout == "[False, '--depth=2'] [False, '--depth=2']\n"
    options.arms = "miao-eager"
    with pytest.raises(SystemExit, match="no arm"):
        list(race.arms_of(options))
