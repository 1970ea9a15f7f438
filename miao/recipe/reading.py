"""Reading a recipe from its file and the command line, and which file a word means."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from miao.errors import MiaoError, nearest
from miao.options import parse_options
from miao.recipe import Recipe
from miao.recipe.checks import check_recipe

SHIPPED = Path(__file__).parents[1] / "recipes"
YAML = (".yaml", ".yml")
SHOWN_RECIPES = 5


def load_recipe(path: str | Path | None, overrides: Sequence[str] = ()) -> Recipe:
    """Defaults < the YAML at `path` < `overrides` (command-line words such as `--sft.epochs 2`).

    Args:
        path: a file, or the name of a recipe that comes with Miao.

    Raises:
        MiaoError: a key that does not exist (with a suggestion), a value of the wrong type, a file
            that is missing or no YAML mapping.
    """
    found = None if path is None else find_recipe(path)
    if path is not None and found is None:
        raise no_such_recipe(path)
    recipe = parse_options(Recipe, found, overrides)
    corpus = recipe.corpus
    talks = recipe.model.path or corpus.mix.sft or corpus.mix.preset != "none"
    if corpus.own_share is None:
        corpus.own_share = 1.0 if talks else "auto"
    check_recipe(recipe)
    return recipe


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with Miao, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"), key=lambda path: path.stem)}


def head_of(path: Path) -> str:
    """What a recipe is: the first paragraph of its head."""
    lines = path.read_text(encoding="utf-8").splitlines()
    told = itertools.takewhile(lambda line: line.startswith("# "), lines)
    return " ".join(line[2:].strip() for line in told)


def find_recipe(word: str | Path) -> Path | None:
    """The file that a word means: one of the user's own, else the recipe of that name that comes
    with Miao. `seedling` is `seedling.yaml` where the user has one; `recipes/seedling.yaml`, which
    older pages say, is `seedling` where there is no such file. None: there is none."""
    path, shipped = Path(word), shipped_recipes()
    if path.exists() and not path.is_dir():
        return path
    name = str(word)
    if path.parent == Path("recipes") and path.suffix in YAML:
        name = path.stem
    own = [file for suffix in YAML if (file := Path(f"{name}{suffix}")).is_file()]
    return (own or [shipped[name]])[0] if name in shipped else path if path.is_dir() else None


def recipes_near(word: str | Path) -> dict[str, str]:
    """What could be meant instead of a word, by name: what comes with Miao, the user's own."""
    own = {file.stem: str(file) for file in sorted(Path(word).parent.glob("*.y*ml"))}
    return {name: name for name in shipped_recipes()} | own


def no_such_recipe(word: str | Path) -> MiaoError:
    """The error for a word that is no recipe, with the one that was meant."""
    known = recipes_near(word)
    hint = "`miao recipe` lists those that come with Miao, such as seedling"
    if meant := nearest(Path(str(word).removesuffix(".yaml")).name, known):
        hint = f"did you mean '{known[meant]}'?"
    elif own := [path for path in known.values() if path.endswith(YAML)]:
        hint = f"recipes here: {', '.join(own[:SHOWN_RECIPES])}; {hint}"
    return MiaoError("there is no such recipe", where=word, fix=hint)
