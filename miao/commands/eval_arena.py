"""`miao eval arena A B C ...`: a judge compares chat answers; a table with intervals."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

from miao.commands.eval_samples import (
    fixed_prompts,
    generation_options,
    parser_of,
    written_answers,
)
from miao.console import ProgressLine, print_table, say, warn
from miao.errors import MiaoError
from miao.evaluate.arena import Battles, Verdictbook, hold, longer_wins, standings
from miao.evaluate.judge import OpenAIJudge, win_rate
from miao.evaluate.results.store import Target, find_target
from miao.evaluate.statistics import holm, mcnemar
from miao.files import read_jsonl

KEY_VARIABLES = ("MIAO_JUDGE_KEY", "OPENAI_API_KEY")


def main(words: Sequence[str]) -> int:
    """`miao eval arena MODEL MODEL ...`; `miao eval judge A B` is the arena of two."""
    options = _parser().parse_args(words)
    if len(options.models) < 2:
        raise MiaoError("two models are needed", fix="miao eval arena RUN_A RUN_B ...")
    if options.stages:
        if len(options.stages) != len(options.models):
            raise MiaoError("--stages: one for each model")
        options.models = [":".join(p) for p in zip(options.models, options.stages, strict=True)]
    if len(set(options.models)) < len(options.models):
        raise MiaoError("a model is named twice", where=" ".join(options.models))
    judge = OpenAIJudge(options.url, options.judge, _key())
    targets = {name: _target(name) for name in options.models}
    judge("Answer with one word: ready")  # one that is not there is found before anything is done
    questions = _questions(options.questions) if options.questions else fixed_prompts()[1]
    answers = {}
    for name, target in targets.items():
        found = [one["answer"] for one in written_answers(target, options, questions)]
        if not found:
            raise MiaoError("this model has no chat template: there are no answers", where=name)
        answers[name] = found
    path = options.out / (re.sub(r"[^\w.]+", "_", options.judge) + ".jsonl")
    book = Verdictbook(path, options.judge, warn)
    pairs = len(questions) * len(answers) * (len(answers) - 1) // 2
    with ProgressLine("judging", pairs) as line:
        verdicts = hold(questions, answers, book, judge, line.advance)
    _print_pairs(verdicts, options.judge)
    _print_table(verdicts)
    read, wrote = judge.tokens
    said = f"{read:,} tokens read, {wrote:,} written" if read + wrote else "it counts no tokens"
    say(f"  {book.asked} new pairs judged, each in both orders; the judge: {said}")
    say(f"  verdicts: {book.path}")
    _warn(verdicts, *longer_wins(verdicts, answers))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(
        "arena",
        "A judge behind an OpenAI-compatible address compares models' chat answers, each pair of "
        f"them in both orders. Its key is read from {' or '.join(KEY_VARIABLES)}. Verdicts are "
        "kept: a model that comes later is compared with the others, these not again.",
    )
    add = parser.add_argument
    add("models", nargs="+", help="runs, RUN:STAGE, model directories, hub names")
    add("--url", required=True, help="such as http://localhost:8000/v1")
    add("--judge", required=True, help="the judge's model name")
    add("--questions", type=Path, help="JSON lines with `prompt`, one question each (default: the "
        "fixed set of `miao eval samples`)")  # fmt: skip
    add("--stages", nargs="+", help="a stage of each run, instead of RUN:STAGE")
    add("--out", type=Path, default=Path("eval_results/arena"), help="where verdicts are kept")
    generation_options(parser)
    return parser


def _print_pairs(verdicts: Battles, judge: str) -> None:
    found = {pair: win_rate(rows) for pair, rows in verdicts.items()}
    adjusted = holm([one.p_value for one in found.values()])
    rows = [
        [
            f"{b} against {a}",
            str(one.wins + one.losses + one.ties),
            *(str(n) for n in (one.wins, one.losses, one.ties)),
            f"{one.value:.1%} ± {one.stderr:.1%}",
            f"{p:.3f}",
        ]
        for ((a, b), one), p in zip(found.items(), adjusted, strict=True)
    ]
    columns = ["compared", "questions", "wins", "losses", "ties", "win rate", "p (Holm)"]
    print_table(f"judged by {judge}", columns, rows)
    if min(adjusted) >= 0.05:
        warn("no difference can be told from chance")


def _print_table(verdicts: Battles) -> None:
    rows = [
        [
            row.name,
            *(f"{value:.0f}" for value in (row.elo, row.low, row.high)),
            *(str(n) for n in (row.wins, row.losses, row.ties)),
        ]
        for row in standings(verdicts)
    ]
    title = "strength (Bradley-Terry, on the scale of Elo; 95 % interval over the questions)"
    print_table(title, ["model", "strength", "from", "to", "wins", "losses", "ties"], rows)


def _warn(verdicts: Battles, longer: int, decided: int) -> None:
    """What makes a judge less than one."""
    whole = win_rate([one for rows in verdicts.values() for one in rows])
    both = [one for rows in verdicts.values() for one in rows if None not in one]
    if both:
        agree = sum(one in (("1", "2"), ("2", "1"), ("tie", "tie")) for one in both)
        say(f"  the same verdict in both orders: {agree / len(both):.0%}")
    if decided:
        say(f"  the longer answer won {longer} of {decided} decided questions")
        if mcnemar(longer, decided - longer) < 0.05:
            if 2 * longer > decided:
                warn("the longer answer wins too often for chance: length may be what is judged")
            else:
                warn("the shorter answer wins too often for chance: length may be what is judged")
    if whole.unclear:
        warn(f"{whole.unclear} judgements had no verdict and count as ties")
    if abs(whole.first_place - 0.5) > 0.2:
        warn(
            f"the judge prefers a place: {whole.first_place:.0%} of its verdicts are for the first"
        )


def _target(name: str) -> Target:
    before, _, stage = name.rpartition(":")
    if before and not Path(name).exists() and Path(before).exists():
        return find_target(before, stage, None)
    return find_target(name, None, None)


def _questions(path: Path) -> list[str]:
    found = [record.get("prompt") for record in read_jsonl(path)]
    if not found or not all(isinstance(one, str) and one.strip() for one in found):
        raise MiaoError("every line needs a `prompt`, a text", where=path)
    return list(dict.fromkeys(str(one) for one in found))


def _key() -> str | None:
    return next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), None)
