"""Hostile requests beside streams of others, which must not notice.

    python benchmarks/serve_fuzz.py runs/seedling --requests 20000

Starts `miao serve`, holds 16 streams of greedy answers, and meanwhile sends requests that are
wrong, extreme or costly: numbers at the ends of float32, schemas that are huge, endless or
contradictory, broken JSON and HTTP, long texts, half-sent bodies, hang-ups. Ends with code 1 unless
no request was answered 500, every stream said what it says alone, none waited longer than half a
second between two chunks, no row is taken when all have gone, and the server ended in time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from serve_load import QUESTIONS, gauges, served, verdict

MOST_WAIT = 0.5
"""Seconds between two chunks of a stream."""
HEAD = "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/tokenize",
    "/detokenize",
)
NUMBERS: dict[str, list[Any]] = {
    "temperature": [0, 1e-300, 5e-324, 1e-5, 2, 3, -1, 1e300],
    "top_p": [0, 1e-300, 1e-38, 1 - 1e-16, 1, -1],
    "top_k": [-1, 0, 1, 2**31 - 1, 2**31, 2**70],
    "min_p": [0, 1e-300, 1 - 1e-16, 1, 2],
    "repetition_penalty": [1e-38, 0.01, 10, 1e38, 0],
    "presence_penalty": [-2, 2, 1e-300, 3],
    "frequency_penalty": [-2, 2, 1e300],
    "seed": [0, -(2**63), 2**64 - 1, 2**64],
    "max_tokens": [1, 2, -1, 0, 10**6, 2**40],
    "n": [1, 2, 16, 17],
    "logprobs": [True, 0, 5, 20, 21],
    "logit_bias": [{"5": 100}, {"5": -100, "7": 1e-300}, {"99999999": 1}, {"x": 1}],
    "stop": ["", "a", ["x"] * 16, ["x"] * 17, "\ud800"],
    "stream": [True, False],
}


def schemas(dice: random.Random) -> Any:
    """Of a form: usual, huge, endless, contradictory, or none."""
    names = {f"p{n}": {"type": "string"} for n in range(dice.choice([1, 40, 1500]))}
    return dice.choice(
        [
            {"type": "object", "properties": names},
            {"type": "object", "properties": names, "required": list(names)},
            {"const": "x" * dice.choice([5, 90_000, 500_000])},
            {"$ref": "#"},
            {"$ref": "#/$defs/0", "$defs": {n: {"$ref": f"#/$defs/{n + 1}"} for n in range(2000)}},
            {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
            {"enum": []},
            {"type": "string", "pattern": "^(a|b)*abb(a|b){12}$"},
            {"type": "string", "pattern": "("},
            {"type": "string", "maxLength": 3, "minLength": 99},
            {"type": "array", "items": {"type": "integer"}, "minItems": 10**6},
            {"patternProperties": {f"^a{n}.*b$": {} for n in range(dice.choice([3, 300]))}},
            {"allOf": [{"anyOf": [{"required": [f"{a}{b}"]} for b in range(9)]} for a in "abcdef"]},
        ]
    )


def body(dice: random.Random, path: str) -> bytes:
    """A request that is nearly right."""
    question: Any = dice.choice(
        [*QUESTIONS, "", "\ud83d", "猫" * 5000, "a" * 1_000_000, "<|im_end|>"]
    )
    given: dict[str, Any] = {"max_tokens": dice.choice([1, 3, 8])}
    if path == "/v1/chat/completions":
        given["messages"] = [{"role": dice.choice(["user", "system", "x"]), "content": question}]
    elif path == "/v1/responses":
        given = {"input": question, "max_output_tokens": 16}
    elif path == "/v1/messages":
        given["messages"] = [{"role": "user", "content": dice.choice([question, [], [{}] * 9999])}]
    elif path == "/detokenize":
        given = {"tokens": dice.choice([[1, 2], [5] * 200_000, [2**31], [-1]])}
    elif path == "/v1/embeddings":
        given = {"input": dice.choice([question, [1, 2], [[1], [2]], [], [10**9]])}
    else:
        given["prompt"] = dice.choice([question, [1, 2, 3], [[5]] * 3, [], [-1], [[]]])
    for name in dice.sample(sorted(NUMBERS), dice.choice([0, 0, 1, 2])):
        given[name] = dice.choice(NUMBERS[name])
    if dice.random() < 0.1:
        form = {"type": "json_schema", "json_schema": {"name": "f", "schema": schemas(dice)}}
        given |= {"response_format": form, "n": dice.choice([1, 16])}
    elif dice.random() < 0.05:
        tool = {"name": "f", "parameters": schemas(dice)}
        given |= {"tools": [{"type": "function", "function": tool}], "tool_choice": "required"}
    if dice.random() < 0.05:
        given[dice.choice(["unknown", "model", "messages", "prompt"])] = dice.choice(
            [None, 5, "x", {}]
        )
    return json.dumps(given).encode()


def damaged(dice: random.Random, path: str) -> bytes:
    """A whole request on the wire: well framed mostly, sometimes not."""
    data = body(dice, path)
    chance = dice.random()
    if chance < 0.05:
        cut = dice.randrange(len(data))
        data = data[:cut] + dice.randbytes(dice.randrange(4)) + data[cut + 1 :]
    elif chance < 0.06:
        data = b"[" * dice.choice([50, 100_000])
    elif chance < 0.08:
        unit = dice.choice([b"1,", b'"",', b"[1],", b"[],", b"{},", b'{"a": 1},'])
        name = dice.choice([b"prompt", b"messages", b"input", b"tokens", b"stop"])
        count = dice.choice([10, 19_000, 290_000, 4 * 2**20]) // len(unit)
        data = b'{"' + name + b'": [' + unit * count + dice.choice([b"1]}", unit[:-1] + b"]}"])
    elif chance < 0.09:
        data = b"{" + b",".join(b'"%d": 1' % n for n in range(dice.choice([30, 200_000]))) + b"}"
    head = HEAD.format(path=path) + "Content-Type: application/json\r\n"
    length = f"Content-Length: {len(data)}\r\n\r\n"
    if dice.random() < 0.02:
        length = dice.choice(
            ["Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "Content-Length: x\r\n\r\n"]
        )
    return (head + length).encode() + data


@dataclass
class Fuzz:
    """What was sent and seen."""

    port: int
    tokens: int
    left: int
    statuses: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    alone: dict[str, str] = field(default_factory=dict)
    streams: int = 0
    waits: list[float] = field(default_factory=list)

    async def stream(self, question: str) -> str:
        """A greedy answer of another client; the longest wait for a chunk of it is noted."""
        asked = {"messages": [{"role": "user", "content": question}], "max_tokens": self.tokens}
        data = json.dumps(asked | {"stream": True, "temperature": 0}).encode()
        head = HEAD.format(path=PATHS[0]) + "Content-Type: application/json\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        text, ended, last, wait = "", False, 0.0, 0.0
        async for line in reader:
            if not line.startswith(b"data: "):
                continue
            now = time.monotonic()
            wait, last = max(wait, now - last if text else 0.0), now
            if line.startswith(b"data: [DONE]"):
                ended = True
            else:
                chunk = json.loads(line[6:])
                text += (
                    chunk["choices"][0]["delta"].get("content", "") if "choices" in chunk else ""
                )
        writer.close()
        self.waits.append(wait)
        return text if ended else f"broke off after {text!r}"

    async def listener(self, number: int) -> None:
        while self.left > 0:
            question = QUESTIONS[number % len(QUESTIONS)]
            said = await self.stream(question)
            if said != self.alone[question]:
                self.faults.append(f"{question}: {said[:80]!r}")
            self.streams += 1

    async def attacker(self, number: int, make: Callable[..., bytes]) -> None:
        dice = random.Random(number)
        while self.left > 0:
            self.left -= 1
            path = dice.choice(PATHS)
            try:
                self.statuses[await self._send(make(dice, path), dice)] += 1
            except (OSError, asyncio.IncompleteReadError):
                self.statuses["cut off"] += 1

    async def _send(self, request: bytes, dice: random.Random) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**24)
        try:
            if dice.random() < 0.05:
                writer.write(request[: dice.randrange(len(request))])
                await asyncio.sleep(dice.random() * 0.2)
                return "hung up half-sent"
            writer.write(request)
            if dice.random() < 0.05:
                await asyncio.sleep(dice.random() * 0.2)
                return "hung up waiting"
            async with asyncio.timeout(120):
                status = (await reader.readline()).split()
                rest = await reader.read()
            if status[1:2] == [b"500"] or b'"server_error"' in rest:
                self.faults.append(f"{rest[-200:]!r} for {request[:300]!r}")
            return status[1].decode() if len(status) > 1 else "no answer"
        except TimeoutError:
            self.faults.append(f"no answer in two minutes: {request[:300]!r}")
            return "no answer"
        finally:
            writer.close()


async def run(fuzz: Fuzz, listeners: int, attackers: int) -> bool:
    for question in QUESTIONS:
        fuzz.alone[question] = await fuzz.stream(question)
    fuzz.waits.clear()
    began = time.monotonic()
    await asyncio.gather(
        *(fuzz.listener(number) for number in range(listeners)),
        *(fuzz.attacker(number, damaged) for number in range(attackers)),
    )
    print(f"{sum(fuzz.statuses.values())} requests in {time.monotonic() - began:.0f} s:", end=" ")
    print(dict(fuzz.statuses.most_common()))
    for _ in range(100):
        if not any((left := await gauges(fuzz.port)).values()):
            break
        await asyncio.sleep(0.1)
    waits = sorted(fuzz.waits)
    checks = {
        f"no fault: {fuzz.faults[:5]}": not fuzz.faults,
        f"longest wait in a stream {waits[-1]:.2f} s, 99 % {waits[int(len(waits) * 0.99)]:.2f} s "
        f"({fuzz.streams} streams)": waits[-1] <= MOST_WAIT,
        f"no row taken at the end: {left}": not any(left.values()),
    }
    return verdict(checks)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--clients", type=int, default=8, help="that send the requests")
    parser.add_argument("--tokens", type=int, default=48, help="of a stream at most")
    options = parser.parse_args()
    room = ("--max-concurrency", str(2 * options.streams), "--max-queue", "256")
    with served(options.model, *room) as (_, port):
        fuzz = Fuzz(port, options.tokens, options.requests)
        held = asyncio.run(run(fuzz, options.streams, options.clients))
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
