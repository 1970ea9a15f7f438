"""How the learning rate moves over a stage's tokens."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["wsd", "cosine", "linear", "constant"]
"""What `schedule` of a recipe may be; a new one is a name here and a shape below."""


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
    elif schedule == "wsd":
        shape = min(1.0, max(budget - done, 0.0) / max(decay, 1e-9))
    else:
        raise ValueError(f"there is no shape for the schedule '{schedule}'")
    return final + (1 - final) * shape
