"""Words and verses: translations, opposites, lists of things; poems, jokes and riddles."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from miao.corpus.seedbed.tables import Language, phrases, rows, table

NUMBERS_ZH = tuple("一二三四五六七八九十")
NUMBERS_EN = tuple(["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])


class Word(NamedTuple):
    """A word in both languages, and a sentence with it in each."""

    zh: str
    en: str
    sentence_zh: str
    sentence_en: str


class Group(NamedTuple):
    """A kind of thing with its members in the order in which they are named."""

    zh: str
    measure: str
    members_zh: tuple[str, ...]
    en: str
    members_en: tuple[str, ...]


class Liked(NamedTuple):
    """A thing and what is nice about it; in English as a subject and its verb."""

    zh: str
    praise_zh: str
    en: str
    praise_en: str


@cache
def words() -> tuple[Word, ...]:
    """The words that the assistant can translate and use in a sentence."""
    return tuple(Word(*row) for row in rows("words", Word._fields))


@cache
def opposites(language: Language) -> dict[str, str]:
    """The opposite of every word that the assistant knows one for.

    The first opposite of a word is the one that is answered; pairs are asked in both directions.
    """
    opposite: dict[str, str] = {}
    for word, other in rows(f"{language}/opposites", ("word", "opposite")):
        opposite.setdefault(word, other)
        opposite.setdefault(other, word)
    return opposite


@cache
def groups() -> tuple[Group, ...]:
    """The kinds of things that the assistant can list."""
    return tuple(
        Group(zh, measure, tuple(members_zh.split()), en, tuple(members_en.split()))
        for zh, measure, members_zh, en, members_en in rows("lists", Group._fields)
    )


@cache
def liked() -> tuple[Liked, ...]:
    """What the assistant likes."""
    return tuple(Liked(*row) for row in rows("likes", Liked._fields))


@cache
def poems(language: Language) -> dict[str, str]:
    """Poems of four lines by their topic."""
    verses = table(language, "verses").mapping("poems")
    return {topic: poem.strip() for topic, poem in verses.items()}


def jokes(language: Language) -> tuple[str, ...]:
    """Jokes of one or two sentences."""
    return phrases(language, "verses", "jokes")


@cache
def riddles(language: Language) -> tuple[tuple[str, str], ...]:
    """Riddles and their answers, as these stand in a sentence."""
    entry = table(language, "verses")
    return tuple((riddle, answer) for riddle, answer in entry.rows("riddles", 2))
