"""Miao's training loop against the Hugging Face Trainer, side by side.

    python benchmarks/trainer.py                                  # speed and memory, 27M, fp32
    python benchmarks/trainer.py --data chats.jsonl --precision bf16
    python benchmarks/trainer.py --target 1.2 --budget 2M         # time to a held-out bits per byte

The same shape (transformers' Qwen3 class there), the same conversations or documents, the same
threads. The Trainer runs in its default settings (`hf-padded`: eight records at a time, padded to
the longest, an optimizer step each; ever new lengths, so not compiled), and in the best ones: rows
packed as Miao packs them, with the documents masked from each other (`hf-packed`) or not
(`hf-concat`), the same tokens per step as Miao, compiled, and with glibc keeping freed memory as it
does under Miao. Every arm is a process that waits while another is measured. Tokens are real ones:
padding is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from arms import environment
from common import Worker, parser_for, report
from material import built_shards, shape

from miao.device import choose_device, choose_dtype, matmul_flops
from miao.model import ModelConfig, flops_per_token
from miao.recipe import parse_quantity

ARMS = ("miao", "hf-padded", "hf-packed", "hf-concat")
NAMES = "miao,miao-compiled,hf-padded,hf-packed,hf-concat,hf-packed-compiled,hf-concat-compiled"
SCRIPT = Path(__file__).parent / "arms.py"
READY_WITHIN = 1200.0


def main() -> int:
    options = arguments()
    device = str(choose_device(options.device))
    precisions = options.precision.split(",")
    if precisions == ["auto"]:
        fast = str(choose_dtype("auto", choose_device(options.device)))
        precisions = ["fp32", "bf16"] if fast == "torch.bfloat16" else ["fp32"]
    with tempfile.TemporaryDirectory(prefix="miao-trainer-") as name:
        directory = Path(name)
        fields = shape(options.shape, options.seq_len)
        print(f"preparing {options.kind} ...", flush=True)
        material = built_shards(
            directory, options.kind, fields["vocab_size"], options.data, options.quick
        )
        common = {
            "config": fields,
            "data": material.train,
            "heldout": material.heldout,
            "tokenizer": material.tokenizer,
            "device": device,
            "seq_len": options.seq_len,
            "batch_tokens": options.batch_tokens,
            "log_every": options.log_every,
        }
        if options.target is not None:
            common |= {"budget": float(parse_quantity(options.budget, "--budget"))}
        specs: dict[str, dict[str, Any]] = {}
        for precision in precisions:
            for name in options.arms.split(","):
                arm = name.removesuffix("-compiled")
                if arm not in ARMS or name == "hf-padded-compiled":
                    raise SystemExit(f"there is no arm {name!r}; arms: {NAMES}")
                spec = common | {
                    "arm": arm,
                    "precision": precision,
                    "compile": name != arm,
                    "keep_memory": arm != "hf-padded",
                    "learning_rate": options.hf_learning_rate,
                }
                if arm in ("miao", "hf-padded") or not options.hf_micro_tokens:
                    specs[f"{name} {precision}"] = spec
                    continue
                for size in map(int, options.hf_micro_tokens.split(",")):
                    specs[f"{name} {precision} {size}"] = spec | {"micro_tokens": size}
        if options.target is None:
            rows = speeds(specs, options, directory, fields)
            columns = ["arm", "tokens/s median", "tokens/s best", "miao is faster by", "mfu"]
            columns += ["peak MiB"]
        else:
            rows = races(specs, options, directory)
            columns = ["arm", "reached", "seconds", "tokens", "bits/byte", "lowest"]
        facts = {"shape": options.shape, "data": options.data or ["built-in corpus"]}
        facts |= {"kind": options.kind, "seq_len": options.seq_len, "curves": CURVES}
        report("trainer", options, device, columns, rows, **facts)
    return 0


CURVES: dict[str, list[list[float]]] = {}


def arguments() -> argparse.Namespace:
    parser = parser_for(__doc__)
    parser.add_argument("--data", nargs="*", default=[], help="your records (default: built-in)")
    parser.add_argument("--kind", default="conversations", choices=["conversations", "documents"])
    parser.add_argument("--shape", default="27m", help="6m, 27m or a preset (default 27m)")
    parser.add_argument("--precision", default="auto", help="fp32, bf16, or fp32,bf16")
    parser.add_argument("--arms", default=NAMES, help=f"of {NAMES}")
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--batch-tokens", type=int, default=32768, help="slots per optimizer step")
    parser.add_argument(
        "--hf-micro-tokens",
        help="slots per forward pass there, an arm for each number (default: the whole step)",
    )
    parser.add_argument("--rounds", type=int, default=4, help="blocks measured of each arm")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a block")
    parser.add_argument("--log-every", type=int, default=1, help="steps between looks at the clock")
    parser.add_argument("--target", type=float, help="race to this held-out bits per byte instead")
    parser.add_argument("--budget", default="1M", help="real tokens of the race's schedule")
    parser.add_argument("--hf-learning-rate", type=float, default=1e-3, help="of their AdamW")
    options = parser.parse_args()
    if options.quick:
        options.shape, options.seq_len, options.batch_tokens = "tiny", 64, 512
        options.rounds, options.seconds, options.budget = 2, 0.3, "10K"
        options.arms = options.arms if options.arms != NAMES else ",".join(ARMS)
    return options


def started(specs: dict[str, dict[str, Any]], directory: Path) -> dict[str, Worker]:
    """A worker for each arm, its first steps behind it (they allocate, and compile twice)."""
    workers: dict[str, Worker] = {}
    for number, (label, spec) in enumerate(specs.items()):
        print(f"  {label}: starting", flush=True)
        log = directory / f"{number}.log"
        workers[label] = Worker(SCRIPT, spec, log, environment())
        try:
            workers[label].ask(READY_WITHIN, steps=(1 + spec["compile"]) * spec["log_every"])
        except RuntimeError as error:
            print(f"  {label} failed: {error}", file=sys.stderr)
            workers[label].close()
            del workers[label]
    return workers


def matmul_peak(spec: dict[str, Any]) -> float:
    """FLOP/s of square products in this moment, in the precision of an arm."""
    dtype = torch.bfloat16 if spec["precision"] == "bf16" else torch.float32
    matmul_flops.cache_clear()
    return matmul_flops(spec["device"], dtype)


def speeds(
    specs: dict[str, dict[str, Any]],
    options: argparse.Namespace,
    directory: Path,
    fields: dict[str, Any],
) -> list[dict[str, Any]]:
    """Tokens per second and memory of each arm, measured in turn, and their share of the peak of
    matrix products right before and after (model FLOPs with causal attention)."""
    workers = started(specs, directory)
    flops = flops_per_token(ModelConfig(**fields), options.seq_len)
    replies: dict[str, list[dict[str, Any]]] = {label: [] for label in workers}
    try:
        for number in range(options.rounds):
            order = list(workers) if number % 2 == 0 else list(workers)[::-1]
            for label in order:
                before = matmul_peak(specs[label])
                reply = workers[label].ask(READY_WITHIN, seconds=options.seconds)
                peak = (before + matmul_peak(specs[label])) / 2
                speed = reply["tokens"] / reply["seconds"]
                replies[label].append(reply | {"speed": speed, "mfu": speed * flops / peak})
                print(f"  {label}: {speed:,.0f} tokens/s", flush=True)
    finally:
        for worker in workers.values():
            worker.close()
    rows = []
    for label in specs:
        if label not in replies:
            rows.append({"arm": label, "failed": True})
            continue
        blocks = [reply["speed"] for reply in replies[label]]
        rows.append(
            {
                "arm": label,
                "tokens/s median": statistics.median(blocks),
                "tokens/s best": max(blocks),
                "mfu": statistics.median(reply["mfu"] for reply in replies[label]),
                "peak MiB": round(replies[label][-1]["peak_mib"]),
                "blocks": blocks,
            }
        )
    ours = [row for row in rows if row["arm"].startswith("miao") and "blocks" in row]
    if ours:
        best = max(ours, key=lambda row: row["tokens/s median"])
        for row in rows:
            if "blocks" in row:
                row["miao is faster by"] = best["tokens/s median"] / row["tokens/s median"]
    return rows


def races(
    specs: dict[str, dict[str, Any]], options: argparse.Namespace, directory: Path
) -> list[dict[str, Any]]:
    """Seconds of training until the held-out bits per byte are at the target, in turns of a
    twentieth of the budget."""
    workers = started(specs, directory)
    budget = parse_quantity(options.budget, "--budget")
    running = dict(workers)
    rows = {label: {"arm": label, "reached": False, "seconds": 0.0} for label in workers}
    try:
        while running:
            for label in list(running):
                reply = running[label].ask(READY_WITHIN, tokens=budget / 20, heldout=True)
                row = rows[label]
                if reply.get("finished"):
                    del running[label]
                    continue
                value = reply["bits_per_byte"]
                row["seconds"] += reply["seconds"]
                row["tokens"], row["bits/byte"] = reply["all_tokens"], value
                row["lowest"] = min(value, row.get("lowest", value))
                CURVES.setdefault(label, []).append([row["tokens"], row["seconds"], value])
                print(f"  {label}: {value:.3f} after {row['seconds']:.0f} s", flush=True)
                if value <= options.target:
                    row["reached"] = True
                    del running[label]
    finally:
        for worker in workers.values():
            worker.close()
    return list(rows.values())


if __name__ == "__main__":
    sys.exit(main())
