"""The report of a run with GRPO: curves, and held-out problems before and after."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from miao.report.data import read_run
from miao.report.page import render
from miao.report.rewards import reward_curves, reward_rows
from miao.rundir import RunDir


def score(value: float, unit: str = "accuracy", name: str = "exact_answer") -> dict[str, Any]:
    return {
        "task": "rewards", "category": name, "count": 400, "value": value, "stderr": 0.02,
        "chance": None, "unit": unit,
    }  # fmt: skip


def change(before: float, after: float, unit: str, name: str) -> dict[str, Any]:
    difference = score(after - before, "difference", name)
    return {
        "before": score(before, unit, name),
        "after": score(after, unit, name),
        "difference": difference,
    }


@pytest.fixture
def rewarded(run: RunDir, hostile: str) -> RunDir:
    """The run of the other tests, with a fourth stage."""
    recipe = yaml.safe_load((run.path / "recipe.yaml").read_text(encoding="utf-8"))
    recipe["grpo"] = {"enabled": True}
    (run.path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    changes = [
        change(0.738, 0.833, "accuracy", "exact_answer"),
        change(0.5, 0.51, "reward", hostile),
    ]
    with run.eval_results.open("a", encoding="utf-8") as file:
        line = {"stage": "grpo", "scores": [c["after"] for c in changes], "rewards": changes}
        file.write(json.dumps(line) + "\n")
    with run.metrics.open("a", encoding="utf-8") as file:
        for step in range(1, 9):
            line = {
                "stage": "grpo", "step": step, "tokens": 1000 * step, "loss": 0.0,
                "reward": 0.5 + step / 20, "groups_without_signal": 0.4, "entropy": 0.1,
                "answer_tokens": 11.0, "clip_fraction": 0.0,
            }  # fmt: skip
            file.write(json.dumps(line) + "\n")
    return run


def test_rewards_before_and_after(rewarded: RunDir) -> None:
    right, other = reward_rows(read_run(rewarded))
    assert (right.count, right.verdict, right.change) == (400, "better", "+9.5 ±2.0 %")
    assert "73.8" in right.before and "83.3" in right.after
    assert other.verdict is None and other.change == "+0.010 ±0.020"


def test_the_page_shows_them(rewarded: RunDir, hostile: str) -> None:
    data = read_run(rewarded)
    page = render(data, rewarded)
    assert len(reward_curves(data)) == 2
    assert "Did training with rewards move?" in page and "+9.5 ±2.0 %" in page
    assert hostile not in page


def test_runs_without_it_say_nothing_of_it(run: RunDir) -> None:
    data = read_run(run)
    assert "grpo" not in data.stages and reward_rows(data) == [] and reward_curves(data) == []
    assert "Did training with rewards move?" not in render(data, run)
