"""Files that are used without being named: CATEGORY.jsonl in a folder of the working directory."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from miao.console import say, warn
from miao.corpus.read.kinds import sniff_kind
from miao.corpus.read.opened import format_of
from miao.corpus.records import FIELDS, Kind
from miao.recipe import CorpusOptions


def with_local_files(options: CorpusOptions, before: dict[str, Any] | None = None) -> CorpusOptions:
    """The options with the files of `options.local`, for the kinds of record that name none.

    A file's name is its category (its source), its first records tell its kind.

    Args:
        before: options that the corpus was made with; they tell what a folder held that is gone.
    """
    folder = Path(options.local) if options.local else None
    if folder is None:
        return options
    if not folder.is_dir():
        lists = {name: (before or {}).get(name, []) for name in FIELDS.values()}
        held = {n: v for n, v in lists.items() if v and {Path(p).parent for p in v} == {folder}}
        empty = {name: paths for name, paths in held.items() if not getattr(options, name)}
        return dataclasses.replace(options, **empty)
    found: dict[Kind, list[str]] = {}
    for path in sorted(folder.iterdir()):
        known = format_of(path)
        if path.name.startswith(".") or not path.is_file() or not known or known[0] != ".jsonl":
            continue
        if kind := sniff_kind(path):
            found.setdefault(kind, []).append(path.as_posix())
        else:
            warn(f"{path} holds no known record: passed over (see `miao corpus check {path}`)")
    taken: dict[str, Any] = {
        FIELDS[kind]: paths
        for kind, paths in sorted(found.items())
        if not getattr(options, FIELDS[kind])
    }
    for name, paths in taken.items():
        say(f"found in {folder}, used as corpus.{name}: {', '.join(Path(p).name for p in paths)}")
    return dataclasses.replace(options, **taken)
