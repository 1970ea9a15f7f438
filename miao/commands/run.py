"""`miao run RECIPE`, and the verbs that go a part of that way: `miao corpus|...|dpo RECIPE`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from miao.console import say_next
from miao.errors import MiaoError
from miao.options import make_parser
from miao.recipe import Recipe
from miao.recipe.reading import load_recipe


def main(words: Sequence[str], verb: str, what: str) -> int:
    """Runs the stages of a recipe that are not done yet.

    Args:
        words: the recipe's file, then options for it.
        verb: "run", or the stage to stop after.
        what: that stage does, for `--help`.
    """
    if "-h" in words or "--help" in words:
        print(f"miao {verb} RECIPE.yaml [--key.sub value ...]\n\n{what}\n")
        make_parser(Recipe, f"miao {verb} RECIPE").print_help()
        return 0
    if not words or words[0].startswith("--"):
        raise MiaoError("which recipe?", fix=f"miao {verb} recipes/seedling.yaml")
    from miao.run import run_recipe
    from miao.run.preflight import preflight
    from miao.train.world import said_once

    up_to = "report" if verb == "run" else verb
    with said_once():
        recipe = load_recipe(words[0], words[1:])
        preflight(recipe, up_to)
    run_recipe(recipe, up_to)
    if verb == "corpus":  # a later stage has more to say at its end
        with said_once():
            say_next(f"miao run {shlex.join(words)}")
    return 0
