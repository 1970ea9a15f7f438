"""What makes a web page poor prose: the limits of Gopher, C4 and FineWeb, measured in one pass.

Gopher: Rae et al. 2021, arXiv:2112.11446, table A1 and section A.1.1. C4: Raffel et al. 2020,
arXiv:1910.10683. FineWeb: Penedo et al. 2024, arXiv:2406.17557. They speak of English words; here
a word is also one character of Chinese, and a line's length counts such a character twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from miao.corpus.clean.checks import limited
from miao.corpus.ngrams import TextView, language_of
from miao.errors import MiaoError, did_you_mean
from miao.recipe.cleaning import WebOptions

GOPHER_REPETITION = {
    2: 0.20, 3: 0.18, 4: 0.16, 5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10
}  # fmt: skip
PUBLISHED: dict[str, dict[str, Any]] = {
    "gopher": {
        "min_word_length": 3, "max_word_length": 10, "max_marks": 0.1, "max_list_lines": 0.9,
        "max_ellipsis_lines": 0.3, "min_lettered_words": 0.8, "min_stop_words": 2,
        "max_repeated_lines": 0.2, "max_repeated_paragraphs": 0.2,
        "max_repetition": GOPHER_REPETITION,
    },
    "c4": {"whole_lines": True, "placeholders": True, "min_sentences": 5},
    "fineweb": {
        "min_ended_lines": 0.12, "max_short_lines": 0.67, "max_repeated_lines": 0.01,
        "max_line_ends": 0.3,
    },
}  # fmt: skip
"""The limits of each, under the names of the options."""
SHORT_LINE = 30  # columns
STOP_WORDS = {
    "en": frozenset(["the", "be", "to", "of", "and", "that", "have", "with"]),
    "zh": frozenset("的一是在不了有和人这为上以个我之也"),
}
ENDS = tuple(".!?…。！？．\"'”’」』")
_WORD = re.compile(
    r"[\u3041-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\s\u3041-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
)
_WORDS_ONLY = re.compile(r"[A-Za-zÀ-ÿ]+(?:['’-][A-Za-zÀ-ÿ]+)*")
_SENTENCE_END = re.compile(r"[。！？]+|[.!?]+(?=[\s\"'”’)]|$)")
_LISTED = ("•", "-", "*", "·", "●", "▪")
_POLICY = re.compile(
    r"javascript|terms of use|privacy policy|cookie policy|use(?:s|(?: of))? cookies"
    r"|隐私政策|用户协议|使用条款|启用\s?cookie", re.IGNORECASE
)  # fmt: skip


class Page:
    """A text as lines, paragraphs and words."""

    def __init__(self, view: TextView):
        self.view = view
        self.lines = [line for line in map(str.strip, view.text.split("\n")) if line]

    @cached_property
    def words(self) -> list[str]:
        found = _WORD.findall(self.view.text)
        return [word for word in found if any(map(str.isalnum, word))]

    @cached_property
    def language(self) -> str:
        return language_of(self.view)

    @cached_property
    def english(self) -> list[str]:
        """Words of a text in Latin script; none of another text."""
        return [] if self.language != "en" else _WORDS_ONLY.findall(self.view.text)

    def share_of_lines(self, holds: Callable[[str], bool]) -> float:
        return sum(map(holds, self.lines)) / max(len(self.lines), 1)


@lru_cache(maxsize=1)
def page_of(view: TextView) -> Page:
    """One for all rules that look at a text."""
    return Page(view)


def columns(line: str) -> int:
    """The width of a line: a character of Chinese takes two."""
    return len(line) + sum("\u2e80" <= character <= "\uffe0" for character in line)


def word_length(page: Page) -> float | None:
    words = page.english
    return sum(map(len, words)) / len(words) if words else None


def lettered_words(page: Page) -> float:
    words = page.words
    return sum(any(map(str.isalpha, word)) for word in words) / max(len(words), 1)


def marks(page: Page) -> float:
    text = page.view.text
    dots = text.count("...") + text.count("……") or text.count("…")
    return max(text.count("#"), dots) / max(len(page.words), 1)


def stop_words(page: Page) -> float | None:
    wanted = STOP_WORDS.get(page.language)
    return None if wanted is None else len(wanted & {word.lower() for word in page.words})


def repeated_paragraphs(page: Page) -> float:
    """Share of the characters in paragraphs that occur before (duplicate paragraph characters)."""
    found = [p for p in map(str.strip, re.split(r"\n{2,}", page.view.text)) if p]
    total = sum(map(len, found))
    return 1 - sum(map(len, set(found))) / total if total else 0.0


def repetition(view: TextView, n: int) -> float:
    """Share of the tokens in the commonest n-gram (n up to 4), or in n-grams that occur before.

    A word of Chinese is some two characters: n words are 2n of them.
    """
    length = 2 * n if page_of(view).language == "zh" else n
    grams, tokens = view.ngrams(length), len(view.tokens)
    if not grams.size:
        return 0.0
    _, first, count = np.unique(grams, return_index=True, return_counts=True)
    if n <= 4:
        return min(1.0, float(count.max() * length / tokens)) if count.max() > 1 else 0.0
    covered = np.zeros(tokens + 1, dtype=np.int64)
    again = np.ones(len(grams), dtype=bool)
    again[first] = False
    covered[:-length][again] += 1
    covered[length:][again] -= 1
    return float((np.cumsum(covered[:-1]) > 0).mean())


def whole_lines(text: str) -> str:
    """Only the lines that end as sentences do, hold three words, and are no legal note (C4)."""
    lines = text.split("\n")
    kept = [line for line in lines if not line.strip() or _is_whole(line.strip())]
    return text if len(kept) == len(lines) else "\n".join(kept)


def _is_whole(line: str) -> bool:
    if not line.endswith(ENDS) or line.endswith(("...", "…")) or _POLICY.search(line):
        return False
    return len(_WORD.findall(line)) >= 3


def placeholder(view: TextView) -> str | None:
    """What shows that a page is a template or code."""
    if "lorem ipsum" in view.text.lower():
        return "lorem ipsum"
    return "a curly bracket" if "{" in view.text else None


MEASURES: dict[str, Callable[[Page], float | None]] = {
    "short_lines": lambda p: p.share_of_lines(lambda line: columns(line) <= SHORT_LINE),
    "ended_lines": lambda p: p.share_of_lines(lambda line: line.endswith(ENDS)),
    "line_ends": lambda p: p.view.text.count("\n") / max(len(p.words), 1),
    "list_lines": lambda p: p.share_of_lines(lambda line: line.startswith(_LISTED)),
    "ellipsis_lines": lambda p: p.share_of_lines(lambda line: line.endswith(("...", "…"))),
    "marks": marks,
    "lettered_words": lettered_words,
    "stop_words": stop_words,
    "word_length": word_length,
    "sentences": lambda p: float(len(_SENTENCE_END.findall(p.view.text))),
    "repeated_paragraphs": repeated_paragraphs,
}
"""What the options max_NAME and min_NAME limit; None where it does not apply."""


def with_published(options: WebOptions) -> tuple[WebOptions, float | None]:
    """The options with the limits of `like` where none is set, and the largest share of repeated
    lines among those (the strictest of each).

    Raises:
        MiaoError: a name that is none of theirs.
    """
    filled, repeated_lines = replace(options), None
    for name in options.like:
        if name not in PUBLISHED:
            raise MiaoError(
                f"'{name}' is no published set of limits",
                where="corpus.clean.web.like",
                fix=did_you_mean(name, PUBLISHED) or f"known are {', '.join(PUBLISHED)}",
            )
        for key, limit in PUBLISHED[name].items():
            if key == "max_repeated_lines":
                repeated_lines = min(float(limit), repeated_lines or 1.0)
            elif getattr(options, key) == getattr(WebOptions(), key):
                setattr(filled, key, limit)
    return filled, repeated_lines


def web_checks(options: WebOptions) -> list[tuple[str, Callable[[TextView], str | None]]]:
    """The limits that are set: (name of the rule, from a text to what was found, or None)."""
    found = []
    for name, measure in MEASURES.items():
        least, most = (getattr(options, f"{end}_{name}", None) for end in ("min", "max"))
        if least is not None or most is not None:
            found.append((name.replace("_", " "), limited(_of_page(measure), least, most)))
    if options.placeholders:
        found.append(("placeholders", placeholder))
    if options.max_repetition:
        found.append(("repetition", _repetition_judge(options.max_repetition)))
    return found


def _of_page(measure: Callable[[Page], float | None]) -> Callable[[TextView], float | None]:
    return lambda view: measure(page_of(view))


def _repetition_judge(limits: dict[int, float]) -> Callable[[TextView], str | None]:
    def judge(view: TextView) -> str | None:
        for n, limit in limits.items():
            if (share := repetition(view, n)) > limit:
                return f"{n}-grams: {share:.3f} is above {limit:g}"
        return None

    return judge
