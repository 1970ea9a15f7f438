"""The chain of stages of one recipe; a stage whose inputs and options are unchanged is skipped."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

from miao.console import duration, headline, say, say_next
from miao.errors import MiaoError
from miao.recipe import STAGES, Recipe
from miao.run import data, models
from miao.run.chain import Chain
from miao.run.clock import RunClock
from miao.rundir import RunDir
from miao.train.distributed.world import World, join_world


def run_recipe(
    recipe: Recipe,
    up_to: str = "report",
    despite_changes: bool = False,
    began: float | None = None,
    world: World | None = None,
) -> RunDir:
    """Runs every stage of a recipe that is not done yet, in order, up to the one named. Of several
    processes the first prepares, measures and writes; all of them train.

    Args:
        despite_changes: half-trained stages go on although their inputs or options have changed.
        began: where `time.monotonic` was when the command began; its time counts from there.
        world: the processes, where they have met already.

    Raises:
        MiaoError: the stage named is not enabled.
    """
    if up_to in STAGES and not getattr(recipe, up_to).enabled:
        raise MiaoError(f"the recipe does not enable {up_to}", fix=f"--{up_to}.enabled true")
    with nullcontext(world) if world else join_world(recipe.device) as joined:
        return _run_in(joined, recipe, up_to, despite_changes, began or time.monotonic())


def _run_in(
    world: World, recipe: Recipe, up_to: str, despite_changes: bool, began: float
) -> RunDir:
    run = RunDir(recipe.run_dir)
    if world.is_main:
        run.path.mkdir(parents=True, exist_ok=True)
    with run.alone() if world.is_main else nullcontext():
        clock = RunClock(recipe, run.path, began)
        with clock.running() if world.is_main and clock.governs else nullcontext():
            return _in_order(Chain(recipe, run, world, {}, set(), despite_changes, clock), up_to)


def _in_order(chain: Chain, up_to: str) -> RunDir:
    run, world = chain.run, chain.world
    if world.is_main:
        chain.write_down()
    began = time.monotonic()
    steps: dict[str, Callable[[], None]] = {
        "corpus": partial(data.corpus, chain),
        "tokenizer": partial(data.tokenizer, chain),
        "shards": partial(data.shards, chain),
        **{stage: partial(models.train, chain, stage) for stage in STAGES},
        "report": partial(models.report, chain),
    }
    for name, step in steps.items():
        if name == STAGES[0]:
            data.require_rows(chain, up_to)
        if name in STAGES:
            step()
        else:
            with world.main_first():
                if world.is_main or name != "report":  # what was measured is known there only
                    step()
        if name == up_to:
            break
    if world.is_main:
        run.update_final_model()
    _say_end(run, time.monotonic() - began)
    if chain.failed:
        raise MiaoError(
            f"could not be made: {', '.join(chain.failed)}",
            where=run.path,
            fix="everything else is done and kept; the same command tries only these again",
        )
    return run


def _say_end(run: RunDir, seconds: float) -> None:
    headline(f"done in {duration(seconds)}")
    parts = [(name, facts.get("seconds", 0.0)) for name, facts in run.facts().items()]
    total = sum(spent for _, spent in parts) or 1.0
    say(
        "  time spent: "
        + ", ".join(f"{name} {duration(spent)} ({spent / total:.0%})" for name, spent in parts)
    )
    name, commands = shlex.quote(str(run.path)), []
    if any(run.path.glob("models/*/config.json")):
        commands.append(f"miao chat {name}")
    if run.tokenizer.exists():
        commands.append(f"miao tokenizer inspect {name} --text '你好，世界'")
    say_next(*commands)
    if run.report.exists():
        say(f"  report: {run.report.resolve().as_uri()}")
