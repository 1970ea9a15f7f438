"""The time that a whole run may take: counted across interruptions, shared out to what is left."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from miao.errors import MiaoError
from miao.files import read_json, write_json
from miao.recipe import STAGES, Recipe

EVERY = 3.0
"""Seconds between notes of the time spent: so much of it a kill loses at most."""
AFTERWARDS = 0.02
"""Share of the time that what follows a stage (its evaluation, the report) takes, where nothing
like it has been measured yet."""
LEAST = 1.0


class RunClock:
    """Keeps a run's word on time.

    Args:
        began: where `time.monotonic` was when the command began.
    """

    def __init__(self, recipe: Recipe, directory: Path, began: float):
        self.recipe, self.path, self.began = recipe, directory / "clock.json", began
        self.before = float(_read(self.path).get("seconds", 0.0))
        """Seconds that earlier commands worked on this run."""

    @property
    def governs(self) -> bool:
        return self.recipe.minutes is not None or self.recipe.until is not None

    @property
    def spent(self) -> float:
        return self.before + time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds; negative where the time is over."""
        if self.recipe.until is not None:
            return (moment(self.recipe.until) - datetime.now()).total_seconds()
        return 60 * (self.recipe.minutes or 0) - self.spent

    def deadline(self, stage: str, done: dict[str, dict[str, Any]]) -> float | None:
        """Where `time.monotonic` is when a stage should end; None: its budget is not in minutes.

        Stages share what is left in the proportion of their `minutes`, after what evaluations and
        the report will take: of those that were made already what they took.

        Args:
            done: what was noted of the parts that are done.
        """
        minutes = getattr(self.recipe, stage).minutes
        if not self.governs or minutes is None:
            return None
        coming = [s for s in STAGES[STAGES.index(stage) :] if getattr(self.recipe, s).enabled]
        wanted = sum(getattr(self.recipe, s).minutes or 0.0 for s in coming)
        aside = sum(self._afterwards(s, done) for s in coming) + self._measured("report", done)
        share = max(self.left - aside, LEAST) * minutes / wanted
        return time.monotonic() + max(share, LEAST)

    def _afterwards(self, stage: str, done: dict[str, dict[str, Any]]) -> float:
        """Seconds of the evaluation after a stage, its model written and sampled from."""
        options = self.recipe.evaluate
        if not options.enabled:
            return LEAST
        if options.seconds is None or any(name.startswith("evaluate") for name in done):
            return self._measured(f"evaluate {stage}", done) + LEAST
        return options.seconds + LEAST

    def _measured(self, what: str, done: dict[str, dict[str, Any]]) -> float:
        total = 60 * (self.recipe.minutes or 0) or self.spent + max(self.left, 0)
        alike = [f["seconds"] for name, f in done.items() if name.split()[0] == what.split()[0]]
        return max(alike) if alike else AFTERWARDS * total

    @contextmanager
    def running(self) -> Iterator[None]:
        """While entered, the time that passes is noted, so that it counts after a kill too."""
        over = threading.Event()

        def note() -> None:
            while not over.wait(EVERY):
                self._note()

        thread = threading.Thread(target=note, name="clock", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._note()

    def _note(self) -> None:
        try:
            write_json(self.path, {"seconds": round(self.spent, 2)})
        except MiaoError:  # a full disk is told by whom it stops
            return


def moment(text: str) -> datetime:
    """`2026-11-29T07:30` or `07:30`, which is the next time that a clock shows it.

    Raises:
        MiaoError: neither.
    """
    try:
        if "T" in text or " " in text:
            return datetime.fromisoformat(text)
        now, at = datetime.now(), datetime.strptime(text, "%H:%M").time()
    except ValueError as error:
        raise MiaoError(
            f"'{text}' is no time", where="until", fix="write 07:30, or 2026-11-29T07:30"
        ) from error
    today = datetime.combine(now, at)
    return today if today > now else datetime.fromtimestamp(today.timestamp() + 86400)


def _read(path: Path) -> dict[str, Any]:
    found = read_json(path) if path.exists() else {}
    return found if isinstance(found, dict) else {}
