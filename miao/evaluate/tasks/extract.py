"""The answer in a generated text, and whether it is right."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from miao.errors import MiaoError, did_you_mean
from miao.evaluate.tasks.option import option
from miao.evaluate.tasks.task import Compare

_NUMBER = re.compile(r"(?:(?<![\d)])-)?(?:\d+(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?%?")


def first_capital(text: str, letters: str = "") -> str | None:
    """The first upper-case letter, whatever it stands for (as OpenCompass does it)."""
    return next((letter for letter in text if letter.isupper()), None)


def first_number(text: str, letters: str = "") -> str | None:
    found = _NUMBER.search(text)
    return found[0] if found else None


def last_number(text: str, letters: str = "") -> str | None:
    found = _NUMBER.findall(text)
    return found[-1] if found else None


def whole_text(text: str, letters: str = "") -> str | None:
    return text.strip() or None


Extract = Callable[[str, str], str | None]
"""From a text, and the letters of the question's options, to the answer."""
EXTRACTORS: dict[str, Extract] = {
    "option": option,
    "first_capital": first_capital,
    "first_number": first_number,
    "last_number": last_number,
    "text": whole_text,
}


def extractor(names: Sequence[str]) -> Extract:
    """The first of several extractors that finds something.

    A name of `EXTRACTORS`, or `first:REGEX` or `last:REGEX` (the first or last match, of it the
    first group that matched).

    Raises:
        MiaoError: an unknown name, or no regular expression.
    """
    made = [_one(name) for name in names]

    def extract(text: str, letters: str) -> str | None:
        return next((found for one in made if (found := one(text, letters)) is not None), None)

    return extract


def _one(name: str) -> Extract:
    kind, colon, pattern = name.partition(":")
    if not colon or kind not in ("first", "last"):
        if name not in EXTRACTORS:
            raise MiaoError(
                f"there is no way '{name}' to extract an answer",
                fix=did_you_mean(name, EXTRACTORS)
                or f"known: {', '.join(EXTRACTORS)}, first:REGEX, last:REGEX",
            )
        return EXTRACTORS[name]
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise MiaoError(f"not a regular expression ({error}): {pattern}") from error

    def search(text: str, letters: str) -> str | None:
        found = list(compiled.finditer(text))
        if not found:
            return None
        match = found[0 if kind == "first" else -1]
        return next((group for group in match.groups() if group), match[0])

    return search


def is_right(found: str | None, answer: str, compare: Compare, tolerance: float = 0.0) -> bool:
    """Whether what was extracted is the answer: the same letter, number or text."""
    if found is None:
        return False
    if compare == "number":
        pairs = [(to_number(found), to_number(answer))]
        if ("%" in found) != ("%" in answer):  # where the question asks for percent
            pairs.append((to_number(found.replace("%", "")), to_number(answer.replace("%", ""))))
        known = [(one, other) for one, other in pairs if one is not None and other is not None]
        return any(abs(one - other) <= tolerance for one, other in known)
    if compare == "text":
        return " ".join(found.split()).lower() == " ".join(answer.split()).lower()
    return found == answer


def to_number(text: str) -> float | None:
    """`1,200`, `$3.5`, `3/4`, `50%`; None for what is no number."""
    plain = text.strip().replace(",", "").replace("$", "").rstrip(".")
    percent = plain.endswith("%")
    try:
        above, slash, below = plain.rstrip("%").partition("/")
        value = float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        return None
    return (value / 100 if percent else value) if math.isfinite(value) else None
