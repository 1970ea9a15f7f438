"""Many streaming clients at once, some of which hang up: what the server must survive.

    python benchmarks/serve_load.py runs/seedling --clients 64 --seconds 120

Starts `miao serve`, and ends with code 1 unless there was no answer but 200 and 429, every greedy
answer to a question was the same, no row is taken when all have gone, and the memory is flat.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

QUESTIONS = [
    "你好！",
    "Who are you?",
    "37加45等于多少？",
    "Tell me a story about a rabbit.",
    "法国的首都是哪里？",
    "What is 62 minus 27?",
]
MOST_GROWTH = 1.15
"""Memory at the end over memory after the first third."""


@dataclass
class Load:
    """What the clients have seen."""

    port: int
    tokens: int
    statuses: Counter[int] = field(default_factory=Counter)
    answers: dict[str, set[str]] = field(default_factory=dict)
    hangups: int = 0
    chunks: int = 0
    first: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    async def client(self, number: int, until: float) -> None:
        dice = random.Random(number)
        while time.monotonic() < until:
            question = dice.choice(QUESTIONS)
            patience = dice.randrange(1, 12) if dice.random() < 0.3 else None
            try:
                await self._ask(question, patience)
            except (OSError, asyncio.IncompleteReadError, ValueError, IndexError) as error:
                self.errors.append(f"{type(error).__name__}: {error}")

    async def _ask(self, question: str, patience: int | None) -> None:
        """One streamed answer; after `patience` chunks the client is gone."""
        messages = [{"role": "user", "content": question}]
        body = json.dumps(
            {"messages": messages, "stream": True, "temperature": 0, "max_tokens": self.tokens}
        ).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(head.encode() + body)
            status = int((await reader.readline()).split()[1])
            self.statuses[status] += 1
            if status != 200:
                await asyncio.sleep(random.uniform(0.2, 1))
                return
            text, seen, is_done = "", 0, False
            async for line in reader:
                if line.startswith(b"data: [DONE]"):
                    is_done = True
                elif line.startswith(b"data: "):
                    seen += 1
                    self.chunks += 1
                    if seen == 2:
                        self.first.append(time.monotonic() - began)
                    if seen == patience:
                        self.hangups += 1
                        return
                    chunk = json.loads(line[6:])
                    text += chunk["choices"][0]["delta"].get("content", "")
            if not is_done:
                raise ValueError("the stream broke off")
            self.answers.setdefault(question, set()).add(text)
        finally:
            writer.close()


async def watch(process: subprocess.Popen[str], until: float, sizes: list[float]) -> None:
    while time.monotonic() < until:
        sizes.append(resident_mib(process.pid))
        await asyncio.sleep(1)


def resident_mib(process: int) -> float:
    pages = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * 4096 / 2**20


async def gauges(port: int) -> dict[str, float]:
    """What `/metrics` says is taken."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    found = re.findall(r"^miao_(running|waiting)\{.*\} ([\d.]+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


async def run(process: subprocess.Popen[str], load: Load, clients: int, seconds: float) -> bool:
    sizes: list[float] = []
    began = time.monotonic()
    until = began + seconds
    watching = asyncio.create_task(watch(process, until, sizes))
    await asyncio.gather(*(load.client(number, until) for number in range(clients)))
    await watching
    elapsed = time.monotonic() - began
    await asyncio.sleep(2)
    left = await gauges(load.port)
    middle, end = sizes[len(sizes) // 3], sizes[-1]
    same = all(len(texts) == 1 for texts in load.answers.values())
    checks = {
        f"only 200 and 429: {dict(load.statuses)}": set(load.statuses) <= {200, 429},
        f"no broken stream: {load.errors[:3]}": not load.errors,
        f"equal greedy answers: {[len(t) for t in load.answers.values()]}": same,
        f"no row taken at the end: {left}": not any(left.values()),
        f"memory flat: {middle:.0f} -> {end:.0f} MiB": end < MOST_GROWTH * middle,
    }
    firsts = sorted(load.first) or [float("nan")]
    print(
        f"{load.statuses[200]} streams, {load.hangups} hung up, {load.chunks / elapsed:.0f} "
        f"chunks/s, first token {firsts[len(firsts) // 2]:.2f} s (median), "
        f"{firsts[int(len(firsts) * 0.99)]:.2f} s (99 %)"
    )
    return verdict(checks)


def verdict(checks: dict[str, bool]) -> bool:
    """Says what holds and what does not; whether all of it does."""
    for text, holds in checks.items():
        print("ok  " if holds else "FAIL", text)
    return all(checks.values())


@contextmanager
def served(model: str, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server of `miao serve` and its port, ended with the block."""
    command = [sys.executable, "-m", "miao", "serve", model, "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"at http://127\.0\.0\.1:(\d+)/v1", line):
                break
        else:
            raise SystemExit("the server did not start")
        yield process, int(found[1])
    finally:
        process.terminate()
        process.wait(60)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--tokens", type=int, default=48, help="of an answer at most")
    parser.add_argument("--weights", default="auto")
    options = parser.parse_args()
    with served(options.model, "--weights", options.weights) as (process, port):
        time.sleep(1)
        load = Load(port, options.tokens)
        held = asyncio.run(run(process, load, options.clients, options.seconds))
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
