"""One process against several (DDP): tokens per second, and the same losses.

    python benchmarks/scaling.py --processes 1,2

Launches `torchrun --nproc-per-node N -m miao pretrain` on the same shards, in turn, and reads
metrics.jsonl. On a CPU each process gets its share of the cores (`--threads-total`); one process on
one core is measured too, so that both questions have an answer: what a second process gains over an
equal first one, and over a single process with all the cores.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import ROOT, parser_for, report
from material import built_shards, shape

from miao.device import choose_device
from miao.files import read_jsonl

SHAPE_OPTIONS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "max_position_embeddings",
)


def main() -> int:
    parser = parser_for(__doc__)
    parser.add_argument("--processes", default="1,2", help="how many, comma-separated")
    parser.add_argument("--threads-total", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--shape", default="27m")
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--batch-tokens", type=int, default=32768)
    parser.add_argument("--steps", type=int, default=8, help="optimizer steps of a run")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--parallel", help="passed on as --parallel (default: the recipe's own)")
    options = parser.parse_args()
    if options.quick:
        options.shape, options.seq_len, options.batch_tokens = "tiny", 64, 1024
        options.steps, options.rounds = 4, 1
    device = choose_device(options.device)
    settings = wanted(options, device.type)
    speeds: dict[str, list[float]] = {label: [] for label in settings}
    losses: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="miao-scaling-") as name:
        directory = Path(name)
        fields = shape(options.shape, max(512, options.seq_len))  # room for the later stages
        vocab = fields["vocab_size"]
        built_shards(directory, "documents", vocab, [], options.quick)
        for round_number in range(options.rounds):
            labels = list(settings) if round_number % 2 == 0 else list(settings)[::-1]
            for label in labels:
                if label in failed:
                    continue
                try:
                    lines = train(directory, fields, *settings[label], options, device.type)
                except RuntimeError as error:
                    failed[label] = str(error)
                    print(f"  {label} failed: {error}", file=sys.stderr)
                    continue
                speeds[label].append(
                    statistics.median(line["tokens_per_second"] for line in lines[1:])
                )
                losses[label] = [line["loss"] for line in lines]
                print(f"  {label}: {speeds[label][-1]:,.0f} tokens/s", flush=True)
    rows = result_rows(settings, speeds, losses, failed)
    columns = ["setting", "tokens/s median", "tokens/s best", "times the first", "loss differs by"]
    report("scaling", options, str(device), columns, rows, losses=losses)
    return 1 if failed else 0


def wanted(options: argparse.Namespace, device: str) -> dict[str, tuple[int, int]]:
    """(processes, threads of each) by label; the first is the base of the ratios."""
    counts = [int(word) for word in options.processes.split(",")]
    if device != "cpu":
        return {f"{n} GPU(s)": (n, 1) for n in counts}
    settings = {"1 process, 1 thread": (1, 1)}
    for n in counts:
        threads = max(1, options.threads_total // n)
        settings[f"{n} process(es), {threads} thread(s) each"] = (n, threads)
    unique = {pair: label for label, pair in reversed(settings.items())}
    return {label: pair for label, pair in settings.items() if unique[pair] == label}


def train(
    directory: Path,
    fields: dict[str, Any],
    processes: int,
    threads: int,
    options: argparse.Namespace,
    device: str,
) -> list[dict[str, Any]]:
    """One run from the prepared shards; its lines of metrics.jsonl.

    Raises:
        RuntimeError: it failed.
    """
    run = directory / "bench"
    for made in ("checkpoints", "models", "metrics.jsonl"):
        shutil.rmtree(run / made, ignore_errors=True)
        (run / made).unlink(missing_ok=True) if not (run / made).is_dir() else None
    recipe = directory / "bench.yaml"
    words = [f"--model.{name}={fields[name]}" for name in SHAPE_OPTIONS]
    seedbed = ("40K", 200) if options.quick else ("4M", 12_000)
    words += [
        f"--out_dir={directory}",
        f"--device={device}",
        f"--tokenizer.vocab_size={fields['vocab_size']}",
        "--tokenizer.sample=10M",
        f"--corpus.seedbed.characters={seedbed[0]}",
        f"--corpus.seedbed.conversations={seedbed[1]}",
        "--corpus.seedbed.preferences=10",
        f"--pretrain.tokens={options.steps * options.batch_tokens}",
        f"--pretrain.seq_len={options.seq_len}",
        f"--pretrain.batch_tokens={options.batch_tokens}",
        "--pretrain.log_every=1",
        "--pretrain.eval_every=0",
        "--pretrain.sample_every=0",
        "--pretrain.save_every=0",
        "--pretrain.compile=off",
        "--evaluate.enabled=false",
    ]
    words += [f"--parallel={options.parallel}"] if options.parallel else []
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone"]
        launcher += ["--nproc-per-node", str(processes)]
    done = subprocess.run(
        [*launcher, "-m", "miao", "pretrain", str(recipe), *words],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr).strip()[-2500:])
    lines = [line for line in read_jsonl(run / "metrics.jsonl") if "tokens_per_second" in line]
    if len(lines) < 2:
        raise RuntimeError(f"only {len(lines)} lines in metrics.jsonl")
    return lines


def result_rows(
    settings: dict[str, tuple[int, int]],
    speeds: dict[str, list[float]],
    losses: dict[str, list[float]],
    failed: dict[str, str],
) -> list[dict[str, Any]]:
    """A row for each setting, beside the first one that ran."""
    base = next((label for label in settings if speeds[label]), None)
    rows = []
    for label in settings:
        row: dict[str, Any] = {"setting": label}
        if label in failed:
            row["failed"] = failed[label]
        elif base is not None:
            median = statistics.median(speeds[label])
            row["tokens/s median"], row["tokens/s best"] = median, max(speeds[label])
            row["times the first"] = median / statistics.median(speeds[base])
            pairs = zip(losses[label], losses[base], strict=False)
            row["loss differs by"] = max(abs(a - b) for a, b in pairs)
        rows.append(row)
    return rows


if __name__ == "__main__":
    sys.exit(main())
