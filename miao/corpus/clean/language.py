"""Which languages a text is in: by script where the script tells, by lingua among Latin ones.

What is not prose misleads: names, titles in quotes, code, formulas. So it is left out; Latin text
is judged by its words in lower case, in three places, each of which counts only where it is
certain; Japanese is told from Chinese line by line.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from typing import Any

from miao.errors import MiaoError, did_you_mean, install_hint

LATIN = {
    "en": "ENGLISH", "fr": "FRENCH", "de": "GERMAN", "es": "SPANISH", "pt": "PORTUGUESE",
    "it": "ITALIAN", "nl": "DUTCH", "vi": "VIETNAMESE", "id": "INDONESIAN", "tr": "TURKISH",
}  # fmt: skip
"""Latin languages told apart, by lingua's names: more would cost memory and certainty."""
SCRIPTS = {"zh": "Chinese", "ja": "Japanese", "ko": "Korean", "ru": "Cyrillic", "ar": "Arabic"}
"""Languages that stand for their script: any text in Cyrillic letters counts as ru."""
OTHER = "other"

LOOKED_AT = 20_000
"""Characters of a text that are looked at, a third of them at its beginning, middle and end."""
ENOUGH = 60
"""Fewer letters than this tell nothing. A Chinese character, kana or hangul counts as three."""
WINDOWS, WINDOW = 3, 300
"""Places of Latin text that are judged, and their characters."""
FEW_LETTERS = 40
"""A place with fewer letters in lower case tells nothing."""
CERTAIN = 0.9
FEW_KANA = 0.2
"""Japanese prose has more kana than this among its kana and ideographs; a Chinese line on Japan has
fewer."""
ENGLISH_SHARE = 0.12
"""Of the words of English, a third are function words; of other languages, few happen to be one."""

_NOT_PROSE = re.compile(
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`"  # code
    r"|\$\$[^$]{1,2000}\$\$|\$[^$\n]{1,200}\$|\\[A-Za-z]{1,32}"  # formulas
    r"|https?://[!-~]+|\bwww\.[!-~]+|[\w.+-]{1,64}@[\w.-]{1,64}|<[^<>\n]{1,300}>|&#?\w{1,8};"
    r"|《[^《》\n]{1,80}》|「[^「」\n]{1,80}」|『[^『』\n]{1,80}』"  # titles and names
    r"|“[^“”\n]{1,80}”|\"[^\"\n]{1,80}\"|«[^«»\n]{1,80}»|（[^（）\n]{1,80}）|\([^()\n]{1,80}\)",
    re.DOTALL | re.ASCII,
)
_RUNS = {
    "han": re.compile("[\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"),
    "ja": re.compile("[\u3041-\u30fa\u30fc-\u30ff]"),
    "ko": re.compile("[\uac00-\ud7af\u1100-\u11ff]"),
    "latin": re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]"),
    "ru": re.compile("[\u0400-\u052f]"),
    "ar": re.compile("[\u0600-\u06ff]"),
    OTHER: re.compile("[\u0370-\u03ff\u0530-\u05ff\u0900-\u109f\u10a0-\u10ff\u1780-\u17ff]"),
}
_WEIGHTS = {"han": 3, "ja": 3, "ko": 3}
_LOWER = re.compile(r"(?<![^\W\d_])[a-z\u00df-\u00f6\u00f8-\u024f\u1ea1-\u1eff]+(?![^\W\d_])")
_ENGLISH = frozenset(
    {
        *("the", "and", "of", "to", "with", "that", "which", "from", "this", "by", "at", "were"),
        *("had", "has", "have", "his", "her", "their", "they", "been", "not", "but", "are", "it"),
        *("its", "who", "when", "after", "also", "you", "your", "we", "our", "what", "would"),
        *("should", "can", "will", "there"),
    }
)


@cache
def _detector() -> tuple[Any, dict[Any, str]]:
    try:
        import lingua
    except ImportError as error:
        raise MiaoError(
            "--corpus.clean.languages needs lingua to tell Latin languages apart",
            where="corpus.clean.languages",
            fix=f"{install_hint('data')}, or use --corpus.clean.min_chinese",
        ) from error
    known = {getattr(lingua.Language, name): code for code, name in LATIN.items()}
    return lingua.LanguageDetectorBuilder.from_languages(*known).build(), known


def check_languages(codes: list[str]) -> None:
    """Raises:
    MiaoError: a code that is not known, or lingua is missing and needed.
    """
    for code in codes:
        if code not in LATIN and code not in SCRIPTS:
            known = [*SCRIPTS, *LATIN]
            raise MiaoError(
                f"'{code}' is no language that can be told apart",
                where="corpus.clean.languages",
                fix=did_you_mean(code, known) or f"known are {', '.join(known)}",
            )
    if any(code in LATIN for code in codes):
        _detector()


def foreign_share(text: str, wanted: frozenset[str]) -> tuple[float, str]:
    """The share of the text's prose that is certainly in a language that is not wanted, and the
    commonest of those languages ("" where there is none). Doubtful text counts as wanted."""
    prose = _NOT_PROSE.sub(" ", _looked_at(text))
    letters = weighed_letters(prose)
    total = sum(letters.values())
    if total < ENOUGH:
        return 0.0, ""
    foreign: Counter[str] = Counter(letters)
    latin = foreign.pop("latin", 0)
    # Are there enough Latin letters to matter, and is there something to be told apart?
    if latin and not wanted & LATIN.keys():
        foreign[OTHER] += latin
    elif latin > 0.1 * total:
        places = _latin_languages(prose)
        for code, number in places.items():
            foreign[code] += latin * number // sum(places.values())
    for code in (*wanted, ""):
        foreign.pop(code, None)
    foreign = +foreign
    if not foreign:
        return 0.0, ""
    return foreign.total() / total, foreign.most_common(1)[0][0]


def _looked_at(text: str) -> str:
    if len(text) <= LOOKED_AT:
        return text
    part = LOOKED_AT // 3
    middle = (len(text) - part) // 2
    return "\n".join((text[:part], text[middle : middle + part], text[-part:]))


def weighed_letters(prose: str) -> Counter[str]:
    """Weighted letters of each language that its script tells, and of `latin` ones."""
    letters: Counter[str] = Counter()
    found = {name: len(run.findall(prose)) for name, run in _RUNS.items()}
    han, kana = found.pop("han"), found.pop("ja")
    if kana > 0.02 * (han + kana):
        for line in prose.split("\n"):
            line_kana = len(_RUNS["ja"].findall(line))
            line_han = len(_RUNS["han"].findall(line))
            japanese = line_kana > FEW_KANA * (line_kana + line_han)
            letters["ja" if japanese else "zh"] += _WEIGHTS["han"] * (line_han + line_kana)
    else:
        letters["zh"] += _WEIGHTS["han"] * (han + kana)
    for name, number in found.items():
        letters[name] += _WEIGHTS.get(name, 1) * number
    return letters


def _latin_languages(prose: str) -> Counter[str]:
    """The language of each place that is looked at; "" where it is not certain."""
    words = _LOWER.findall(prose)
    joined = " ".join(words)
    step = max(len(joined) - WINDOW, 0) // max(WINDOWS - 1, 1)
    begins = sorted({min(number * step, max(len(joined) - WINDOW, 0)) for number in range(WINDOWS)})
    return Counter(_language_of_words(joined[begin : begin + WINDOW]) for begin in begins)


def _language_of_words(words: str) -> str:
    if sum(map(str.isalpha, words)) < FEW_LETTERS:
        return ""
    split = words.split()
    if sum(word in _ENGLISH for word in split) >= ENGLISH_SHARE * len(split):
        return "en"
    detector, known = _detector()
    likeliest = detector.compute_language_confidence_values(words)[0]
    return known[likeliest.language] if likeliest.value >= CERTAIN else ""
