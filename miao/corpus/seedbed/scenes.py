"""A scene: lines with alternatives and slots, and tables of things that belong together."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from miao.corpus.seedbed.phrasing import Pattern, pattern

Row = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Table:
    """Rows of which one is drawn: its cells fill the slots named by `columns`."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Scene:
    """A short text to fill. `lines` are joined by the caller's separator."""

    lines: tuple[Pattern, ...]
    tables: tuple[Table, ...]

    def render(self, rng: random.Random, slots: Mapping[str, str], separator: str) -> str:
        """One text: a row of every table, an alternative of every group, every slot filled."""
        filled = dict(slots)
        for table in self.tables:
            for column, cell in zip(table.columns, rng.choice(table.rows), strict=True):
                text = rng.choice(cell) if len(cell) > 1 else cell[0]
                filled[column] = text.format_map(filled) if "{" in text else text
        parts = [
            "".join([rng.choice(group) if len(group) > 1 else group[0] for group in line])
            for line in self.lines
        ]
        return separator.join(parts).format_map(filled)


def read_scenes(text: str) -> dict[str, Scene]:
    """Read scenes.

    `= name` begins a scene. `: a b` begins a table with the slots {a} and {b}; its rows begin
    with `-`, with ` | ` between cells and `/` between the alternatives of a cell. Every other
    line is a line of the scene, in which `(x|y)` is an alternative and `{slot}` a slot.
    """
    scenes: dict[str, tuple[list[Pattern], list[tuple[tuple[str, ...], list[Row]]]]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        mark, rest = line[0], line[1:].strip()
        if mark == "=":
            lines, tables = scenes[rest] = ([], [])
        elif mark == ":":
            tables.append((tuple(rest.split()), []))
        elif mark == "-":
            tables[-1][1].append(
                tuple(tuple(part.strip() for part in cell.split("/")) for cell in rest.split("|"))
            )
        else:
            lines.append(pattern(line))
    return {
        name: Scene(tuple(lines), tuple(Table(columns, tuple(rows)) for columns, rows in tables))
        for name, (lines, tables) in scenes.items()
    }
