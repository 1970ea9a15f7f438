"""`miao eval RUN --tasks early`, `grown`, `core`: a set of tasks, and the score that they make."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from miao.commands.eval_data import set_data
from miao.console import ProgressLine, headline, print_table, say, warn
from miao.errors import MiaoError
from miao.evaluate.tasks.sets import load_set

if TYPE_CHECKING:
    from miao.evaluate.benchmark import Asked
    from miao.evaluate.measure.likelihood import Advance
    from miao.evaluate.results.ensemble import Ensemble
    from miao.evaluate.tasks.prompts import Encoder
    from miao.model import Decoder

    Ask = Callable[[Decoder, Encoder, Advance], tuple[list[Asked], list[tuple[str, Ensemble]]]]
    Work = tuple[str, int, Ask]
    """A title, how much there is to do, and what does it."""

CORE = "core"
REFUSED = ("prompts", "scoring", "shots", "split", "subjects", "show", "contamination")


def run_set(name: str, options: argparse.Namespace) -> Ensemble:
    """Asks all tasks of a set, writes their answers and the score, and prints them.

    Raises:
        MiaoError: an option that would make another score of it.
    """
    from miao.evaluate.measure.loading import load_for_evaluation
    from miao.evaluate.results.store import find_target, write_results, write_score
    from miao.evaluate.results.summary import summarise

    if given := [f"--{word}" for word in REFUSED if getattr(options, word)]:
        raise MiaoError(
            f"{', '.join(given)}: the set '{name}' fixes how its tasks are asked",
            fix="name single tasks, or make a set of your own (docs, page 15)",
        )
    title, count, ask = (_core if name == CORE else _set)(name, options)
    target = find_target(options.model, options.stage, options.out)
    model, encoder = load_for_evaluation(target.directory, options)
    headline(f"{title}: {target.name}")
    with ProgressLine(f"{title}", count) as line:
        asked, ensembles = ask(model, encoder, line.advance)
    files = {}
    for one in asked:
        facts = {"cut": one.cut, "fewer_shots": one.fewer}
        path = write_results(target, one, summarise(one), one.task.split, options.chat, facts)
        files[one.task.name] = path.name
        if one.cut or one.fewer:
            warn(f"{one.task.name}: {one.cut} prompts cut, {one.fewer} with fewer examples, to fit")
    for called, ensemble in ensembles:
        write_score(target, ensemble, called, options.limit, options.chat, files)
        print_ensemble(ensemble)
    say(f"  all answers: {target.results}")
    return ensembles[-1][1]


def _set(name: str, options: argparse.Namespace) -> Work:
    from miao.evaluate.results.sets import ask_set, count_options, ensemble_of, read_set, within

    chosen = load_set(name)
    prepared = read_set(chosen, set_data(options.data, chosen), options.limit)

    def ask(
        model: Decoder, encoder: Encoder, advance: Advance
    ) -> tuple[list[Asked], list[tuple[str, Ensemble]]]:
        asked = ask_set(model, encoder, prepared, advance)
        return asked, [(one.title_en, ensemble_of(one, asked)) for one in [*within(chosen), chosen]]

    return chosen.title_en, count_options(prepared), ask


def _core(name: str, options: argparse.Namespace) -> Work:
    from miao.evaluate.results.core import ask_core, core_of, read_core

    if options.chat:
        raise MiaoError("CORE asks base models: it has no chat", fix="leave --chat away")
    tasks, called, count = read_core(Path(options.data), options.limit)

    def ask(
        model: Decoder, encoder: Encoder, advance: Advance
    ) -> tuple[list[Asked], list[tuple[str, Ensemble]]]:
        asked = ask_core(model, encoder.tokenizer, tasks, options.limit, advance)
        return asked, [("CORE", core_of(called, tasks, asked))]

    return "CORE", count, ask


def print_ensemble(ensemble: Ensemble) -> None:
    """A line for each task, and the scores."""
    plain = all(part.accuracy is None for part in ensemble.parts)
    rows = [
        [
            part.language,
            part.name,
            f"{part.count:,}",
            *([] if plain else [f"{part.value if part.accuracy is None else part.accuracy:.1%}"]),
            f"{part.value:.1%} ±{100 * part.stderr:.1f}",
            f"{part.chance:.0%}",
            f"{100 * part.centred:+.1f} ±{100 * part.centred_stderr:.1f}",
        ]
        for part in ensemble.parts
    ]
    shown = ["accuracy"] if plain else ["accuracy", "probability"]
    columns = ["", "task", "questions", *shown, "guessing", "centred"]
    print_table(f"{ensemble.name}: every task counts alike", columns, rows, right_from=2)
    for score in ensemble.scores():
        found = ensemble.score(score.category if score.category in ensemble.languages else None)
        say(
            f"  {ensemble.name} ({score.category}): {100 * found.value:.1f} "
            f"± {100 * found.stderr:.1f}   (0 is guessing, 100 perfect; "
            f"95 %: {100 * found.low:.1f} to {100 * found.high:.1f})"
        )
