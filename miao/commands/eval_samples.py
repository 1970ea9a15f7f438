"""Answers to a fixed set of prompts, to read with one's own eyes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from miao.console import headline, say, warn
from miao.evaluate.results.store import Target, find_target
from miao.files import write_jsonl
from miao.language import Parser
from miao.options import read_yaml

FILE = "samples.jsonl"


def fixed_prompts() -> tuple[list[str], list[str]]:
    """Beginnings of texts, and requests in the chat: the same for every model."""
    with resources.as_file(resources.files("miao.evaluate") / "samples.yaml") as path:
        found = read_yaml(path)
    return found["texts"], found["prompts"]


def main(words: Sequence[str]) -> int:
    """`miao eval samples MODEL`."""
    parser = parser_of("samples", "Greedy answers to a fixed set of prompts, zh and en.")
    parser.add_argument("model", help="a run, a model directory or a name on a hub")
    parser.add_argument("--stage", help="a stage of the run (default: the last model)")
    parser.add_argument("--out", type=Path, help="where results go")
    generation_options(parser)
    options = parser.parse_args(words)
    target = find_target(options.model, options.stage, options.out)
    from miao.engine import SamplingOptions
    from miao.evaluate.measure.loading import loaded
    from miao.evaluate.measure.quality import continue_texts

    texts, prompts = fixed_prompts()
    model, tokenizer = loaded(target.directory, options.device)
    sampling = SamplingOptions(temperature=0.0, max_new_tokens=options.max_new_tokens)
    records = [one.to_json() for one in continue_texts(model, tokenizer, texts, sampling)]
    if answers := written_answers(target, options, prompts):
        records += answers
    else:
        warn("no chat answers: this model has no chat template")
    path = target.results / FILE
    write_jsonl(path, records)
    for record in records:
        say(f"> {record['prompt']}\n  {record['answer'].strip()}")
    say(f"\n  all of them: {path}")
    return 0


def written_answers(
    target: Target, options: argparse.Namespace, questions: Sequence[str]
) -> list[dict[str, str]]:
    """Answers of one model to questions in the chat; none where it has no chat template."""
    from miao.engine import SamplingOptions
    from miao.evaluate.measure.loading import loaded
    from miao.evaluate.measure.quality import ask_in_chat

    headline(f"answers of {target.name}")
    model, tokenizer = loaded(target.directory, options.device)
    if not tokenizer.has_chat_template:
        return []
    sampling = SamplingOptions(temperature=0.0, max_new_tokens=options.max_new_tokens)
    return [one.to_json() for one in ask_in_chat(model, tokenizer, questions, sampling)]


def parser_of(verb: str, description: str) -> argparse.ArgumentParser:
    return Parser(prog=f"miao eval {verb}", description=description)


def generation_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-new-tokens", type=int, default=96, help="longest answer")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
