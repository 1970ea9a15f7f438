"""How well a score tells models apart that are known to be better and worse.

    python benchmarks/miniseries.py --work DIR --trials surface --keep --data ...
    python benchmarks/models_apart.py DIR

For every kept model of a miniseries: its score (asked once, kept in DIR/scores) beside its bits per
byte on held-out text. Prints the rise of each task over the noise around the line over bits per
byte, rank correlations, and how many pairs of models are ordered rightly and shown to differ.
"""

from __future__ import annotations

import math
import sys
from argparse import Namespace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
from common import ROOT, parser_for

sys.path.insert(0, str(ROOT))

from miao.commands.eval import main as evaluate
from miao.evaluate.results.compare_scores import compare_scores
from miao.evaluate.results.ensemble import BOTH, Ensemble, ensemble_from_json
from miao.evaluate.statistics import holm
from miao.files import read_jsonl

APART = (0.0, 0.05, 0.1, 0.2, 0.3, math.inf)


def main() -> int:
    parser = parser_for(__doc__)
    parser.add_argument("work", type=Path, help="of miniseries.py: trials.jsonl, models/")
    parser.add_argument("--tasks", default="early", help="a set of tasks")
    options = parser.parse_args()
    bits = {row["key"]: row["bits"] for row in read_jsonl(options.work / "trials.jsonl")}
    places = {key: options.work / "models" / key.replace(" ", "_") for key in bits}
    found = {key: scored(place, options) for key, place in places.items() if place.is_dir()}
    keys = sorted(found, key=lambda key: -bits[key])
    values = np.array([bits[key] for key in keys])
    for key in keys:
        score = found[key].score()
        print(f"{bits[key]:.3f}  {100 * score.value:5.1f} ± {100 * score.stderr:.1f}  {key}")
    print("| task | rise | noise | signal / noise | rank correlation |\n|---|---|---|---|---|")
    for n, part in enumerate(found[keys[0]].parts):
        column = [found[key].parts[n].centred for key in keys]
        print_row(f"{part.name} {part.language}", values, column)
    for language in (None, *found[keys[0]].languages):
        print_row(language or BOTH, values, [found[key].score(language).value for key in keys])
    print_pairs([(bits[key], folder(places[key], options)) for key in keys], options.tasks)
    return 0


def folder(model: Path, options: Namespace) -> Path:
    return options.work / "scores" / model.name.replace("=", "")


def scored(model: Path, options: Namespace) -> Ensemble:
    """The score of a model, asked now if it was not."""
    lines = folder(model, options) / "eval_results.jsonl"
    if not lines.exists():
        evaluate([str(model), "--tasks", options.tasks, "--out", str(lines.parent)])
    record = [r for r in read_jsonl(lines) if r.get("task") == options.tasks][-1]
    return ensemble_from_json(record["ensemble"])


def print_row(name: str, bits: np.ndarray, column: list[float]) -> None:
    """Of a line over bits per byte: from the worst to the best model, and the scatter around it."""
    values = 100 * np.array(column)
    slope, level = np.polyfit(bits, values, 1)
    noise = (values - slope * bits - level).std(ddof=2)
    rise = slope * (bits.min() - bits.max())
    ranks = np.corrcoef(np.argsort(np.argsort(-bits)), np.argsort(np.argsort(values)))[0, 1]
    print(f"| {name} | {rise:.1f} | {noise:.2f} | {rise / noise:.1f} | {ranks:.2f} |")


def print_pairs(models: list[tuple[float, Path]], tasks: str) -> None:
    """By how far apart their bits per byte are: all pairs of models, from worse to better."""
    rows = []
    for (worse, a), (better, b) in combinations(models, 2):
        paths = [str(path / "benchmarks" / "model") for path in (a, b)]
        one = next(d for d in compare_scores(paths, tasks) if d.language == BOTH)
        p_value = math.erfc(abs(one.value) / one.stderr / math.sqrt(2)) if one.stderr else 1.0
        rows.append((worse - better, one.value, p_value))
    adjusted = holm([p for *_, p in rows])
    print("| bits per byte apart | pairs | rightly ordered | p < 0.05: right, wrong | Holm |")
    print("|---|---|---|---|---|")
    for low, high in pairwise(APART):
        some = [(v, p, h) for (d, v, p), h in zip(rows, adjusted, strict=True) if low <= d < high]
        shown, whole = (
            ", ".join(
                str(sum(p[n] < 0.05 and (p[0] > 0) is right for p in some))
                for right in (True, False)
            )
            for n in (1, 2)
        )
        ordered = sum(v > 0 for v, *_ in some)
        print(f"| {low} to {high} | {len(some)} | {ordered} | {shown} | {whole} |")


if __name__ == "__main__":
    sys.exit(main())
