"""Amounts as people write them: `4M`, `1.5B`, or a fraction of a budget."""

from __future__ import annotations

import re

from miao.errors import MiaoError

Quantity = int | float | str


def parse_quantity(value: Quantity, where: str) -> float:
    """`4_000_000`, `"4M"`, `"1.5B"`, `0.25` -> a number.

    Raises:
        MiaoError: not a non-negative number with an optional K, M or B.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
    else:
        match = re.fullmatch(r"\s*([0-9._]+(?:e[+-]?[0-9]+)?)\s*([kmb]?)\s*", str(value).lower())
        try:
            scale = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9}[match[2]] if match else 0.0
            number = float(match[1].replace("_", "")) * scale if match else -1.0
        except ValueError:
            number = -1.0
    if not 0 <= number < 1e15:
        raise MiaoError(
            f"{value!r} is not a quantity",
            where=where,
            fix="write 4000000, 4M, or (warmup, decay, *_every) a share such as 0.02",
        )
    return number


def of_budget(value: Quantity, budget: float, where: str) -> float:
    """Tokens meant by an option that may be a fraction (below 1) of the budget."""
    number = parse_quantity(value, where)
    return number * budget if number < 1 else number
