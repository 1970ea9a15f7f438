"""`miao report DIR`: the page of a run that is there, finished or not, or of a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from miao.console import say
from miao.errors import MiaoError, did_you_mean
from miao.files import at_home, read_json
from miao.language import Parser
from miao.report.data_report import write_data_report
from miao.report.page import write_report
from miao.rundir import RunDir

RUN_MARKS = ("recipe.yaml", "stages.json", "metrics.jsonl")
"""Any of these makes a directory a run."""


def main(words: Sequence[str]) -> int:
    """Runs `miao report DIR...`: writes `report.html` into each and trains nothing."""
    parser = Parser(
        prog="miao report",
        description="Writes report.html of runs (finished or not) or corpora that are there. With "
        "a recipe instead (miao report RECIPE) what is missing is run first.",
    )
    parser.add_argument("directories", nargs="*", metavar="DIR", help="runs/NAME, or a corpus")
    directories = parser.parse_args(words).directories
    if not directories:
        raise MiaoError(
            "a report of what?",
            fix="miao report runs/NAME, miao report CORPUS_DIRECTORY, or miao report RECIPE",
        )
    for directory in directories:
        say(f"  report: {report_directory(at_home(directory)).resolve().as_uri()}")
    return 0


def report_directory(directory: Path) -> Path:
    """Writes the page of a run or of a corpus, whichever the directory is; the page's path.

    Raises:
        MiaoError: it is neither, or a file in it is damaged.
    """
    if not directory.is_dir():
        raise _no_directory(directory)
    if any((directory / name).exists() for name in RUN_MARKS):
        return write_report(RunDir(directory))
    manifest = directory / "manifest.json"
    if manifest.exists() and "accounts" in (facts := read_json(manifest)):
        if not facts["accounts"]:
            raise MiaoError(
                "this corpus is the built-in one: nothing was cleaned or left out",
                where=directory,
                fix="the page of its run shows what it is made of: miao report runs/NAME",
            )
        return write_data_report(directory)
    inside = sorted(path.parent.name for path in directory.glob("*/recipe.yaml"))
    raise MiaoError(
        "neither a run nor a corpus",
        where=directory,
        fix=f"a run holds {', '.join(RUN_MARKS)}, a corpus the manifest.json of `miao corpus "
        "build`" + (f"; in here are the runs {', '.join(inside[:8])}" if inside else ""),
    )


def _no_directory(path: Path) -> MiaoError:
    if path.exists():
        what = "this file is no recipe (.yaml), and a report is made of a directory"
        return MiaoError(what, where=path, fix="miao report runs/NAME or RECIPE")
    beside = [other.name for other in path.parent.glob("*/")] if path.parent.is_dir() else []
    hint = did_you_mean(path.name, beside)
    return MiaoError(
        "no such run, corpus or recipe",
        where=path,
        fix=hint or f"check the spelling; relative paths start at {Path.cwd()}",
    )
