"""`miao recipe [NAME]`: the recipes that come with Miao, to look at and to copy."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from miao.console import print_table, say_next
from miao.language import AsWritten, Parser, translated
from miao.recipe.reading import find_recipe, head_of, no_such_recipe, shipped_recipes


def main(words: Sequence[str]) -> int:
    """Runs `miao recipe [NAME]`.

    Raises:
        MiaoError: there is no such recipe.
    """
    parser = Parser(
        prog="miao recipe",
        description="Lists the recipes that come with Miao, or prints one, to change it:\n"
        "  miao recipe seedling > mine.yaml",
        formatter_class=AsWritten,
    )
    parser.add_argument("name", nargs="?", help="the recipe to print")
    name = parser.parse_args(words).name
    shipped = shipped_recipes()
    if name is None:
        rows = [[name, what_it_is(path)] for name, path in shipped.items()]
        print_table("recipes that come with Miao", ["name", "what it is"], rows, right_from=2)
        say_next(
            "miao run seedling", "miao run seedling --help", "miao recipe seedling > mine.yaml"
        )
        return 0
    path = shipped.get(name) or find_recipe(name)
    if path is None or path.is_dir():
        raise no_such_recipe(name)
    # The file's own bytes: a recipe is UTF-8, whatever the terminal's encoding is.
    sys.stdout.flush()
    sys.stdout.buffer.write(path.read_bytes())
    sys.stdout.buffer.flush()
    if not sys.stdout.isatty():
        hint = "a copy has the same `name`, and so the same run: give it another"
        print(translated(hint), file=sys.stderr)
    return 0


def what_it_is(path: Path) -> str:
    """The first sentence of a recipe's head."""
    return re.split(r"\.(?: |$)|[:;](?: miao |$)", head_of(path))[0]
