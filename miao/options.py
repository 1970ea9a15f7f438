"""A dataclass of options from a YAML file and command-line words, with errors that help.

jsonargparse does the typing and the `--help`; here stands what it says less well: unknown keys
with a suggestion, lists given as plain words, and the place of a mistake.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import warnings
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, get_origin, get_type_hints

import yaml

from miao.errors import MiaoError, did_you_mean, nearest
from miao.language import HelpInLanguage

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
ALIASES = {
    "lr": "learning_rate",
    "batch_size": "batch_tokens",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "max_length": "seq_len",
    "max_seq_len": "seq_len",
    "block_size": "seq_len",
    "lora_rank": "adapter.rank",
    "lora_r": "adapter.rank",
    "r": "adapter.rank",
    "lora_alpha": "adapter.alpha",
}
"""What other programs call an option."""
CHOICE_ALIASES = {"dpo": "sigmoid"}
"""What other programs call a choice."""
NO_COLON = re.compile(r"^[ \t]*[\w.\-]+(?:：|:(?=[^\s:/\\]))", re.MULTILINE)
"""A key whose colon is the full-width one, or has no space after it."""


def parse_options(
    options_type: type[Options], path: str | Path | None, overrides: Sequence[str]
) -> Options:
    """Defaults < the YAML at `path` < `overrides`.

    Raises:
        MiaoError: unknown key, value of the wrong type, missing file, broken YAML.
    """
    kinds = option_kinds(options_type)  # type: ignore[arg-type]  # mypy: a class has no hash
    from_file = read_yaml(path) if path else {}
    if problems := list(_wrong_keys(from_file, "", kinds)):
        raise _one_error(problems, str(path))
    words = _join_lists(overrides, kinds)
    # Words that add to a list or a mapping need what it holds. All else is read by itself, and the
    # classes know the defaults: a tenth of the time.
    adds = any(kinds.get(word[2:].partition("=")[0], dict) is dict for word in words)
    parser = make_parser(options_type)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = _guarded(lambda: parser.parse_object(from_file, defaults=adds), str(path), parser)
        config = _guarded(
            lambda: parser.parse_args(words, namespace=config, defaults=False),
            "the command line",
            parser,
        )
        return options_type(**vars(parser.instantiate_classes(config)))


@functools.cache
def make_parser(options_type: type, prog: str = "miao run RECIPE") -> ArgumentParser:
    """A jsonargparse parser with one `--key.sub` for every field of a dataclass of options."""
    from argparse import SUPPRESS

    from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_parsing_settings

    class RecipeHelp(HelpInLanguage, DefaultHelpFormatter):
        """The types and defaults of jsonargparse, in the user's language."""

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        prog=prog, usage=SUPPRESS, exit_on_error=False, add_help=False, formatter_class=RecipeHelp
    )
    parser.add_class_arguments(options_type)
    return parser


@functools.cache
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


SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Safe YAML, ten times faster where PyYAML came with libyaml."""


class _Words:
    """Only true and false are booleans, as in YAML 1.2: `compile: off` is a word, and so is the
    topic `no`. A key that stands twice in a mapping is refused."""

    name: str
    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {
        letter: [(tag, words) for tag, words in resolvers if not tag.endswith(":bool")]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        first: dict[Any, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in first:
                raise MiaoError(
                    f"'{key.value}' stands here a second time (first in line {first[key.value]})",
                    where=f"{self.name}:{line}",
                    fix="put both into one",
                )
            first[key.value] = line
        return super().construct_mapping(node, deep)  # type: ignore[misc]


for letter in "tTfF":
    words = re.compile("(true|True|TRUE|false|False|FALSE)$")
    _Words.yaml_implicit_resolvers[letter].append(("tag:yaml.org,2002:bool", words))


class _FastLoader(_Words, SafeLoader):
    pass


class _PlainLoader(_Words, yaml.SafeLoader):
    """It says best what is wrong."""


def _content(text: str, name: str, kind: Any = _FastLoader) -> Any:
    loader = kind(text)
    loader.name = name
    try:
        return loader.get_single_data()
    except yaml.YAMLError:
        if kind is _PlainLoader:
            raise
        return _content(text, name, _PlainLoader)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML mapping.

    Raises:
        MiaoError: missing, not UTF-8, no YAML, or no mapping; with the line.
    """
    text = ""
    try:
        data = Path(path).read_bytes()
        # PowerShell's `>` writes UTF-16, with its mark.
        text = data.decode("utf-16" if data[:2] in (BOM_UTF16_LE, BOM_UTF16_BE) else "utf-8")
        content = _content(text, str(path))
    except UnicodeDecodeError as error:
        raise MiaoError(
            "not a recipe: it is not UTF-8", where=path, fix="save it as UTF-8"
        ) from error
    except OSError as error:
        what = f"not a recipe: {error.strerror or error}"
        raise MiaoError(what, where=path, fix="give a YAML file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        fix = "indent with spaces, not tabs" if "'\\t'" in problem else _colon_hint(text)
        raise MiaoError(
            f"not valid YAML: {problem}",
            where=place,
            fix=fix or "each line is `key: value`, and what belongs to a key is indented below it",
        ) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        fix = _colon_hint(text) or "`miao recipe seedling` prints one"
        raise MiaoError("a recipe is a mapping of options", where=path, fix=fix)
    return content


def _colon_hint(text: str, where: str = " in line {}") -> str | None:
    """What is wrong with the first colon that YAML does not take for one."""
    if (found := NO_COLON.search(text)) is None:
        return None
    where = where.format(text.count("\n", 0, found.end()) + 1)
    if found[0].endswith("："):
        return f"the colon{where} is the full-width ：; write ':' and a space"
    return f"write a space after the colon{where}"


@dataclasses.dataclass(frozen=True)
class _Problem:
    what: str
    fix: str | None


def _one_error(problems: list[_Problem], where: str) -> MiaoError:
    if len(problems) == 1:
        return MiaoError(problems[0].what, where=where, fix=problems[0].fix)
    lines = [f"  - {p.what}" + (f" -> {p.fix}" if p.fix else "") for p in problems]
    return MiaoError("\n".join([f"{len(problems)} mistakes:", *lines]), where=where)


def _wrong_keys(values: dict[str, Any], prefix: str, kinds: dict[str, type]) -> Iterator[_Problem]:
    """Everything wrong with the keys of a recipe; words where lists belong become lists."""
    for name, value in list(values.items()):
        key = f"{prefix}{name}"
        if key not in kinds:
            yield _unknown_key(key, kinds, value)
            continue
        is_group = any(known.startswith(f"{key}.") for known in kinds)
        if is_group and value is None:  # `corpus:` with all its options commented out
            del values[name]
        elif is_group and not isinstance(value, dict):
            yield _Problem(
                f"'{key}' is a group of options, not {value!r}", _colon_hint(str(value), "")
            )
        elif is_group:
            yield from _wrong_keys(value, f"{key}.", kinds)
        elif kinds[key] is list and isinstance(value, str):
            if value.startswith("[") and value.endswith("]"):
                what = f"{key}: a list inside quotes is one word"
                yield _Problem(what, f"without the quotes it is a list: {value}")
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
            raise _one_error([_unknown_key(base, kinds)], "the command line")
        if base not in kinds and any(k.startswith(base.rpartition(".")[0] + ".") for k in kinds):
            raise _one_error([_unknown_key(base, kinds)], "the command line")
        values = [value] if equals else []
        while not equals and position < len(words) and not words[position].startswith("--"):
            values.append(words[position])
            position += 1
        if not values:
            raise MiaoError(f"--{key} needs a value", where="the command line")
        inside = [known for known in kinds if known.startswith(f"{base}.")]
        if inside and not values[0].startswith("{") and not Path(values[0]).is_file():
            raise MiaoError(
                f"--{key} is a group of options",
                where="the command line",
                fix=f"such as --{inside[0]} VALUE",
            )
        if kinds.get(base) is list and not values[0].startswith("["):
            joined.append(
                f"--{key}={yaml.safe_dump(values, default_flow_style=True, width=10**6).strip()}"
            )
        elif len(values) > 1:
            raise MiaoError(f"--{key} takes one value, not {len(values)}", where="the command line")
        else:
            joined.append(f"--{key}={values[0]}")
    return joined


def _unknown_key(key: str, kinds: dict[str, type], value: Any = "") -> _Problem:
    """What to say of a key that no recipe has: with the nearest option, or of a mapping `value`
    the nearest group."""
    groups = {known.rpartition(".")[0] for known in kinds} - {""}
    wanted = groups if isinstance(value, dict) else kinds.keys() - groups
    candidates = sorted(wanted, key=lambda known: (known.count("."), list(kinds).index(known)))
    group, _, leaf = key.rpartition(".")
    inside = [known for known in candidates if group and known.startswith(f"{group}.")]
    meant = None
    if (alias := ALIASES.get(leaf)) is not None:
        named = [known for known in candidates if f".{known}".endswith(f".{alias}")]
        meant = next((known for known in [*(k for k in inside if k in named), *named]), None)
    meant = meant or _nearest(leaf, _by_last_word(inside))
    if not meant and not inside:
        meant = _nearest(key, {known: known for known in candidates})
    meant = meant or _nearest(leaf, _by_last_word(candidates))
    hint = f"did you mean '{meant}'?" if meant else "see `miao run --help`"
    return _Problem(f"there is no option '{key}'", hint)


def _by_last_word(keys: list[str]) -> dict[str, str]:
    return {key.rpartition(".")[2]: key for key in reversed(keys)}


def _nearest(word: str, known: Mapping[str, str]) -> str | None:
    """The value of the key that is most like a word; None: nothing is close."""
    close = nearest(word, known)
    return None if close is None else known[close]


def _guarded(parse: Any, where: str, parser: ArgumentParser) -> Any:
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
            hint = _meant_value(value[1], wanted, choices)
        documented = _documentation(parser, key[1]) if key else None
        raise MiaoError(
            text, where=where, fix=hint or documented or "see `miao run --help` for what it takes"
        ) from error


def _meant_value(value: str, wanted: list[str], choices: list[str]) -> str | None:
    if (alias := CHOICE_ALIASES.get(value)) in choices:
        return f"did you mean '{alias}'?"
    if TYPE_WORDS["str"] in wanted:
        return f'in quotes: "{value}"' if re.fullmatch(r"[\w.+-]+", value) else None
    amount = re.fullmatch(r"([0-9]+)([KkMm])", value)
    if amount and TYPE_WORDS["int"] in wanted:
        return f"write {int(amount[1]) * (1000 if amount[2] in 'Kk' else 10**6)}"
    return did_you_mean(value, choices)


def _documentation(parser: ArgumentParser, key: str) -> str | None:
    """An option's own line, and its default."""
    from argparse import SUPPRESS

    for action in parser._actions:
        if action.dest == key and action.help and action.default != SUPPRESS:
            default = "null" if action.default is None else action.default
            return f"{' '.join(action.help.split())} Default: {default}"
    return None
