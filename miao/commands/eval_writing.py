"""`miao eval writing MODEL`: how a model writes, without a judge."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from miao.commands.eval_samples import fixed_prompts, generation_options, parser_of
from miao.console import headline, print_table, say, warn
from miao.evaluate.results.store import Target, find_target, write_scores
from miao.evaluate.scores import Score, score_rows
from miao.files import write_jsonl

TEMPERATURE = 0.7
"""At which answers are drawn that are asked for several times."""


def main(words: Sequence[str]) -> int:
    """Measures and prints; the answers and scores are kept."""
    parser = parser_of(
        "writing",
        "How a model writes, without a judge: repetition, variety, ends, the language of its "
        "answers, instructions that a program can verify (in Chinese and English), and whether it "
        "says the same when it is asked again. A model without a chat continues texts.",
    )
    parser.add_argument("model", help="a run, a model directory or a name on a hub")
    parser.add_argument("--stage", help="a stage of the run (default: the last model)")
    parser.add_argument("--data", type=Path, help="prompts with instructions in the form of "
        "IFEval's file (default: 40 that come with Miao)")  # fmt: skip
    parser.add_argument("--limit", type=int, help="at most so many of them")
    parser.add_argument("--times", type=int, default=5, help="how often a sum is asked (0: never)")
    parser.add_argument("--out", type=Path, help="where results go")
    generation_options(parser)
    options = parser.parse_args(words)
    target = find_target(options.model, options.stage, options.out)
    headline(f"writing of {target.name}")
    scores = measure(target, options.data, options.limit, options)
    columns = ["", "of", "items", "value", "std. error", "chance"]
    print_table("how it writes", columns, score_rows(scores), right_from=2)
    say(f"  all answers: {target.results / 'writing.jsonl'}")
    return 0


def measure(
    target: Target, data: Path | None, limit: int | None, options: argparse.Namespace
) -> list[Score]:
    """The scores of a model, written beside its other results."""
    from miao.engine import SamplingOptions
    from miao.evaluate.measure.loading import loaded
    from miao.evaluate.measure.quality import (
        NAME,
        ask_in_chat,
        consistency,
        continue_texts,
        manner,
        obedience,
    )
    from miao.evaluate.tasks.instructions import read_instructed

    with resources.as_file(resources.files("miao.evaluate") / "tasks" / "texts") as folder:
        asked, unknown = read_instructed(data or folder / "instructions.jsonl")
    if unknown:
        names = ", ".join(sorted(set(unknown)))
        warn(f"{len(unknown)} instructions have no check here and their prompts are out: {names}")
    asked = asked[:limit]
    length, times = getattr(options, "max_new_tokens", 96), getattr(options, "times", 5)
    model, tokenizer = loaded(target.directory, options.device)
    greedy = SamplingOptions(temperature=0.0, max_new_tokens=length)
    texts, prompts = fixed_prompts()
    written = continue_texts(model, tokenizer, texts, greedy)
    scores = manner(written)
    if tokenizer.has_chat_template:
        answers = ask_in_chat(model, tokenizer, prompts, greedy)
        followed = ask_in_chat(model, tokenizer, [one.prompt for one in asked], greedy)
        scores += manner(answers) + obedience(asked, [one.answer for one in followed])
        written += answers + followed
        if times > 1:
            scores += consistency(model, tokenizer, times, TEMPERATURE, length)
    else:
        warn("this model has no chat template: nothing was asked, texts were continued")
    write_jsonl(target.results / "writing.jsonl", [one.to_json() for one in written])
    facts = {"data": data.name if data else None, "limit": limit, "max_new_tokens": length}
    write_scores(target, NAME, "How it writes", scores, facts)
    return scores
