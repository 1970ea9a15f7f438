"""What feeds the training and what saves it: loader, packing, corpus, checkpoints.

    python benchmarks/data.py --megabytes 20

Loader: rows and tokens per second read from the shards, and the share of time that a trainer of
`--feed` tokens per second would wait. Lanes: short documents, as the fourth of 8 ranks reads them
(seconds of CPU, so that a busy machine counts little), times 8. Packing: real tokens among all
slots, against batches padded to their longest record and to a fixed length. Corpus: peak memory of
`miao shards` on a file, and on one ten times as large. Checkpoint: how long a save
keeps the loop waiting, and when it is on disk.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, best_and_median, parser_for, report, synchronize
from material import chat_lengths, random_shards, shape

from miao.device import choose_device, keep_freed_memory
from miao.recipe import parse_quantity
from miao.shards import PackedLoader, PackedSource, TokenDataset
from miao.shards.dataset import Manifest
from miao.shards.write import Block, write_blocks

PARTS = ("loader", "lanes", "packing", "corpus", "checkpoint")


def main() -> int:
    parser = parser_for(__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--tokens", default="20M", help="tokens of the shards that are read")
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("--feed", default="1.3M", help="tokens per second that a trainer takes")
    parser.add_argument("--megabytes", type=float, default=10, help="of the smaller corpus")
    parser.add_argument("--shape", default="27m", help="of the checkpoint")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.quick:
        options.tokens, options.seq_len, options.megabytes = "200K", 256, 0.1
        options.shape, options.rounds = "tiny", 2
    device = str(choose_device(options.device))
    rows: list[dict[str, Any]] = []
    for part in options.only.split(","):
        if part not in PARTS:
            raise SystemExit(f"there is no part {part!r}; parts: {', '.join(PARTS)}")
        with tempfile.TemporaryDirectory(prefix="miao-data-") as directory:
            rows += globals()[f"measure_{part}"](Path(directory), options)
    report("data", options, device, ["part", "what", "value", "unit"], rows)
    return 0


def row(part: str, what: str, value: float, unit: str) -> dict[str, Any]:
    return {"part": part, "what": what, "value": round(value, 4), "unit": unit}


def open_loader(directory: Path, tokens: float, seq_len: int) -> PackedLoader:
    lengths = chat_lengths(max(16, int(tokens / 340)), longest=seq_len)
    material = random_shards(directory / "shards", 6400, lengths)
    dataset = TokenDataset(Path(material.train[0]))
    return PackedLoader([PackedSource("random", dataset, seq_len, seed=0)], seq_len)


def measure_loader(directory: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Reading as fast as possible, and beside a trainer of a given speed."""
    from miao.train.distributed.world import World
    from miao.train.feed.prefetch import prefetched

    tokens = parse_quantity(options.tokens, "--tokens")
    loader = open_loader(directory, tokens, options.seq_len)
    rows_per_step = max(1, 65536 // options.seq_len)
    read = began = 0.0
    speeds = []
    for _ in range(options.rounds):
        read, began = 0.0, time.perf_counter()
        while read < tokens / options.rounds:
            read += loader.batch(loader.next_rows(rows_per_step)).real_tokens
        speeds.append(read / (time.perf_counter() - began))
    best, median = max(speeds), float(np.median(speeds))
    feed = parse_quantity(options.feed, "--feed")
    waited = total = 0.0
    began = time.perf_counter()
    steps = prefetched(loader, rows_per_step, 0, tokens / 2, World())
    for number, (step, wait) in enumerate(steps):
        if number > 1:  # the first window is packed before anything can be trained
            waited += wait
        time.sleep(step.whole.tokens / feed)
        total = time.perf_counter() - began
    return [
        row("loader", "tokens per second, best", best, "tokens/s"),
        row("loader", "tokens per second, median", median, "tokens/s"),
        row("loader", "rows per second, median", median / options.seq_len, "rows/s"),
        row("loader", f"a trainer of {options.feed} tokens/s waits", waited / total, "share"),
    ]


def measure_lanes(directory: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A rank walks and reads its own lanes only."""
    ranks, rows, steps = 8, 64 if options.quick else 512, 4 if options.quick else 48
    rng = np.random.default_rng(0)
    count = 20_000 if options.quick else 3_000_000
    lengths = np.clip(rng.lognormal(np.log(100) - 0.3, 0.8, count), 2, 50_000).astype(np.int64)

    def blocks() -> Iterator[Block]:
        for part in np.array_split(lengths, max(1, count // 100_000)):
            ids = rng.integers(0, 60_000, int(part.sum()), dtype=np.uint16)
            yield Block(ids, part, None, len(ids))

    write_blocks(directory / "short", Manifest("document", "short", "", 60_000, "uint16"), blocks())
    began = time.process_time()
    source = PackedSource("short", TokenDataset(directory / "short"), options.seq_len, seed=0)
    opened = time.process_time() - began
    loader = PackedLoader([source], options.seq_len, rows_per_step=rows)
    began, real = time.process_time(), 0
    for _ in range(steps):
        real += loader.batch(loader.next_rows(rows, 3, ranks)).real_tokens
    seconds = time.process_time() - began
    filled = real / (steps * rows / ranks * options.seq_len)
    return [
        row("lanes", f"opening {count:,} documents", opened, "s"),
        row("lanes", f"{loader.lanes} lanes: real tokens", filled, "share"),
        row("lanes", f"{ranks} ranks, documents of 100 tokens", ranks * real / seconds, "tokens/s"),
    ]


def measure_packing(directory: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """How much of what the model computes is real."""
    found = []
    for seq_len in (512, 1024, 2048):
        count = 500 if options.quick else 40_000
        lengths = chat_lengths(count, longest=seq_len)
        dataset = random_shards(directory / str(seq_len), 6400, lengths)
        source = PackedSource("random", TokenDataset(Path(dataset.train[0])), seq_len, seed=0)
        loader = PackedLoader([source], seq_len)
        began = time.perf_counter()
        rows = loader.next_rows(max(8, sum(lengths) // seq_len // 2))
        seconds = time.perf_counter() - began
        real = loader.real_tokens(rows)
        order = random.Random(0).sample(lengths, len(lengths))
        groups = [order[i : i + 8] for i in range(0, len(order) // 8 * 8, 8)]
        padded = sum(map(sum, groups)) / sum(8 * max(group) for group in groups)
        what = f"rows of {seq_len}: "
        found += [
            row("packing", what + "real tokens", real / (len(rows) * seq_len), "share"),
            row("packing", what + "padded to the longest of 8", padded, "share"),
            row("packing", what + "padded to the row", float(np.mean(lengths)) / seq_len, "share"),
            row("packing", what + "packed", real / max(seconds, 1e-9), "tokens/s"),
        ]
    return found


def measure_corpus(directory: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Peak memory and time of `miao shards` on one corpus and on one ten times as large."""
    found: list[dict[str, Any]] = []
    peaks = {}
    for times in (1, 10):
        megabytes = options.megabytes * times
        path = directory / f"corpus-{times}.jsonl"
        write_corpus(path, int(megabytes * 1e6))
        recipe = directory / "bench.yaml"
        recipe.write_text(f"name: times-{times}\n", encoding="utf-8")
        tokenizer = directory / "times-1" / "tokenizer"
        command = [
            sys.executable, "-m", "miao", "shards", str(recipe), f"--out_dir={directory}",
            f"--corpus.paths=[{path}]", "--corpus.heldout_max=50",
            "--corpus.seedbed.conversations=50", "--corpus.seedbed.preferences=20",
            "--tokenizer.vocab_size=2000", "--tokenizer.sample=1M",
        ]  # fmt: skip
        if times > 1:
            command.append(f"--tokenizer.path={tokenizer}")
        seconds, peaks[times] = run_and_watch(command)
        what = f"{megabytes:g} MB of text: "
        found += [
            row("corpus", what + "peak memory", peaks[times], "MiB"),
            row("corpus", what + "text to shards", megabytes / seconds, "MB/s"),
        ]
    found.append(row("corpus", "ten times the text takes", peaks[10] / peaks[1], "times memory"))
    return found


def write_corpus(path: Path, size: int) -> None:
    """Records of made-up words, all different."""
    rng = np.random.default_rng(0)
    words = np.array(["".join(chr(97 + n) for n in rng.integers(0, 26, 6)) for _ in range(5000)])
    with open(path, "w", encoding="utf-8") as file:
        written = 0
        while written < size:
            text = " ".join(words[rng.integers(0, len(words), 150)])
            written += file.write(json.dumps({"text": text}) + "\n")


def run_and_watch(command: list[str]) -> tuple[float, float]:
    """Seconds, and MiB of the process's peak memory (NaN where the system does not say)."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=output, stderr=output
        )
        peak = float("nan")
        if hasattr(os, "wait4"):
            _, status, usage = os.wait4(process.pid, 0)
            code = os.waitstatus_to_exitcode(status)
            peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        else:
            code = process.wait()
        if code:
            output.seek(0)
            raise RuntimeError(output.read().decode(errors="replace")[-1500:])
    return time.perf_counter() - began, peak


def measure_checkpoint(directory: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A save of weights and optimizer: what the loop waits for, and what a thread does."""
    import torch

    from miao.model import Decoder, ModelConfig
    from miao.recipe import PretrainOptions
    from miao.train.distributed.parallel import Parallel
    from miao.train.distributed.world import World
    from miao.train.safety.checkpoint import CheckpointStore

    device = choose_device(options.device)
    if device.type == "cpu":
        keep_freed_memory()
    model = Decoder(ModelConfig(**shape(options.shape, 512)))
    model.initialize(0)
    model.to(device)
    parallel = Parallel(model, PretrainOptions(), World())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    parallel.optimizer.step()
    store = CheckpointStore(directory / "checkpoints", parallel, keep_last=1)
    pauses, writes = [], []
    for step in range(1, options.rounds + 2):
        synchronize(str(device))
        began = time.perf_counter()
        store.save({"step": step}, {})
        pauses.append(time.perf_counter() - began)
        if error := store.failure(wait=True):
            raise error
        writes.append(time.perf_counter() - began)
    size = sum(p.stat().st_size for p in (directory / "checkpoints").rglob("*") if p.is_file())
    pause, write = best_and_median(pauses[1:]), best_and_median(writes[1:])
    what = f"{options.shape}, {size / 2**20:.0f} MiB: "
    return [
        row("checkpoint", what + "the loop waits, first save", pauses[0] * 1e3, "ms"),
        row("checkpoint", what + "the loop waits, median", pause["median"] * 1e3, "ms"),
        row("checkpoint", what + "on disk after, median", write["median"] * 1e3, "ms"),
    ]


if __name__ == "__main__":
    sys.exit(main())
