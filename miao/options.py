"""A dataclass of options from a YAML file and command-line words, with errors that help.

jsonargparse does the typing and the `--help`; here stands what it says less well: unknown keys
with a suggestion, lists given as plain words, and the place of a mistake.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_origin, get_type_hints

import yaml

from miao.errors import MiaoError, did_you_mean

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

Options = TypeVar("Options")
TYPE_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "NoneType": "null",
}
"""How an error message calls the types of options."""


def parse_options(
    options_type: type[Options], path: str | Path | None, overrides: Sequence[str]
) -> Options:
    """Defaults < the YAML at `path` < `overrides`.

    Raises:
        MiaoError: unknown key, value of the wrong type, missing file, broken YAML.
    """
    kinds = option_kinds(options_type)
    from_file = read_yaml(path) if path else {}
    _check_keys(from_file, "", kinds, str(path))
    words = _join_lists(overrides, kinds)
    parser = make_parser(options_type)  # type: ignore[arg-type]  # mypy: a class has no hash
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = _guarded(lambda: parser.parse_object(from_file), str(path))
        config = _guarded(
            lambda: parser.parse_args(words, namespace=config, defaults=False), "the command line"
        )
        return options_type(**vars(parser.instantiate_classes(config)))


@functools.cache
def make_parser(options_type: type, prog: str = "miao run RECIPE") -> ArgumentParser:
    """A jsonargparse parser with one `--key.sub` for every field of a dataclass of options."""
    from jsonargparse import ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(prog=prog, exit_on_error=False, add_help=False)
    parser.add_class_arguments(options_type)
    return parser


def option_kinds(options_type: type, prefix: str = "") -> dict[str, type]:
    """Dotted key -> kind (`dict` for a group or a mapping, `list`, else `object`)."""
    kinds: dict[str, type] = {}
    for name, hint in get_type_hints(options_type).items():
        if dataclasses.is_dataclass(hint):
            kinds[prefix + name] = dict
            kinds |= option_kinds(hint, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            kinds[prefix + name] = get_origin(hint) if get_origin(hint) in (list, dict) else object
    return kinds


class _WordsLoader(yaml.SafeLoader):
    """Safe YAML in which only true and false are booleans, as in YAML 1.2: `compile: off` is a
    word, and so is the topic `no`."""


_WordsLoader.yaml_implicit_resolvers = {
    letter: [(tag, words) for tag, words in resolvers if not tag.endswith(":bool")]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_WordsLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML mapping.

    Raises:
        MiaoError: missing, not UTF-8, no YAML, or no mapping; with the line.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_WordsLoader)
    except FileNotFoundError as error:
        recipes = sorted(str(p) for p in Path("recipes").glob("*.yaml"))
        hint = did_you_mean(str(path), recipes)
        raise MiaoError(
            "there is no such recipe",
            where=path,
            fix=hint or "known recipes: " + ", ".join(recipes),
        ) from error
    except (IsADirectoryError, UnicodeDecodeError) as error:
        raise MiaoError(f"not a recipe: {error}", where=path, fix="give a YAML file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        raise MiaoError(f"not valid YAML: {problem}", where=place) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise MiaoError(
            "a recipe is a mapping of options", where=path, fix="see recipes/seedling.yaml"
        )
    return content


def _check_keys(values: dict[str, Any], prefix: str, kinds: dict[str, type], where: str) -> None:
    for name, value in list(values.items()):
        key = f"{prefix}{name}"
        if key not in kinds:
            raise _unknown_key(key, kinds, where)
        is_group = any(known.startswith(f"{key}.") for known in kinds)
        if is_group and value is None:  # `corpus:` with all its options commented out
            del values[name]
        elif is_group:
            if not isinstance(value, dict):
                raise MiaoError(f"'{key}' is a group of options, not {value!r}", where=where)
            _check_keys(value, f"{key}.", kinds, where)
        elif kinds[key] is list and isinstance(value, str):
            values[name] = [value]


def _join_lists(words: Sequence[str], kinds: dict[str, type]) -> list[str]:
    """Checks the keys, and turns `--corpus.paths a b` into `--corpus.paths=["a", "b"]`."""
    joined: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if not word.startswith("--"):
            raise MiaoError(
                f"'{word}' is not an option",
                where="the command line",
                fix="options look like --key.sub value",
            )
        key, equals, value = word[2:].partition("=")
        base = key.rstrip("+")
        if base not in kinds and kinds.get(base.rpartition(".")[0]) is not dict:
            raise _unknown_key(base, kinds, "the command line")
        if base not in kinds and any(k.startswith(base.rpartition(".")[0] + ".") for k in kinds):
            raise _unknown_key(base, kinds, "the command line")
        values = [value] if equals else []
        while not equals and position < len(words) and not words[position].startswith("--"):
            values.append(words[position])
            position += 1
        if not values:
            raise MiaoError(f"--{key} needs a value", where="the command line")
        if kinds.get(base) is list and not values[0].startswith("["):
            joined.append(
                f"--{key}={yaml.safe_dump(values, default_flow_style=True, width=10**6).strip()}"
            )
        elif len(values) > 1:
            raise MiaoError(f"--{key} takes one value, not {len(values)}", where="the command line")
        else:
            joined.append(f"--{key}={values[0]}")
    return joined


def _unknown_key(key: str, kinds: dict[str, type], where: str) -> MiaoError:
    """The error for a key that no recipe has, with the nearest one that exists."""
    leaf = key.rsplit(".", 1)[-1]
    by_leaf = {known.rsplit(".", 1)[-1]: known for known in kinds}
    hint = did_you_mean(key, kinds)
    if not hint and (near := did_you_mean(leaf, by_leaf)):
        hint = f"did you mean '{by_leaf[near.split(chr(39))[1]]}'?"
    return MiaoError(
        f"there is no option '{key}'", where=where, fix=hint or "see `miao run --help`"
    )


def _guarded(parse: Any, where: str) -> Any:
    """Runs a step of jsonargparse; what it says of a wrong value is said again in plain words."""
    from argparse import ArgumentError

    try:
        return parse()
    except (ArgumentError, TypeError, ValueError, AttributeError) as error:
        text, hint = str(error), None
        key = re.search(r'Parser key "([^"]+)"', text)
        value = re.search(r"(?:Given value|Got value): (.*)", text)
        types = re.findall(r"Expected an? <class '(\w+)'>", text)
        choices = [
            choice.strip(" '")
            for literal in re.findall(r"Literal\[(.*?)\]", text)
            for choice in literal.split(",")
        ]
        wanted = list(dict.fromkeys([TYPE_WORDS.get(name, name) for name in types] + choices))
        if key and value and wanted:
            listed = " or ".join(filter(None, (", ".join(wanted[:-1]), wanted[-1])))
            text = f"{key[1]}: must be {listed}, not {value[1]!r}"
            hint = did_you_mean(value[1], choices)
        raise MiaoError(
            text, where=where, fix=hint or "see `miao run --help` for what it takes"
        ) from error
