"""Where the held-out bits per byte of a pretraining that is under way will end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from miao import rules
from miao.files import read_jsonl
from miao.rundir import RunDir

UNDECAYED = 0.06
"""Share of the bits per byte that the falling rate still takes off one that has not fallen."""
DOUBT = 0.03
"""Of the value: half of the interval when nothing of the rate's fall has been seen."""


def forecast(
    points: Sequence[tuple[float, float, float]], parameters: float, decay: float = 0.5
) -> tuple[float, float, float] | None:
    """The final value and its interval, from the newest point; None: there is none yet.

    What the rules say that the tokens which are to come will bring, and what the falling rate will.

    Args:
        points: (share of the budget, tokens, held-out bits per byte), in order.
        parameters: outside of the embedding. decay: share of the budget in which the rate falls.
    """
    sound = [point for point in points if point[0] > 0.05 and point[1] > 0]
    if not sound:
        return None
    share, tokens, bits = sound[-1]
    law = rules.expected_bits(parameters, tokens / share).value
    law /= rules.expected_bits(parameters, tokens).value
    if rules.extrapolated(parameters, tokens):
        law = law**0.5  # beside the sizes that were measured the slope is not to be relied on
    to_fall = min(1.0, (1 - share) / decay)
    value = bits * law * (1 - UNDECAYED * to_fall)
    half = DOUBT * bits * (to_fall + 0.1) * (1 + max(0.0, 0.5 - share))
    return value, value - half, value + half


def halfway(run: RunDir) -> tuple[float, float, float] | None:
    """What was to be said of a finished pretraining when half of its time was over."""
    points = [p for p in curve(read_jsonl(run.metrics)) if p[0] <= 0.55]
    return forecast(points, inner_parameters(run)) if points else None


def curve(lines: Sequence[dict[str, Any]]) -> list[tuple[float, float, float]]:
    """The points of a pretraining in its log."""
    return [
        (line["share"], line["tokens"], line["heldout_bits_per_byte"])
        for line in lines
        if line.get("stage") == "pretrain" and "share" in line and "heldout_bits_per_byte" in line
    ]


def inner_parameters(run: RunDir) -> float:
    from miao.model import count_parameters, load_config

    return float(count_parameters(load_config(run.model("pretrain"))).inner)
