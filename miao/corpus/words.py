"""Words that a text is about: those that it says again and again."""

from __future__ import annotations

import re
from collections import Counter

HAN = "\u4e00-\u9fff"
RUN = re.compile(rf"[{HAN}]+")
NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+(?: [A-Z][a-z]+)?(?![\w'’-])")
"""An English name, within a sentence."""
WORD = re.compile(r"(?<![\w'’-])[a-z]{6,}(?![\w'’-])")
_EMPTY = set(
    "的了在是和与及而就也都不有为以于之被把从到对这那他她它们我你其此或但所上下中个一等着过将由很更最又再"
)


def is_chinese(text: str) -> bool:
    return sum(map(len, RUN.findall(text))) > 0.3 * len(text)


def repeated_words(text: str, chinese: bool) -> Counter[str]:
    """Words that come at least twice in a text, and how often. Chinese ones: runs of two to four
    characters that go on differently each time and hold no particle."""
    grams: Counter[str] = Counter()
    if not chinese:
        grams.update(match[0] for match in WORD.finditer(text))
        return Counter({word: count for word, count in grams.items() if count > 1})
    for run in RUN.findall(text):
        for size in (2, 3, 4, 5):
            grams.update(run[i : i + size] for i in range(len(run) - size + 1))
    longer: dict[str, int] = {}
    for gram, count in grams.items():
        for part in (gram[1:], gram[:-1]):
            longer[part] = max(longer.get(part, 0), count)
    return Counter(
        {
            gram: count
            for gram, count in grams.items()
            if count > 1
            and len(gram) < 5
            and longer.get(gram, 0) < count
            and not set(gram) & _EMPTY
        }
    )
