"""What the benchmarks share: timing side by side, worker processes that take turns, the facts that
a number needs beside it, and results as JSON and as table rows.

Machines are shared and noisy. So the things that are compared run alternately in one go
(A B A B ...), the best and the median of each are kept, and what is stated is their ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import queue
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parent.parent
PACKAGES = ("torch", "transformers", "accelerate", "liger_kernel", "numpy", "tokenizers")
SHORTEST_SAMPLE = 0.02
"""Seconds that one sample lasts at least: shorter calls are repeated within it."""


def parser_for(description: str | None) -> argparse.ArgumentParser:
    """Options that every benchmark has; `description`: the module's docstring."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--out", type=Path, help="write the result here, as JSON")
    return parser


def facts(device: str) -> dict[str, Any]:
    """Machine, versions, commit and command: what a number is worth nothing without."""
    import torch

    from miao.provenance import installed_version, processor_name

    versions = {"python": platform.python_version()}
    versions |= {name: installed_version(name) or "-" for name in PACKAGES}
    found: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "command": " ".join(["python", os.path.relpath(sys.argv[0], ROOT), *sys.argv[1:]]),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "changed_files": len((_git("status", "--porcelain", "-uno") or "").splitlines()),
        "versions": versions,
        "system": platform.platform(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if hasattr(os, "getloadavg"):
        found["load"] = round(os.getloadavg()[0], 2)
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        found |= {"gpu": properties.name, "gpu_gib": round(properties.total_memory / 2**30, 1)}
    return found


def side_by_side(
    calls: dict[str, Callable[[], object]], rounds: int, device: str = "cpu", warmup: int = 1
) -> dict[str, list[float]]:
    """Seconds of each call, `rounds` times each, taken in turn."""
    repeats: dict[str, int] = {}
    for name, call in calls.items():
        for _ in range(warmup):
            call()
        once = _seconds(call, 1, device)
        repeats[name] = max(1, round(SHORTEST_SAMPLE / max(once, 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        names = list(calls) if number % 2 == 0 else list(calls)[::-1]
        for name in names:
            times[name].append(_seconds(calls[name], repeats[name], device))
    return times


def best_and_median(values: Sequence[float]) -> dict[str, float]:
    """Of seconds: the smallest and the middle one."""
    return {"best": min(values), "median": statistics.median(values)}


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


def _seconds(call: Callable[[], object], repeats: int, device: str) -> float:
    synchronize(device)
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    synchronize(device)
    return (time.perf_counter() - began) / repeats


class Worker:
    """A process of its own that does what it is asked, when it is asked: several can be ready and
    measured in turn, each with its own peak of memory.

    Args:
        script: run with `spec` as JSON; answers through `commands`.
        log: where its output goes.
    """

    def __init__(
        self, script: Path, spec: dict[str, Any], log: Path, env: dict[str, str] | None = None
    ):
        self.log = log
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(script), json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | (env or {}),
                text=True,
            )
        self.replies: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, **command: Any) -> None:
        """Asks for something; `receive` has the answer."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it is gone: `receive` says so

    def receive(self, timeout: float | None = None) -> dict[str, Any]:
        """The next answer.

        Raises:
            RuntimeError: the process has ended, or is silent for `timeout` seconds.
        """
        try:
            reply = self.replies.get(timeout=timeout)
        except queue.Empty:
            self.close()
            raise RuntimeError(f"no answer in {timeout:.0f} s") from None
        if reply is None:
            tail = self.log.read_text(encoding="utf-8", errors="replace").strip()
            raise RuntimeError(f"a worker has ended: {tail[-1500:]}")
        return reply

    def ask(self, timeout: float | None = None, **command: Any) -> dict[str, Any]:
        self.send(**command)
        return self.receive(timeout)

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.replies.put(json.loads(line))
        self.replies.put(None)


class Commands:
    """The other end of a `Worker`. Whatever else is printed goes to the log."""

    def __init__(self) -> None:
        self.replies: IO[str] = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def next(self) -> dict[str, Any]:
        """Waits for a command; ends the process when there will be none."""
        line = sys.stdin.readline()
        if not line:
            os._exit(0)
        return dict(json.loads(line))

    def reply(self, **values: Any) -> None:
        self.replies.write(json.dumps(values) + "\n")
        self.replies.flush()


def report(
    name: str,
    options: argparse.Namespace,
    device: str,
    columns: Sequence[str],
    rows: Sequence[dict[str, Any]],
    **more: Any,
) -> None:
    """Prints the rows as a Markdown table, and writes everything to `--out`."""
    print()
    for line in table(columns, rows):
        print(line)
    result = {"benchmark": name, **facts(device), **more, "rows": list(rows)}
    if options.quick:
        result["quick"] = True
        print("\n--quick: sizes of a smoke test; these numbers mean nothing")
    if options.out is not None:
        sys.path.insert(0, str(ROOT))
        from miao.files import write_json

        write_json(options.out, result)
        print(f"\nwritten: {options.out}")


def table(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Lines of a Markdown table of these keys of each row."""
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield "| " + " | ".join(_shown(row.get(column)) for column in columns) + " |"


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        if value and (abs(value) < 1e-3 or abs(value) >= 1e7):
            return f"{value:.2e}"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.rstrip("\n") or None
