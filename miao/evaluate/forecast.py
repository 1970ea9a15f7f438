"""Where a curve of training goes: a fit, an interval, or the word that it is too early."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miao.recipe import of_budget

FEWEST = 6
"""Points, below which nothing is said."""
FARTHEST = 8.0
"""So many times the tokens seen, beyond which nothing is said."""
SKIPPED = 0.1
"""Of the tokens seen: warm-up and the first fall follow no law."""
TOO_WIDE = 0.5
"""Of the way from the last value to the best possible one: an interval that says nothing."""
MOVED = 0.01
"""Of the way from chance to perfect: less may be nothing."""
DROPS = (0.0, 0.05)
"""Shares of the loss that a rate falling to zero takes off beside the power law: the likely ones,
measured on 24 runs of 0.3M to 4.4M (docs, page 21); between them all are tried."""
_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Forecast:
    """The value expected at so many tokens, with a 95 % interval, if all goes on as it did."""

    tokens: float
    value: float
    low: float
    high: float


def decay_of(options: Mapping[str, Any], budget: float) -> tuple[float, float] | None:
    """Tokens at which the rate begins to fall and at which it is zero, by a stage's options; None:
    it falls all the time, or never."""
    if options.get("schedule") != "wsd" or not options.get("decay"):
        return None
    return budget - of_budget(options["decay"], budget, "decay"), budget


def forecast_loss(
    points: Sequence[tuple[float, float]],
    tokens: float,
    decay: tuple[float, float] | None = None,
) -> Forecast | None:
    """Of (tokens, loss or bits per byte): E + A·t^-b, as scaling laws have it; None: too early.

    For each b the rest is linear; the interval is that of the profile likelihood, its noise taken
    from the residuals. Where the rate falls to zero, the loss falls below the law: by a share k at
    the end, linear in the tokens between; k is one more unknown, with what other runs showed of it.

    Args:
        decay: as `decay_of` has it.
    """
    x, y = _usable([(t, value, 1.0) for t, value in points], tokens)[:2]
    if len(x) < FEWEST:
        return None

    def fallen_rate(at: _Array) -> _Array:
        if decay is None:
            return np.zeros_like(at)
        begin, end = decay
        share: _Array = np.clip((at - begin) / max(end - begin, 1.0), 0, 1)
        return share

    middle, spread = sum(DROPS) / 2, (DROPS[1] - DROPS[0]) / 4
    drops = np.linspace(middle - 3 * spread, middle + 3 * spread, 13) if decay else np.zeros(1)
    grid = np.meshgrid(drops, np.geomspace(0.05, 2.0, 100), indexing="ij")
    k, b = (axis.reshape(-1, 1) for axis in grid)
    # y = (E + A (x / tokens)^-b)(1 - k u): two columns, whose normal equations are written out.
    one = 1 - k * fallen_rate(x)
    power = one * (x / tokens) ** -b
    s11, s12, s22 = (one**2).sum(1), (one * power).sum(1), (power**2).sum(1)
    r1, r2, det = one @ y, power @ y, s11 * s22 - s12**2
    level, slope = (s22 * r1 - s12 * r2) / det, (s11 * r2 - s12 * r1) / det
    misfit = ((y - level[:, None] * one - slope[:, None] * power) ** 2).sum(1)
    lasting = (1 - k * fallen_rate(np.array([tokens])))[:, 0]
    value, variance = (level + slope) * lasting, lasting**2 * (s22 - 2 * s12 + s11) / det
    sound = (slope >= 0) & (level >= 0)
    if not sound.any():
        return None
    noise = max(float(misfit[sound].min()) / (len(x) - 3), 1e-12)
    if decay:
        misfit = misfit + noise * ((k[:, 0] - middle) / spread) ** 2
    misfit = np.where(sound, misfit, np.inf)
    reach = float(misfit.min()) + noise * _quantile(len(x) - 3) ** 2
    kept = misfit <= reach
    half = np.sqrt((reach - misfit[kept]) * variance[kept])
    low, high = float((value[kept] - half).min()), float((value[kept] + half).max())
    if high - low > TOO_WIDE * float(y.max() - y[-1]):
        return None
    return Forecast(tokens, float(value[misfit.argmin()]), low, high)


def forecast_share(
    points: Sequence[tuple[float, float, float]], tokens: float, chance: float = 0.0
) -> Forecast | None:
    """Of (tokens, share, standard error): a logistic curve from chance to 1 over the logarithm of
    the tokens; None: too early, or nothing has moved.

    The questions are the same at every point, so that their draw moves all points alike: half of
    the standard error is the least noise that is believed.
    """
    x, y, errors = _usable(points, tokens)
    if len(x) < FEWEST:
        return None
    errors, freedom = np.maximum(errors, 1e-3), len(x) - 2
    centre = float(np.log(x).mean())

    def curves(at: _Array, rate: _Array, level: _Array) -> _Array:
        steps = rate[:, None] * (np.log(at)[None] - centre) + level[:, None]
        shape: _Array = chance + (1 - chance) / (1 + np.exp(-np.clip(steps, -60, 60)))
        return shape

    rates, levels = (0.0, 4.0), (-8.0, 8.0)
    for _ in range(3):  # each time where the last one found the likely ones, and a step beyond
        grid = np.meshgrid(np.linspace(*rates, 61), np.linspace(*levels, 61))
        rate, level = (axis.ravel() for axis in grid)
        misfit = (((curves(x, rate, level) - y) / errors) ** 2).sum(1)
        least = float(misfit.min())
        kept = misfit <= least + max(least / freedom, 0.25) * _quantile(freedom) ** 2
        rates, levels = (_wider(axis[kept], axis) for axis in (rate, level))
    values = curves(np.array([tokens]), rate, level)[:, 0]
    low, high = float(values[kept].min()), float(values[kept].max())
    if low - chance < MOVED * (1 - chance) or high - low > TOO_WIDE * (1 - float(y[-1])):
        return None
    return Forecast(tokens, float(values[misfit.argmin()]), low, high)


def _wider(kept: _Array, axis: _Array) -> tuple[float, float]:
    step = float(np.diff(np.unique(axis)).max())
    return max(float(kept.min()) - step, float(axis.min())), float(kept.max()) + step


def _usable(
    points: Sequence[tuple[float, float, float]], tokens: float
) -> tuple[_Array, _Array, _Array]:
    """Tokens, values and errors of the points that a law may hold for; none for too far away."""
    sound = [p for p in points if p[0] > 0 and all(map(math.isfinite, p))]
    last = max((p[0] for p in sound), default=0.0)
    sound = [p for p in sound if p[0] >= SKIPPED * last] if tokens <= FARTHEST * last else []
    table = np.array(sound, dtype=np.float64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


def _quantile(freedom: int) -> float:
    """Student's t at 97.5 %, by Cornish and Fisher's expansion: within 4 % from 3 degrees on."""
    z = 1.959964
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2
