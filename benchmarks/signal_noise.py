"""Which tasks show that a model has learned, and at what noise: over the checkpoints of runs.

    python benchmarks/signal_noise.py runs/a runs/b ... --tasks early --questions 50

Runs of one shape that differ in their seed are given as one word: runs/a1=runs/a2. As "Signal and
Noise" (arXiv:2508.13144) has it, a task is worth its time when it moves more between checkpoints
far apart than it wavers between neighbouring ones and between seeds. Checkpoints have to be kept
(`keep_every: 0.1`). What was measured is kept beside the table and not measured again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from miao.evaluate.results.ensemble import part_of
from miao.evaluate.results.sets import ask_set
from miao.evaluate.tasks.prompts import Encoder
from miao.files import read_json
from miao.inspect.models import load_checkpoint
from miao.recipe import DuringOptions
from miao.rundir import RunDir
from miao.train.watch.tasks import prepare

Curve = dict[str, list[tuple[float, float]]]
"""Per measure: (tokens, value centred on chance) at every checkpoint."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", help="RUN, or RUN=RUN=... that differ in their seed")
    parser.add_argument("--tasks", nargs="+", default=["early"], help="tasks and sets")
    parser.add_argument("--questions", type=int, default=50, help="of each subject at most")
    parser.add_argument("--data", help="the folder of the tasks' files")
    parser.add_argument("--out", type=Path, default=Path("signal.json"), help="what was measured")
    options = parser.parse_args()
    work = prepare(DuringOptions(options.tasks, questions=options.questions, data=options.data))
    kept: dict[str, Any] = read_json(options.out) if options.out.exists() else {}
    groups = [[RunDir(Path(name)) for name in word.split("=")] for word in options.runs]
    for run in [run for group in groups for run in group]:
        for step in sorted(run.checkpoints("pretrain").glob("step-*")):
            key = f"{run.path.name}/{step.name}/{'+'.join(options.tasks)}/{options.questions}"
            if key in kept:
                continue
            tokens = read_json(step / "state.json")["tokens"]
            kept[key] = {"run": run.path.name, "tokens": tokens, "values": measure(step, work)}
            options.out.write_text(json.dumps(kept, indent=1))
            print(f"{key}: {tokens:,} tokens", file=sys.stderr)
    found: dict[str, Curve] = {}
    for key in sorted(kept):
        one = kept[key]
        for name, value in one["values"].items():
            found.setdefault(one["run"], {}).setdefault(name, []).append((one["tokens"], value))
    print_table([[found[run.path.name] for run in group] for group in groups])


def measure(step: Path, work: Any) -> dict[str, float]:
    """Centred accuracy of every part, and the centred probability of its right options."""
    model, tokenizer = load_checkpoint(step)
    values: dict[str, float] = {}
    for chosen, prepared in work:
        asked = {one.task.name: one.answers for one in ask_set(model, Encoder(tokenizer), prepared)}
        parts = (
            [(p.name, p.language, p.task, p.subjects) for p in chosen.parts]
            if chosen
            else [(name, "", name, ()) for name in asked]
        )
        for name, language, task, subjects in parts:
            answers = [a for a in asked[task] if not subjects or a.item.subject in subjects]
            part = part_of(name, language, answers)
            title = f"{name} {language}".strip()
            values[title] = part.centred
            soft = [p for answer in answers if (p := answer.probability) is not None]
            if soft and part.chance:
                values[f"{title} (p)"] = (np.mean(soft) - part.chance) / (1 - part.chance)
    return {name: float(value) for name, value in values.items()}


def noise_of_neighbours(curves: Sequence[Sequence[float]]) -> float:
    """Standard deviation of a checkpoint around the line through its neighbours."""
    bends = [c[i - 1] - 2 * c[i] + c[i + 1] for c in curves for i in range(1, len(c) - 1)]
    return math.sqrt(sum(b * b for b in bends) / 6 / len(bends)) if bends else math.nan


def noise_of_seeds(groups: Sequence[Sequence[Sequence[float]]]) -> float:
    """Standard deviation between runs of the same group at the same checkpoint."""
    spreads = [
        np.var(values, ddof=1)
        for group in groups
        if len(group) > 1
        for values in zip(*group, strict=False)
    ]
    return math.sqrt(float(np.mean(spreads))) if spreads else math.nan


def print_table(groups: list[list[Curve]]) -> None:
    """Per measure in points: the rise over training, its noise, and their ratio."""
    print("| task | first | last | rise | between neighbours | between seeds | signal / noise |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for name in groups[0][0]:
        lines = [[[v for _, v in sorted(run[name])] for run in group] for group in groups]
        flat = [line for group in lines for line in group]
        ends = max(len(flat[0]) // 5, 1)
        first = float(np.mean([np.mean(line[:ends]) for line in flat]))
        last = float(np.mean([np.mean(line[-ends:]) for line in flat]))
        near, seeds = noise_of_neighbours(flat), noise_of_seeds(lines)
        noise = max(v for v in (near, seeds, 1e-9) if not math.isnan(v))
        rows.append((abs(last - first) / noise, name, first, last, near, seeds))
    for ratio, name, first, last, near, seeds in sorted(rows, reverse=True):
        cells = [100 * v for v in (first, last, last - first, near, seeds)]
        print(f"| {name} | " + " | ".join(f"{cell:.1f}" for cell in cells) + f" | {ratio:.1f} |")


if __name__ == "__main__":
    main()
