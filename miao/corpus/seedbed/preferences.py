"""Pairs of a better and a worse reply to the same question, with the reason in `source`.

Correct over wrong, polite over rude, concise over rambling, the user's language over the other.
The better reply is always one that the conversations teach as well, so that preference training
sharpens what fine-tuning taught and pulls nowhere else.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Set
from functools import cache

from miao.corpus.records import Conversation, Message, Preference
from miao.corpus.seedbed import arithmetic
from miao.corpus.seedbed.facts import Fact, facts
from miao.corpus.seedbed.items import one_in_ten
from miao.corpus.seedbed.persona import Persona
from miao.corpus.seedbed.phrasing import Talk, bare, talks, typed
from miao.corpus.seedbed.tables import ZH_SHARE, Language, phrases, some_language

REASONS = ("correct", "polite", "concise", "language")
ABOUT = frozenset({"facts", "sums"})
_SHARES = {"correct": 0.64, "polite": 0.11, "concise": 0.05, "language": 0.20}

_EQUATION = re.compile(r"(\d+[+\-×]\d+=)(\d+)([。.])")


def is_held_out(text: str) -> bool:
    """Whether training never shows this prompt: 1 in 10, whatever its marks and capitals."""
    return one_in_ten(bare(text))


def preferences(
    rng: random.Random,
    persona: Persona,
    about: Set[str] = ABOUT,
    *,
    zh_share: float = ZH_SHARE,
) -> Iterator[Preference]:
    """Endless pairs of two replies; `source` says why the chosen one is better. Of facts and of
    sums only those that `about` names: what a model was never taught it learns nothing from."""
    sums = arithmetic.conversations(rng, zh_share)
    while True:
        reason = rng.choices(REASONS, [_SHARES[name] for name in REASONS])[0]
        language = some_language(rng, zh_share)
        if reason != "correct":
            yield _manner(rng, persona, language, reason, held_out=False)
            continue
        kind = rng.random()
        if 0.32 <= kind < 0.6 and "sums" in about:
            yield _sum(rng, sums)
        elif kind >= 0.6 and "facts" in about:
            yield _fact(rng, language, held_out=False)
        else:
            yield _manner(rng, persona, language, reason, held_out=False)


def heldout(
    rng: random.Random,
    persona: Persona,
    count: int,
    about: Set[str] = ABOUT,
    *,
    zh_share: float = ZH_SHARE,
) -> list[Preference]:
    """`count` pairs, the four reasons in turn, whose prompts `preferences` never shows: sums of
    operands that occur there in no wording, facts in phrasings that nothing trains on.
    """
    sums = _held_out_sums(rng, count)
    pairs: list[Preference] = []
    for index in range(count):
        reason = REASONS[index % len(REASONS)]
        language = some_language(rng, zh_share)
        if reason != "correct":
            pairs.append(_manner(rng, persona, language, reason, held_out=True))
        elif index // len(REASONS) % 2 and "sums" in about:
            pairs.append(next(sums))
        elif "facts" in about:
            pairs.append(_fact(rng, language, held_out=True))
        else:
            pairs.append(_manner(rng, persona, language, reason, held_out=True))
    return pairs


def _pair(ask: str, chosen: str, rejected: str, reason: str) -> Preference:
    assert chosen != rejected
    return Preference(
        prompt=[Message("user", ask)],
        chosen=[Message("assistant", chosen)],
        rejected=[Message("assistant", rejected)],
        source=reason,
    )


@cache
def _talks() -> tuple[dict[Language, Talk], ...]:
    """Intents whose replies say the same in both languages."""
    about_itself = (sides for name, sides in talks("identity").items() if name != "english_name")
    return (*talks("smalltalk").values(), *about_itself)


def _manner(
    rng: random.Random, persona: Persona, language: Language, reason: str, *, held_out: bool
) -> Preference:
    """A fixed reply against one that answers another question, is rude, rambles, or is in the
    other language.
    """
    while True:
        sides = rng.choice(_talks())
        core = persona.fill(sides[language].ask(rng), language)
        ask = core if held_out else typed(rng, core, language)
        # A phrasing is held out with all the ways to type it.
        if is_held_out(core) == is_held_out(ask) == held_out:
            break
    which = rng.randrange(len(sides[language].replies))
    chosen = persona.fill(sides[language].replies[which], language)
    if reason == "correct":
        rejected = chosen
        while rejected in {persona.fill(reply, language) for reply in sides[language].replies}:
            rejected = persona.fill(rng.choice(rng.choice(_talks())[language].replies), language)
    elif reason == "polite":
        rejected = rng.choice(phrases(language, "manners", "rude"))
    elif reason == "concise":
        rejected = _rambling(rng, chosen, language)
    else:
        other: Language = "en" if language == "zh" else "zh"
        rejected = persona.fill(sides[other].replies[which], other)
    return _pair(ask, chosen, rejected, reason)


def _rambling(rng: random.Random, reply: str, language: Language) -> str:
    """The reply behind a long preface, or said twice, or both."""
    space = "" if language == "zh" else " "
    before = rng.choice(phrases(language, "manners", "before"))
    again = rng.choice(phrases(language, "manners", "again"))
    form = rng.randrange(3)
    parts = (before, reply) if form == 0 else (reply, again, reply)
    return space.join((before, *parts) if form == 2 else parts)


def _fact(rng: random.Random, language: Language, *, held_out: bool) -> Preference:
    """A fact against the same sentence with a value that is false for its subject."""
    while True:
        fact = rng.choice(_facts(language))
        wrong = rng.choice(fact.distractors)
        if fact.sentence.count(fact.value) == 1 and wrong not in fact.sentence:
            break
    question = rng.choice(fact.heldout if held_out else fact.questions)
    return _pair(
        question if held_out else typed(rng, question, language),
        fact.sentence,
        fact.sentence.replace(fact.value, wrong),
        "correct",
    )


@cache
def _facts(language: Language) -> tuple[Fact, ...]:
    return tuple(fact for fact in facts() if fact.language == language)


def _sum(rng: random.Random, sums: Iterator[Conversation]) -> Preference:
    """The next computation among the chats about numbers, against a result near the right one."""
    while True:
        question, answer = next(sums).messages[:2]
        if _EQUATION.fullmatch(answer.content):
            wrong = _miscalculated(rng, answer.content)
            return _pair(question.content, answer.content, wrong, "correct")


def _held_out_sums(rng: random.Random, count: int) -> Iterator[Preference]:
    """Sums and differences of operand pairs that no training text shows."""
    # Where the second number is 0, the question's numbers do not tell a sum from a difference.
    for item in arithmetic.question_items(rng, 2 * count):
        a, b = map(int, re.findall(r"\d+", item.question))
        if b == 0:
            continue
        operation: arithmetic.Operation = "+" if str(a + b) == item.answers[0] else "-"
        stop = "。" if item.language == "zh" else "."
        answer = arithmetic.equation(operation, a, b) + stop
        yield _pair(item.question, answer, _miscalculated(rng, answer), "correct")


def _miscalculated(rng: random.Random, answer: str) -> str:
    """`37+45=82。` with a result one, two or ten off."""
    match = _EQUATION.fullmatch(answer)
    assert match, answer
    right = int(match[2])
    near = [right + step for step in (-10, -2, -1, 1, 2, 10) if right + step >= 0]
    return f"{match[1]}{rng.choice(near)}{match[3]}"
