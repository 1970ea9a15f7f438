"""Everyday conversations: single skills, and chats that string two or three together."""

from __future__ import annotations

import random
from collections.abc import Iterator

from miao.corpus.records import Conversation, Message
from miao.corpus.seedbed import skills
from miao.corpus.seedbed.items import QuestionItem
from miao.corpus.seedbed.persona import Persona
from miao.corpus.seedbed.phrasing import talks
from miao.corpus.seedbed.tables import LANGUAGES, ZH_SHARE, Language, some_language
from miao.corpus.seedbed.words import opposites, words

_SKILLS: dict[skills.Skill, int] = {
    skills.small_talk: 42,
    skills.story: 12,
    skills.translate: 16,
    skills.opposite: 6,
    skills.listing: 6,
    skills.count: 2,
    skills.sentence: 2,
    skills.poem: 3,
    skills.joke: 3,
    skills.riddle: 2,
    skills.name: 4,
    skills.like: 2,
}


def conversations(
    rng: random.Random, persona: Persona, *, zh_share: float = ZH_SHARE
) -> Iterator[Conversation]:
    """Endless everyday conversations; about one in five has two or three questions."""
    draws, weights = list(_SKILLS), list(_SKILLS.values())
    while True:
        language = some_language(rng, zh_share)
        turns = rng.choices(draws, weights)[0](rng, language)
        roll = rng.random()
        if roll < 0.04:
            turns.insert(0, skills.talk_turn(rng, "hello", language))
        elif roll < 0.08:
            turns.append(
                skills.talk_turn(rng, rng.choice(("thanks", "bye")), language, opening=False)
            )
        elif roll < 0.14:
            turns += skills.small_talk(rng, language, opening=False)
        messages = persona.system_messages(rng, language)
        for ask, reply in turns[:3]:
            messages += [Message("user", ask), Message("assistant", reply)]
        yield Conversation(messages, source="general")


def question_items(rng: random.Random, count: int) -> list[QuestionItem]:
    """`count` questions in phrasings that training never shows.

    A third each: translations of words, opposites, and small talk whose reply can be checked.
    None comes twice before its third is used up.
    """
    pools = (_translation_items(), _opposite_items(), _small_talk_items())
    for pool in pools:
        rng.shuffle(pool)
    turns = (divmod(index, len(pools)) for index in range(count))
    return [pools[which][turn % len(pools[which])] for turn, which in turns]


def _item(question: str, answers: list[str], language: Language) -> QuestionItem:
    return QuestionItem(question, answers, category="general", language=language)


def _said(word: str, language: Language) -> list[str]:
    """How a reply names the word asked for; the bare word may stand in many a wrong reply."""
    if language == "en":
        return [f"is {word}"]
    return [f"是 {word}", f"是{word}"] if word.isascii() else [f"是{word}。"]


def _translation_items() -> list[QuestionItem]:
    items = []
    for language in LANGUAGES:
        for word in words():
            for name, asked, answer in (
                ("into_english", word.zh, word.en),
                ("into_chinese", word.en, word.zh),
            ):
                for ask in talks("asks")[name][language].unseen:
                    question = skills.fill(ask, language, w=asked)
                    items.append(_item(question, _said(answer, language), language))
    return items


def _opposite_items() -> list[QuestionItem]:
    return [
        _item(skills.fill(ask, language, w=word), _said(opposite, language), language)
        for language in LANGUAGES
        for word, opposite in opposites(language).items()
        for ask in talks("asks")["opposite"][language].unseen
    ]


def _small_talk_items() -> list[QuestionItem]:
    return [
        _item(ask, list(talk.checks), language)
        for sides in talks("smalltalk").values()
        for language, talk in sides.items()
        for ask in talk.unseen
    ]
