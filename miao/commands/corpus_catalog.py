"""`miao corpus catalog`: the catalogue as a table, or one of its entries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from miao.console import headline, say
from miao.corpus.catalog import USES, Entry, entries, find_entry
from miao.language import Parser


def main(words: Sequence[str]) -> int:
    """Prints the list, or what is known of one data set."""
    parser = Parser(
        prog="miao corpus catalog",
        description="The data sets that people of this field train on.",
    )
    parser.add_argument("name", nargs="?", help="one data set")
    parser.add_argument("--use", choices=USES, help="only those for this")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(words)
    chosen = [entry for entry in entries().values() if options.use in (None, entry.use)]
    if options.name:
        chosen = [find_entry(options.name)[0]]
    if options.json:
        print(json.dumps([asdict(entry) for entry in chosen], ensure_ascii=False, indent=2))
    elif options.name:
        _show(chosen[0])
    else:
        _list(chosen)
    return 0


def _list(chosen: list[Entry]) -> None:
    for use in USES:
        if of_use := [entry for entry in chosen if entry.use == use]:
            headline(use)
        for entry in of_use:
            say(f"  {entry.name:<24}{entry.languages:<8}{entry.size}; {entry.licence}")
            say(f"  {'':<24}{'':<8}{entry.good_for}")
    say("\nIn a recipe: catalog:NAME, with ?limit=10000 behind it for the first records.")
    say("Sizes, licences and columns are from memory: see the page of a data set before using it.")
    say("Next: miao corpus catalog NAME, miao corpus check catalog:NAME")


def _show(entry: Entry) -> None:
    def line(what: str, value: str, field: str) -> None:
        say(f"  {what:<13}{value}" + ("  (unverified)" if field in entry.unverified else ""))

    headline(f"{entry.name}: {entry.good_for}")
    line("Hugging Face", entry.hf or "-", "hf")
    line("ModelScope", entry.modelscope or "-", "modelscope")
    line("columns", ", ".join(entry.columns), "columns")
    line("becomes", f"{entry.kind}s", "kind")
    line("licence", entry.licence, "licence")
    line("size", entry.size, "size")
    line("languages", entry.languages, "languages")
    if entry.options:
        shown = "&".join(f"{key}={value}" for key, value in entry.options.items())
        line("by default", f"?{shown}", "options")
    if entry.note:
        line("note", entry.note, "note")
    if entry.use == "evaluation":
        say("  For `miao eval` and for decontamination; do not train on it.")
    elif entry.hf or entry.modelscope:
        line("in a recipe", entry.recipe_line, "")
    if entry.hf and entry.modelscope:
        line("", f"catalog:{entry.name}?hub=modelscope takes the other hub", "")
