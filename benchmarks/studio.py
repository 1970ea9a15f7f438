"""What a studio that watches costs a training, and how soon its rooms are painted, in a real
Chromium (playwright).

    python benchmarks/studio.py beside [--times 20]
    python benchmarks/studio.py rooms [--times 5] [--lines 100000]

beside: a small training, in turns watched and alone: the studio runs and its page of curves is
open, or both are stopped (SIGSTOP), for a few seconds each. By CPU time of the training's own
process: tokens per CPU second of each two turns, watched over alone. rooms: of every room, by the
clock, the first paint with a server that is warm and a browser that knows nothing of it yet; of the
curves until they are drawn.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from board import DRAWN, PAINT, cpu_seconds, write_run
from playwright.sync_api import Browser, sync_playwright

ROOMS = ("/", "/runs", "/chat", "/inside", "/data")
SECONDS = 3.0
SMALL = """name: small
corpus: {seedbed: {characters: 20K, conversations: 80, preferences: 20}}
tokenizer: {vocab_size: 512}
model: {hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1,
  max_position_embeddings: 256}
pretrain: {tokens: 500M, batch_tokens: 2048, seq_len: 128, log_every: 1, compile: 'off'}
sft: {enabled: false}
dpo: {enabled: false}
evaluate: {enabled: false}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("beside", "rooms"))
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--lines", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as kept, sync_playwright() as tools:
        browser = tools.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        if options.what == "beside":
            beside(browser, Path(kept), options.times)
        else:
            write_run(Path(kept) / "long", options.lines)
            rooms(browser, Path(kept), options.times)
        browser.close()


@contextmanager
def studio(runs: Path) -> Iterator[tuple[str, int]]:
    """Its address with the token, and its process."""
    runs.mkdir(exist_ok=True)
    words = [sys.executable, "-u", "-m", "miao", "studio", str(runs), "--port", "0"]
    words += ["--home", str(runs.parent / f"{runs.name}-home"), "--texts", str(runs)]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        address = next(
            found[0] for line in server.stdout if (found := re.search(r"http://\S+", line))
        )
        yield address, server.pid
    finally:
        server.terminate()
        server.wait()


def rooms(browser: Browser, runs: Path, times: int) -> None:
    with studio(runs) as (address, _):
        base, token = address.split("/?token=")
        for room in ROOMS:
            paints, drawn = [], []
            for _ in range(times):
                context = browser.new_context()
                page = context.new_page()
                page.goto(f"{base}/none?token={token}")  # Chromium itself has begun
                page.goto(base + room, wait_until="commit")
                if room == "/runs":
                    drawn.append(page.evaluate(DRAWN))
                page.wait_for_load_state("networkidle")
                paints.append(page.evaluate(PAINT))
                context.close()
            told(f"{room}: first paint", paints)
            if drawn:
                told(f"{room}: curves are drawn", drawn)


def told(name: str, values: list[float]) -> None:
    spread = f"({min(values):.0f} to {max(values):.0f})"
    print(f"{name:28}{statistics.median(values):7.0f} ms  {spread}", flush=True)


def beside(browser: Browser, kept: Path, times: int) -> None:
    kept.joinpath("small.yaml").write_text(SMALL)
    words = [sys.executable, "-m", "miao", "run", str(kept / "small.yaml"), "--name", "long"]
    words += ["--out_dir", str(kept / "runs")]
    metrics = kept / "runs" / "long" / "metrics.jsonl"
    with studio(kept / "runs") as (address, server):
        page = browser.new_page()
        page.goto(address)
        page.goto(f"{address.split('/?')[0]}/runs?run=long")
        training = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        page.wait_for_selector("#charts canvas", timeout=600_000)
        watching = [server, *(pid for pid, name in children(os.getpid()) if name == "chromium")]
        ratios, rates = [], {True: 0.0, False: 0.0}
        began, before = time.monotonic(), cpu_seconds(server)
        for n in range(2 * times):
            watched = n % 4 in (0, 3)
            for pid in watching:
                os.kill(pid, signal.SIGCONT if watched else signal.SIGSTOP)
            rates[watched] = rate(training.pid, metrics)
            if n % 2:
                ratios.append(rates[True] / rates[False])
        for pid in watching:
            os.kill(pid, signal.SIGCONT)
        share = 2 * (cpu_seconds(server) - before) / (time.monotonic() - began)
        training.send_signal(signal.SIGINT)
        training.wait()
    error = statistics.stdev(ratios) / len(ratios) ** 0.5
    print(f"watched over alone, {times} pairs: mean {statistics.mean(ratios):.4f} ± {error:.4f}, "
          f"median {statistics.median(ratios):.4f} ({min(ratios):.3f} to {max(ratios):.3f}); the "
          f"server's CPU {share:.2%} of a core; load {os.getloadavg()[0]:.1f}")  # fmt: skip


def rate(pid: int, metrics: Path) -> float:
    """Tokens per CPU second, from a line of metrics to one that comes some seconds later."""
    seen: list[tuple[float, float]] = []
    end = time.monotonic() + SECONDS
    while time.monotonic() < end or len(seen) < 3:
        time.sleep(0.01)
        spent, size = cpu_seconds(pid), metrics.stat().st_size
        if not seen or size != seen[-1][0]:
            seen.append((size, spent))
    lines = metrics.read_bytes()
    first, last = (
        json.loads(lines[: int(size)].rstrip(b"\n").rpartition(b"\n")[2])["tokens"]
        for size in (seen[1][0], seen[-1][0])
    )
    return float((last - first) / (seen[-1][1] - seen[1][1]))


def children(pid: int) -> list[tuple[int, str]]:
    """All processes below one, with their names."""
    found: list[tuple[int, str]] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        name, fields = path.read_text().split("(", 1)[1].rsplit(")", 1)
        if int(fields.split()[1]) == pid:
            child = int(path.parent.name)
            found += [(child, name), *children(child)]
    return found


if __name__ == "__main__":
    main()
