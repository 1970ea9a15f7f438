"""TAB in bash, zsh and fish: verbs, options, a recipe's keys and their choices, runs and recipes.

argcomplete has the shells' side (`register-python-argcomplete miao`); a verb's own parser answers,
and for the verbs of a recipe one that is made of its options.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from miao.language import Parser


def words_before() -> list[str]:
    """The words of the line up to the cursor; the last one, perhaps empty, is being written."""
    line = os.environ["COMP_LINE"].encode()[: int(os.environ["COMP_POINT"])].decode(errors="ignore")
    try:
        words = shlex.split(line)
    except ValueError:  # a quotation mark is still open
        words = line.split()
    return words + [""] * (line[-1:].isspace())


def leave_out_the_verb(verb: str) -> None:
    """What follows is a question to the verb's own parser."""
    head, _, tail = os.environ["COMP_LINE"].partition(verb)
    gone = len(head.encode()) + len(verb.encode()) - len(b"miao")
    os.environ["COMP_LINE"] = f"miao{tail}"
    os.environ["COMP_POINT"] = str(int(os.environ["COMP_POINT"]) - gone)


def recipes(prefix: str, **_: Any) -> list[str]:
    """Shipped recipes and YAML files."""
    from argcomplete.completers import FilesCompleter

    from miao.recipe.reading import SHIPPED

    shipped = [path.stem for path in SHIPPED.glob("*.yaml")]
    return [*shipped, *FilesCompleter(["yaml", "yml"])(prefix)]


def runs_and_files(prefix: str, **_: Any) -> list[str]:
    """The runs here, and files."""
    from argcomplete.completers import FilesCompleter

    runs = [f"runs/{path.name}" for path in Path("runs").glob("*") if path.is_dir()]
    return [*dict.fromkeys(runs + list(FilesCompleter()(prefix)))]


def recipe_parser(flags: Sequence[str]) -> Parser:
    """A parser of a recipe's name, flags, and one `--key.sub` for each option."""
    from miao.options import make_parser
    from miao.recipe import Recipe

    parser = Parser()
    parser.add_argument("recipe", nargs="?").completer = recipes  # type: ignore[attr-defined]
    for flag in flags:
        parser.add_argument(flag, action="store_true")
    for action in make_parser(Recipe)._actions:
        hint = getattr(action, "_typehint", None)
        choices = get_args(hint) if get_origin(hint) is Literal else None
        if action.option_strings:
            parser.add_argument(*action.option_strings, choices=choices)
    return parser


def answer(parser: Any) -> None:
    """Answers the shell by a parser, and ends the process."""
    import argcomplete

    completer: Any = runs_and_files  # its type asks for a class
    argcomplete.autocomplete(parser, default_completer=completer, always_complete_options=False)
