"""From the trials of miniseries.py to the package's rules.

    python benchmarks/fit_rules.py DIR/trials.jsonl                 # what would be written
    python benchmarks/fit_rules.py DIR/trials.jsonl --write         # miao/rules.json
    python benchmarks/fit_rules.py DIR/trials.jsonl --plot docs/images/rules     # rules.en.svg, zh

Bits per byte by the law of `rules.expected_bits`, by least squares of relative errors over a grid;
its interval by a bootstrap of residuals. Trials of `heldout` and of other seeds, rates,
vocabularies, amounts of text take no part in that fit. The best rate of each cell by a parabola
over log2 of the rate; then powers of size, tokens and batch through these.
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, parser_for, table
from miniseries import Trial, good_batch, trials
from numpy.typing import NDArray

sys.path.insert(0, str(ROOT))

from miao import rules
from miao.files import read_jsonl, write_json
from miao.grow.found import REFERENCE, bytes_per_token

Array = NDArray[np.float64]
NAMES = ("E", "B", "beta", "D0", "A", "alpha")
DRAWS = 100
FEWEST_TOKENS = 400_000
"""Below, a trial has hardly begun to learn, and no law holds."""
HELDOUT_BYTES = 240_000
"""Of text that miniseries.py measures on."""
GRID = (
    np.geomspace(0.05, 0.9, 36), np.array([0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0]),
    np.geomspace(3e-3, 3.0, 30), np.geomspace(0.2, 1.6, 13),
)  # fmt: skip
"""beta, D0, A, alpha that are tried."""
LABELS = {
    "en": ("tokens read", "bits per byte, held out", "parameters"),
    "zh": ("读过的词元", "留出文本每字节比特数", "参数量"),
}
"""Of the plot."""


def main() -> int:
    parser = parser_for(__doc__)
    parser.add_argument("trials", type=Path)
    parser.add_argument("--write", action="store_true", help="into miao/rules.json")
    parser.add_argument("--plot", type=Path)
    parser.add_argument(
        "--all", action="store_true", help="fit the trials of `heldout` too, once they are compared"
    )
    options = parser.parse_args()
    rows = [row for row in read_jsonl(options.trials) if row["n"] != "tiny"]
    for row in rows:
        row["trial"] = Trial(
            **{name: row[name] for name in Trial.__dataclass_fields__ if name in row}
        )
    predicted = set() if options.all else {trial.key for trial in trials("heldout")}
    fitted = [row for row in surface(rows) if row["key"] not in predicted]
    fitted = [row for row in fitted if row["tokens"] >= FEWEST_TOKENS]
    found = fit_loss(fitted)
    content = rules.table() | {
        "provenance": provenance(rows),
        "measured": {
            name: [min(row[name] for row in fitted), max(row[name] for row in fitted)]
            for name in ("parameters", "tokens")
        },
        "loss": found,
    }
    if begun := [row for row in rows if row["trial"] in set(trials("start"))]:
        content["start"] = fit_start(surface(rows) + begun, found["best"])
        content["measured"]["tokens"][0] = min(row["tokens"] for row in begun)
    if repeated := [row for row in rows if row["unique"]]:
        content["repeats"] = fit_repeats(repeated, found["best"])
    if changed := fit_rates(rows):
        content["settings"] = content["settings"] | changed
    show(content, rows, predicted)
    if options.write:
        write_json(rules.FILE, content)
    if options.plot:
        plot(content, surface(rows), options.plot)
    return 0


def surface(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The trials that differ in size and length only."""
    return [
        row for row in rows
        if row["trial"] == Trial(row["n"], row["tokens"], batch=good_batch(row["tokens"]))
    ]  # fmt: skip


def fit_loss(rows: list[dict[str, Any]]) -> dict[str, Any]:
    size = np.array([row["parameters"] / 1e6 for row in rows])
    tokens = np.array([row["tokens"] / 1e6 for row in rows])
    bits = np.array([row["bits"] for row in rows])
    best = _fit(size, tokens, bits)
    residuals = np.log(bits) - np.log(_law(best, size, tokens))
    scatter = math.sqrt(float((residuals**2).sum()) / max(1, len(rows) - len(NAMES)))
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(DRAWS):
        # of residuals, not of trials: every cell keeps its place in the design
        noise = rng.choice(residuals, len(rows)) * math.sqrt(len(rows) / (len(rows) - 3))
        draws.append(_numbers(_fit(size, tokens, _law(best, size, tokens) * np.exp(noise))))
    return {"best": _numbers(best), "draws": draws, "scatter": round(scatter, 5)}


def _law(numbers: Array, size: Array, tokens: Array) -> Array:
    e, b, beta, first, a, alpha = numbers
    value: Array = e + b * (1 / (tokens + first) + a * size**-alpha) ** beta
    return value


def _fit(size: Array, tokens: Array, bits: Array) -> Array:
    """Least squares of relative errors. What is within the bracket given, E and B are linear, so
    all points of a grid are solved at once; what comes out negative is no law."""
    grid = np.meshgrid(*GRID, indexing="ij")
    beta, first, a, alpha = (axis.ravel()[:, None] for axis in grid)
    shape = (1 / (tokens[None] + first) + a * size[None] ** -alpha) ** beta / bits[None]
    one = np.broadcast_to(1 / bits, shape.shape)
    # normal equations of two unknowns, weighted with 1/bits
    oo, os, ss = (one * one).sum(1), (one * shape).sum(1), (shape * shape).sum(1)
    so, st = one.sum(1), shape.sum(1)
    determinant = oo * ss - os * os
    e = np.clip((so * ss - st * os) / determinant, 0.0, None)
    b = (st - e * os) / ss
    misfit = ((e[:, None] * one + b[:, None] * shape - 1) ** 2).sum(1)
    n = int(np.where(b > 0, misfit, np.inf).argmin())
    return np.array([e[n], b[n], beta[n, 0], first[n, 0], a[n, 0], alpha[n, 0]])


def _numbers(numbers: Array) -> dict[str, float]:
    return {name: round(float(v), 5) for name, v in zip(NAMES, numbers, strict=True)}


def fit_repeats(rows: list[dict[str, Any]], law: dict[str, float]) -> dict[str, Any]:
    """R* of arXiv:2305.16264 by least squares; each size has a level of its own. Of the weight
    decays that were tried the best counts."""
    cells: dict[Any, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: -float(row["bits"])):
        cells[row["n"], row["width"], row["unique"], row["tokens"]] = row
    rows = list(cells.values())

    def misfit(worth: float) -> float:
        by_size = defaultdict(list)
        for row in rows:
            seen = rules.effective_tokens(row["tokens"], row["unique_tokens"], worth)
            seen *= bytes_per_token(row["vocab"], 1.0) / bytes_per_token(REFERENCE, 1.0)
            value = _law(np.array(list(law.values())), row["parameters"] / 1e6, seen / 1e6)
            by_size[row["n"], row["width"]].append(math.log(float(value)) - math.log(row["bits"]))
        return sum(float(np.var(values)) * len(values) for values in by_size.values())

    grid = np.geomspace(0.5, 100, 400)
    costs = np.array([misfit(float(worth)) for worth in grid])
    kept = grid[costs <= costs.min() * (1 + 4 / max(1, len(rows) - 3))]
    return {
        "value": round(float(grid[costs.argmin()]), 2),
        "low": round(float(kept.min()), 2), "high": round(float(kept.max()), 2),
        "trials": len(rows),
    }  # fmt: skip


def fit_start(rows: list[dict[str, Any]], law: dict[str, float]) -> dict[str, float]:
    """What short trainings take beyond the law, excess · exp(-(D/tokens)^power) of it, and at most
    what an untrained model takes, to which every token is as likely."""
    size = np.array([row["parameters"] / 1e6 for row in rows])
    tokens = np.array([float(row["tokens"]) for row in rows])
    beyond = np.array([row["bits"] for row in rows])
    beyond = beyond / _law(np.array(list(law.values())), size, tokens / 1e6) - 1
    grid = np.meshgrid(np.geomspace(0.1, 2, 60), np.geomspace(100, 1e5, 60),
                       np.linspace(0.2, 1.5, 66), indexing="ij")  # fmt: skip
    excess, first, power = (axis.ravel()[:, None] for axis in grid)
    misfit = ((excess * np.exp(-((tokens / first) ** power)) - beyond) ** 2).sum(1)
    n = int(misfit.argmin())
    of = rows[-1]
    bytes_per_token = HELDOUT_BYTES / of["heldout_tokens"]
    return {
        "excess": round(float(excess[n, 0]), 4), "tokens": round(float(first[n, 0])),
        "power": round(float(power[n, 0]), 3),
        "untrained": round(math.log2(of["vocab"]) / bytes_per_token, 4), "trials": len(rows),
        "error": round(float(np.sqrt(misfit[n] / len(rows))), 4),
    }  # fmt: skip


def fit_rates(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The best Muon rate and batch of each cell that has at least three rates of a batch."""
    cells: dict[tuple[float, int], dict[int, dict[float, float]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for row in rows:
        plain = Trial(row["n"], row["tokens"], batch=row["batch"], adam=row["adam"],
                      muon=row["muon"])  # fmt: skip
        if row["trial"] == plain and math.isclose(row["adam"], 0.15 * row["muon"], rel_tol=0.01):
            cells[row["parameters"], row["tokens"]][row["batch"]][row["muon"]] = row["bits"]
    points = []
    for (size, tokens), batches in cells.items():
        tops = {
            batch: lowest(list(map(math.log2, by_rate)), list(by_rate.values()))
            for batch, by_rate in batches.items()
            if len(by_rate) >= 3
        }
        for batch, (rate, bits) in tops.items():
            points.append((size / 1e6, tokens / 1e6, batch / 2048, rate, bits, min(batches)))
    if len({point[:2] for point in points}) < 3:
        return {}
    design = np.array([[1, math.log2(p[0]), math.log2(p[1]), math.log2(p[2])] for p in points])
    target = np.array([p[3] for p in points])
    # a weak prior on no dependence: few cells, and a power that is not there harms far away
    ridge = np.diag([0.0, 0.5, 0.5, 0.5])
    solved = np.linalg.solve(design.T @ design + ridge, design.T @ target)
    least, most = 2 ** float(target.min()), 2 ** float(target.max())
    best_batch = []
    for cell in {point[:2] for point in points}:
        of_cell = [p for p in points if p[:2] == cell]
        if len(of_cell) >= 3:
            place, _ = lowest([math.log2(p[2]) for p in of_cell], [p[4] for p in of_cell])
            best_batch.append((cell, place))
    found: dict[str, Any] = {
        "muon": {
            "value": round(2 ** float(solved[0]), 5), "size": round(float(solved[1]), 3),
            "tokens": round(float(solved[2]), 3), "batch": round(float(solved[3]), 3),
            "least": round(least / 4, 5), "most": round(most * 1.5, 5),
        },
        "cells": [
            {"parameters": p[0], "tokens": p[1], "batch": int(p[2] * 2048),
             "best_muon": round(2 ** p[3], 5), "bits": round(p[4], 4)} for p in points
        ],
    }  # fmt: skip
    if len(best_batch) >= 3:
        x = np.array([math.log2(cell[1]) for cell, _ in best_batch])
        y = np.array([place for _, place in best_batch])
        slope = float(np.polyfit(x, y, 1)[0])
        level = float(y.mean() - slope * x.mean())
        found["batch_measured"] = {"value": round(2048 * 2**level), "tokens": round(slope, 3)}
    return found


def lowest(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """The vertex of the parabola through the points nearest to the lowest, within their range."""
    order = np.argsort(x)
    xs, ys = np.array(x)[order], np.array(y)[order]
    middle = min(max(int(ys.argmin()), 1), len(xs) - 2)
    near = slice(middle - 1, middle + 2)
    a, b, c = np.polyfit(xs[near], ys[near], 2)
    if a <= 0:
        return float(xs[ys.argmin()]), float(ys.min())
    place = float(np.clip(-b / (2 * a), xs[0], xs[-1]))
    return place, float(a * place**2 + b * place + c)


def provenance(rows: list[dict[str, Any]]) -> dict[str, Any]:
    fact = rows[-1]["facts"]
    return {
        "script": "benchmarks/miniseries.py, benchmarks/fit_rules.py",
        "trials": len(rows),
        "text": "held-out documents of a mix of encyclopedia, books, laws and manuals, three parts "
        "Chinese and one English; vocabulary 6,400, rows of 256",
        "when": fact["time"], "commit": fact["commit"], "machine": fact["processor"],
        "torch": fact["versions"]["torch"], "precision": "fp32",
    }  # fmt: skip


def show(content: dict[str, Any], rows: list[dict[str, Any]], predicted: set[str]) -> None:
    law = content["loss"]["best"]
    print({**law, "scatter": round(content["loss"]["scatter"], 4)})
    print("repeats", content["repeats"], "\nsettings", json.dumps(content["settings"], indent=1))
    lines = []
    for row in sorted(surface(rows), key=lambda row: (row["parameters"], row["tokens"])):
        said = rules._law(law, row["parameters"], row["tokens"])
        lines.append({
            "size": row["parameters"], "tokens": row["tokens"], "bits": f"{row['bits']:.4f}",
            "law": f"{said:.4f}", "off": f"{said / row['bits'] - 1:+.2%}",
            "": "predicted, not fitted" if row["key"] in predicted else "",
        })  # fmt: skip
    for line in table(["size", "tokens", "bits", "law", "off", ""], lines):
        print(line)


def plot(content: dict[str, Any], rows: list[dict[str, Any]], stem: Path) -> None:
    """The measured cells and the law through them, in English and Chinese: STEM.en.svg, .zh.svg;
    dotted where the law is extrapolated, hollow what took no part in the fit."""
    import matplotlib  # type: ignore[import-not-found, import-untyped, unused-ignore]

    matplotlib.use("svg")
    import matplotlib.pyplot as plt  # type: ignore[import-not-found, import-untyped, unused-ignore]

    # letters are the reader's: what this machine has no font for is no fault
    warnings.filterwarnings("ignore", "Glyph .* missing from font")
    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "rules", "font.family": "sans-serif"}
    best, measured = content["loss"]["best"], content["measured"]
    for language, (tokens_said, bits_said, size_said) in LABELS.items():
        figure, axis = plt.subplots(figsize=(7, 4.2))
        for number, size in enumerate(sorted({row["parameters"] for row in rows})):
            color, inside = f"C{number}", in_measured(measured["parameters"], size)
            mine = [row for row in rows if row["parameters"] == size]
            for row in mine:
                fitted = inside and in_measured(measured["tokens"], row["tokens"])
                face = color if fitted else "none"
                axis.plot(row["tokens"], row["bits"], "o", color=color, markerfacecolor=face)
            first, last = measured["tokens"]
            for start, stop, style in ((1e5, first, ":"), (first, last, "-"), (last, 3.2e7, ":")):
                grid = np.geomspace(start, stop, 30)
                law = [rules._law(best, size, tokens) for tokens in grid]
                axis.plot(grid, law, style if inside else ":", color=color, linewidth=1)
            axis.plot([], [], "o-", color=color, label=f"{size / 1e6:.2f}M")
        axis.set(xscale="log", xlabel=tokens_said, ylabel=bits_said)
        axis.legend(title=size_said, frameon=False)
        path = stem.with_name(f"{stem.name}.{language}.svg")
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)


def in_measured(span: Sequence[float], value: float) -> bool:
    return span[0] <= value <= span[1]


if __name__ == "__main__":
    sys.exit(main())
