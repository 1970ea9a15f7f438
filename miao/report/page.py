"""The report: one self-contained HTML page, in Chinese and English."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from miao.console import warn
from miao.evaluate.results.card import tables
from miao.files import write_text
from miao.report.benchmarks import benchmarks
from miao.report.curves import long_context_curves, preference_curves, training_curves
from miao.report.data import RunData, read_run
from miao.report.facts import Link, chain, composition, settings
from miao.report.rewards import reward_curves, reward_rows
from miao.report.samples import changes, mistakes, samples
from miao.report.scores import evaluated_stages, score_cards, score_tables, size_cards
from miao.report.templates import page_assets, template
from miao.report.words import Text, stage_name
from miao.rundir import RunDir

SHOWN_PROBLEMS = 5


def write_report(run: RunDir) -> Path:
    """Writes `report.html` of a run, finished or not, and returns its path.

    The page loads nothing from anywhere. Texts of the model and of the corpus are escaped, and a
    content security policy allows no script but the page's own (by its hash).

    A damaged line is left out, and said here and on the page.

    Raises:
        MiaoError: no such run, or a file in it that is damaged as a whole.
    """
    data = read_run(run)
    if data.problems:
        warn(f"left out, damaged: {'; '.join(data.problems[:SHOWN_PROBLEMS])}{_more(data)}")
    write_text(run.report, render(data, run))
    return run.report


def _more(data: RunData) -> str:
    more = len(data.problems) - SHOWN_PROBLEMS
    return f" and {more} more" if more > 0 else ""


def render(data: RunData, run: RunDir) -> str:
    """The page of a run that was read."""
    return template("page.html.j2").render(_context(data), run_path=str(run.path), **page_assets())


def _context(data: RunData) -> dict[str, Any]:
    links = chain(data)
    last = data.last_evaluated
    return {
        "data": data,
        "chain": links,
        "missing": _missing(links),
        "left_out": [stage_name(stage) for stage in data.left_out],
        "last_stage": stage_name(last) if last else None,
        "score_cards": score_cards(data),
        "size_cards": size_cards(data),
        "curves": training_curves(data),
        "preference": preference_curves(data),
        "reward_curves": reward_curves(data),
        "reward_rows": reward_rows(data),
        "score_stages": [(stage, stage_name(stage)) for stage in evaluated_stages(data)],
        "tables": score_tables(data),
        "card_names": [card["model"] for card in data.cards],
        "card": tables(data.cards) if data.cards else [],
        "fails": data.cards[0]["fails"] if data.cards else [],
        "benchmarks": benchmarks(data.evaluations),
        "long_context": long_context_curves(data),
        "samples": samples(data),
        "changes": changes(data),
        "mistakes": mistakes(data),
        "composition": composition(data),
        "settings": settings(data),
    }


def _missing(links: list[Link]) -> list[Text]:
    """Stages that are not done; an evaluation only where its stage is."""
    needless = {f"evaluate {link.stage}" for link in links if not link.done}
    return [link.name for link in links if not link.done and link.stage not in needless]
