"""The board: runs as they go, and beside each other. It reads run directories and changes none."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from miao import __version__
from miao.errors import MiaoError
from miao.files import read_jsonl
from miao.report.charts import thinned
from miao.report.words import category_name, stage_name, task_name
from miao.rundir import RunDir
from miao.serve.guard import Gate, Guard
from miao.serve.invalid import add_error_handlers
from miao.serve.pages import BOARD_PAGE, add_pages, paths_of

CURVES = {
    "loss": "loss",
    "heldout": "heldout_bits_per_byte",
    "speed": "tokens_per_second",
    "gradNorm": "grad_norm",
    "lr": "lr",
}
TASKS = "tasks"
"""The curve of what was asked while training: its first score."""
POINTS = 300
"""Per curve; more are averaged in runs of equal length."""
SAMPLES = 40
"""Per stage, the newest."""
LONGEST_NAME = 200
PROBLEMS = 3
"""Of a run, that are shown."""


class Runs:
    """The runs below a directory, or the one run that the directory is. Whatever is damaged in one
    of them is said of it, and hides neither the rest of it nor the others."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._kept: dict[Path, tuple[tuple[int, int], Any]] = {}

    def found(self) -> dict[str, RunDir]:
        """Name -> run; the latest changed first."""
        if _is_run(self._directory):
            return {_shown(self._directory.resolve().name): RunDir(self._directory)}
        try:
            children = [path for path in self._directory.iterdir() if _is_run(path)]
        except OSError as error:
            raise MiaoError(f"cannot be read: {error.strerror}", where=self._directory) from error
        children.sort(key=_changed, reverse=True)
        return {_shown(path.name): RunDir(path) for path in children}

    def summary(self) -> list[dict[str, Any]]:
        """One entry per run: name, when it last changed (seconds since 1970), whether a command
        works in it, where it stands."""
        return [self._entry(name, run) for name, run in self.found().items()]

    def details(self, name: str) -> dict[str, Any]:
        """Curves, scores and samples of a run, thinned for a page.

        Raises:
            HTTPException: 404, there is no such run.
        """
        run = self.found().get(name)
        if run is None:
            raise HTTPException(404, "there is no such run")
        rows, p = self._lines(run, run.metrics)
        samples, q = self._lines(run, run.samples)
        evaluations, r = self._lines(run, run.eval_results)
        asked = [row | {TASKS: first["value"]} for row in rows for first in _scores(row)[:1]]
        asked += [row for row in rows if not row.get("scores")]
        stages = list(dict.fromkeys(_text(row.get("stage")) for row in rows))
        curves = {
            stage: {
                title: thinned(_points(lines, key), POINTS)
                for title, key in (CURVES | {TASKS: TASKS}).items()
                for lines in [[row for row in asked if _text(row.get("stage")) == stage]]
            }
            for stage in stages
        }
        scores = [score for line in evaluations for score in _scores(line)]
        return {
            "name": name,
            "problem": _problem([*p, *q, *r]),
            "stages": stages,
            "curves": curves,
            "scores": scores,
            "samples": [sample for line in _latest(samples) if (sample := _sample(line))],
            "words": _words(stages, scores),
        }

    def _entry(self, name: str, run: RunDir) -> dict[str, Any]:
        lines, problems = self._lines(run, run.metrics)
        entry: dict[str, Any] = {
            "name": name,
            "changed": _changed(run.path),
            "live": run.is_worked_in(),
            "problem": _problem(problems),
        }
        if rows := [row for row in lines if "loss" in row]:
            last = rows[-1]
            stage = _text(last.get("stage"))
            entry |= {"stage": stage, "stageName": stage_name(stage[:LONGEST_NAME])._asdict()}
            entry |= {key: _number(last.get(key)) for key in ("tokens", "loss")}
        return entry

    def _lines(self, run: RunDir, path: Path) -> tuple[list[dict[str, Any]], list[str]]:
        """The records of a file of a run, and what is wrong with others; read again only when it
        has changed."""
        try:
            if not path.is_file():
                return [], []
            state = path.stat()
            mark = (state.st_mtime_ns, state.st_size)
            if self._kept.get(path, (None, None))[0] != mark:
                problems: list[str] = []
                records = read_jsonl(path, problems.append)
                problems = [problem.replace(str(run.path / "_")[:-1], "") for problem in problems]
                self._kept[path] = (mark, (records, problems))
        except OSError as error:
            return [], [f"{path.name}: {error.strerror}"]
        kept: tuple[list[dict[str, Any]], list[str]] = self._kept[path][1]
        return kept


def add_board(app: FastAPI, directory: Path) -> None:
    """Adds the data of the page /runs."""
    runs = Runs(directory)

    @app.get("/runs/data", include_in_schema=False)
    def list_runs() -> Response:
        return JSONResponse({"runs": runs.summary()}, headers=_FRESH)

    @app.get("/runs/data/{name}", include_in_schema=False)
    def show_run(name: str) -> Response:
        return JSONResponse(runs.details(name), headers=_FRESH)


def create_board(
    runs: Path, api_key: str | None = None, hosts: frozenset[str] | None = None
) -> FastAPI:
    """An application that shows a directory of runs, and nothing else."""
    app = FastAPI(title="Miao", version=__version__, openapi_url=None)
    pages = {"/": BOARD_PAGE["/runs"]} | BOARD_PAGE
    add_pages(app, pages)
    add_board(app, runs)
    add_error_handlers(app)
    gate = Gate(api_key=api_key, hosts=hosts, open_paths=paths_of(pages))
    app.add_middleware(Guard, gate=gate)
    return app


_FRESH = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def _is_run(path: Path) -> bool:
    try:
        return (path / "metrics.jsonl").is_file() or (path / "recipe.yaml").is_file()
    except OSError:  # a directory that may not be looked into
        return False


def _changed(path: Path) -> float:
    changed = 0.0
    for name in ("metrics.jsonl", "eval_results.jsonl", "samples.jsonl", "recipe.yaml"):
        with suppress(OSError):
            changed = max(changed, (path / name).stat().st_mtime)
    return changed


def _shown(name: str) -> str:
    """A name of the file system as text; bytes that are none show as \\xff."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _problem(problems: list[str]) -> str | None:
    """The first of what is wrong, and how much more there is."""
    shown = [_shown(problem) for problem in problems[:PROBLEMS]]
    more = [f"+{len(problems) - PROBLEMS}"] if len(problems) > PROBLEMS else []
    return "; ".join(shown + more) or None


def _words(stages: list[str], scores: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What stages, tasks and categories are called in both languages."""
    tasks = {score["task"]: task_name(score["task"])._asdict() for score in scores}
    categories = {
        f"{one['task']}\n{one['category']}": category_name(one["category"], one["task"])._asdict()
        for one in scores
    }
    named = {stage: stage_name(stage[:LONGEST_NAME])._asdict() for stage in stages}
    return {"stages": named, "tasks": tasks, "categories": categories}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    """What JSON can hold as a number; None for all else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _points(rows: Sequence[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    pairs = [(_number(row.get("tokens")), _number(row.get(key))) for row in rows]
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def _scores(line: dict[str, Any]) -> list[dict[str, Any]]:
    scores = line.get("scores")
    return [
        {"stage": _text(line.get("stage"))}
        | {key: _text(score.get(key)) for key in ("task", "category", "unit")}
        | {key: _number(score.get(key)) for key in ("value", "stderr", "chance", "count")}
        for score in (scores if isinstance(scores, list) else [])
        if isinstance(score, dict) and _number(score.get("value")) is not None
    ]


def _latest(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    by_stage: dict[str, list[dict[str, Any]]] = {}
    for line in samples:
        by_stage.setdefault(_text(line.get("stage")), []).append(line)
    return [line for lines in by_stage.values() for line in lines[-SAMPLES:]]


def _sample(line: dict[str, Any]) -> dict[str, Any] | None:
    if not isinstance(line.get("answer"), str):
        return None
    texts = {key: _text(line.get(key)) for key in ("stage", "prompt", "answer")}
    return texts | {"tokens": _number(line.get("tokens"))}
