"""`miao corpus classifier`: what is a good text, learned from the user's samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import get_args

from miao.console import ProgressLine, headline, say, say_next
from miao.corpus.clean.classifier import is_classifier, train
from miao.corpus.read.formats import read_records
from miao.corpus.records import Kind, Record, text_of
from miao.errors import MiaoError
from miao.files import require_replaceable
from miao.language import Parser


def main(words: Sequence[str]) -> int:
    """Trains a classifier, and prints what it does to samples that it has not seen."""
    parser = Parser(
        prog="miao corpus classifier",
        description="Trains a quality classifier on samples of good and of bad text, and shows "
        "what each threshold does to a fifth of them that it has not seen. A few thousand of "
        "either kind are enough; the bad ones may be drawn from what is to be cleaned.",
    )
    parser.add_argument("--good", nargs="+", required=True, help="files, folders, globs, hf:NAME")
    parser.add_argument("--bad", nargs="+", required=True, help="the same, of texts to be rid of")
    parser.add_argument("--out", required=True, help="the directory to write")
    parser.add_argument("--kind", choices=get_args(Kind), default="document")
    parser.add_argument(
        "--limit", type=int, default=20_000, help="samples of either kind (default 20000)"
    )
    options = parser.parse_args(words)
    if options.limit < 1:
        raise MiaoError("--limit must be positive")
    out = Path(options.out)
    require_replaceable(out, is_classifier)
    headline(f"classifier: {' '.join(options.good)} against {' '.join(options.bad)}")
    good = _texts(options.good, options.kind, options.limit)
    facts = train(good, _texts(options.bad, options.kind, options.limit), out)
    say(f"  {facts['good']:,} good, {facts['bad']:,} bad; {facts['held_out']:,} of them held out")
    if facts["contradicting"]:
        say(f"  {facts['contradicting']:,} stand on both sides, and were left out")
    say(f"  a good one scores above a bad one {facts['auc']:.1%} of the time (AUC; chance 50 %)")
    say("\n  min_score   of the kept are good   good ones kept   bad ones kept")
    for row in facts["rows"]:
        precision = f"{row['precision']:.1%} ± {row['precision_error']:.1%}"
        say(f"  {row['threshold']:>9.1f}   {precision:>20}   {row['recall']:>14.1%}"
            f"   {row['bad_kept']:>13.1%}")  # fmt: skip
    say("  (held-out samples; the precision is that of as many good as bad texts)")
    say(f"\n  wrote {out}")
    say_next(f"miao corpus build FILES --out DIR --corpus.clean.classifier {out}")
    return 0


def _texts(paths: Sequence[str], kind: Kind, limit: int) -> Iterator[str]:
    with ProgressLine(f"reading {' '.join(paths)}", limit) as line:
        records: Iterable[Record] = read_records(paths, kind)
        for record in islice(records, limit):
            line.advance(1)
            yield text_of(record)
