"""A scene: lines with alternatives and slots, and tables of things that belong together."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from miao.corpus.seedbed.phrasing import Pattern, pattern
from miao.corpus.seedbed.tables import Entry, Language, both

Row = tuple[tuple[str, ...], ...]

_SLOTS = {
    "plots": ("t", "h", "p", "o", "ps", "P", "f", "place", "adult"),
    "dialogues": ("x", "y", "adult"),
}


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


@cache
def scenes(name: str, language: Language) -> dict[str, Scene]:
    """The scenes of a table ("plots", "dialogues"); both languages have the same.

    Raises:
        MiaoError: the table is wrong; with the scene and the key.
    """
    found = both(name, ("text",), ("tables",))
    return {scene: read_scene(sides[language], _SLOTS[name]) for scene, sides in found.items()}


def read_scene(entry: Entry, slots: tuple[str, ...] = ()) -> Scene:
    """One scene: its `text`, in whose lines `(x|y)` is an alternative, and its `tables`.

    A table is named by the slots that it fills (`a b`); in a row, ` | ` stands between the cells
    and `/` between the alternatives of a cell.
    """
    tables = Entry(entry.where, entry.mapping("tables"))
    known = {*slots, *(column for columns in tables.values for column in columns.split())}
    made = []
    for name in tables.values:
        columns = tuple(name.split())
        rows = tables.rows(name, len(columns), known)
        split = (tuple(tuple(map(str.strip, cell.split("/"))) for cell in row) for row in rows)
        made.append(Table(columns, tuple(split)))
    return Scene(tuple(map(pattern, entry.lines("text", known))), tuple(made))
