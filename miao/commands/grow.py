"""`miao grow TEXTS --minutes N`: the best model that this machine grows from a text in a time."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miao.console import print_table, say, say_next, warn
from miao.errors import MiaoError
from miao.files import read_json, write_json, write_text
from miao.grow import BOOK, DEFAULT_NAME, RECIPE
from miao.language import AsWritten, Parser
from miao.options import parse_options
from miao.recipe import Recipe
from miao.recipe.checks import is_run_name

if TYPE_CHECKING:
    from miao.grow.found import Found
    from miao.grow.machine import Speed
    from miao.grow.plan import Plan
    from miao.train.distributed.world import World

ABOUT = """Reads your text, measures this machine, plans, trains, and ends on time. The plan is an
ordinary recipe (grow.yaml in the run directory): `miao run` of it does the same, and any
option of a recipe can be given here too (--model.hidden_size 256).

  miao grow my_texts/ --hours 2
  miao grow my_texts/ --chats my_chats.jsonl --minutes 40 --name Sprout --maker "our class"
  miao grow my_texts/ --hours 8 --plan

Interrupted, the same command goes on; the time that counts is that in which it works."""


UNWRITTEN = ("plan", "json", "device")
"""Options that a run's wish does not hold, or not by themselves."""


def main(words: Sequence[str]) -> int:
    """Runs `miao grow WORDS`.

    Raises:
        MiaoError: no time, no text, no disk, an option that does not exist; before any work.
    """
    from miao.train.distributed.world import join_world, said_once

    began = time.monotonic()
    with said_once():
        options, more = _parser().parse_known_args(list(words))
        minutes = _minutes(options)
        name = options.name or DEFAULT_NAME
        if not is_run_name(name):
            raise MiaoError(
                f"'{name}' is no name", where="--name", fix="letters, digits, . _ -; 中文也行"
            )
    run = Path(options.out_dir) / name
    wish = {k: v for k, v in vars(options).items() if k not in UNWRITTEN}
    more += ["--device", options.device] if options.device != "auto" else []
    wish["more"] = more
    if options.origin:
        from miao.grow.given import meant

        options.origin = wish["origin"] = meant(options.origin)
    parse_options(Recipe, None, more)  # a word that is no option is told before any work
    with join_world(options.device) as world:
        book = world.from_main(_begun(run, wish) if world.is_main else None)
        if book is None or options.plan:
            book = _planned(options, minutes, wish, run, began, world)
        if options.json:
            if world.is_main:
                print(json.dumps(_as_json(book), ensure_ascii=False))
        elif options.plan:
            say_next(f"miao grow {' '.join(words).replace(' --plan', '')}")
        else:
            _grow(run, book, began, more, world)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="miao grow", description=ABOUT, formatter_class=AsWritten)
    add = parser.add_argument
    add("texts", nargs="+", help="files, folders or globs of text (chats among them are told)")
    add("--chats", nargs="+", default=[], help="your conversations")
    add("--pairs", nargs="+", default=[], help="your preference pairs")
    time_group = parser.add_mutually_exclusive_group()
    time_group.add_argument("--minutes", type=float, help="how long it may take in all")
    time_group.add_argument("--hours", type=float, help="the same in hours")
    time_group.add_argument("--until", help="or up to a time of the clock: 07:30")
    add(
        "--from",
        dest="origin",
        metavar="MODEL",
        help="go on with this model (directory, run, hf:owner/name) if that promises more than a "
        "new one",
    )
    add("--name", help="of the run, and of the assistant (default: grown; Miao)")
    add("--maker", help="who the assistant says made it")
    add("--out_dir", "--out", default="runs", help="where run directories go (default %(default)s)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default %(default)s)")
    add("--seed", type=int, default=42, help="everything random follows from it")
    add("--plan", action="store_true", help="only what it would do, and why")
    add("--json", action="store_true", help="with --plan: for programs")
    return parser


def _minutes(options: argparse.Namespace) -> float:
    from miao.run.clock import moment

    if options.until:
        from datetime import datetime

        at = moment(options.until)
        options.until = at.isoformat(timespec="seconds")
        minutes = (at - datetime.now()).total_seconds() / 60
    elif options.hours is not None:
        minutes = 60 * options.hours
    elif options.minutes is not None:
        minutes = options.minutes
    else:
        raise MiaoError("how long may it take?", fix="--minutes 20, --hours 2 or --until 07:30")
    if not 1 <= minutes <= 60 * 24 * 60:
        raise MiaoError(
            f"{minutes:g} minutes are no time to grow a model in",
            where="--minutes, --hours, --until",
            fix="give it two minutes or more, and at most 60 days",
        )
    return float(minutes)


def _begun(run: Path, wish: dict[str, Any]) -> dict[str, Any] | None:
    """The book of a run that the same wish began; None: there is none.

    Raises:
        MiaoError: another wish began it.
    """
    if not (run / BOOK).exists() or not (run / RECIPE).exists():
        if (run / "recipe.yaml").exists():
            raise MiaoError("there is another run of this name", where=run, fix="give it a --name")
        return None
    book: dict[str, Any] = read_json(run / BOOK)
    before, now = (dict(w) for w in (book["wish"], wish))
    for each in (before, now):
        each.pop("until", None)
    if before == now:
        return book
    if any(run.glob("models/*/config.json")) or any(run.glob("checkpoints/*/step-*")):
        changed = ", ".join(k for k in now if before.get(k) != now[k])
        raise MiaoError(
            f"this run was begun with other words ({changed})",
            where=run,
            fix="give the new one another --name, or delete the old one",
        )
    return None


def _planned(
    options: argparse.Namespace,
    minutes: float,
    wish: dict[str, Any],
    run: Path,
    began: float,
    world: World,
) -> dict[str, Any]:
    """Reads, measures, plans, and (unless only the plan is wanted) writes it down. Of several
    processes all measure, at the same time; everything else the main one does."""
    from miao.grow import machine
    from miao.grow.found import look

    found = look(options.texts, options.chats, options.pairs) if world.is_main else None
    say_if = (lambda text: None) if options.json else say
    if found:
        for line in found.lines():
            say_if(f"  {line}")
        if found.first_problem:
            say_if(f"    the first: {found.first_problem}")
    minutes = world.from_main(minutes)
    speed = machine.measure(min(max(0.6 * minutes, 1.5), 12.0), world, options.device)
    say_if(f"  {speed.line()}")
    return world.from_main(_written(options, minutes, wish, run, began, found, speed)
                           if found else {})  # fmt: skip


def _written(
    options: argparse.Namespace,
    minutes: float,
    wish: dict[str, Any],
    run: Path,
    began: float,
    found: Found,
    speed: Speed,
) -> dict[str, Any]:
    """The plan, and (unless only that is wanted) its recipe and book."""
    from miao.grow.plan import make_plan

    given = None
    if options.origin:
        from miao.grow.given import look_at

        given = look_at(options.origin, found, speed, 60 * minutes)
        if not options.json:
            say(f"  {given.line()}")
    plan = make_plan(found, speed, minutes, time.monotonic() - began, run.parent, given)
    if not options.json:
        _show(plan)
    book: dict[str, Any] = {
        "wish": wish,
        "found": found.to_json(),
        "machine": speed.to_json(),
        "plan": plan.to_json(),
        "expected": {
            "bits_per_byte": list(plan.bits),
            "minutes": minutes,
        },
    }
    if not options.plan:
        write_text(run / RECIPE, _recipe(options, found, plan, run))
        write_json(run / BOOK, book)
    return book


def _recipe(options: argparse.Namespace, found: Found, plan: Plan, run: Path) -> str:
    from miao.grow.found import take_texts
    from miao.grow.writing import recipe_text

    texts, all_of_it = list(options.texts), found.total("document", "characters")
    talks = len(found.files("conversation") + found.files("preference"))
    if found.is_cut or plan.characters < all_of_it:
        texts = take_texts(found, plan.characters, run / "texts", options.seed)
        part = plan.characters / all_of_it
        what = f"{part:.1%} of the text is read, of every source the same share" * (part < 1)
        say(f"  {what or 'long documents are cut, so that some can be held out'}")
    elif talks > len(options.chats) + len(options.pairs):  # some stood among the texts
        texts = found.named_files("document")
    beginnings = _beginnings(texts)
    wish = (run.name, options.out_dir, options.maker, options.until)
    return recipe_text(plan, found, texts, *wish, beginnings, options.seed)


def _beginnings(texts: list[str]) -> list[str]:
    """Of two of the user's texts, to be continued by samples."""
    from itertools import islice

    from miao.corpus.read.formats import read_records

    records = islice(read_records(texts, "document"), 2)
    return [" ".join(record.text.split())[:12] for record in records]


def _show(plan: Plan) -> None:
    rows = [
        [
            f"{c.width}×{c.blocks}", f"{c.parameters / 1e6:.1f}M", f"{c.vocabulary:,}",
            f"{c.tokens_per_second:,.0f}", f"{c.times:.1f}", f"{c.bits:.3f}",
            f"{c.low:.2f}–{c.high:.2f}",
        ]
        for c in plan.candidates
    ]  # fmt: skip
    columns = ["shape", "size", "vocabulary", "tokens/s", "text read", "bits/byte", "95 %"]
    print_table("candidates, the first is taken", columns, rows)
    minutes = [f"{stage} {spent:.1f}" for stage, spent in plan.stages.items()]
    say(f"  minutes: {', '.join(minutes)}, everything else {plan.aside:.1f}")
    for key, reason in plan.why.items():
        say(f"  {key}: {reason}")
    if plan.runs:
        say(f"  corrected by {plan.runs} earlier runs here (speed × {plan.pace:.2f})")
    for note in plan.notes:
        warn(note)


def _as_json(book: dict[str, Any]) -> dict[str, Any]:
    """The plan in one object: what the studio shows."""
    plan, found = book["plan"], book["found"]
    best = plan["candidates"][0]
    new = {
        "tokenizer.vocab_size": best["vocabulary"],
        "model.hidden_size": best["width"],
        "model.num_hidden_layers": best["blocks"],
    }
    values = {
        **({"model.path": plan["given"]["path"]} if plan["goes_on"] else new),
        **{f"{stage}.minutes": round(spent, 2) for stage, spent in plan["stages"].items()},
        "corpus.seedbed.conversations": plan["talks"],
        "corpus.text_talks": plan["passages"],
        "corpus.heldout": plan["heldout"],
    }
    return {
        "minutes": plan["stages"] | {"everything else": plan["aside"]},
        "bits_per_byte": book["expected"]["bits_per_byte"],
        "options": values,
        "why": plan["why"],
        "notes": plan["notes"],
        "candidates": plan["candidates"],
        "found": found["sources"],
        "machine": book["machine"],
    }


def _grow(run: Path, book: dict[str, Any], began: float, more: list[str], world: World) -> None:
    from miao.grow.outcome import conclude
    from miao.recipe.reading import load_recipe
    from miao.run import run_recipe
    from miao.run.preflight import preflight

    with world.main_first():
        recipe = load_recipe(run / RECIPE, more)
        preflight(recipe)
    run_recipe(recipe, began=began, world=world)
    if world.is_main:
        conclude(run, book)
