"""`miao eval stages RUN ...`: every stage of some runs side by side, and what each has changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from miao.console import print_table, say, warn
from miao.errors import MiaoError
from miao.evaluate.statistics import compare_paired
from miao.files import read_jsonl
from miao.language import Parser
from miao.recipe import STAGES
from miao.rundir import RunDir

Record = dict[str, Any]
TOTALS = ("multiple choice", "preference (likelihood)", "preference (reward)")
"""Tasks of which only the total is shown; of questions every category, of rewards each function."""
BITS, ALL = "bits per byte", "all"
ORDER = ("before", *STAGES)


def main(words: Sequence[str]) -> int:
    """Runs `miao eval stages WORDS`."""
    parser = Parser(
        prog="miao eval stages",
        description="What each stage of these runs scored on held-out data, with standard errors, "
        "and which answers to the same questions it changed.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run directories: runs/NAME")
    parser.add_argument("--markdown", action="store_true", help="tables to paste into a page")
    options = parser.parse_args(words)
    runs = [(path.name, RunDir(path)) for path in options.runs]
    evaluated = {run: _evaluations(run) for _, run in runs}
    scores = [
        (name, line["stage"], _cells(line["scores"]))
        for name, run in runs
        for line in evaluated[run]
    ]
    measures = list(dict.fromkeys(measure for _, _, cells in scores for measure in cells))
    rows = [[name, stage, *(cells.get(m, "") for m in measures)] for name, stage, cells in scores]
    columns, title = ["run", "stage", *measures], "held-out scores (± one standard error)"
    if options.markdown:
        _print_markdown(title, columns, rows)
    else:  # a measure a line: few terminals are as wide as a run has measures
        heads = [stage if len(runs) == 1 else f"{name}\n{stage}" for name, stage, _ in scores]
        lines = [[measure, *values] for measure, *values in zip(columns, *rows, strict=True)][2:]
        print_table(title, ["", *heads], lines, right_from=1)
    changes = [row for name, run in runs for row in _changes(name, run, evaluated[run])]
    columns = ["run", "stages", "questions", "items", "before", "after", "change", "p"]
    title = "the same questions, before and after (paired)"
    if changes and options.markdown:
        _print_markdown(title, columns, changes)
    elif changes:
        only = slice(int(len(runs) == 1), None)  # the name of a single run need not be said
        print_table(title, columns[only], [row[only] for row in changes], right_from=2)
    return 0


def _evaluations(run: RunDir) -> list[Record]:
    """The lines of stages, in the order in which these were trained."""
    found = run.read_lines(run.eval_results, warn)
    lines = [line for line in found if "scores" in line and line["stage"] in ORDER]
    lines.sort(key=lambda line: ORDER.index(line["stage"]))
    if not lines:
        raise MiaoError(
            "this run has measured nothing", where=run.path, fix="name a run that was evaluated"
        )
    return lines


def _cells(scores: list[Record]) -> dict[str, str]:
    cells = {}
    if bits := [s for s in scores if s["task"] == BITS and s["stderr"] is not None]:
        value = sum(s["value"] for s in bits) / len(bits)
        stderr = math.sqrt(sum(s["stderr"] ** 2 for s in bits)) / len(bits)
        cells[f"{BITS}, mean of {len(bits)}"] = f"{value:.3f} ±{stderr:.3f}"
    for score in scores:
        task, category = score["task"], score["category"]
        if task == "questions" or (task in TOTALS and category in (ALL, "single answers")):
            name = category if task == "questions" and category != ALL else task
            name += f", {category}" if category == "single answers" else ""
            cells[name] = _share(score["value"], score["stderr"])
        elif task == "rewards":
            cells[f"reward {category}"] = _reward(score)
    return cells


def _changes(name: str, run: RunDir, lines: list[Record]) -> list[list[str]]:
    """The questions that two neighbouring stages answered, by category and all together; and the
    problems that GRPO was held against."""
    rows = []
    stages = [line["stage"] for line in lines if run.answers(line["stage"]).exists()]
    for before, after in pairwise(stages):
        old = {record["question"]: record for record in _judged(run.answers(before))}
        new = [record for record in _judged(run.answers(after)) if record["question"] in old]
        categories = sorted({record["category"] for record in new})
        for category in [*categories, ALL] if len(categories) > 1 else categories:
            mine = [record for record in new if category in (record["category"], ALL)]
            right = [bool(record["right"]) for record in mine]
            then = [bool(old[record["question"]]["right"]) for record in mine]
            found = compare_paired(then, right)
            rows.append(
                [
                    *(name, f"{before} → {after}", category, f"{found.count:,}"),
                    *(_share(sum(then) / len(then), None), _share(sum(right) / len(right), None)),
                    f"{100 * found.value:+.1f} ±{100 * found.stderr:.1f}",
                    f"{found.p_value:.2g}",
                ]
            )
    for line in lines:
        for change in line.get("rewards", []):
            score, stage = change["after"], line["stage"]
            cells = [_reward(change["before"]), _reward(score), _reward(change["difference"], "+")]
            category = f"reward {score['category']}"
            rows.append([name, f"before → {stage}", category, f"{score['count']:,}", *cells, ""])
    return rows


def _judged(path: Path) -> list[Record]:
    """Judged answers; what is damaged is said and left out."""
    needed = {"question", "category", "right"}
    return [record for record in read_jsonl(path, warn) if needed <= record.keys()]


def _reward(score: Record, sign: str = "") -> str:
    return f"{score['value']:{sign}.3f} ±{score['stderr'] or 0.0:.3f}"


def _share(value: float, stderr: float | None) -> str:
    return f"{100 * value:.1f}%" + ("" if stderr is None else f" ±{100 * stderr:.1f}")


def _print_markdown(title: str, columns: list[str], rows: list[list[str]]) -> None:
    say(f"{title}:\n")
    for line in [columns, ["---"] * len(columns), *rows]:
        print("| " + " | ".join(line) + " |")
    say("")
