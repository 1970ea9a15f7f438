"""`miao corpus build`: text in, a clean corpus out."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from miao.console import ProgressLine, headline, say, warn
from miao.corpus.build.pipeline import build_corpus
from miao.corpus.local import with_local_files
from miao.corpus.read.formats import Reading
from miao.corpus.read.kinds import paths_by_kind
from miao.corpus.records import FIELDS, KINDS, Kind
from miao.errors import MiaoError
from miao.files import read_json, require_replaceable
from miao.language import Parser
from miao.options import option_kinds
from miao.recipe import Recipe
from miao.report.data_report import present_corpus

SHOWN_PATHS = 10
STAGE_OF: dict[Kind, str] = {kind: stage for stage, kind in KINDS.items()}


def main(words: Sequence[str]) -> int:
    """Runs `miao corpus build PATH ... --out DIR [--corpus.key value ...]`."""
    parser = Parser(
        prog="miao corpus build",
        description="Cleans, deduplicates and mixes text; writes it with a manifest and a report. "
        "Stopped, the same command goes on.",
        epilog="Every option of a recipe's `corpus` may follow: --corpus.dedup.near true. "
        "They are listed by `miao corpus --help`.",
    )
    parser.add_argument("paths", nargs="*", help="files, folders, globs (default: the recipe's)")
    parser.add_argument("--out", required=True, help="the directory to write")
    parser.add_argument(
        "--kind", choices=list(STAGE_OF), help="read them as this (default: told, as by check)"
    )
    add_reading(parser)
    parser.add_argument("--recipe", help="take the options of this recipe's `corpus`")
    parser.add_argument("--output", choices=["jsonl", "parquet"], default="jsonl")
    own, overrides = _split(list(words))
    options = parser.parse_args(own)
    from miao.recipe.reading import load_recipe

    recipe = load_recipe(options.recipe, overrides)
    corpus = recipe.corpus
    corpus.columns = {**corpus.columns, **columns_of(options.columns)}
    corpus.encoding = options.encoding or corpus.encoding
    if corpus.own_share == "auto" and not any("own_share" in word for word in overrides):
        corpus.own_share = 1.0  # what is asked for is these files, not what a model learns beside
    if options.paths:
        reading = Reading(corpus.columns, corpus.encoding)
        given = {options.kind: options.paths} if options.kind else {}
        given = given or paths_by_kind(options.paths, reading)
        for kind, name in FIELDS.items():
            setattr(corpus, name, given.get(kind, []))
    else:
        recipe.corpus = with_local_files(recipe.corpus)
    stages = [STAGE_OF[kind] for kind, name in FIELDS.items() if getattr(recipe.corpus, name)]
    if not stages:
        raise MiaoError("no text to build from", fix="miao corpus build PATH ... --out DIR")
    directory = Path(options.out)
    require_replaceable(directory, _is_corpus)
    headline(f"corpus: {', '.join(stages)} to {directory}")
    for kind, name in FIELDS.items():
        for path in getattr(recipe.corpus, name)[:SHOWN_PATHS]:
            say(f"  {path}: {kind}s")
    report = build_corpus(
        recipe.corpus, recipe.seed, directory, stages, options.output, ProgressLine
    )
    if report.problems:
        warn(f"{report.problems} records could not be used: see {directory / 'problems.jsonl'}")
    present_corpus(directory)
    return 0


def add_reading(parser: argparse.ArgumentParser) -> None:
    """The options that say how to read."""
    parser.add_argument(
        "--columns",
        nargs="+",
        action="extend",
        default=[],
        metavar="ROLE=COLUMN",
        help="what columns are: question=q answer=data.a, text=title+body, unused=notes,score",
    )
    parser.add_argument("--encoding", help="of text that is no UTF-8: big5, cp1252 (default: told)")


def columns_of(pairs: Sequence[str]) -> dict[str, str]:
    """`["question=q", ...]` as a mapping."""
    columns: dict[str, str] = {}
    for pair in pairs:
        role, equals, column = pair.partition("=")
        if not equals:
            raise MiaoError(f"'{pair}' is no ROLE=COLUMN", where="--columns", fix="question=q")
        again = role == "unused" and role in columns
        columns[role] = f"{columns[role]},{column}" if again else column
    return columns


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """The command's own words, and the options of a recipe with their values."""
    kinds = option_kinds(Recipe)
    own: list[str] = []
    recipe: list[str] = []
    values: float = 0  # that may still belong to the last option of the recipe
    for word in words:
        if word.startswith(("--corpus.", "--seed")):
            key, equals, _ = word[2:].partition("=")
            values = 0 if equals else math.inf if kinds.get(key.rstrip("+")) is list else 1
            recipe.append(word)
        elif values >= 1 and not word.startswith("--"):
            values -= 1
            recipe.append(word)
        else:
            values = 0
            own.append(word)
    return own, recipe


def _is_corpus(directory: Path) -> bool:
    manifest = directory / "manifest.json"
    known = read_json(manifest) if manifest.is_file() else None
    return isinstance(known, dict) and {"origin", "sources"} <= known.keys()
