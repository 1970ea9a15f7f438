"""What a run of `miao grow` came to, beside what was expected; kept for the next plan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from miao import rules
from miao.console import say, warn
from miao.errors import MiaoError
from miao.files import read_json, read_jsonl, write_json
from miao.grow import BOOK
from miao.grow.found import Found, Source, expected
from miao.rundir import RunDir

KNOWN, FOREIGN = 0.025, 0.045
"""Doubt of the level, of its value, when this text was grown from before; when others were."""
PACES = (0.5, 2.0)


@dataclass(frozen=True)
class Earlier:
    """What the runs of `miao grow` beside this one showed."""

    level: float = 1.0
    """Bits per byte over those that the rules and the text let expect of the tokens read."""
    pace: float = 1.0
    """Tokens per second over what was measured before it began."""
    runs: int = 0
    doubt: float = 0.0
    """Half of the level's interval, of its value."""


def earlier(out: Path, host: str, found: Found) -> Earlier:
    """Level: geometric mean over the runs that read the same text, or else over all, drawn towards
    1 as they tell little of another text. Pace: the median over those of this machine, drawn
    likewise: a measurement that other work disturbed misleads no later plan."""
    same, other, paces = list[float](), list[float](), list[float]()
    text = _text_of(found.to_json())
    for path in sorted(out.glob(f"*/{BOOK}")):
        try:
            book = read_json(path)
            level, pace = book["outcome"]["level"], book["outcome"]["pace"]
            if level:
                (same if _text_of(book["found"]) == text else other).append(math.log(level))
            if pace and book["machine"]["host"] == host:
                paces.append(math.log(min(max(pace, PACES[0]), PACES[1])))
        except (MiaoError, KeyError, TypeError, ValueError):
            continue
    pace = math.exp(median(paces or [0.0]) * len(paces) / (len(paces) + 1))
    if same:
        return Earlier(math.exp(sum(same) / len(same)), pace, len(same), KNOWN)
    level = math.exp(sum(other) / (len(other) + 2))
    return Earlier(level, pace, len(other), FOREIGN if other else rules.table()["text"]["doubt"])


def _text_of(found: dict[str, Any]) -> list[tuple[str, float]]:
    kept = (s for s in found["sources"] if s["kind"] == "document")
    return sorted((s["name"], round(s["bytes"])) for s in kept)


def conclude(path: Path, book: dict[str, Any]) -> None:
    """Says forecast and outcome, and writes them into the book of the run."""
    run = RunDir(path)
    bits = pretrained_bits(run)
    seconds = float(read_json(path / "clock.json")["seconds"])
    wanted = book["expected"]["minutes"] * 60
    lines = read_jsonl(run.metrics)
    forecasts = foretold(lines)
    later = next((f[1:] for f in reversed(forecasts) if f[0] <= 0.55), None)
    book["outcome"] = {"bits_per_byte": bits, "seconds": seconds} | residuals(
        run, lines, book, bits
    )
    book["forecasts"], book["halfway"] = forecasts, later
    write_json(path / BOOK, book)
    if bits is not None:
        value, low, high = book["expected"]["bits_per_byte"]
        said = f"planned {value:.3f} ({low:.2f} to {high:.2f}), "
        if later:
            said += f"halfway {later[0]:.3f} ({later[1]:.3f} to {later[2]:.3f}), "
        said += f"outcome {bits:.3f} ({bits / value - 1:+.1%})"
        say(f"  bits per byte of held-out text: {said}")
    say(f"  time: {seconds / 60:.2f} of {wanted / 60:g} minutes ({seconds / wanted - 1:+.1%})")
    if seconds > 1.03 * wanted and not book["wish"].get("until"):
        warn("it took longer than asked: something else took the machine when the time was up")


def foretold(lines: list[dict[str, Any]]) -> list[list[float]]:
    """What was forecast while it pretrained: share of the time, value, lower and upper bound."""
    keys = ("share", "forecast", "forecast_low", "forecast_high")
    return [[line[key] for key in keys] for line in lines if "forecast" in line]


def residuals(
    run: RunDir, lines: list[dict[str, Any]], book: dict[str, Any], bits: float | None
) -> dict[str, float | None]:
    """What the next plan learns: the level over what the rules say of the tokens that were read,
    and the speed over what was measured; None where the model was not the plan's own."""
    from miao.model import count_parameters, load_config

    best, facts = book["plan"]["candidates"][0], run.facts().get("pretrain", {})
    inner = count_parameters(load_config(run.model("pretrain"))).inner
    trained = (line for line in lines if line.get("stage") == "pretrain")
    read = [line["tokens"] for line in trained if "tokens" in line]
    is_own = inner == best["inner"] and not book["plan"].get("goes_on")
    if bits is None or not is_own or not read or not facts.get("seconds"):
        return {"level": None, "pace": None}
    found = Found(**book["found"] | {"sources": [Source(**s) for s in book["found"]["sources"]]})
    law = expected(found, inner, best["vocabulary"], read[-1]).value
    measured = best["tokens_per_second"] / book["plan"].get("pace", 1.0)
    pace = read[-1] / facts["seconds"] / measured
    return {"level": bits / (law * found.level), "pace": pace}


def pretrained_bits(run: RunDir) -> float | None:
    """Bits per byte after pretraining: the mean over the sources."""
    for line in read_jsonl(run.eval_results):
        if line.get("stage") == "pretrain":
            found = [s["value"] for s in line["scores"] if s["task"] == "bits per byte"]
            return sum(found) / len(found) if found else None
    return None
