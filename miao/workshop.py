"""`miao corpus build`: text in; a clean, deduplicated, mixed corpus and its report out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from miao.console import ProgressLine, headline, say, warn
from miao.corpus.pipeline import KINDS, build_corpus
from miao.errors import MiaoError
from miao.report.data_report import present_corpus

STAGE_OF: dict[str, str] = {kind: stage for stage, kind in KINDS.items()}
FIELDS: dict[str, str] = {
    "document": "paths",
    "conversation": "conversations",
    "preference": "preferences",
}


def main(words: Sequence[str]) -> int:
    """Runs `miao corpus build PATH ... --out DIR [--corpus.key value ...]`."""
    parser = argparse.ArgumentParser(
        prog="miao corpus build",
        description="Cleans, deduplicates and mixes text; writes it with a manifest and a report. "
        "Stopped, the same command goes on.",
        epilog="Every option of a recipe's `corpus` may follow: --corpus.dedup.near true. "
        "They are listed by `miao corpus --help`.",
        allow_abbrev=False,
    )
    parser.add_argument("paths", nargs="*", help="files, folders, globs (default: the recipe's)")
    parser.add_argument("--out", required=True, help="the directory to write")
    parser.add_argument("--kind", choices=list(STAGE_OF), default="document")
    parser.add_argument("--recipe", help="take the options of this recipe's `corpus`")
    parser.add_argument("--output", choices=["jsonl", "parquet"], default="jsonl")
    own, overrides = _split(list(words))
    options = parser.parse_args(own)
    from miao.recipe.reading import load_recipe

    recipe = load_recipe(options.recipe, overrides)
    if options.paths:
        for kind, name in FIELDS.items():
            setattr(recipe.corpus, name, options.paths if kind == options.kind else [])
    stages = [STAGE_OF[kind] for kind, name in FIELDS.items() if getattr(recipe.corpus, name)]
    if not stages:
        raise MiaoError("no text to build from", fix="miao corpus build PATH ... --out DIR")
    directory = Path(options.out)
    _check_target(directory)
    headline(f"corpus: {', '.join(stages)} to {directory}")
    with ProgressLine("cleaning", 0) as line:
        report = build_corpus(
            recipe.corpus, recipe.seed, directory, line.advance, stages, options.output
        )
    if report.problems:
        warn(f"{report.problems} records could not be used: see {directory / 'problems.jsonl'}")
    present_corpus(directory)
    say("  next:")
    say(f"    open {directory / 'report.html'}")
    return 0


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """The command's own words, and the options of a recipe with their values."""
    own: list[str] = []
    recipe: list[str] = []
    target = own
    for word in words:
        if word.startswith("--"):
            target = recipe if word.startswith(("--corpus.", "--seed")) else own
        target.append(word)
    return own, recipe


def _check_target(directory: Path) -> None:
    """A directory that is something else is not replaced."""
    known = directory / "manifest.json"
    if directory.exists() and not known.exists() and any(directory.iterdir()):
        raise MiaoError(
            "this directory holds something else, which would be replaced",
            where=directory,
            fix="choose another --out, or empty it",
        )
