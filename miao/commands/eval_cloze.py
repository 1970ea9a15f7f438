"""`miao eval cloze FILES`: questions from one's own held-out texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from miao.console import say
from miao.evaluate.tasks.cloze import PER_TEXT, cloze_items
from miao.files import write_jsonl
from miao.language import Parser


def main(words: Sequence[str]) -> int:
    """Runs `miao eval cloze WORDS`."""
    parser = Parser(
        prog="miao eval cloze",
        description="Makes cloze questions of texts that no training has seen: names, numbers, "
        "idioms and rare words are left out, to be told from others of the same text.",
    )
    add = parser.add_argument
    add("files", nargs="+", help="texts, in any form that training reads")
    add("--out", type=Path, default=Path("data/eval/cloze"), help="folder (default %(default)s)")
    add("--texts", type=int, default=2000, help="read at most so many texts (default 2000)")
    add("--per-text", type=int, default=PER_TEXT, help=f"questions per text (default {PER_TEXT})")
    add("--seed", type=int, default=0, help="which gaps are drawn (default 0)")
    options = parser.parse_args(words)
    from miao.corpus.read.formats import read_records

    records = islice(read_records(options.files, "document"), options.texts)
    items = cloze_items((record.text for record in records), options.seed, options.per_text)
    path = options.out / "cloze.jsonl"
    write_jsonl(path, items)
    kinds = Counter(f"{item['kind']} {item['language']}" for item in items)
    texts = len({item["cluster"] for item in items})
    shown = ", ".join(f"{name} {count:,}" for name, count in sorted(kinds.items()))
    say(f"  {len(items):,} questions from {texts:,} texts: {shown}")
    say(f"  written to {path}\n  next: miao eval RUN --tasks cloze --data {options.out}")
    return 0
