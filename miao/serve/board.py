"""The board: runs as they go, and beside each other. It reads run directories and changes none."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from miao import __version__
from miao.errors import MiaoError
from miao.files import read_jsonl
from miao.report.words import category_name, stage_name, task_name
from miao.rundir import RunDir
from miao.serve.curves import CURVES, TASKS, Grown, RunLog, number, text, through_time
from miao.serve.guard import Gate, Guard
from miao.serve.invalid import add_error_handlers
from miao.serve.pages import BOARD_PAGE, add_pages, paths_of
from miao.serve.standing import band_of, happened, standing

MOMENTS = 12
"""Of a stage's samples: how it learned to speak, from the first to the last."""
LONGEST_NAME = 200
PROBLEMS = 3
"""Of a run, that are shown."""


class Runs:
    """The runs below a directory, or the one run that the directory is. Whatever is damaged in one
    of them is said of it, and hides neither the rest of it nor the others."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._kept: dict[Path, tuple[tuple[int, int], Any]] = {}
        self._logs: dict[Path, Grown] = {}

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

    def details(self, name: str, span: tuple[float, float] | None = None) -> dict[str, Any]:
        """Curves, events, scores and samples of a run, thinned for a page.

        Args:
            span: only the tokens between, of the curves.

        Raises:
            HTTPException: 404, there is no such run.
        """
        run = self.found().get(name)
        if run is None:
            raise HTTPException(404, "there is no such run")
        log, p = self._log(run, span is not None)
        samples, q = self._lines(run, run.samples)
        evaluations, r = self._lines(run, run.eval_results)
        by_stage: dict[str, list[dict[str, Any]]] = {}
        for line in samples:
            by_stage.setdefault(text(line.get("stage")), []).append(line)
        shown = [line for lines in by_stage.values() for line in through_time(lines, MOMENTS)]
        scores = [score for line in evaluations for score in _scores(line)]
        titles = (*CURVES, TASKS)
        heldout = {stage: one.points("heldout") for stage, one in log.stages.items()}
        return {
            "name": name,
            "problem": _problem([*p, *q, *r]),
            "stages": list(log.stages),
            "curves": {
                stage: {
                    title: heldout[stage]
                    if span is None and title == "heldout"
                    else one.points(title, span)
                    for title in titles
                }
                for stage, one in log.stages.items()
            },
            "events": {
                stage: [*one.events, *happened(run, stage)] for stage, one in log.stages.items()
            },
            "forecast": {
                stage: band
                for stage, points in heldout.items()
                if (band := band_of(run, stage, points)) is not None
            },
            "scores": scores,
            "samples": [sample for line in shown if (sample := _sample(line))],
            "words": _words(list(log.stages), scores),
        }

    def _entry(self, name: str, run: RunDir) -> dict[str, Any]:
        log, problems = self._log(run)
        worker = run.worker()
        entry: dict[str, Any] = {
            "name": name,
            "changed": _changed(run.path),
            "live": worker is not None,
            "problem": _problem(problems),
        }
        if log.last:
            stage = text(log.last.get("stage"))
            entry |= {"stage": stage, "stageName": stage_name(stage[:LONGEST_NAME])._asdict()}
            entry |= {key: number(log.last.get(key)) for key in ("tokens", "loss")}
            if worker is not None:
                entry |= standing(run, stage, log, worker)
        return entry

    def _log(self, run: RunDir, closely: bool = False) -> tuple[RunLog, list[str]]:
        """What a run has logged so far, and what is wrong with its log."""
        grown = self._logs.setdefault(run.metrics, Grown(run.metrics))
        try:
            problems = _named(grown.look(closely), run)
        except OSError as error:
            problems = [f"{run.metrics.name}: {error.strerror}"]
        return grown.log, problems

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
                self._kept[path] = (mark, (records, _named(problems, run)))
        except OSError as error:
            return [], [f"{path.name}: {error.strerror}"]
        kept: tuple[list[dict[str, Any]], list[str]] = self._kept[path][1]
        return kept


def add_board(app: FastAPI, directory: Path) -> None:
    """Adds the data of the page /runs."""
    runs = Runs(directory)

    @app.get("/runs/data", include_in_schema=False)
    def list_runs(first: str | None = None) -> Response:
        """first: a page begins, and shows the details of that run, or else of the latest."""
        found = runs.summary()
        names = [run["name"] for run in found]
        body: dict[str, Any] = {"runs": found}
        if names and first is not None:
            with suppress(HTTPException):  # it went this moment
                body["first"] = runs.details(first if first in names else names[0])
        return JSONResponse(body, headers=_FRESH)

    @app.get("/runs/data/{name}", include_in_schema=False)
    def show_run(name: str, begin: float | None = None, end: float | None = None) -> Response:
        span = None if begin is None or end is None else (begin, end)
        return JSONResponse(runs.details(name, span), headers=_FRESH)


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


def _named(problems: list[str], run: RunDir) -> list[str]:
    """Problems, with files named as within the run."""
    return [problem.replace(str(run.path / "_")[:-1], "") for problem in problems]


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


def _scores(line: dict[str, Any]) -> list[dict[str, Any]]:
    scores = line.get("scores")
    return [
        {"stage": text(line.get("stage"))}
        | {key: text(score.get(key)) for key in ("task", "category", "unit")}
        | {key: number(score.get(key)) for key in ("value", "stderr", "chance", "count")}
        for score in (scores if isinstance(scores, list) else [])
        if isinstance(score, dict) and number(score.get("value")) is not None
    ]


def _sample(line: dict[str, Any]) -> dict[str, Any] | None:
    if not isinstance(line.get("answer"), str):
        return None
    texts = {key: text(line.get(key)) for key in ("stage", "prompt", "answer")}
    return texts | {"tokens": number(line.get("tokens"))}
