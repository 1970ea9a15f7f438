"""`miao corpus distill`: answers of a model at a server, as conversations to fine-tune on."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from miao.console import say, say_next
from miao.corpus.distill import Endpoint, distill, questions, read_prompts
from miao.errors import MiaoError
from miao.language import Parser
from miao.openai_api import api_key


def main(words: Sequence[str]) -> int:
    """`miao corpus distill`."""
    options = _parser().parse_args(words)
    for name in ("samples", "concurrency", "max_tokens"):
        if getattr(options, name) < 1:
            raise MiaoError(f"--{name.replace('_', '-')} must be positive")
    if options.requests_per_minute < 0 or options.retries < 0:
        raise MiaoError("--requests-per-minute and --retries must not be negative")
    settings = {
        "model": options.model,
        "temperature": options.temperature,
        "max_tokens": options.max_tokens,
    }
    prompts = [messages for path in options.prompts for messages in read_prompts(Path(path))]
    key = api_key(options.api_key)
    endpoint = Endpoint(options.url, settings, key, options.requests_per_minute, options.retries)
    total = len(prompts) * options.samples
    say(f"{total} questions for {options.model} at {endpoint.url}")
    output = Path(options.output)
    asked = questions(prompts, settings, options.system, options.samples)
    counts = distill(asked, endpoint, output, options.concurrency, total)
    for what, number in counts.most_common():
        say(f"  {number} {what}")
    say(f"  wrote {output}")
    say_next(f"miao corpus check {output}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="miao corpus distill",
        description="Asks a model and keeps its answers as conversations; run again, it goes on.",
    )
    parser.add_argument("prompts", nargs="+", help=".txt (a prompt per line) or .jsonl files")
    parser.add_argument("--url", required=True, help="such as http://127.0.0.1:8000")
    parser.add_argument("--model", required=True, help="the model's name there")
    parser.add_argument("--output", required=True, help="the .jsonl file to append to")
    parser.add_argument("--system", help="a system prompt for every question, and kept with it")
    parser.add_argument("--samples", type=int, default=1, help="answers per prompt (default 1)")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--max-tokens", type=int, default=1024, help="longest answer")
    parser.add_argument("--concurrency", type=int, default=4, help="requests at a time")
    parser.add_argument(
        "--requests-per-minute", type=float, default=0.0, help="at most (default: no limit)"
    )
    parser.add_argument("--retries", type=int, default=5, help="per request (default 5)")
    parser.add_argument("--api-key", help="default: the variable MIAO_API_KEY")
    return parser
