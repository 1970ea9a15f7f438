"""The seedbed's tables: files of sentences and words, read when first asked for, and checked.

A YAML table has one sentence a line under each of its keys. A TSV table has its columns' names in
the first line. What both languages share stands in `tables/`, the rest in `tables/<language>/`.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from miao.errors import MiaoError, did_you_mean
from miao.options import read_yaml

Language = Literal["zh", "en"]

LANGUAGES: tuple[Language, ...] = ("zh", "en")
ZH_SHARE = 0.6
FOLDER = Path(__file__).with_name("tables")
_SLOT = re.compile(r"\{(\w*)\}")


def some_language(rng: random.Random, zh_share: float) -> Language:
    """Chinese in `zh_share` of the draws, else English."""
    return "zh" if rng.random() < zh_share else "en"


@dataclass(frozen=True)
class Entry:
    """Some keys of a table and the place where they stand."""

    where: str
    values: Mapping[str, Any]

    def lines(self, key: str, slots: Collection[str] | None = None) -> tuple[str, ...]:
        """The sentences under a key; none where it is absent.

        Args:
            slots: the names in braces that a sentence may hold; None for any.

        Raises:
            MiaoError: no text, a line that stands twice, a slot that nothing fills.
        """
        value = self.values.get(key, "")
        if not isinstance(value, str):
            raise self.error(
                "not text", key, f"write `{key}: |` and one sentence a line below it, indented"
            )
        lines = [line.strip() for line in value.splitlines() if line.strip()]
        for line, count in Counter(lines).items():
            if count > 1:
                raise self.error(f"'{line}' stands here {count} times", key, "keep one of them")
            if slots is not None:
                self._check_braces(line, key, slots)
        return tuple(lines)

    def _check_braces(self, line: str, key: str, slots: Collection[str]) -> None:
        names = _SLOT.findall(line)
        known = ", ".join(f"{{{name}}}" for name in slots) or "none"
        for name in names:
            if name not in slots:
                fix = f"what is filled here: {known}"
                raise self.error(f"nothing fills the {{{name}}} of '{line}'", key, fix)
        if line.count("{") != len(names) or line.count("}") != len(names):
            raise self.error(f"a brace without its other in '{line}'", key, "write {name}")

    def rows(
        self, key: str, columns: int, slots: Collection[str] | None = None
    ) -> list[tuple[str, ...]]:
        """The lines under a key, each cut into `columns` cells at ` | `."""
        cut = [tuple(cell.strip() for cell in line.split("|")) for line in self.lines(key, slots)]
        for row in cut:
            if len(row) != columns or not all(row):
                fix = "put ` | ` between two of them"
                raise self.error(f"not {columns} cells: '{' | '.join(row)}'", key, fix)
        return cut

    def mapping(self, key: str) -> dict[str, str]:
        """What stands under a key as `name: text`; empty where the key is absent."""
        values = self.values.get(key, {})
        if not isinstance(values, dict):
            raise self.error("not a list of `name: text`", key, "write one below it a line")
        for name, text in values.items():
            if not (isinstance(name, str) and isinstance(text, str) and name and text.strip()):
                fix = "write `name: text` in a line, and quotes around what is a number"
                raise self.error(f"'{name}: {text}' is not text", key, fix)
        return values

    def error(self, what: str, key: str, fix: str) -> MiaoError:
        """A mistake under one of the keys."""
        return MiaoError(what, where=f"{self.where}.{key}", fix=fix)


@cache
def table(language: Language, name: str) -> Entry:
    """A whole YAML table as one entry."""
    path = FOLDER / language / f"{name}.yaml"
    return Entry(f"{path}: {name}", read_yaml(path))


@cache
def phrases(language: Language, name: str, key: str) -> tuple[str, ...]:
    """The sentences under a key of a YAML table.

    Raises:
        MiaoError: there are none.
    """
    entry = table(language, name)
    if lines := entry.lines(key, ()):
        return lines
    raise entry.error("missing", key, f"write `{key}: |` and one sentence a line below it")


def entries(
    language: Language, name: str, needed: Collection[str], optional: Collection[str] = ()
) -> dict[str, Entry]:
    """A YAML table by its top keys, each with keys of its own.

    Raises:
        MiaoError: an entry that lacks a needed key, or has one that is not known.
    """
    path = FOLDER / language / f"{name}.yaml"
    found = {}
    for entry, values in read_yaml(path).items():
        found[entry] = one = Entry(f"{path}: {entry}", values)
        if not isinstance(values, dict):
            raise MiaoError(
                "an entry without keys", where=one.where, fix="indent what belongs to it"
            )
        for key in needed:
            if not values.get(key):
                raise one.error("missing", key, f"an entry has {', '.join(needed)}")
        known = (*needed, *optional)
        for key in values:
            if key not in known:
                hint = did_you_mean(str(key), known) or f"known are {', '.join(known)}"
                raise one.error("there is no such key", key, hint)
    return found


def both(
    name: str, needed: Collection[str], optional: Collection[str] = ()
) -> dict[str, dict[Language, Entry]]:
    """The entries of a table in both languages, in the order of the Chinese one.

    Raises:
        MiaoError: an entry stands in one language alone.
    """
    zh, en = (entries(language, name, needed, optional) for language in LANGUAGES)
    for here, there, language in ((zh, en, "en"), (en, zh, "zh")):
        for entry in here:
            if entry not in there:
                raise MiaoError(
                    f"'{entry}' stands in one language alone",
                    where=here[entry].where,
                    fix=f"add it to {FOLDER / language / f'{name}.yaml'}",
                )
    return {entry: {"zh": zh[entry], "en": en[entry]} for entry in zh}


def rows(name: str, columns: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The rows of `tables/<name>.tsv`.

    Raises:
        MiaoError: other columns, an empty cell, a first cell that stands twice; with the line.
    """
    path = FOLDER / f"{name}.tsv"
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    if tuple(header.split("\t")) != columns:
        fix = f"write {' <tab> '.join(columns)}"
        raise MiaoError("the first line does not name the columns", where=f"{path}:1", fix=fix)
    found: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines, start=2):
        cells = tuple(cell.strip() for cell in line.split("\t"))
        if len(cells) != len(columns) or not all(cells):
            raise MiaoError(
                f"{len(columns)} cells are needed, none of them empty: {', '.join(columns)}",
                where=f"{path}:{number}",
                fix="put one tab between two cells",
            )
        if cells[0] in found:
            fix = "keep one of them"
            raise MiaoError(f"'{cells[0]}' stands here twice", where=f"{path}:{number}", fix=fix)
        found[cells[0]] = cells
    return list(found.values())
