"""The charts: coordinates computed by hand."""

from __future__ import annotations

import json
import math
import re
from html import unescape

import pytest

from miao.report.charts import (
    POINTS_PER_LINE,
    Dot,
    Panel,
    Series,
    dot_plot,
    figure,
    nice_ticks,
    polylines,
    thin,
    value_span,
)
from miao.report.words import Text


def readings(svg: str) -> list[list[list[float | str]]]:
    """What the page's script shows under the pointer."""
    found = re.search(r'data-points="([^"]*)"', svg)
    assert found
    return json.loads(unescape(found[1]))


def test_line_of_a_tiny_series_has_the_coordinates_computed_by_hand() -> None:
    # x: 40 + share of (360 - 40 - 14) = 306; y: from 22 + 60 = 82 at the bottom up to 22.
    points = [(0.0, 0.0), (50.0, 1.0), (100.0, 2.0), (150.0, math.nan), (200.0, 4.0)]
    panel = Panel(Text("损失", "Loss"), [Series(points, "sft")], height=60, span=(0.0, 4.0))
    svg = str(figure([panel], Text("图", "chart"), 200.0))
    lines = re.findall(r'<polyline class="line" points="([^"]*)"', svg)
    assert lines == ["40,82 116.5,67 193,52", "346,22"]
    assert re.findall(r'<text class="read end"[^>]*>([^<]*)<', svg) == ["4.000"]
    assert readings(svg) == [
        [
            [40.0, 82.0, "0", "0"],
            [116.5, 67.0, "1.000", "50"],
            [193.0, 52.0, "2.000", "100"],
            [346.0, 22.0, "4.000", "200"],
        ]
    ]
    assert re.findall(r'class="tick middle" x="([^"]*)"[^>]*>(\d+)<', svg) == [
        ("116.5", "50"),
        ("193", "100"),
        ("269.5", "150"),
        ("346", "200"),
    ]
    gaps = Series([(0.0, 1.0), (10.0, math.inf)], "sft")
    assert ">NaN<" in figure([Panel(Text("a", "a"), [gaps])], Text("a", "a"), 10.0)


def test_panels_share_one_axis_below_the_last() -> None:
    panels = [
        Panel(Text(n, n), [Series([(0.0, 0.0), (1.0, 1.0)], "sft")], height=60, span=(0, 1))
        for n in "ab"
    ]
    svg = str(figure(panels, Text("图", "chart"), 1.0))
    # The second title begins at 22 + 60 + 14 = 96, its panel is 118 to 178; 22 more: the axis.
    assert re.findall(r'<polyline class="line" points="([^"]*)"', svg) == [
        "40,82 346,22",
        "40,178 346,118",
    ]
    assert 'viewBox="0 0 360 200"' in svg and svg.count('class="axis"') == 1 + len(nice_ticks(0, 1))


def test_dot_plot_places_value_error_and_chance() -> None:
    svg = str(dot_plot([Dot(0.5, 0.125, "sft"), Dot(2.0, None, "dpo")], (0.0, 1.0), 0.25, "label"))
    # 140 units wide from x = 5; values beyond the axis stay at its end.
    assert re.findall(r'cx="([^"]*)" cy="([^"]*)"', svg) == [("75", "7"), ("145", "13")]
    assert re.findall(r'class="error" x1="([^"]*)" x2="([^"]*)"', svg) == [("40", "110")]
    assert re.findall(r'class="guide" x1="([^"]*)"', svg) == ["40.0"]


def test_ticks_are_round_few_and_inside() -> None:
    assert nice_ticks(0, 2_000_000) == [0, 500_000, 1_000_000, 1_500_000, 2_000_000]
    assert nice_ticks(1.03, 1.48, 3) == [1.2, 1.4]
    assert nice_ticks(-0.5, 0.5, 5) == [-0.4, -0.2, 0.0, 0.2, 0.4]
    assert nice_ticks(3.0, 3.0) == [3.0]
    for low, high in [(0, 1e-5), (-7, 913), (0.1, 0.30000001), (1e6, 1e9)]:
        for most in (3, 5):
            ticks = nice_ticks(low, high, most)
            assert 1 <= len(ticks) <= most and all(low <= t <= high for t in ticks)


def test_span_thinning_and_gaps() -> None:
    assert value_span([1.0, math.nan, 3.0]) == pytest.approx((0.88, 3.12))
    assert value_span([2.0, 4.0], from_zero=True) == pytest.approx((0.0, 4.24))
    assert value_span([5.0]) == pytest.approx((4.5, 5.5)) and value_span([math.nan]) == (0.0, 1.0)
    long = Series([(float(x), float(x % 2)) for x in range(2 * POINTS_PER_LINE)], "sft")
    thinned = thin(long).points
    assert len(thinned) == POINTS_PER_LINE and thinned[:2] == [(0.5, 0.5), (2.5, 0.5)]
    short = Series(long.points[:9], "sft")
    assert thin(short) is short
    nan = math.nan
    assert polylines([(0, nan), (1, 1), (2, nan), (3, nan), (4, 4), (5, 5)]) == [
        [(1, 1)],
        [(4, 4), (5, 5)],
    ]
