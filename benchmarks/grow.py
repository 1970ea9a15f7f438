"""Does `miao grow` keep its word? Corpora times budgets: time kept, forecast against outcome.

    python benchmarks/grow.py --texts zh=data/zh.jsonl en=data/books/ --minutes 2 5 15 40

Every run is a process of its own and is kept below --out; called again, it goes on with those that
are missing, and with no run to do it only prints the table (Markdown) and draws
calibration.svg: what was said against what came.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from miao.files import read_json, write_text

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
    there = [(path.parent.name, read_json(path)) for path in books if path.exists()]
    print(table(there))
    write_text(options.out / "calibration.svg", plot(there))
    return 0


def plot(books: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """SVG: bits per byte that came (across) and that were said (up): planned (rings), halfway
    (dots); on the line it came true, in the band within `FORETOLD`."""
    points = [
        (name, float(said), float(book["outcome"]["bits_per_byte"]), colour)
        for name, book in there_with_bits(books)
        for said, colour in (
            (book["expected"]["bits_per_byte"][0], "none"),
            ((book.get("halfway") or [None])[0], "#2b6"),
        )
        if said is not None
    ]
    values = [value for _, said, came, _ in points for value in (said, came)] or [1.0, 2.0]
    low, high = 0.95 * min(values), 1.05 * max(values)

    def at(value: float) -> float:
        return 40 + 340 * (value - low) / (high - low)

    def line(factor: float, style: str) -> str:
        ends = " ".join(f"{at(x):.1f},{420 - at(x * factor):.1f}" for x in (low, high))
        return f'<polyline points="{ends}" fill="none" stroke="#999" {style}/>'

    marks = [
        f'<circle cx="{at(came):.1f}" cy="{420 - at(said):.1f}" r="4" fill="{colour}" '
        f'stroke="#2b6"><title>{name}: {said:.3f}, came {came:.3f}</title></circle>'
        for name, said, came, colour in points
    ]
    dashed = 'stroke-dasharray="4"'
    lines = [line(1, ""), line(1 - FORETOLD, dashed), line(1 + FORETOLD, dashed)]
    words = [
        '<text x="40" y="20">bits per byte: said (up), came (across)</text>',
        f'<text x="40" y="410">{low:.2f}</text><text x="350" y="410">{high:.2f}</text>',
    ]
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 420 420" font-size="12">'
    return "\n".join([head, *lines, *marks, *words, "</svg>", ""])


def there_with_bits(
    books: Sequence[tuple[str, dict[str, Any]]],
) -> list[tuple[str, dict[str, Any]]]:
    """Those that are done, of each corpus by the minutes."""
    done = [one for one in books if (one[1].get("outcome") or {}).get("bits_per_byte")]
    return sorted(done, key=lambda one: (one[0].rpartition("-")[0], one[1]["expected"]["minutes"]))


def run_name(corpus: str, minutes: float) -> str:
    return f"{corpus}-{minutes:g}"


def table(books: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Markdown: a row of each run that is done, and what came true."""
    rows = ["| run | minutes | kept | planned | halfway | outcome | off |", "|---" * 7 + "|"]
    kept = foretold = done = 0
    for name, book in there_with_bits(books):
        outcome, expected = book["outcome"], book["expected"]
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
    ladder = [
        later[1]["outcome"]["bits_per_byte"] < before[1]["outcome"]["bits_per_byte"]
        for before, later in pairwise(there_with_bits(books))
        if before[0].rpartition("-")[0] == later[0].rpartition("-")[0]
    ]
    rows.append(f"\nMore time, fewer bits: {sum(ladder)} of {len(ladder)} steps.")
    rows.append(f"\nTime kept within 3 %: {kept} of {done}. Foretold within 3 %: {foretold}.")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
