"""What was read of the columns of users' data, and what was not: nothing vanishes unsaid."""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from miao.corpus.read.columns import Row
from miao.corpus.read.turns import strings_of
from miao.corpus.records import Document, Record, messages_of
from miao.errors import MiaoError

METADATA = {
    *("id", "uid", "uuid", "idx", "index", "url", "urls", "link", "dump", "date", "time"),
    *("datetime", "timestamp", "language", "lang", "locale", "license", "licence", "split"),
    *("version", "hash", "md5", "sha1", "sha256", "simhash", "file", "filename", "path", "domain"),
    *("model", "category", "type", "task", "tags", "tag", "source", "dataset", "subset", "author"),
    *("score", "metadata", "meta", "difficulty", "level", "subject", "kind"),
    *("文件名", "时间", "来源", "元数据"),
}
"""Columns that say something of a record and are none of its text."""
_ENDING = re.compile(
    r".*_(?:ids?|url|hash|md5|sha256|date|time|path|name|model|models|source|type|lang|language|"
    r"scores?|rating|count|len|length|tokens|index|version|split)"
)
_WIDE = "[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
_WORDY = re.compile(f"{_WIDE}.*{_WIDE}|\\w\\s+\\w+\\W*\\s+\\w", re.DOTALL)
MUCH = 0.1
"""The share of a shape's characters that columns of words may hold unread."""
CATEGORIES = 0.1
"""A column with fewer different values per record than this names kinds of records."""
KEPT_VALUES = 2000
SHOWN = 6
"""Columns that are named in a line."""


@dataclass(slots=True)
class Column:
    """A column of which nothing was read."""

    records: int = 0
    characters: int = 0
    lost: int = 0
    """Characters of words that the record does not hold elsewhere."""
    values: set[int] = field(default_factory=set)
    """Hashes of the first different values."""

    @property
    def is_category(self) -> bool:
        return self.records >= 20 and len(self.values) < CATEGORIES * min(self.records, KEPT_VALUES)


class UnreadColumns(MiaoError):
    """Much of the text stands in columns that are not read."""


class Columns:
    """Per shape: characters of its records, and the columns that are not in them."""

    def __init__(self) -> None:
        self.records: Counter[str] = Counter()
        self.characters: Counter[str] = Counter()
        self.unread: dict[str, dict[str, Column]] = {}

    def add(self, shape: str, row: Row, aside: dict[str, Any], record: Record) -> None:
        """Accounts for one object: `aside` was left out as the user asked."""
        said = "\n".join(_said(record))
        self.records[shape] += 1
        self.characters[shape] += len(said)
        for name, value in row.unread():
            self._add(shape, name, value, said)
        for name, value in {**row.origin.aside, **aside}.items():
            self._add(shape, name, value, None)

    def _add(self, shape: str, name: str, value: Any, said: str | None) -> None:
        column = self.unread.setdefault(shape, {}).setdefault(name, Column())
        leaves = list(strings_of(value))
        column.records += 1
        column.characters += sum(map(len, leaves))
        if said is None or name in METADATA or _ENDING.fullmatch(name):
            return
        lost = [leaf for leaf in leaves if _WORDY.search(leaf[:400]) and not _repeats(leaf, said)]
        column.lost += sum(map(len, lost))
        if lost and len(column.values) < KEPT_VALUES:
            column.values.add(zlib.crc32(lost[-1].encode("utf-8", "surrogatepass")))

    def update(self, other: Columns) -> None:
        self.records += other.records
        self.characters += other.characters
        for shape, columns in other.unread.items():
            for name, more in columns.items():
                column = self.unread.setdefault(shape, {}).setdefault(name, Column())
                column.records += more.records
                column.characters += more.characters
                column.lost += more.lost
                column.values |= more.values

    def state(self) -> dict[str, Any]:
        """All of it as JSON, for `from_state`."""
        unread = {
            shape: {name: {**asdict(c), "values": sorted(c.values)} for name, c in columns.items()}
            for shape, columns in self.unread.items()
        }
        return {"records": self.records, "characters": self.characters, "unread": unread}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Columns:
        columns = cls()
        columns.records.update(state["records"])
        columns.characters.update(state["characters"])
        columns.unread = {
            shape: {name: Column(**{**c, "values": set(c["values"])}) for name, c in found.items()}
            for shape, found in state["unread"].items()
        }
        return columns

    def require_read(self, where: Any) -> None:
        """Refuses data of which much is not read.

        Raises:
            UnreadColumns: with the columns, their shares, and what to do.
        """
        for shape, columns in self.unread.items():
            lost = {name: c.lost for name, c in columns.items() if c.lost and not c.is_category}
            total = self.characters[shape] + sum(lost.values())
            if sum(lost.values()) <= MUCH * total:
                continue
            names = sorted(lost, key=lambda name: -lost[name])
            shares = ", ".join(f"'{name}' ({lost[name] / total:.0%})" for name in names[:SHOWN])
            raise UnreadColumns(
                f"not read as {shape}, though a large part of the text: {shares}",
                where=where,
                fix=f"say what it is (--columns answer={names[0]}; in a recipe corpus.columns), "
                f"or leave it out: --columns unused={','.join(names[:SHOWN])}",
            )

    def lines(self) -> list[str]:
        """What was not read, in words: a line for each shape."""
        lines = []
        for shape, columns in self.unread.items():
            total = self.characters[shape] + sum(c.characters for c in columns.values())
            names = sorted(columns, key=lambda name: -columns[name].characters)
            shown = [f"{name} ({columns[name].characters / max(total, 1):.1%})" for name in names]
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            of = f"columns not read of {self.records[shape]:,} records ({shape})"
            lines.append(
                f"{of}, with their share of the characters: {', '.join(shown[:SHOWN])}{more}"
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        return {
            shape: {
                "records": self.records[shape],
                "characters": self.characters[shape],
                "unread": {
                    name: {"records": column.records, "characters": column.characters}
                    for name, column in self.unread.get(shape, {}).items()
                },
            }
            for shape in self.records
        }


def _said(record: Record) -> Iterator[str]:
    """All that a record holds."""
    if isinstance(record, Document):
        yield record.text
        return
    for message in messages_of(record):
        yield message.content
        if message.reasoning:
            yield message.reasoning
        if message.tool_calls:
            yield json.dumps(message.tool_calls, ensure_ascii=False)
    if record.tools:
        yield json.dumps(record.tools, ensure_ascii=False)


def _repeats(text: str, said: str) -> bool:
    """Whether a text is in the record, or holds the longest part of it (a rendered prompt)."""
    longest = max(said.split("\n"), key=len).strip()
    return text.strip() in said or (len(longest) >= 20 and longest in text)
