"""What the corpus stage says of the user's own records, in lines for the terminal."""

from __future__ import annotations

from typing import Any

from miao.console import count


def account_lines(accounts: dict[str, Any]) -> list[str]:
    """Lines from the `accounts` of one stage in `corpus/manifest.json`: what went, and why."""
    lines = []
    read = max(accounts["read"], 1)
    gone = [(f"rejected: {rule}", number) for rule, number in accounts["rejected"].items()]
    gone += [
        ("overlap with evaluation sets", accounts["contaminated"]),
        ("equal to an earlier one", accounts["exact"]),
        ("nearly equal to another", accounts["near"]),
        ("all of it stands in earlier ones", accounts["emptied"]),
        ("the same or nearly so is held out", accounts["heldout_duplicates"]),
        *((f"not wanted by the mix: {name}", n) for name, n in accounts["left_out"].items()),
    ]
    gone = [(what, number) for what, number in gone if number]
    if gone:
        total = sum(number for _, number in gone)
        lines.append(f"{total:,} of {accounts['read']:,} records ({total / read:.1%}) left out:")
        for what, number in sorted(gone, key=lambda entry: -entry[1]):
            lines.append(f"  {number:>9,}  {what}")
    for rule, number in accounts["edited"].items():
        taken = accounts["taken_out"][rule]
        removed = f", {count(taken)} characters less" if taken > 0 else ""
        lines.append(f"edited by '{rule}': {number:,} records{removed}")
    for name, share in accounts["mix"].items():
        lines += [f"mix, {name}: {note}" for note in share["notes"]]
    for origin, number in accounts.get("crowded", {}).items():
        lines.append(f"{origin}: {number:,} names in `source` are too many for sources; it is one")
    if accounts["repeated"]:
        lines.append(f"{accounts['repeated']:,} lines of the corpus repeat earlier ones")
    return lines
