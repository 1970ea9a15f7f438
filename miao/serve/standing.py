"""Where a training stands: how far it is, how long it will take, what is expected at its end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from miao.errors import MiaoError
from miao.evaluate.forecast import decay_of, forecast_loss
from miao.files import read_jsonl
from miao.recipe import STAGES
from miao.report.budgets import budget_of, checkpoint_state, checkpoints, planned
from miao.rundir import RunDir
from miao.serve.curves import CURVES, RunLog, number

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


def happened(run: RunDir, stage: str) -> list[dict[str, Any]]:
    """The checkpoints that are there, and where a break was, as events on the axis of tokens."""
    found = [
        {"x": tokens, "kind": "resumed", "more": f"step {row.get('step')}"[:80]}
        for row in read_jsonl(run.breaks, lambda _: None)[-MOST:]
        if row.get("stage") == stage and (tokens := number(row.get("tokens"))) is not None
    ]
    for path in checkpoints(run, stage)[-MOST:]:
        if (tokens := number(checkpoint_state(path).get("tokens"))) is not None:
            found.append({"x": tokens, "kind": "checkpoint", "more": path.name})
    return found


def band_of(
    run: RunDir, stage: str, points: Sequence[Sequence[float]]
) -> tuple[float, float, float] | None:
    """Low, high and the tokens of what is expected of the held-out text (its points: tokens, bits
    per byte) at the stage's end; None: it has ended, or it is too early to say."""
    if stage not in STAGES or (run.checkpoints(stage) / "result.json").exists():
        return None
    budget = budget_of(run, stage)
    if budget is None or not points or points[-1][0] >= budget:
        return None
    decay = None
    with suppress(MiaoError):
        decay = decay_of(planned(run, stage), budget)
    return _band(tuple(map(tuple, points)), budget, decay)


@lru_cache(maxsize=256)
def _band(
    points: tuple[tuple[float, float], ...], budget: float, decay: tuple[float, float] | None
) -> Any:
    found = forecast_loss(points, budget, decay)
    return None if found is None else (found.low, found.high, found.tokens)


def _memory(pid: int) -> int | None:
    """Bytes that a process has in memory, where the system tells it."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return None
