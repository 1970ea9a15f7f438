"""What one GPU reaches: is it right there (`gpu_checks.py`), its ceilings, then training, in under
nine minutes.

    python benchmarks/gpu.py --out gpu.json
    python benchmarks/gpu.py --device cpu --quick      # does the script itself work

Ceilings: matrix products, memory bandwidth, attention. Then tokens per second, MFU (three ways)
and memory of each preset at length 2048, in turn with the Hugging Face Trainer on transformers'
class of the same shape and the same rows (bf16, compiled, the best it can do); conversations packed
against the Trainer's defaults; small cards, by capping the process's memory; a short real run.

Every part is a process of its own with a limit in time. What fails, or comes too late, has a row
that says so, and loses nothing else; the JSON file is written anew after each part.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arms import environment
from common import ROOT, Worker, facts, parser_for, table
from gpu_ceilings import ceilings
from material import Material, random_shards, shape

from miao.device import choose_device, peak_flops
from miao.files import read_jsonl, write_json
from miao.model import ModelConfig
from miao.model.counts import mfu_conventions

ARMS_SCRIPT = Path(__file__).parent / "arms.py"
COLUMNS = ["shape", "arm", "tokens/s", "target", "MFU causal", "MFU PaLM", "MFU BitBrain"]
COLUMNS += ["GiB", "micro-batch", "data wait", "note"]
CLASS_01B = {
    "vocab_size": 32_768, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 6,
    "num_key_value_heads": 2, "head_dim": 128, "intermediate_size": 2048,
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How a shape is measured."""

    name: str
    target: int | None
    """Tokens per second on one H200 that a great implementation reaches (issue 4)."""
    batch_tokens: int = 524_288
    micro_tokens: int | None = None
    rival_micro_tokens: int = 65_536
    """The Trainer's: full float32 logits must fit."""
    log_every: int = 2
    rival: bool = True
    cap_gib: float | None = None
    """Also trained as if the card had only so much memory."""


PLANS = (
    Plan("26m", 1_300_000, cap_gib=4),
    Plan("64m-head128", 800_000),
    Plan("bitbrain-0.6b", 102_000, 262_144, 16_384, 8192, log_every=1),
    Plan("0.1b-32k", 500_000, rival_micro_tokens=32_768, rival=False),
    Plan("64m", None, cap_gib=8),
    Plan("104m", None),
)
"""The first three get ready together, then the others: more would not fit a card of 141 GB."""


@dataclass
class Arm:
    """One trainer of one shape, and what it has answered."""

    plan: Plan
    label: str
    fields: dict[str, Any]
    spec: dict[str, Any]
    worker: Worker | None = None
    replies: list[dict[str, Any]] = field(default_factory=list)
    """The first is about getting ready."""
    failed: str | None = None

    def ask(self, board: Board, **command: Any) -> None:
        """Sends a command, if any, and waits for an answer within the time that is left."""
        assert self.worker is not None
        if self.failed is not None:
            return
        try:
            if command:
                self.worker.send(**command)
            self.replies.append(self.worker.receive(board.at_most(180)))
        except RuntimeError as error:
            self.failed = str(error)

    def row(self, options: argparse.Namespace) -> dict[str, Any]:
        row: dict[str, Any] = {"shape": self.plan.name, "arm": self.label}
        if self.failed is not None:
            return row | {"note": f"failed: {self.failed[-400:]}"}
        row["ready after s"] = round(self.replies[0]["seconds"])
        row |= numbers(self.replies[1:], self.fields, self.spec)
        return row | ({"target": self.plan.target} if self.label == "miao" else {})


class Board:
    """Rows as they come, on disk at once, and the time that is left."""

    def __init__(self, options: argparse.Namespace, device: str):
        self.path = options.out or Path("gpu.json")
        self.ends = time.monotonic() + 60 * options.minutes
        self.content: dict[str, Any] = {"benchmark": "gpu", **facts(device), "rows": []}
        if options.quick:
            self.content["quick"] = True

    @property
    def left(self) -> float:
        """Seconds."""
        return self.ends - time.monotonic()

    def at_most(self, seconds: float) -> float:
        """A limit for one part: `seconds`, or less near the end; a smoke test may take longer."""
        return max(1.0, min(900 if "quick" in self.content else seconds, self.left - 10))

    def add(self, row: dict[str, Any]) -> None:
        self.content["rows"].append(row)
        self.keep()
        shown = [f"{key} {row[key]}" for key in COLUMNS if row.get(key) is not None]
        print(f"  [{self.left:4.0f} s left] " + ", ".join(shown), flush=True)

    def keep(self, **more: Any) -> None:
        self.content |= more
        write_json(self.path, self.content)


def main() -> int:
    parser = parser_for(__doc__)
    parser.add_argument("--minutes", type=float, default=8.7, help="all of it")
    parser.add_argument("--shapes", help=f"of {', '.join(plan.name for plan in PLANS)}")
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a measured block")
    parser.add_argument("--rounds", type=int, default=2, help="blocks of each arm")
    parser.add_argument("--part", choices=["ceilings"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = str(choose_device(options.device))
    if options.part == "ceilings":
        print(json.dumps(ceilings(device, options.quick)))
        return 0
    if options.quick:
        options.seq_len, options.seconds, options.rounds, options.minutes = 64, 0.2, 1, 60.0
    chosen = options.shapes.split(",") if options.shapes else [plan.name for plan in PLANS]
    plans = [plan for plan in PLANS if plan.name in chosen]
    board = Board(options, device)
    with tempfile.TemporaryDirectory(prefix="miao-gpu-") as name:
        directory = Path(name)
        real = begin_shards(directory, options)
        quick = ["--quick"] if options.quick else []
        run_part("checks", "gpu_checks.py", board, device, [])
        run_part("ceilings", "gpu.py", board, device, ["--part", "ceilings", *quick])
        for wave in filter(None, (plans[:3], plans[3:])):
            arms = [a for plan in wave for a in arms_of(plan, directory, board, device, options)]
            run_wave(arms, directory, board, options)
        if wait_for(real, board):
            run_wave(arms_on_conversations(directory, device, options), directory, board, options)
            train_for_real(directory, board, device, options)
    print()
    print(json.dumps(board.content.get("ceilings"), indent=1))
    for line in table(COLUMNS, board.content["rows"]):
        print(line)
    print(f"\nwritten: {board.path}")
    return 0


def run_part(name: str, script: str, board: Board, device: str, words: list[str]) -> None:
    """A part of its own process, which prints one line of JSON."""
    command = [sys.executable, str(ARMS_SCRIPT.with_name(script)), "--device", device, *words]
    limit = board.at_most(90)
    done: Any = None
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)
        found = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        found = {"failed": (done.stderr if done else str(error))[-800:]}
    board.keep(**{name: found})
    print(f"  {name}: {found}", flush=True)


def arms_of(
    plan: Plan, directory: Path, board: Board, device: str, options: argparse.Namespace
) -> list[Arm]:
    """Miao and the Trainer on rows that are one document each, and Miao on a small card."""
    fields = fields_of(plan.name, options)
    rows = 16 if options.quick else 4096
    material = random_shards(directory / plan.name, fields["vocab_size"], [options.seq_len] * rows)
    common = arm_spec(plan, fields, material, device, options)
    ours = common | {"arm": "miao", "micro_tokens": None if options.quick else plan.micro_tokens}
    arms = [Arm(plan, "miao", fields, ours)]
    if plan.rival:
        theirs = common | {
            "arm": "hf-concat",  # a row is a document: no mask is needed, and flash attention runs
            "micro_tokens": plan.rival_micro_tokens,
            "workers": 0 if options.quick else 4,
        }
        arms.append(Arm(plan, "HF Trainer, compiled", fields, theirs))
    if plan.cap_gib is not None:
        label = f"miao, memory capped at {plan.cap_gib:g} GiB"
        if device.startswith("cuda"):
            capped = common | {"arm": "miao", "memory_gib": plan.cap_gib}
            arms.append(Arm(plan, label, fields, capped))
        else:
            note = "not run: only a GPU's memory can be capped"
            board.add({"shape": plan.name, "arm": label, "note": note})
    return arms


def arms_on_conversations(directory: Path, device: str, options: argparse.Namespace) -> list[Arm]:
    """Packed conversations against the Trainer as it comes: eight at a time, padded."""
    plan = Plan("26m", None)
    fields = fields_of(plan.name, options)
    shards = directory / "bench" / "shards" / "sft" / "train"
    tokenizer = str(directory / "bench" / "tokenizer")
    material = Material([str(path) for path in sorted(shards.glob("*/"))], [], tokenizer)
    common = arm_spec(plan, fields, material, device, options)
    theirs = common | {"arm": "hf-padded", "compile": False, "log_every": 10}
    return [
        Arm(plan, "miao, conversations", fields, common | {"arm": "miao"}),
        Arm(plan, "HF Trainer, conversations, its defaults", fields, theirs),
    ]


def fields_of(name: str, options: argparse.Namespace) -> dict[str, Any]:
    if options.quick:
        return shape("tiny", options.seq_len)
    if name == "0.1b-32k":
        return CLASS_01B | {"max_position_embeddings": options.seq_len}
    return shape(name, options.seq_len)


def arm_spec(
    plan: Plan,
    fields: dict[str, Any],
    material: Material,
    device: str,
    options: argparse.Namespace,
) -> dict[str, Any]:
    on_gpu = device.startswith("cuda")
    return {
        "config": fields,
        "data": material.train,
        "tokenizer": material.tokenizer,
        "device": device,
        "precision": "bf16" if on_gpu else "fp32",
        "compile": on_gpu and not options.quick,
        "seq_len": options.seq_len,
        "batch_tokens": 4 * options.seq_len if options.quick else plan.batch_tokens,
        "log_every": 1 if options.quick else plan.log_every,
    }


def run_wave(arms: list[Arm], directory: Path, board: Board, options: argparse.Namespace) -> None:
    """Arms get ready side by side (most of it is compiling, on the CPU); then those of one shape
    train in turn while all others wait; a row of each."""
    if board.left < 60 and not options.quick:
        for arm in arms:
            board.add({"shape": arm.plan.name, "arm": arm.label, "note": "not run: out of time"})
        return
    for number, arm in enumerate(arms):
        log = directory / f"{arm.plan.name}-{number}.log"
        arm.worker = Worker(ARMS_SCRIPT, arm.spec, log, environment())
        arm.worker.send(steps=2 * arm.spec["log_every"])
    for arm in arms:
        arm.ask(board)
    for name in dict.fromkeys(arm.plan.name for arm in arms):
        turns = [arm for arm in arms if arm.plan.name == name]
        for number in range(options.rounds):
            for arm in turns if number % 2 == 0 else turns[::-1]:
                arm.ask(board, seconds=options.seconds)
        for arm in turns:
            if arm.worker is not None:
                arm.worker.close()
            board.add(arm.row(options))


def numbers(
    replies: list[dict[str, Any]], fields: dict[str, Any], spec: dict[str, Any]
) -> dict[str, Any]:
    """The speed of a row, what it is of the peak, and what memory it took."""
    import torch

    speed = statistics.median(reply["tokens"] / reply["seconds"] for reply in replies)
    dtype = torch.bfloat16 if spec["precision"] == "bf16" else torch.float32
    peak = peak_flops(torch.device(spec["device"]), dtype)
    shares = {
        name: f"{speed * flops / peak.flops:.1%}"
        for name, flops in mfu_conventions(ModelConfig(**fields), spec["seq_len"]).items()
    }
    last = replies[-1]
    wait = last.get("data_wait")
    return {
        "tokens/s": round(speed),
        "MFU causal": shares["mfu"],
        "MFU PaLM": shares["mfu_palm"],
        "MFU BitBrain": shares["mfu_bitbrain"],
        "peak": f"{peak.flops / 1e12:.3g} TFLOP/s, {peak.source}",
        "GiB": round(last["peak_mib"] / 1024, 2),
        "micro-batch": last.get("micro_batch"),
        "data wait": None if wait is None else f"{wait:.1%}",
        "blocks": [reply["tokens"] / reply["seconds"] for reply in replies],
    }


def recipe_words(directory: Path, device: str, options: argparse.Namespace) -> list[str]:
    """The real run: the 26M recipe on the built-in corpus."""
    if options.quick:
        recipe, sizes = "smoke", ("40K", 100, 10)
    else:
        recipe, sizes = "26m", ("12M", 20_000, 10)
    characters, conversations, preferences = sizes
    return [
        recipe,
        "--name=bench",
        f"--out_dir={directory}",
        f"--device={device}",
        f"--corpus.seedbed.characters={characters}",
        f"--corpus.seedbed.conversations={conversations}",
        f"--corpus.seedbed.preferences={preferences}",
        f"--tokenizer.vocab_size={512 if options.quick else 6400}",
    ]


def begin_shards(directory: Path, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    """Prepares the real run's data on the CPU, beside the first measurements."""
    words = recipe_words(directory, "cpu", options)
    with open(directory / "shards.log", "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "miao", "shards", *words],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )


def wait_for(process: subprocess.Popen[bytes], board: Board) -> bool:
    """Whether the data became ready in time."""
    try:
        if process.wait(timeout=max(1.0, board.left - 60)) == 0:
            return True
        note = "failed: the data could not be prepared"
    except subprocess.TimeoutExpired:
        process.kill()
        note = "not run: the data was not ready in time"
    board.add({"shape": "26m", "arm": "miao, real run and conversations", "note": note})
    return False


def train_for_real(directory: Path, board: Board, device: str, options: argparse.Namespace) -> None:
    """`miao pretrain` with all that belongs to it, as long as the time allows."""
    row: dict[str, Any] = {"shape": "26m", "arm": "miao pretrain, real run"}
    if board.left < 75 and not options.quick:
        board.add(row | {"note": "not run: out of time"})
        return
    tokens = "5K" if options.quick else "30M"
    stage = {"tokens": tokens, "sample_every": 0}
    stage |= {} if options.quick else {"seq_len": 1024, "log_every": 5, "eval_every": 0.25}
    words = recipe_words(directory, device, options)
    words += [f"--pretrain.{key}={value}" for key, value in stage.items()]
    began = time.monotonic()
    try:
        subprocess.run(
            [sys.executable, "-m", "miao", "pretrain", *words, "--evaluate.enabled=false"],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
            timeout=None if options.quick else board.left - 3,
        )
    except subprocess.SubprocessError as error:
        text = getattr(error, "stderr", None) or str(error)
        board.add(row | {"note": "failed: " + str(text)[-400:]})
        return
    lines = read_jsonl(directory / "bench" / "metrics.jsonl")
    speeds = [line["tokens_per_second"] for line in lines if "tokens_per_second" in line]
    measures = [line["heldout_bits_per_byte"] for line in lines if "heldout_bits_per_byte" in line]
    losses = [line["loss"] for line in lines if "loss" in line]
    seconds = time.monotonic() - began
    note = (
        f"{tokens} tokens in {seconds:.0f} s, start and compiling included; loss {losses[-1]:.3f}"
    )
    if measures:
        note += f", held-out {measures[-1]:.3f} bits/byte"
    board.add(row | {"tokens/s": round(statistics.median(speeds)), "note": note})


if __name__ == "__main__":
    sys.exit(main())
