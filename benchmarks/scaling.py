"""One process against several (DDP): tokens per second, and the same losses; or memory (FSDP2).

    python benchmarks/scaling.py --processes 1,2
    python benchmarks/scaling.py --memory --processes 1,2,4

Launches `torchrun --nproc-per-node N -m miao pretrain` on the same shards, in turn, and reads
metrics.jsonl. On a CPU each process gets its share of the cores (`--threads-total`); one process on
one core is measured too, so that both questions have an answer: what a second process gains over an
equal first one, and over a single process with all the cores.

`--memory`: how much a process grows from before it has a model to the peak of two training steps,
on CPUs, with the step's rows shared out, beside what of that are weights, gradient and buffers.
glibc is told to give back what is freed at once: by itself it keeps most of it (the larger the
freed block, the larger those that it keeps), which is then resident and nobody's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from common import ROOT, parser_for, report
from material import built_shards, shape

from miao.device import choose_device
from miao.files import read_jsonl
from miao.recipe import PretrainOptions, Recipe
from miao.recipe.model import ModelOptions
from miao.train.distributed.choice import make_parallel
from miao.train.distributed.parallel import Parallel
from miao.train.distributed.world import LaunchedWorld, World
from miao.train.optim import local
from miao.train.prepare import filling_of, prepare_model

GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
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
    parser.add_argument("--memory", action="store_true", help="peak memory per process instead")
    parser.add_argument("--layers", type=int, default=8, help="of the model of --memory, 512 wide")
    options = parser.parse_args()
    if options.memory:
        return measure_memory(options)
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


def measure_memory(options: argparse.Namespace) -> int:
    """A row for every number of processes."""
    if "RANK" in os.environ:
        sys.stdout.write(json.dumps(memory_of_rank(options.layers)) + "\n")
        return 0
    rows: list[dict[str, Any]] = []
    for n in [int(word) for word in options.processes.split(",")]:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(n), __file__, "--memory", "--layers"]
        command += [str(options.layers)]
        environment = os.environ | GIVING_BACK
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if len(found) != n:
            raise RuntimeError(done.stderr[-2500:])
        largest = {name: max(line[name] for line in found) for name in found[0]}
        rows.append({"processes": n, **largest})
        rows[-1]["times the first"] = largest["peak MiB"] / rows[0]["peak MiB"]
        print(f"  {rows[-1]}", flush=True)
    report("scaling-memory", options, "cpu", list(rows[0]), rows)
    return 0


def memory_of_rank(layers: int) -> dict[str, float]:
    """MiB of one process of `fsdp`."""
    world = LaunchedWorld(on_gpu=False) if int(os.environ["WORLD_SIZE"]) > 1 else World()
    two_steps(world, 1, 64)  # brings what is imported and kept at first use
    begun = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    parallel = two_steps(world, layers, 512)
    peak = status("VmHWM") - begun
    held = [local(p) for p in parallel.model.parameters()] + parallel.gradients()
    held += parallel.optimizer.state_tensors().values()
    block = sum(p.numel() for p in parallel.model.model.layers[0].parameters()) * 4
    return {
        "peak MiB": peak,
        "weights, gradient, buffers MiB": sum(t.nbytes for t in held) / 2**20,
        "a block MiB": block / 2**20,
    }


def two_steps(world: World, layers: int, width: int) -> Parallel:
    """Of rows that the processes share."""
    recipe = Recipe(device="cpu", seed=0)
    heads = {"num_attention_heads": width // 64, "num_key_value_heads": 1, "head_dim": 64}
    shape = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": 1408}
    recipe.model = ModelOptions(**heads, **shape, max_position_embeddings=128)
    recipe.pretrain = PretrainOptions(precision="fp32", seq_len=128)
    tokenizer: Any = SimpleNamespace(vocab_size=6400, end_of_turn_id=1)
    spread = world.size > 1
    with patch("miao.train.prepare.keep_freed_memory"):  # it would hide what is given back
        model = prepare_model(recipe, recipe.pretrain, tokenizer, None, spread)
    filling = filling_of(recipe, None) if spread else None
    parallel = make_parallel("fsdp", model, recipe.pretrain, world, filling)
    ids = torch.randint(6400, (4 // world.size, 128))
    for _ in range(2):
        parallel.forget_gradients()
        loss = parallel.module(ids, labels_bt=ids, output="loss")
        parallel.backward(loss, last=True)
        parallel.step()
    return parallel


def status(name: str) -> float:
    """A figure of this process, in MiB."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{name}:")[2].split()[0]) / 1024


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
