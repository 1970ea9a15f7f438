"""`miao eval card RUN`: one page on what a model knows, can, and cannot."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from miao.commands.eval_samples import parser_of
from miao.console import say, warn
from miao.errors import MiaoError
from miao.evaluate.results.card import (
    FILE,
    LARGE,
    LARGE_SET,
    SECTIONS,
    SET,
    markdown,
    read_card,
)
from miao.evaluate.results.store import Target, find_target
from miao.files import write_json, write_text


def main(words: Sequence[str]) -> int:
    """Asks what was not asked yet, and writes card.md and card.json."""
    parser = parser_of(
        "card",
        "One page on a model: what it knows, what it can, how it writes and where it fails, each "
        "number with its error. The early-signal set and the writing are asked now if they were "
        "not; benchmarks stand on it that `miao eval RUN --tasks ...` has asked before.",
    )
    add = parser.add_argument
    add("model", help="a run (runs/NAME), a model directory or a name on a hub")
    add("--beside", nargs="+", default=[], metavar="MODEL", help="reference models, in columns")
    add("--stage", help="a stage of the run (default: the last model)")
    add("--limit", type=int, help="fewer questions per subject, for all models alike")
    add("--only-known", action="store_true", help="ask nothing: what was measured before")
    add("--out", type=Path, help="where the card goes (default: the run, or eval_results/NAME)")
    add("--device", default="auto", help="auto, cpu, cuda, mps")
    add("--max-new-tokens", type=int, default=96, help="longest answer")
    options = parser.parse_args(words)
    asked = [(options.model, options.stage), *((name, None) for name in options.beside)]
    targets = [find_target(name, stage, None) for name, stage in asked]
    cards: list[dict[str, Any]] = []
    for (name, stage), target in zip(asked, targets, strict=True):
        card = _card(target, not cards)
        if not options.only_known:
            _ask(name, stage, card, options)
            card = _card(target, not cards)
        cards.append(card)
    if len({card.get("limit") for card in cards if card["score"]}) > 1:
        warn("the models were asked different numbers of questions: ask all anew with one --limit")
    if not any(cards[0][section] for section in SECTIONS):
        raise MiaoError(
            "nothing is known of this model", where=options.model, fix="leave --only-known away"
        )
    folder = options.out or targets[0].lines.parent
    text = f"# {cards[0]['model']}\n\n" + markdown(cards)
    write_text(folder / "card.md", text)
    write_json(folder / FILE, {"cards": cards})
    say("\n" + text)
    say(f"  {folder / 'card.md'}, {folder / FILE}")
    return 0


def _card(target: Target, own: bool) -> dict[str, Any]:
    from miao.model import count_parameters, load_config

    size = count_parameters(load_config(target.directory)).total
    return {"parameters": size} | read_card(target.name, target.lines, target.stage, own)


def _ask(name: str, stage: str | None, card: dict[str, Any], options: argparse.Namespace) -> None:
    where = ["--stage", stage] if stage else []
    device = ["--device", options.device]
    wanted = LARGE_SET if card["parameters"] >= LARGE else SET
    if wanted not in {row["name"] for row in card["score"]} or (
        options.limit and card.get("limit") != options.limit
    ):
        from miao.commands.eval import main as evaluate

        limit = ["--limit", str(options.limit)] if options.limit else []
        evaluate([name, "--tasks", wanted, *where, *device, *limit])
    if not card["writes"]:
        from miao.commands.eval_writing import main as writing

        writing([name, *where, *device, "--max-new-tokens", str(options.max_new_tokens)])
