"""The board: runs as they go, and beside each other. It reads run directories and changes none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from miao.errors import MiaoError
from miao.files import read_jsonl
from miao.rundir import RunDir

CURVES = {
    "loss": "loss",
    "heldout": "heldout_bits_per_byte",
    "speed": "tokens_per_second",
    "gradNorm": "grad_norm",
    "lr": "lr",
}
POINTS = 300
"""Per curve; more are averaged in runs of equal length."""
SAMPLES = 40
"""Per stage, the newest."""


class Runs:
    """The runs below a directory, or the one run that the directory is."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._kept: dict[Path, tuple[tuple[int, int], Any]] = {}

    def found(self) -> dict[str, RunDir]:
        """Name -> run; the latest changed first."""
        if _is_run(self._directory):
            return {self._directory.resolve().name: RunDir(self._directory)}
        try:
            children = [path for path in self._directory.iterdir() if _is_run(path)]
        except OSError as error:
            raise MiaoError(f"cannot be read: {error.strerror}", where=self._directory) from error
        return {path.name: RunDir(path) for path in sorted(children, key=_changed, reverse=True)}

    def summary(self) -> list[dict[str, Any]]:
        """One entry per run: name, when it last changed (seconds since 1970), where it stands."""
        return [self._entry(name, run) for name, run in self.found().items()]

    def details(self, name: str) -> dict[str, Any]:
        """Curves, scores and samples of a run, thinned for a page.

        Raises:
            HTTPException: 404, there is no such run.
        """
        run = self.found().get(name)
        if run is None:
            raise HTTPException(404, "there is no such run")
        try:
            rows, samples = self._lines(run.metrics), self._lines(run.samples)
            evaluations = self._lines(run.eval_results)
        except (MiaoError, OSError) as error:
            return {"name": name, "problem": _problem(error, run), "stages": [], "curves": {}} | {
                "scores": [],
                "samples": [],
            }
        stages = list(dict.fromkeys(_stage(row) for row in rows))
        curves = {
            stage: {
                title: thin(_points([row for row in rows if _stage(row) == stage], key))
                for title, key in CURVES.items()
            }
            for stage in stages
        }
        return {
            "name": name,
            "problem": None,
            "stages": stages,
            "curves": curves,
            "scores": [score for line in evaluations for score in _scores(line)],
            "samples": [sample for line in _latest(samples) if (sample := _sample(line))],
        }

    def _entry(self, name: str, run: RunDir) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": name, "changed": _changed(run.path), "problem": None}
        try:
            rows = [row for row in self._lines(run.metrics) if "loss" in row]
        except (MiaoError, OSError) as error:
            return entry | {"problem": _problem(error, run)}
        if rows:
            last = rows[-1]
            entry |= {"stage": _stage(last)}
            entry |= {key: _number(last.get(key)) for key in ("tokens", "loss")}
        return entry

    def _lines(self, path: Path) -> list[dict[str, Any]]:
        """The records of a file; read again only when it has changed."""
        if not path.exists():
            return []
        state = path.stat()
        mark = (state.st_mtime_ns, state.st_size)
        if self._kept.get(path, (None, None))[0] != mark:
            records = [line for line in read_jsonl(path) if isinstance(line, dict)]
            self._kept[path] = (mark, records)
        return self._kept[path][1]


def thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `POINTS` points, each the mean of a run of points."""
    run = -(-len(points) // POINTS)
    if run <= 1:
        return list(points)
    groups = [points[start : start + run] for start in range(0, len(points), run)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def add_board(app: FastAPI, directory: Path, private: Sequence[Any], has_chat: bool) -> None:
    """Adds the data of the page /runs.

    Args:
        private: dependencies of the routes that show data.
        has_chat: the same server has the chat page.
    """
    runs = Runs(directory)
    hidden: dict[str, Any] = {"dependencies": list(private), "include_in_schema": False}

    @app.get("/runs/data", **hidden)
    def list_runs() -> Response:
        return JSONResponse({"has_chat": has_chat, "runs": runs.summary()}, headers=_FRESH)

    @app.get("/runs/data/{name}", **hidden)
    def show_run(name: str) -> Response:
        return JSONResponse(runs.details(name), headers=_FRESH)


_FRESH = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def _is_run(path: Path) -> bool:
    return (path / "metrics.jsonl").is_file() or (path / "recipe.yaml").is_file()


def _changed(path: Path) -> float:
    names = ("metrics.jsonl", "eval_results.jsonl", "samples.jsonl", "recipe.yaml")
    return max(
        ((path / name).stat().st_mtime for name in names if (path / name).exists()), default=0.0
    )


def _problem(error: Exception, run: RunDir) -> str:
    """What is wrong; files by their names within the run."""
    return str(error).replace(str(run.path / "_")[:-1], "")


def _stage(row: dict[str, Any]) -> str:
    return str(row.get("stage", ""))


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
        {"stage": _stage(line)}
        | {key: str(score.get(key, "")) for key in ("task", "category", "unit")}
        | {key: _number(score.get(key)) for key in ("value", "stderr", "chance", "count")}
        for score in (scores if isinstance(scores, list) else [])
        if isinstance(score, dict) and _number(score.get("value")) is not None
    ]


def _latest(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    stages = dict.fromkeys(_stage(line) for line in samples)
    return [
        line
        for stage in stages
        for line in [line for line in samples if _stage(line) == stage][-SAMPLES:]
    ]


def _sample(line: dict[str, Any]) -> dict[str, Any] | None:
    prompt, answer = line.get("prompt"), line.get("answer")
    if not isinstance(answer, str):
        return None
    tokens = _number(line.get("tokens"))
    return {
        "stage": _stage(line),
        "prompt": str(prompt or ""),
        "answer": answer,
        "tokens": tokens,
    }
