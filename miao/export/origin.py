"""The model that an export is made from, and the run that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from miao.errors import MiaoError
from miao.hubs import is_hub_name
from miao.recipe import STAGES
from miao.rundir import RunDir, find_model

MARK = "miao_export.json"
"""Stands in every export: what it was made from. A directory without it is never replaced."""


@dataclass(frozen=True)
class Origin:
    """The model that is exported."""

    directory: Path
    name: str
    run: RunDir | None = None
    stage: str | None = None


def find_origin(model: str, stage: str | None) -> Origin:
    """The model directory that is meant, and the run that it belongs to.

    Args:
        model: a run directory, a model directory or a hub name. stage: of a run; None: the last.

    Raises:
        MiaoError: there is no such model, or a stage is named where there are none.
    """
    if is_hub_name(model):
        if stage:
            raise MiaoError("--stage chooses a stage of a run", where=model, fix="leave it out")
        return Origin(find_model(model), model.rpartition("/")[2].partition("@")[0])
    path = Path(model)
    if (path / "config.json").is_file():
        if stage:
            raise MiaoError("--stage chooses a stage of a run", where=model, fix="leave it out")
        return _within_run(path) or Origin(path, path.resolve().name)
    run = RunDir(path)
    directory = run.model(stage) if stage else find_model(path)
    if not (directory / "config.json").is_file():
        there = [name for name in STAGES if (run.model(name) / "config.json").is_file()]
        raise MiaoError(
            f"this run has no model of the stage {stage}",
            where=path,
            fix=f"choose one of {', '.join(there)}" if there else "name a finished run",
        )
    return _within_run(directory) or Origin(directory, path.resolve().name)


def _within_run(directory: Path) -> Origin | None:
    """A model directory of a run (RUN/model, RUN/models/STAGE)."""
    place = directory.resolve()
    if place.name == "model" and (place.parent / "stages.json").is_file():
        run = RunDir(directory.parent if directory.name == "model" else place.parent)
        return Origin(directory, place.parent.name, run, run.stage_of(directory))
    if place.parent.name == "models" and (place.parents[1] / "stages.json").is_file():
        run = RunDir(place.parents[1])
        return Origin(directory, place.parents[1].name, run, place.name)
    return None
