"""The model that an export is made from, the run that it belongs to, and where it may go."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from miao.errors import MiaoError
from miao.files import atomic_directory, full_disk_is_a_user_error
from miao.hubs import is_hub_name
from miao.recipe import STAGES
from miao.rundir import RunDir, find_model

MARK = "miao_export.json"
"""Stands in every export: what it was made from. A directory without it is never replaced."""
PAGE_MARK = '<meta name="generator" content="Miao'
"""Stands in the first lines of every page, for the same purpose."""


@dataclass(frozen=True)
class Origin:
    """The model that is exported."""

    directory: Path
    name: str
    run: RunDir | None = None
    stage: str | None = None

    def default_out(self, name: str, model: str) -> Path:
        """Where an export of this kind goes. model: as the user named it."""
        if self.run:
            return self.run.path / "export" / name
        if is_hub_name(model):
            return Path("export") / self.name / name
        return self.directory.with_name(f"{self.directory.resolve().name}-{name}")

    @property
    def ollama_name(self) -> str:
        return ollama_name(self.name)


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


def is_page_name(out: Path) -> bool:
    return out.suffix.lower() in (".html", ".htm")


def check_target(out: Path, origin: Origin, may_be_page: bool) -> None:
    """Raises:
    MiaoError: an export must not be written there.
    """
    target, source = out.resolve(), origin.directory.resolve()
    if target == source or target in source.parents or source in target.parents:
        raise MiaoError(
            "the export would overwrite the model that it is made from, or lie in it",
            where=out,
            fix="choose another --out",
        )
    if is_page_name(out) and not out.is_dir():
        if not may_be_page:
            raise MiaoError(
                "--out names a page, and this export is a directory",
                where=out,
                fix="name a directory, or choose --to page",
            )
        if out.exists() and PAGE_MARK not in out.read_bytes()[:4096].decode(errors="replace"):
            raise MiaoError(
                "this file is not an earlier page", where=out, fix="choose another --out"
            )
        return
    if out.exists() and not out.is_dir():
        raise MiaoError("this is a file", where=out, fix="choose a directory for --out")
    if out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file():
        raise MiaoError(
            "this directory holds something that is not an earlier export",
            where=out,
            fix="choose another --out, or empty it first",
        )


@contextmanager
def place(out: Path) -> Iterator[Path]:
    """A directory to write in; it becomes `out`, or only its page does where `out` names one."""
    if not is_page_name(out) or out.is_dir():
        with atomic_directory(out) as written:
            yield written
        return
    with full_disk_is_a_user_error(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{out.name}.", dir=out.parent, ignore_cleanup_errors=True
        ) as temporary:
            yield Path(temporary)
            (page,) = Path(temporary).glob("*.html")
            os.replace(page, out)


def ollama_name(name: str) -> str:
    """What Ollama may call a model: up to 80 of some letters, digits and marks."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80] or "miao"
