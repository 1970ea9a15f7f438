"""What a run of `miao grow` came to, beside what was expected; kept for the next plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from miao.console import say, warn
from miao.files import read_json, read_jsonl, write_json
from miao.grow import BOOK
from miao.grow.forecast import halfway
from miao.rundir import RunDir


def conclude(path: Path, book: dict[str, Any]) -> None:
    """Says forecast and outcome, and writes them into the book of the run."""
    run = RunDir(path)
    bits = pretrained_bits(run)
    seconds = float(read_json(path / "clock.json")["seconds"])
    wanted = book["expected"]["minutes"] * 60
    book["outcome"] = {"bits_per_byte": bits, "seconds": seconds}
    if (later := halfway(run)) is not None:
        book["halfway"] = later
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


def pretrained_bits(run: RunDir) -> float | None:
    """Bits per byte after pretraining: the mean over the sources."""
    for line in read_jsonl(run.eval_results):
        if line.get("stage") == "pretrain":
            found = [s["value"] for s in line["scores"] if s["task"] == "bits per byte"]
            return sum(found) / len(found) if found else None
    return None
