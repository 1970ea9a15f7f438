"""Small line charts and dot plots as inline SVG, drawn by hand so that the page needs nothing else.

Coordinates are user units of a view box `WIDTH` wide; y grows downwards. Colours are classes
(`hue-<name>`), so that the style sheet decides them for light and dark.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from miao.report.words import Text, decimal, quantity, share, tick

Point = tuple[float, float]
Span = tuple[float, float]

WIDTH, LEFT, RIGHT = 360, 40, 14
TITLE_HEIGHT, GAP, AXIS_HEIGHT = 22, 14, 22
MARKS_UP_TO = 12
"""With so few points each gets a mark."""
POINTS_PER_LINE = 400
"""More than the eye can tell apart: longer lines are averaged in runs of equal length."""


@dataclass(frozen=True)
class Unit:
    """How the values of a panel are written: exactly, and at the ticks of the axis."""

    exact: Callable[[float], str]
    tick: Callable[[float], str]


NUMBER = Unit(decimal, tick)
QUANTITY = Unit(quantity, quantity)
SHARE = Unit(share, lambda value: f"{tick(100 * value)}%")


@dataclass(frozen=True)
class Series:
    """One line: (tokens, value) points in order; a value that is not finite breaks it.

    `labels`, when given, replace the exact value in the read-out, point by point.
    """

    points: Sequence[Point]
    hue: str
    name: Text | None = None
    labels: Sequence[str] | None = None


@dataclass(frozen=True)
class Panel:
    """Series over one vertical axis; the panels of a figure share the horizontal one.

    Args:
        span: the values at the bottom and the top; None: from the data.
        from_zero: the axis begins at 0.
        guide: a value worth comparing with, and its name.
    """

    title: Text
    series: Sequence[Series]
    unit: Unit = NUMBER
    height: int = 60
    span: Span | None = None
    from_zero: bool = False
    guide: tuple[float, Text] | None = None


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most `most` round numbers (1, 2 or 5 times a power of ten) within [low, high]."""
    if not high > low:
        return [low]
    exponent = math.floor(math.log10((high - low) / most))
    for step in (
        factor * 10.0**power for power in (exponent, exponent + 1) for factor in (1, 2, 5)
    ):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            return [round(number * step, 12) for number in range(first, last + 1)]
    raise AssertionError("steps of ten times the span leave at most two ticks")


def value_span(values: Sequence[float], from_zero: bool = False) -> Span:
    """Bottom and top of an axis: a little more than the finite values need."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    if from_zero:
        low = min(low, 0.0)
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return (low if from_zero and low == 0 else low - room), high + room


def thin(series: Series) -> Series:
    """The same line with at most `POINTS_PER_LINE` points, each the mean of a run of points."""
    run = -(-len(series.points) // POINTS_PER_LINE)
    if run <= 1:
        return series
    groups = [series.points[start : start + run] for start in range(0, len(series.points), run)]
    points = [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]
    return Series(points, series.hue, series.name)


def polylines(points: Sequence[Point]) -> list[list[Point]]:
    """The unbroken pieces of a line."""
    pieces: list[list[Point]] = [[]]
    for x, y in points:
        if math.isfinite(y):
            pieces[-1].append((x, y))
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]


def figure(panels: Sequence[Panel], label: Text, x_end: float) -> Markup:
    """Panels below each other over one axis of tokens from 0 to `x_end`.

    Each panel's last values stand at its upper right; with the page's script they follow the
    pointer, fed by the `data-points` of the svg: per series [[x, y, text, tokens], ...].
    """
    parts: list[Markup] = []
    readings: list[list[list[float | str]]] = []
    top = 0
    for panel in panels:
        drawn, read = _panel(panel, top, x_end, len(readings))
        parts.append(drawn)
        readings += read
        top += TITLE_HEIGHT + panel.height + GAP
    bottom = top - GAP
    parts.append(_token_axis(x_end, bottom))
    parts.append(
        Markup('<line class="cursor" x1="0" x2="0" y1="{}" y2="{}"/>').format(TITLE_HEIGHT, bottom)
    )
    parts.append(Markup('<text class="here middle" y="{}"></text>').format(bottom + 16))
    points = json.dumps(readings, ensure_ascii=False, separators=(",", ":"))
    name = f"{label.zh} / {label.en}"
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}" data-points="{}">'
        "{}</svg>"
    ).format(WIDTH, bottom + AXIS_HEIGHT, name, points, Markup("").join(parts))


def _panel(
    panel: Panel, top: int, x_end: float, first: int
) -> tuple[Markup, list[list[list[float | str]]]]:
    """A panel whose title begins at `top`, and the readings of its series."""
    ceiling, floor = top + TITLE_HEIGHT, top + TITLE_HEIGHT + panel.height
    lines = [thin(series) for series in panel.series]
    values = [y for series in lines for _, y in series.points]
    if panel.guide:
        values.append(panel.guide[0])
    low, high = panel.span or value_span(values, panel.from_zero)

    def place(point: Point) -> Point:
        x = LEFT + point[0] / x_end * (WIDTH - LEFT - RIGHT)
        y = floor - (point[1] - low) / (high - low) * (floor - ceiling)
        return round(x, 1), round(y, 1)

    most = 5 if panel.height > 90 else 3
    parts = [_title(panel, lines, top)]
    for value in nice_ticks(low, high, most):
        y = place((0, value))[1]
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                LEFT, WIDTH - RIGHT, y, y
            )
            + _text(panel.unit.tick(value), LEFT - 6, y + 3.5, "tick end")
        )
    if panel.guide:
        y = place((0, panel.guide[0]))[1]
        ends = Markup('<line class="guide" x1="{}" x2="{}" y1="{}" y2="{}"/>')
        parts.append(ends.format(LEFT, WIDTH - RIGHT, y, y))
        beside = y + 12 if y - ceiling < 14 else y - 4
        parts.append(_text(panel.guide[1], WIDTH - RIGHT, beside, "tick end"))
    readings = []
    for number, series in enumerate(lines):
        drawn, reading = _line(series, place, panel.unit, first + number, (number, len(lines), top))
        parts.append(drawn)
        readings.append(reading)
    return Markup("").join(parts), readings


def _line(
    series: Series,
    place: Callable[[Point], Point],
    unit: Unit,
    index: int,
    where: tuple[int, int, int],
) -> tuple[Markup, list[list[float | str]]]:
    """A series: its line, its marks, the dot of the cursor and its read-out."""
    pieces = [[place(point) for point in piece] for piece in polylines(series.points)]
    parts = [
        Markup('<polyline class="line" points="{}"/>').format(
            " ".join(f"{x:g},{y:g}" for x, y in piece)
        )
        for piece in pieces
    ]
    placed = [point for piece in pieces for point in piece]
    for x, y in placed if len(placed) <= MARKS_UP_TO else placed[-1:]:
        parts.append(Markup('<circle class="mark" cx="{:g}" cy="{:g}" r="2.2"/>').format(x, y))
    labels = series.labels or [unit.exact(y) for _, y in series.points]
    reading: list[list[float | str]] = [
        [*place((x, y)), text, quantity(x)]
        for (x, y), text in zip(series.points, labels, strict=True)
        if math.isfinite(y)
    ]
    number, count, top = where
    parts.append(Markup('<circle class="dot" data-series="{}" r="3.6"/>').format(index))
    last = labels[-1] if series.points and math.isfinite(series.points[-1][1]) else "NaN"
    right = WIDTH - RIGHT - 62 * (count - 1 - number)
    parts.append(
        Markup('<text class="read end" data-series="{}" x="{}" y="{}">{}</text>').format(
            index, right, top + 14, last
        )
    )
    return Markup('<g class="hue-{}">{}</g>').format(series.hue, Markup("").join(parts)), reading


def _title(panel: Panel, lines: Sequence[Series], top: int) -> Markup:
    names = [series for series in lines if series.name]
    texts = []
    for language in (0, 1):
        spans = [
            Markup('<tspan dx="7" class="name hue-{}">{}</tspan>').format(s.hue, s.name[language])
            for s in names
            if s.name
        ]
        texts.append(
            Markup('<text class="title {}" x="0" y="{}">{}{}</text>').format(
                ("zh", "en")[language], top + 14, panel.title[language], Markup("").join(spans)
            )
        )
    return Markup("").join(texts)


def _token_axis(x_end: float, bottom: float) -> Markup:
    """The axis below the last panel; its ticks, and what it counts."""
    parts = [
        Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            LEFT, WIDTH - RIGHT, bottom, bottom
        )
    ]
    for value in nice_ticks(0, x_end, 5):
        x = round(LEFT + value / x_end * (WIDTH - LEFT - RIGHT), 1)
        mark = Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>')
        parts.append(mark.format(x, x, bottom, bottom + 4))
        if value:
            parts.append(_text(quantity(value), x, bottom + 16, "tick middle"))
    # The unit stands where the 0 would.
    parts.append(_text(Text("词元", "tokens"), 0, bottom + 16, "tick"))
    return Markup("").join(parts)


def _text(text: str | Text, x: float, y: float, css: str) -> Markup:
    if isinstance(text, Text):
        return Markup("").join(
            Markup('<text class="{} {}" x="{:g}" y="{:g}">{}</text>').format(
                css, language, x, y, words
            )
            for language, words in zip(("zh", "en"), text, strict=True)
        )
    return Markup('<text class="{}" x="{:g}" y="{:g}">{}</text>').format(css, x, y, text)


@dataclass(frozen=True)
class Dot:
    """A value with its standard error, to be compared with others of its row."""

    value: float
    stderr: float | None
    hue: str


def dot_plot(dots: Sequence[Dot], span: Span, chance: float | None, label: str) -> Markup:
    """A dot per stage with a bar of two standard errors each way, and an upright for chance."""
    width, pad, step = 150, 5, 6
    height = 8 + step * max(len(dots), 1)
    low, high = span

    def place(value: float) -> float:
        inside = min(max(value, low), high)
        return round(pad + (inside - low) / ((high - low) or 1) * (width - 2 * pad), 1)

    parts = [
        Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            pad, width - pad, height / 2, height / 2
        )
    ]
    if chance is not None:
        x = place(chance)
        parts.append(
            Markup('<line class="guide" x1="{}" x2="{}" y1="1" y2="{}"/>').format(x, x, height - 1)
        )
    for number, dot in enumerate(dots):
        x, y = place(dot.value), 4 + step / 2 + step * number
        drawn = Markup('<circle class="mark" cx="{:g}" cy="{:g}" r="2.6"/>').format(x, y)
        if dot.stderr:
            ends = place(dot.value - 2 * dot.stderr), place(dot.value + 2 * dot.stderr)
            drawn += Markup('<line class="error" x1="{:g}" x2="{:g}" y1="{:g}" y2="{:g}"/>').format(
                *ends, y, y
            )
        parts.append(Markup('<g class="hue-{}">{}</g>').format(dot.hue, drawn))
    return Markup(
        '<svg class="dots" viewBox="0 0 {} {}" width="{}" role="img" aria-label="{}">{}</svg>'
    ).format(width, height, width, label, Markup("").join(parts))
