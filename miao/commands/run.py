"""`miao run RECIPE`, and the verbs that go a part of that way: `miao corpus|...|dpo RECIPE`."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence

from miao.console import say, say_next
from miao.errors import MiaoError
from miao.language import translated
from miao.options import make_parser
from miao.recipe import Recipe
from miao.recipe.reading import SHIPPED, find_recipe, load_recipe

RESUME = "--resume-with-changes"


def main(words: Sequence[str], verb: str, what: str) -> int:
    """Runs the stages of a recipe that are not done yet.

    Args:
        words: the recipe's file or name, then options for it.
        verb: "run", or the stage to stop after.
        what: that stage does, for `--help`.
    """
    if "-h" in words or "--help" in words:
        head = (
            f"miao {verb} RECIPE [--key.sub value ...]\n\n{what}\n\n"
            "RECIPE: a YAML file of yours, or a name that `miao recipe` lists\n"
            f"{RESUME}: a half-trained stage goes on although its options or data have changed\n"
        )
        print(translated(head))
        make_parser(Recipe, f"miao {verb} RECIPE").print_help()
        return 0
    if not words or words[0].startswith("--"):
        raise MiaoError("which recipe?", fix=f"miao {verb} seedling")
    from miao.corpus.local import with_local_files
    from miao.run import run_recipe
    from miao.run.changes import made_with
    from miao.run.preflight import preflight
    from miao.rundir import RunDir
    from miao.train.distributed.world import said_once

    began = time.monotonic()
    despite_changes = RESUME in words
    words = [word for word in words if word != RESUME]
    up_to = "report" if verb == "run" else verb
    with said_once():
        recipe, path = load_recipe(words[0], words[1:]), find_recipe(words[0])
        if path is not None and str(path) != words[0] and path.parent != SHIPPED:
            say(f"  recipe: {path} here, not the {words[0]} that comes with Miao")
        recipe.corpus = with_local_files(recipe.corpus, made_with(RunDir(recipe.run_dir)))
        preflight(recipe, up_to)
    run_recipe(recipe, up_to, despite_changes, began)
    if verb == "corpus":  # a later stage has more to say at its end
        with said_once():
            say_next(f"miao run {shlex.join(words)}")
    return 0
