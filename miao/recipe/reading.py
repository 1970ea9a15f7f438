"""Reading a recipe from its file and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from miao.options import parse_options
from miao.recipe import Recipe
from miao.recipe.checks import check_recipe


def load_recipe(path: str | Path | None, overrides: Sequence[str] = ()) -> Recipe:
    """Defaults < the YAML at `path` < `overrides` (command-line words such as `--sft.epochs 2`).

    Raises:
        MiaoError: a key that does not exist (with a suggestion), a value of the wrong type, a file
            that is missing or no YAML mapping.
    """
    recipe = parse_options(Recipe, path, overrides)
    check_recipe(recipe)
    return recipe
