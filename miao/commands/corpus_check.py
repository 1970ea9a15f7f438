"""`miao corpus check`: what is recognised in files, what they hold, and what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from miao.commands.corpus_build import add_reading, columns_of
from miao.console import say
from miao.corpus.check import Check
from miao.corpus.read.convert import EXPECTED
from miao.corpus.read.formats import Reading
from miao.corpus.read.sources import is_dataset_name
from miao.corpus.records import Kind
from miao.errors import MiaoError
from miao.language import Parser

FROM_HUB = 1000
"""Records that are read of a data set on a hub, where no limit is given."""


def main(words: Sequence[str]) -> int:
    """`miao corpus check PATH...`; returns 1 when there were problems."""
    parser = Parser(
        prog="miao corpus check",
        description="Says what is recognised in files, shows three records, counts, lengths and "
        "languages, and lists every problem; bad records go to a quarantine file.",
    )
    parser.add_argument(
        "paths", nargs="+", help="files, folders, globs, -, hf:owner/name, catalog:NAME"
    )
    parser.add_argument("--kind", choices=get_args(Kind), help="read them as this (default: told)")
    parser.add_argument("--limit", type=int, help="only the first records of each file")
    parser.add_argument(
        "--quarantine", default="quarantine.jsonl", help="where bad records go, with the reasons"
    )
    add_reading(parser)
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(words)
    if options.limit is not None and options.limit < 1:
        raise MiaoError("--limit must be positive", where="the command line")
    paths = [_of_hub(path, options.limit) for path in options.paths]
    reading = Reading(columns_of(options.columns), options.encoding)
    check = Check(Path(options.quarantine), options.limit, reading)
    check.run(paths, options.kind)
    if options.json:
        print(json.dumps(check.to_json(), ensure_ascii=False, indent=2))
    else:
        check.print()
        if not check.found:
            say(f"no records were found. Known are {'; '.join(EXPECTED.values())}")
    return 1 if check.counts.problems or not check.found else 0


def _of_hub(path: str, limit: int | None) -> str:
    if not is_dataset_name(path) or "limit=" in path or "stream=" in path:
        return path
    return f"{path}{'&' if '?' in path else '?'}limit={limit or FROM_HUB}"
