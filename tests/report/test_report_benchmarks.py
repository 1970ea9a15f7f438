"""Benchmarks on the run page."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

from miao.report.benchmarks import benchmarks, radar_plot


def score(category: str, count: int, value: float) -> dict[str, Any]:
    return {"task": "ceval", "category": category, "count": count, "value": value,
            "stderr": 0.05, "chance": 0.25, "unit": "accuracy"}  # fmt: skip


LINE = {
    "stage": "benchmark x of model", "task": "ceval", "title": "C-Eval <b>", "prompts": "lm-eval",
    "scoring": "letter", "shots": 5, "model_stage": "model", "notes": ["at chance"],
    "groups": ["STEM", "humanities", "other"],
    "scores": [
        score("law", 20, 0.2), score("logic", 22, 0.0), score("physics", 19, 0.5),
        score("art", 33, 0.3), score("STEM", 190, 0.24), score("humanities", 260, 0.26),
        score("other", 380, 0.27), score("mean of subjects", 4, 0.25), score("all", 830, 0.25),
    ],
}  # fmt: skip


def test_a_radar_of_groups_and_a_bar_for_everything() -> None:
    stages = {"sft": {"stage": "sft", "scores": []}, LINE["stage"]: LINE}
    (found,) = benchmarks(stages)
    assert [bar.name for bar in found.bars][:2] == ["mean of subjects", "all"]
    assert len(found.bars) == 9 and found.notes == ["at chance"]
    assert found.bars[-1].value.startswith("27")
    assert found.radar is not None
    svg = ElementTree.fromstring(str(found.radar))
    words = [text.text or "" for text in svg.iter("text")]
    assert [word.split()[0] for word in words] == ["STEM", "humanities", "other"]
    assert "<b>" not in str(found.radar), "names are escaped"


def test_without_groups_there_is_no_radar_or_one_of_subjects() -> None:
    alone = LINE | {"scores": [score("all", 5, 0.4)]}
    assert benchmarks({"x": alone})[0].radar is None
    few = LINE | {
        "groups": [],
        "scores": [score(name, 10, 0.1) for name in "abc"] + [score("all", 30, 0.1)],
    }
    assert benchmarks({"x": few})[0].radar is not None
    assert benchmarks({"x": LINE | {"scores": []}}) == []


def test_the_outline_is_where_the_values_are() -> None:
    svg = ElementTree.fromstring(str(radar_plot([("a", 0.5), ("b", 0.0), ("c", 0.5)], 0.25, "t")))
    outline = next(p for p in svg.iter("polygon") if p.get("class") == "line").get("points")
    assert outline is not None
    points = [tuple(map(float, pair.split(","))) for pair in outline.split()]
    assert points[1] == (130, 130), "zero is in the middle, and is drawn"
    assert points[0][0] == 130 and abs(points[0][1] - (130 - 84 / 1.25)) < 0.2
