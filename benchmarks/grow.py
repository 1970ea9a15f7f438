"""Does `miao grow` keep its word? Corpora times budgets: time kept, forecast against outcome.

    python benchmarks/grow.py --texts zh=data/zh.jsonl en=data/books/ --minutes 2 5 15 40

Every run is a process of its own and is kept below --out; called again, it goes on with those that
are missing, and with no run to do it only prints the table (Markdown).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from miao.files import read_json

ROOT = Path(__file__).resolve().parent.parent
KEPT, FORETOLD = 0.03, 0.03
"""What counts as kept, and as foretold."""


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", nargs="+", required=True, help="NAME=PATH of each corpus")
    parser.add_argument("--chats", nargs="+", default=[], help="conversations, for all of them")
    parser.add_argument("--minutes", nargs="+", type=float, default=[2, 5, 15, 40])
    parser.add_argument("--out", type=Path, default=Path("runs/grow-calibration"))
    parser.add_argument("--only-table", action="store_true", help="run nothing")
    options = parser.parse_args(words)
    cells = [
        (name, path, minutes)
        for name, _, path in (text.partition("=") for text in options.texts)
        for minutes in options.minutes
    ]
    for name, path, minutes in cells:
        book = options.out / run_name(name, minutes) / "grow.json"
        if options.only_table or (book.exists() and "outcome" in read_json(book)):
            continue
        command = [sys.executable, "-m", "miao", "grow", path, "--minutes", f"{minutes:g}"]
        command += ["--name", run_name(name, minutes), "--out_dir", str(options.out)]
        command += ["--chats", *options.chats] if options.chats else []
        subprocess.run(command, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)})
    books = [options.out / run_name(name, minutes) / "grow.json" for name, _, minutes in cells]
    print(table([(path.parent.name, read_json(path)) for path in books if path.exists()]))
    return 0


def run_name(corpus: str, minutes: float) -> str:
    return f"{corpus}-{minutes:g}"


def table(books: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Markdown: a row of each run that is done, and what came true."""
    rows = ["| run | minutes | kept | planned | halfway | outcome | off |", "|---" * 7 + "|"]
    kept = foretold = done = 0
    for name, book in books:
        outcome, expected = book.get("outcome"), book["expected"]
        if not outcome or outcome["bits_per_byte"] is None:
            continue
        off = outcome["seconds"] / (60 * expected["minutes"]) - 1
        bits, later = outcome["bits_per_byte"], book.get("halfway")
        told = later[0] if later else expected["bits_per_byte"][0]
        wrong = told / bits - 1
        done, kept = done + 1, kept + (abs(off) <= KEPT)
        foretold += abs(wrong) <= FORETOLD
        halfway = f"{later[0]:.3f}" if later else "-"
        rows.append(
            f"| {name} | {expected['minutes']:g} | {off:+.1%} | {expected['bits_per_byte'][0]:.3f} "
            f"| {halfway} | {bits:.3f} | {wrong:+.1%} |"
        )
    rows.append(f"\nTime kept within 3 %: {kept} of {done}. Foretold within 3 %: {foretold}.")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
