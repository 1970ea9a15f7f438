"""How many tokens a stage is to see, as its checkpoints or its recipe tell; cheap to ask again."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from miao.errors import MiaoError
from miao.files import read_json
from miao.recipe import STAGES, parse_quantity
from miao.report.words import is_number
from miao.rundir import RunDir, list_checkpoints


def budget_of(run: RunDir, stage: str) -> float | None:
    """The tokens of a stage, from its newest checkpoint or from the recipe; None: not known.

    Where the clock ends it, as many as it will have at the speed so far.
    """
    for path in checkpoints(run, stage)[-1:]:
        state = checkpoint_state(path)
        if "budget" in state and "clock" not in state:
            return float(state["budget"])
        if state.keys() >= {"budget", "tokens", "clock"} and state["clock"]:
            return max(state["tokens"] * state["budget"] / state["clock"], float(state["tokens"]))
    given = planned(run, stage).get("tokens")
    with suppress(MiaoError):
        return None if given is None else parse_quantity(given, stage)
    return None


def checkpoints(run: RunDir, stage: str) -> list[Path]:
    """Of a stage, the oldest first."""
    if stage not in STAGES:  # it comes from a log, which may be a stranger's
        return []
    with suppress(OSError):
        return list_checkpoints(run.checkpoints(stage))
    return []


def checkpoint_state(path: Path) -> dict[str, Any]:
    """Of the state of a checkpoint how far it is; empty where it cannot be read."""
    return _state(path, _changed(path))


def planned(run: RunDir, stage: str) -> dict[str, Any]:
    """The options of a stage in the recipe of a run; empty where there are none."""
    return _planned(run.path, stage, _changed(run.path / "recipe.yaml"))


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
            known = ("tokens", "budget", "clock")
            return {key: found[key] for key in known if is_number(found.get(key))}
    return {}


@lru_cache(maxsize=256)
def _planned(path: Path, stage: str, changed: int) -> dict[str, Any]:
    with suppress(MiaoError, OSError):
        options = RunDir(path).read_recipe()[1].get(stage)
        return options if isinstance(options, dict) else {}
    return {}
