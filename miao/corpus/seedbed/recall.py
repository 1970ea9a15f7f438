"""Texts that repeat what they said long before: numbers of people, between sentences on other
things. They teach (and measure) looking back over a whole context."""

from __future__ import annotations

import random
from collections.abc import Iterator

from miao.corpus.records import Document
from miao.corpus.seedbed.stories import children
from miao.corpus.seedbed.tables import ZH_SHARE, Language, some_language
from miao.corpus.seedbed.words import words

_SAYS: dict[Language, tuple[str, str]] = {
    "zh": ("{name}的号码是", "。"),
    "en": ("The number of {name} is", "."),
}
_MEMORY = 6
"""So many people at most are remembered at a time."""


def documents(rng: random.Random, longest: int, zh_share: float = ZH_SHARE) -> Iterator[Document]:
    """Endless texts of up to `longest` characters, most of them long."""
    while True:
        language = some_language(rng, zh_share)
        size = int(longest * rng.uniform(0.3, 1.0))
        yield Document(_write(rng, language, size), source="recall")


def statement(language: Language, name: str, number: str) -> str:
    """`小明的号码是4821。`"""
    beginning, stop = asking(language, name)
    return f"{beginning}{number}{stop}"


def asking(language: Language, name: str) -> tuple[str, str]:
    """A statement without its number: what stands before and behind it."""
    beginning, stop = _SAYS[language]
    space = "" if language == "zh" else " "
    return beginning.format(name=name) + space, stop


def some_number(rng: random.Random) -> str:
    """Four digits."""
    return str(rng.randint(1000, 9999))


def filler(rng: random.Random, language: Language) -> str:
    """A sentence on something else."""
    word = rng.choice(words())
    return word.sentence_zh if language == "zh" else word.sentence_en


def _write(rng: random.Random, language: Language, size: int) -> str:
    names = list(children(language))
    known: dict[str, str] = {}
    sentences: list[str] = []
    written = 0
    while written < size:
        if rng.random() < 0.5:
            sentence = filler(rng, language)
        elif known and rng.random() < 0.6:
            name = rng.choice(list(known))
            sentence = statement(language, name, known[name])
        else:
            name = rng.choice(names)
            if name in known or len(known) == _MEMORY:
                continue
            known[name] = some_number(rng)
            sentence = statement(language, name, known[name])
        sentences.append(sentence)
        written += len(sentence)
    return ("" if language == "zh" else " ").join(sentences)
