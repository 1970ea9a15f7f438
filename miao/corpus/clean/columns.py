"""Rules over what stands beside a text: a score in a column, the address of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from miao.errors import MiaoError
from miao.files import at_home
from miao.recipe.cleaning import CleanOptions


class Columns:
    """Judges raw objects by the columns that the options name.

    Raises:
        MiaoError: a list of domains that cannot be read.
    """

    def __init__(self, options: CleanOptions):
        self.options = options
        on = options.enabled
        self._score = options.quality_column if on else None
        lines = lines_of(options.blocked_domains) if on else []
        self._domains = {line.lower().lstrip("*.").removeprefix("www.") for line in lines}

    @property
    def wanted(self) -> bool:
        return bool(self._score or self._domains)

    def rejects(self, value: Any) -> tuple[str, str] | None:
        """(rule, why) of an object that goes. One without a number in the column of scores does,
        one without an address does not."""
        columns = value if isinstance(value, dict) else {}
        if self._score and (why := self._low(columns.get(self._score))):
            return "quality", f"{self._score} {why}"
        if self._domains and (host := _host(columns.get(self.options.url_column))):
            parts = host.split(".")
            names = {".".join(parts[place:]) for place in range(len(parts))}
            if found := names & self._domains:
                return "domain", max(found, key=len)
        return None

    def _low(self, score: Any) -> str | None:
        most = self.options.max_quality
        try:
            number = float("nan") if score is None or isinstance(score, bool) else float(score)
        except (TypeError, ValueError):
            number = float("nan")
        if number >= self.options.min_quality and (most is None or number <= most):
            return None
        return f"is {score!r}"


def lines_of(paths: Sequence[str]) -> list[str]:
    """The lines of word lists, without blank ones and # comments."""
    found: list[str] = []
    for path in paths:
        try:
            lines = at_home(path).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise MiaoError(
                f"the list cannot be read: {error}",
                where=path,
                fix="a UTF-8 text file with one entry per line",
            ) from error
        found += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return found


def _host(address: Any) -> str | None:
    """`https://a.example.com/b` -> "a.example.com"; also of an address without a scheme."""
    if not isinstance(address, str):
        return None
    try:
        return urlsplit(address if "//" in address else f"//{address}").hostname
    except ValueError:
        return None
