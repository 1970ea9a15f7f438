"""How the learning rate moves over a stage's tokens."""

from __future__ import annotations

import math
from typing import Literal

from miao.recipe import StageOptions, of_budget

Schedule = Literal["wsd", "cosine", "linear", "constant"]


def stage_rate(stage: str, options: StageOptions, done: float, budget: float) -> float:
    """`learning_rate_factor` by the options of a stage."""
    warmup, decay = (
        of_budget(getattr(options, name), budget, f"{stage}.{name}") for name in ("warmup", "decay")
    )
    final = options.final_learning_rate
    return learning_rate_factor(options.schedule, done, budget, warmup, decay, final)


def learning_rate_factor(
    schedule: Schedule, done: float, budget: float, warmup: float, decay: float, final: float
) -> float:
    """The rate as a fraction of its peak, after `done` of `budget` tokens.

    Args:
        warmup: tokens of linear warm-up. decay: tokens of wsd's last, linear part
            (warm-up-stable-decay, arXiv:2404.06395). final: the fraction at the very end.
    """
    if done < warmup:
        return (done + 1e-9) / warmup
    rest = max(budget - warmup, 1e-9)
    progress = min(max((done - warmup) / rest, 0.0), 1.0)
    if schedule == "constant":
        shape = 1.0
    elif schedule == "linear":
        shape = 1 - progress
    elif schedule == "cosine":
        shape = 0.5 * (1 + math.cos(math.pi * progress))
    else:
        shape = min(1.0, max(budget - done, 0.0) / max(decay, 1e-9))
    return final + (1 - final) * shape
