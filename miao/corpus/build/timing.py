"""How long the steps of the corpus stage took, and the memory that they needed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miao.files import read_json, write_json


@dataclass
class Step:
    """One step of one stage."""

    stage: str
    name: str
    seconds: float = 0.0
    characters: int = 0
    """What went in."""


class Timing:
    """The steps so far, kept in a file through interruptions. Of a step that was broken off, only
    the time that it took in the end counts."""

    def __init__(self, path: Path):
        self.path = path
        written = read_json(path)["steps"] if path.exists() else []
        self.steps = [Step(**step) for step in written]

    @contextmanager
    def step(self, stage: str, name: str) -> Iterator[Step]:
        step = Step(stage, name)
        began = time.monotonic()
        yield step
        step.seconds = round(time.monotonic() - began, 3)
        self.steps = [s for s in self.steps if (s.stage, s.name) != (stage, name)] + [step]
        write_json(self.path, {"steps": [vars(step) for step in self.steps]})

    def to_json(self) -> dict[str, Any]:
        return {
            "steps": [vars(step) for step in self.steps],
            "peak_memory_mib": peak_memory_mib(),
        }


def peak_memory_mib() -> dict[str, int] | None:
    """The largest resident size so far of this process, and of its largest finished child; None
    where the system does not say (Windows)."""
    try:
        import resource
        import sys
    except ImportError:
        return None
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {
        "process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit,
        "worker": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // unit,
    }
