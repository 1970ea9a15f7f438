"""How long the steps of the corpus stage took, and the memory that they needed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Step:
    """One step of one stage."""

    stage: str
    name: str
    seconds: float = 0.0
    characters: int = 0
    """What went in."""


@dataclass
class Timing:
    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, stage: str, name: str) -> Iterator[Step]:
        step = Step(stage, name)
        self.steps.append(step)
        began = time.monotonic()
        yield step
        step.seconds = time.monotonic() - began

    def to_json(self) -> dict[str, Any]:
        return {
            "steps": [{**vars(step), "seconds": round(step.seconds, 3)} for step in self.steps],
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
