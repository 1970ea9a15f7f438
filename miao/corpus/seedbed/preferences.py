"""Pairs of a better and a worse reply to the same question, with the reason in `source`.

Correct over wrong, polite over rude, concise over rambling, the user's language over the other.
The better reply is always one that the conversations teach as well, so that preference training
sharpens what fine-tuning taught and pulls nowhere else.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from functools import cache

from miao.corpus.records import Conversation, Message, Preference
from miao.corpus.seedbed import arithmetic, identity, knowledge, smalltalk
from miao.corpus.seedbed.facts import Fact
from miao.corpus.seedbed.persona import Language, Persona
from miao.corpus.seedbed.phrasing import Talk, bare, typed

REASONS = ("correct", "polite", "concise", "language")
_SHARES = {"correct": 0.64, "polite": 0.11, "concise": 0.05, "language": 0.20}
_HELD_OUT_ONE_IN = 10

_RUDE: dict[Language, str] = {
    "zh": """
别来烦我。 / 这么简单的问题也要问？ / 我才懒得回答你。 / 你自己不会想吗？ / 关我什么事？
真是浪费我的时间。 / 你问的都是什么呀，真无聊。 / 我不想理你。 / 你怎么这么笨？ / 走开，别打扰我。
哼，我就不告诉你。 / 你烦不烦？ / 这种话也好意思说？ / 少啰唆。 / 我凭什么要帮你？
你爱怎样就怎样。 / 谁有空听你说这些？ / 闭嘴吧。 / 连这个都不懂，真丢人。 / 自己去查，别来问我。
你说的话一点意思也没有。 / 随便你，我不关心。 / 又是你，真讨厌。 / 这还用问？动动脑子吧。
我没空陪你玩。 / 你可真麻烦。 / 别啰唆了，快走。 / 跟你说话真累。 / 你懂什么？ / 问够了没有？
我不喜欢你这种人。 / 你的事和我没关系。 / 说了你也不明白。 / 别再发消息给我了。
真没见过你这样的人。 / 你是不是太闲了？ / 这有什么好说的？ / 算了，跟你说不清楚。 / 你听不懂就别问。
不想说，你走吧。
""",
    "en": """
Leave me alone. / Why do you ask such a silly thing? / I do not feel like answering you.
Use your own head. / Not my problem. / You are wasting my time. / What a boring question.
I do not want to talk to you. / How slow can you be? / Go away. / I know, but I will not tell you.
You are so annoying. / Who cares about that? / Stop talking. / Why should I help you?
Do what you like, I do not care. / Nobody has time for this. / Be quiet.
You do not even know that? How sad. / Look it up yourself. / Nothing you say is interesting.
Whatever. I do not care. / You again? Oh no. / Is that a real question? Think a little.
I have better things to do. / You are nothing but trouble. / Just go, please.
Talking to you makes me tired. / What do you know? / Are you done asking?
I do not like people like you. / That is your business, not mine.
You would not understand it anyway. / Do not write to me again. / I have never met anyone so dull.
Do you have nothing to do? / There is nothing to say about that. / Forget it, you will never get it.
Do not ask if you cannot follow. / I will not say it. Now leave.
""",
}
_BEFORE: dict[Language, str] = {
    "zh": """
这真是一个非常非常好的问题，让我好好地想一想再告诉你。
关于你说的这件事，我有很多很多话想要慢慢地说。 / 首先，在回答之前，我想先说一说我要怎么回答。
你问得很好，很多人都会这样问，这样的问题很常见。 / 嗯，这个嘛，让我看看，其实是这样的，你听我说。
谢谢你问我这个问题，我很高兴能有机会来回答这个问题。
我知道你很想知道答案，那么我现在就来说一说答案。
这个问题可以从很多方面来看，我们一个一个慢慢地看。
""",
    "en": """
That is a very, very good question, and I will think about it before I answer.
About this I have many, many things to say.
First of all, before I answer, let me say how I am going to answer.
You ask well, and many people ask this kind of thing.
Well, let me see, it is like this, so please listen to me.
Thank you for asking me this, I am so glad to have this chance to answer it.
I know that you want to know the answer, so now I will tell you the answer.
One can look at this from many sides, so let us look at all of them.
""",
}
_AGAIN: dict[Language, str] = {
    "zh": "我再说一遍： / 也就是说， / 换句话说， / 总的来说， / 最后再说一次：",
    "en": "Let me say it again: / In other words: / To say it once more: / One last time:",
}
_EQUATION = re.compile(r"(\d+[+\-×]\d+=)(\d+)([。.])")


@cache
def _sayings(table: str) -> tuple[str, ...]:
    lines = filter(None, map(str.strip, table.splitlines()))
    return tuple(saying for line in lines for saying in line.split(" / "))


def is_held_out(text: str) -> bool:
    """Whether training never shows this prompt: 1 in 10, whatever its marks and capitals."""
    digest = hashlib.blake2b(bare(text).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % _HELD_OUT_ONE_IN == 0


def preferences(
    rng: random.Random, persona: Persona, *, chinese_share: float = 0.6
) -> Iterator[Preference]:
    """Endless pairs of two replies; `source` says why the chosen one is better."""
    sums = arithmetic.conversations(rng, chinese_share)
    while True:
        reason = rng.choices(REASONS, [_SHARES[name] for name in REASONS])[0]
        language: Language = "zh" if rng.random() < chinese_share else "en"
        if reason != "correct":
            yield _manner(rng, persona, language, reason, held_out=False)
            continue
        kind = rng.random()
        if kind < 0.32:
            yield _manner(rng, persona, language, reason, held_out=False)
        elif kind < 0.6:
            yield _sum(rng, sums)
        else:
            yield _fact(rng, language, held_out=False)


def heldout(
    rng: random.Random, persona: Persona, count: int, *, chinese_share: float = 0.6
) -> list[Preference]:
    """`count` pairs, the four reasons in turn, whose prompts `preferences` never shows: sums of
    operands that occur there in no wording, facts in phrasings that nothing trains on.
    """
    sums = _held_out_sums(rng, count)
    pairs: list[Preference] = []
    for index in range(count):
        reason = REASONS[index % len(REASONS)]
        language: Language = "zh" if rng.random() < chinese_share else "en"
        if reason != "correct":
            pairs.append(_manner(rng, persona, language, reason, held_out=True))
        elif index // len(REASONS) % 2:
            pairs.append(next(sums))
        else:
            pairs.append(_fact(rng, language, held_out=True))
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
    about_itself = (sides for name, sides in identity.talks().items() if name != "english_name")
    return (*smalltalk.talks().values(), *about_itself)


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
        rejected = rng.choice(_sayings(_RUDE[language]))
    elif reason == "concise":
        rejected = _rambling(rng, chosen, language)
    else:
        other: Language = "en" if language == "zh" else "zh"
        rejected = persona.fill(sides[other].replies[which], other)
    return _pair(ask, chosen, rejected, reason)


def _rambling(rng: random.Random, reply: str, language: Language) -> str:
    """The reply behind a long preface, or said twice, or both."""
    space = "" if language == "zh" else " "
    before = rng.choice(_sayings(_BEFORE[language]))
    again = rng.choice(_sayings(_AGAIN[language]))
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
    return tuple(fact for fact in knowledge.facts() if fact.language == language)


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
