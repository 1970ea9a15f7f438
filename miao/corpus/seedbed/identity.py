"""Who the assistant is: questions about itself, asked in many ways and answered in few."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache

from miao.corpus.records import Conversation, Message
from miao.corpus.seedbed.items import QuestionItem
from miao.corpus.seedbed.persona import Persona
from miao.corpus.seedbed.phrasing import talks, typed
from miao.corpus.seedbed.tables import ZH_SHARE, Language, some_language

MAIN_INTENTS = ("name", "maker", "nature", "abilities")
_MAIN_WEIGHT = 6


@cache
def _draws() -> tuple[str, ...]:
    """Intent names to draw from, the main ones as often as their weight says."""
    return tuple(
        name
        for name in talks("identity")
        for _ in range(_MAIN_WEIGHT if name in MAIN_INTENTS else 1)
    )


def _exchange(
    rng: random.Random, persona: Persona, language: Language, intent: str, opening: bool
) -> list[Message]:
    """One question of an intent and its answer."""
    talk = talks("identity")[intent][language]
    ask = typed(rng, persona.fill(talk.ask(rng), language), language, opening=opening)
    return [
        Message("user", ask),
        Message("assistant", persona.fill(talk.reply(rng), language)),
    ]


def conversations(
    rng: random.Random, persona: Persona, *, zh_share: float = ZH_SHARE
) -> Iterator[Conversation]:
    """Endless conversations about the assistant itself: one question, sometimes two."""
    draws = _draws()
    while True:
        language = some_language(rng, zh_share)
        messages = persona.system_messages(rng, language)
        intent = rng.choice(draws)
        messages += _exchange(rng, persona, language, intent, opening=True)
        if rng.random() < 0.15:
            second = rng.choice(draws)
            if second != intent:
                messages += _exchange(rng, persona, language, second, opening=False)
        yield Conversation(messages, source="identity")


def question_items(rng: random.Random, persona: Persona, count: int) -> list[QuestionItem]:
    """`count` questions on the main intents in phrasings that training never shows.

    A right answer contains the assistant's name (with what it is or can do, where that is
    asked), or the maker where the maker is asked for.
    """
    unseen = [
        (intent, language, ask)
        for intent in MAIN_INTENTS
        for language, talk in talks("identity")[intent].items()
        for ask in talk.unseen
    ]
    rng.shuffle(unseen)
    items: list[QuestionItem] = []
    while len(items) < count:
        for intent, language, ask in unseen[: count - len(items)]:
            first_round = len(items) < len(unseen)
            checks = talks("identity")[intent][language].checks
            items.append(
                QuestionItem(
                    question=ask if first_round else typed(rng, ask, language),
                    answers=[persona.fill(check, language) for check in checks],
                    wrong=_wrong(persona, language, intent),
                    match="contains",
                    category="identity",
                    language=language,
                )
            )
    return items


def _wrong(persona: Persona, language: Language, intent: str) -> list[str]:
    """Names (or makers) that are not the persona's."""
    if intent == "maker":
        names = ["一家工厂", "一所学校", "一位老师"] if language == "zh" else _WRONG_MAKERS_EN
        return [name for name in names if name not in (persona.maker_zh, persona.maker_en)]
    names = ["小明", "小红", "小刚"] if language == "zh" else ["Tom", "Lily", "Ben"]
    return [name for name in names if name not in (persona.name_zh, persona.name_en)]


_WRONG_MAKERS_EN = ["a toy factory", "a school", "a teacher"]
