"""How soon the board draws: a run of many log lines, cold, in a real Chromium (playwright).

    python benchmarks/board.py [--lines 100000] [--times 5]

Says, as medians, what the server and the page's main thread compute (CPU time, which a busy
machine changes little) and what a reader waits for (the clock): until the first paint of the page,
and until the curves are drawn. Every time is with a server that has just begun.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

DRAWN = """() => new Promise((done) => {
  const drawn = () => document.querySelector("#charts canvas");
  const look = () => (drawn() ? done(performance.now()) : setTimeout(look, 2));
  look();
})"""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as kept, sync_playwright() as tools:
        size = write_run(Path(kept) / "long", options.lines)
        browser = tools.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        found = [once(browser, Path(kept)) for _ in range(options.times)]
        browser.close()
    print(f"{options.lines:,} lines, {size / 1e6:.0f} MB; load {os.getloadavg()[0]:.1f}")
    for name in found[0]:
        values = [one[name] for one in found]
        spread = f"({min(values):.0f} to {max(values):.0f})"
        print(f"{name:34}{statistics.median(values):7.0f} ms  {spread}")


def write_run(run: Path, lines: int) -> int:
    """A log as a training writes it; returns its bytes."""
    run.mkdir()
    random.seed(1)
    with open(run / "metrics.jsonl", "w") as file:
        for n in range(lines):
            row: dict[str, Any] = {
                "stage": "pretrain", "step": 10 * n, "tokens": 20_480 * n, "seconds": 1.4 * n,
                "lr": 0.003, "grad_norm": random.random(), "loss": 5 - 3e-5 * n + random.random(),
                "tokens_per_second": 14_000 + 100 * random.random(), "mfu": 0.0881,
                "mfu_palm": 0.1004, "mfu_bitbrain": 0.1244, "data_wait": 0.0026,
            }  # fmt: skip
            if n % 500 == 0:
                row["heldout_bits_per_byte"] = 2.5 - 1e-5 * n
            file.write(json.dumps(row) + "\n")
    return (run / "metrics.jsonl").stat().st_size


def once(browser: Browser, runs: Path) -> dict[str, float]:
    words = [sys.executable, "-u", "-m", "miao", "board", str(runs), "--port", "0"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        said = next(line for line in server.stdout if "http" in line)
        address = re.search(r"http://\S+", said)
        assert address is not None, said
        page = browser.new_page()
        page.goto(address[0].split("/runs")[0] + "/web/none")  # Chromium itself has begun
        devtools = page.context.new_cdp_session(page)
        devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
        before = cpu_seconds(server.pid)
        page.goto(address[0], wait_until="commit")
        drawn = page.evaluate(DRAWN)
        spent = cpu_seconds(server.pid) - before
        told = devtools.send("Performance.getMetrics")["metrics"]
        thread = next(one["value"] for one in told if one["name"] == "TaskDuration")
        first = page.evaluate(PAINT)
        page.close()
    finally:
        server.terminate()
        server.wait()
    return {
        "server, CPU": 1000 * spent,
        "page's main thread, CPU": 1000 * thread,
        "first paint, by the clock": first,
        "curves are drawn, by the clock": drawn,
    }


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
