"""Checks: pure functions from a text to what is measured of it; the rule holds the limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from miao.corpus.ngrams import CJK, DIGIT, LETTER, SEPARATOR, SPACE, TextView
from miao.corpus.read.frequent import frequent_table

NGRAM = 10  # of the repetition rule
FEW_LINES, FEW_NGRAMS = 6, 40
"""Texts with fewer are not judged by repetition."""
HAN_WINDOW, FEW_HAN = 64, 32
"""Chinese characters that are judged together by how usual they are, and the fewest to judge."""
USUAL = 0.1
"""Share of the 600 commonest that any sound text has in a window; on average it has 0.75."""
SAMPLED = 4000
"""Of more n-grams than this, one in eight is looked at."""


def limited(
    measure: Callable[[TextView], float | None], least: float | None, most: float | None
) -> Callable[[TextView], str | None]:
    """A judge of what is measured: what is wrong with it, None when it is within the limits or
    does not apply."""

    def judge(view: TextView) -> str | None:
        value = measure(view)
        if value is not None and most is not None and value > most:
            return f"{value:.3f} is above {most:g}"
        if value is not None and least is not None and value < least:
            return f"{value:.3f} is below {least:g}"
        return None

    return judge


def share_of(view: TextView, kind: int) -> float:
    """Share of the characters, white space aside, that are of a class (see `ngrams`)."""
    visible = len(view.text) - view.counts[SPACE]
    return view.counts[kind] / visible if visible else 0.0


def symbol_share(view: TextView) -> float:
    return share_of(view, SEPARATOR)


def digit_share(view: TextView) -> float:
    return share_of(view, DIGIT)


def broken_share(view: TextView) -> float:
    """Share of replacement characters, what a wrong decoding leaves behind."""
    return view.text.count("\ufffd") / max(len(view.text), 1)


def garbled_share(view: TextView) -> float:
    """Share of the Chinese text whose characters are hardly ever among the commonest, as those that
    a wrong decoding makes. Of 74,000 real texts, poems and lists of names among them, two have a
    single such window."""
    if view.counts[CJK] < FEW_HAN:
        return 0.0
    codes = view.codes
    han = codes[codes - np.uint32(0x3400) < 0x6C00]  # up to 9FFF; those below wrap around
    if han.size < FEW_HAN:
        return 0.0
    usual = frequent_table().take(han)
    whole = han.size // HAN_WINDOW * HAN_WINDOW
    windows = usual[:whole].reshape(-1, HAN_WINDOW) if whole else usual[None]
    shares = np.add.reduce(windows, axis=1, dtype=np.uint8) / windows.shape[1]
    return np.count_nonzero(shares < USUAL) / len(windows)


def repeated_line_share(view: TextView) -> float:
    """Share of the characters that stand in lines which occur before in the text.

    After Rae et al. 2021 (Gopher), appendix A: duplicate line character fraction.
    """
    lines = [line for line in map(str.strip, view.text.split("\n")) if line]
    if len(lines) < FEW_LINES:
        return 0.0
    unique = set(lines)
    if len(unique) == len(lines):
        return 0.0
    total = sum(map(len, lines))
    return 1 - sum(map(len, unique)) / total


def repeated_ngram_share(view: TextView) -> float:
    """Share of the 10-grams of tokens that occur before in the text."""
    grams = view.ngrams(NGRAM)
    if grams.size < FEW_NGRAMS:
        return 0.0
    if grams.size > SAMPLED:  # those with certain hashes: all occurrences of each, or none
        grams = grams[(grams & np.uint64(7)) == 0]
    ordered = np.sort(grams)
    return float(np.count_nonzero(ordered[1:] == ordered[:-1])) / grams.size


def one_character_share(view: TextView) -> float:
    """Share of the character in the middle when they are sorted, white space aside: the commonest
    one, if any makes up half of them."""
    codes = view.codes[view.kinds != SPACE]
    if codes.size < FEW_NGRAMS:
        return 0.0
    codes.partition(codes.size // 2)
    return np.count_nonzero(codes == codes[codes.size // 2]) / codes.size


def chinese_shortage(view: TextView) -> float:
    """1 - share of Chinese characters among the letters."""
    return 1 - view.chinese_share


def has_words(view: TextView) -> bool:
    """Whether anything in the text is a letter, a digit or a CJK character."""
    return view.counts[CJK] + view.counts[LETTER] + view.counts[DIGIT] > 0


class Blocklist:
    """Words that a user does not want; in Latin script they must stand as whole words."""

    def __init__(self, words: Sequence[str]):
        import re

        self._plain: dict[str, list[str]] = {}
        whole = []
        for word in {word.strip().lower() for word in words if word.strip()}:
            if word.isascii():
                whole.append(word)
            else:
                self._plain.setdefault(word[:2], []).append(word)
        ordered = "|".join(re.escape(word) for word in sorted(whole, key=len, reverse=True))
        self._whole = re.compile(rf"(?<![a-z0-9])(?:{ordered})(?![a-z0-9])") if whole else None
        self._begins = {begin[:1] for begin in self._plain}

    def found(self, view: TextView) -> list[str]:
        """Every occurrence, in no particular order; words of CJK are found inside others."""
        text = view.text.lower()
        found = self._whole.findall(text) if self._whole else []
        if self._plain and self._begins & set(text):
            pairs = set(map("".join, pairwise(text))) | set(text)
            for begin in self._plain.keys() & pairs:
                for word in self._plain[begin]:
                    found += [word] * text.count(word)
        return found
