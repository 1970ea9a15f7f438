"""Rates, batch, schedule and expected loss of a pretraining, by rules fitted to measured runs.

The numbers are data, `rules.json`, written by `benchmarks/fit_rules.py` from the trials of
`benchmarks/miniseries.py`, with their commit, machine and text. Sizes are parameters outside the
embedding and the head; tokens are those of a vocabulary near the reference's.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("rules.json")
QUANTILES = (0.025, 0.975)
OFTEN = 4
"""Readings of one text from which on, without weight decay, held-out text gets worse."""
MOST_PASSES = 16
"""Over one text, beyond which reading it again teaches next to nothing (arXiv:2305.16264)."""


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Settings:
    """What a pretraining of a size and length is best given; keys of a recipe's `pretrain`."""

    batch_tokens: int
    learning_rate: float
    """AdamW's: embeddings, head, norms."""
    muon_learning_rate: float
    warmup: float
    """Share of the budget."""
    decay: float
    """Share of the budget in which the rate falls to zero."""
    weight_decay: float


@cache
def table() -> dict[str, Any]:
    """The fitted numbers and where they come from."""
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def effective_tokens(
    tokens: float, unique: float | None = None, worth: float | None = None
) -> float:
    """What repeated text is worth, in tokens of new text: U + U·R·(1 - e^(-r/R)), where r is how
    often it is read again (arXiv:2305.16264, equation 5).

    Args:
        unique: tokens of text that there are; None: enough. worth: R (default: the fitted one).
    """
    if unique is None or tokens <= unique:
        return tokens
    worth = float(table()["repeats"]["value"]) if worth is None else worth
    return unique * (1 + worth * (1 - math.exp(-(tokens / unique - 1) / worth)))


def expected_bits(parameters: float, tokens: float, unique: float | None = None) -> Interval:
    """Held-out bits per byte of the reference text, E + B·(1/(D + D0) + A/N^alpha)^beta.

    That is equation 1.5 of arXiv:2001.08361 with a floor E, and with D0 for the first tokens, which
    teach less than a power of them. Below some 200K tokens a training has hardly begun, and what it
    lacks falls off as exp(-(D/d)^p), from what an untrained model takes. The interval is that of
    the fit (a bootstrap over the trials), of what trials scatter around it, and half of that lack.
    Another text has another level.
    """
    law, start = table()["loss"], table()["start"]
    effective = effective_tokens(tokens, unique)
    lack = start["excess"] * math.exp(-((effective / start["tokens"]) ** start["power"]))
    draws = sorted(_law(draw, parameters, effective) for draw in law["draws"])
    low, high = (draws[round(q * (len(draws) - 1))] for q in QUANTILES)
    value = _law(law["best"], parameters, effective)
    scatter = math.hypot(1.96 * float(law["scatter"]), lack / 2) * value
    below, above = value - min(low, value), max(high, value) - value
    value = min(value * (1 + lack), start["untrained"])
    return Interval(value, value - math.hypot(below, scatter), value + math.hypot(above, scatter))


def _law(numbers: dict[str, float], parameters: float, tokens: float) -> float:
    n = numbers
    lack = 1 / (tokens / 1e6 + n["D0"]) + n["A"] * (parameters / 1e6) ** -n["alpha"]
    return n["E"] + n["B"] * float(lack ** n["beta"])


def settings(parameters: float, tokens: float, unique: float | None = None) -> Settings:
    """Batch, peak rates, schedule and weight decay for a pretraining of `parameters` over `tokens`.

    Powers of tokens and size, held within what was measured or is used elsewhere: the batch at
    most 512K slots (of that order from 100M parameters on: arXiv:2505.13738).

    Args:
        unique: tokens of text that there are; None: as many as are read.
    """
    rule = table()["settings"]
    batch = rule["batch"]["value"] * (tokens / 1e6) ** rule["batch"]["tokens"]
    batch = 2 ** round(math.log2(min(max(batch, rule["batch"]["least"]), rule["batch"]["most"])))
    muon = rule["muon"]["value"] * (parameters / 1e6) ** rule["muon"]["size"]
    muon *= (tokens / 1e6) ** rule["muon"]["tokens"]
    muon *= (batch / 2048) ** rule["muon"]["batch"]
    muon = min(max(muon, rule["muon"]["least"]), rule["muon"]["most"])
    text = tokens if unique is None else unique
    return Settings(
        batch_tokens=int(batch),
        learning_rate=_rounded(muon * rule["adam_to_muon"]),
        muon_learning_rate=_rounded(muon),
        warmup=rule["warmup"],
        decay=rule["decay"],
        weight_decay=weight_decay(batch, muon, text),
    )


def weight_decay(batch: int, rate: float, text: float) -> float:
    """By which weights shrink by a factor of e^-k in one reading of the text: they are then an
    average over the updates of the last readings (arXiv:2405.13698), and text that is read many
    times is not learned by heart.

    Args:
        batch: tokens of a step. rate: Muon's peak, which falls as in `settings`. text: its tokens.
    """
    rule = table()["settings"]
    mean_rate, decay = rate * (1 - rule["decay"] / 2), rule["weight_decay"]
    return _rounded(min(decay["per_reading"] * batch / (mean_rate * max(text, 1.0)), decay["most"]))


def _rounded(rate: float) -> float:
    """Two digits: more would claim what was not measured."""
    return float(f"{rate:.1e}")


def forecast(
    share: float, tokens: float, bits: float, parameters: float, decay: float = 0.5
) -> Interval | None:
    """Held-out bits per byte at the end of a pretraining, from what was measured on its way; None:
    it is too early. What the tokens to come will bring by the law, and the fall of the rate.

    Args:
        share: of the budget that is spent; in it `tokens` were read. decay: share of the budget in
            which the rate falls.
    """
    if share <= 0.05 or tokens <= 0:
        return None
    rule = table()["forecast"]
    law = expected_bits(parameters, tokens / share).value / expected_bits(parameters, tokens).value
    if extrapolated(parameters, tokens) and tokens > table()["measured"]["tokens"][1]:
        law = law**0.5  # beyond what was measured the slope is not to be relied on
    to_fall = min(1.0, (1 - share) / decay) if decay else 0.0
    value = bits * law * (1 - rule["undecayed"] * to_fall)
    half = rule["doubt"] * value * (0.15 + 0.85 * to_fall) * (1 + 4 * max(0.0, 0.5 - share))
    return Interval(value, value - half, value + half)


def text_level(compressed: float, size: float, chinese: float) -> float:
    """The bits per byte that a text takes, over those of the text that the law was fitted to.

    Args:
        compressed: bits per byte of a sample under bz2. size: bytes of the sample.
        chinese: share of Chinese.
    """
    rule = table()["text"]
    each = chinese * rule["zh"] + (1 - chinese) * rule["other"]
    level = each * compressed * min(size / 200_000, 1.0) ** rule["size"]
    return float(min(max(level, rule["least"]), rule["most"]))


def extrapolated(parameters: float, tokens: float) -> bool:
    """Whether a run lies outside of the sizes and lengths that the rules were fitted to."""
    measured = table()["measured"]
    return not (
        measured["parameters"][0] <= parameters <= measured["parameters"][1]
        and measured["tokens"][0] <= tokens <= measured["tokens"][1]
    )
