"""Where a training stands: how far it is, how long it will take, what is expected at its end."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from miao.errors import MiaoError
from miao.evaluate.forecast import forecast_loss
from miao.files import read_json
from miao.recipe import STAGES, parse_quantity
from miao.rundir import RunDir, list_checkpoints
from miao.serve.curves import CURVES, RunLog, StageLog, number

MOST = 200
"""Checkpoints of a stage that are marked."""


def standing(run: RunDir, stage: str, log: RunLog, worker: int) -> dict[str, Any]:
    """Budget in tokens, seconds left, bytes of memory of a stage that trains; None: not known."""
    budget, tokens = budget_of(run, stage), number(log.last.get("tokens"))
    speed = number(log.last.get(CURVES["speed"]))
    left = None
    if budget is not None and tokens is not None and speed:
        left = max(0.0, budget - tokens) / speed
    return {"budget": budget, "left": left, "memory": _memory(worker)}


def budget_of(run: RunDir, stage: str) -> float | None:
    """The tokens of a stage, from its newest checkpoint or from the recipe; None: not known."""
    for path in _checkpoints(run, stage)[-1:]:
        if (budget := number(_state(path, _changed(path)).get("budget"))) is not None:
            return budget
    return _planned(run.path, stage, _changed(run.path / "recipe.yaml"))


def checkpoints_of(run: RunDir, stage: str) -> list[dict[str, Any]]:
    """The checkpoints that are there, as events on the axis of tokens."""
    found = []
    for path in _checkpoints(run, stage)[-MOST:]:
        if (tokens := number(_state(path, _changed(path)).get("tokens"))) is not None:
            found.append({"x": tokens, "kind": "checkpoint", "more": path.name})
    return found


def band_of(run: RunDir, stage: str, log: StageLog) -> tuple[float, float, float] | None:
    """Low, high and the tokens of what is expected of the held-out text at the stage's end; None:
    it has ended, or it is too early to say."""
    if stage not in STAGES or (run.checkpoints(stage) / "result.json").exists():
        return None
    budget = budget_of(run, stage)
    points = log.points("heldout")
    if budget is None or not points or points[-1][0] >= budget:
        return None
    return _band(tuple(map(tuple, points)), budget)


@lru_cache(maxsize=256)
def _band(points: tuple[tuple[float, float], ...], budget: float) -> Any:
    found = forecast_loss(points, budget)
    return None if found is None else (found.low, found.high, found.tokens)


def _checkpoints(run: RunDir, stage: str) -> list[Path]:
    if stage not in STAGES:  # it comes from a log, which may be a stranger's
        return []
    with suppress(OSError):
        return list_checkpoints(run.checkpoints(stage))
    return []


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=4096)
def _state(path: Path, changed: int) -> dict[str, Any]:
    with suppress(MiaoError, OSError):
        found = read_json(path / "state.json")
        if isinstance(found, dict):
            return {key: found.get(key) for key in ("tokens", "budget")}
    return {}


@lru_cache(maxsize=256)
def _planned(path: Path, stage: str, changed: int) -> float | None:
    with suppress(MiaoError, OSError, ValueError, TypeError, AttributeError):
        given = RunDir(path).read_recipe()[1].get(stage, {}).get("tokens")
        return None if given is None else float(parse_quantity(given, stage))
    return None


def _memory(pid: int) -> int | None:
    """Bytes that a process has in memory, where the system tells it."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return None
