"""The data sets that people of this field train on: `catalog:NAME` stands for one in a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import yaml

from miao.corpus.records import Kind
from miao.errors import MiaoError, did_you_mean

USES = ("pretraining", "sft", "preferences", "evaluation")


@dataclass(frozen=True)
class Entry:
    """One data set.

    `unverified` lists what was written from memory and could not be compared with the hubs.
    """

    name: str
    use: str
    kind: Kind
    """The record that it becomes."""
    hf: str | None
    """`owner/name` on Hugging Face."""
    modelscope: str | None
    columns: list[str]
    licence: str
    size: str
    good_for: str
    languages: str
    options: dict[str, str] = field(default_factory=dict)
    """What stands after the question mark by default."""
    note: str = ""
    unverified: list[str] = field(default_factory=list)

    @property
    def recipe_line(self) -> str:
        """How a recipe names it."""
        keys: dict[Kind, str] = {
            "document": "paths",
            "conversation": "conversations",
            "preference": "preferences",
        }
        return f"corpus.{keys[self.kind]}: [catalog:{self.name}]"

    def address(self, options: dict[str, str]) -> str:
        """`hf:owner/name?...`; `options` override the entry's own, `hub` chooses the hub.

        Raises:
            MiaoError: not on that hub, or on none.
        """
        asked = dict(options)
        hubs = {"hf": self.hf, "modelscope": self.modelscope}
        hub = asked.pop("hub", None) or next((hub for hub, at in hubs.items() if at), "hf")
        if hub not in hubs or not hubs[hub]:
            known = [f"hub={hub}" for hub, at in hubs.items() if at]
            raise MiaoError(
                f"{self.name} has no known repository on '{hub}'",
                fix=f"use {' or '.join(known)}" if known else self.note or "download it by hand",
            )
        merged = dict(asked)
        if "files" not in asked:  # files of the user's choice are no subset of the entry's
            merged = {**self.options, **asked}
        query = urlencode(merged, safe="*/,:")
        return f"{hub}:{hubs[hub]}" + (f"?{query}" if query else "")


@cache
def entries() -> dict[str, Entry]:
    """All data sets by name, in the order of the list."""
    path = Path(__file__).with_name("datasets.yaml")
    listed: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {values["name"]: Entry(**values) for values in listed}


def find_entry(text: str) -> tuple[Entry, dict[str, str]]:
    """Reads `catalog:NAME[?option=value&...]`.

    Raises:
        MiaoError: no such data set.
    """
    name, _, query = text.removeprefix("catalog:").partition("?")
    known = entries()
    if name not in known:
        hint = did_you_mean(name, known)
        raise MiaoError(
            f"the catalogue has no '{name}'", where=text, fix=hint or "see `miao corpus catalog`"
        )
    return known[name], dict(parse_qsl(query))
