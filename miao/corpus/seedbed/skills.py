"""What the assistant can do in a chat, as pairs of a question and its reply."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

from miao.corpus.seedbed.phrasing import talks, typed
from miao.corpus.seedbed.stories import children, spoken, story_about, subjects
from miao.corpus.seedbed.tables import Language
from miao.corpus.seedbed.words import (
    NUMBERS_EN,
    NUMBERS_ZH,
    groups,
    jokes,
    liked,
    opposites,
    poems,
    riddles,
    words,
)

_OFTEN = ("hello", "thanks", "bye", "how_are_you", "sad", "cannot_sleep", "weather", "time")

# One question as typed and its reply.
Turn = tuple[str, str]
Skill = Callable[[random.Random, Language], list[Turn]]


def fill(text: str, language: Language, **slots: str) -> str:
    """An ask with its slots filled; an English one begins with a capital."""
    for slot, value in slots.items():
        text = text.replace(f"{{{slot}}}", value)
    return text[0].upper() + text[1:] if language == "en" else text.strip()


def _ask(rng: random.Random, name: str, language: Language, **slots: str) -> str:
    """A training phrasing of an ask, its slots filled, as people type it."""
    return typed(rng, fill(talks("asks")[name][language].ask(rng), language, **slots), language)


def _then(rng: random.Random, name: str, language: Language, **slots: str) -> str:
    """The same for a question that goes on from a reply and therefore greets nobody."""
    text = fill(talks("asks")[name][language].ask(rng), language, **slots)
    return typed(rng, text, language, opening=False)


def _in_quotes(rng: random.Random, word: str, language: Language) -> str:
    """A word that is spoken about: bare, or in one of the usual quotation marks."""
    marks = rng.choice(("{}", "{}", "{}", "“{}”", '"{}"'))
    if marks == "{}" and language == "zh" and word.isascii() and rng.random() < 0.5:
        return f" {word} "
    return marks.format(word)


def translation(word: str, language: Language) -> str:
    """The reply that gives a word in the other language, in a chat held in `language`."""
    by_zh, by_en = _translations()
    if word in by_zh:
        en = by_zh[word]
        return f"{word}的英语是 {en}。" if language == "zh" else f"The English for {word} is {en}."
    zh = by_en[word]
    return f"{word} 的中文是{zh}。" if language == "zh" else f"The Chinese for {word} is {zh}."


@cache
def _translations() -> tuple[dict[str, str], dict[str, str]]:
    return {word.zh: word.en for word in words()}, {word.en: word.zh for word in words()}


def translate(rng: random.Random, language: Language) -> list[Turn]:
    """A word into the other language, sometimes a second one in short."""
    into_english = rng.random() < 0.5
    name = "into_english" if into_english else "into_chinese"
    first, second = ((w.zh if into_english else w.en) for w in rng.sample(words(), 2))
    ask = _ask(rng, name, language, w=_in_quotes(rng, first, language))
    turns = [(ask, translation(first, language))]
    if rng.random() < 0.15:
        turns.append((_then(rng, "and_this", language, w=second), translation(second, language)))
    return turns


def opposite_of(word: str, language: Language) -> str:
    """The reply that gives the opposite of a word."""
    other = opposites(language)[word]
    if language == "zh":
        return f"{word}的反义词是{other}。"
    return f"The opposite of {word} is {other}."


def opposite(rng: random.Random, language: Language) -> list[Turn]:
    """The opposite of a word, sometimes of a second one."""
    first, second = rng.sample(tuple(opposites(language)), 2)
    ask = _ask(rng, "opposite", language, w=_in_quotes(rng, first, language))
    turns = [(ask, opposite_of(first, language))]
    if rng.random() < 0.15:
        turns.append((_then(rng, "and_this", language, w=second), opposite_of(second, language)))
    return turns


def lesson(rng: random.Random, language: Language, count: int) -> list[Turn]:
    """`count` questions of one kind about words: translations or opposites, the later in short."""
    kind = rng.choice(("into_english", "into_chinese", "opposite"))
    if kind == "opposite":
        asked, answer = rng.sample(tuple(opposites(language)), count), opposite_of
    else:
        english = kind == "into_english"
        asked = [word.zh if english else word.en for word in rng.sample(words(), count)]
        answer = translation
    asks_for = [kind] + ["and_this"] * (count - 1)
    return [
        (
            fill(
                talks("asks")[name][language].ask(rng), language, w=_in_quotes(rng, word, language)
            ),
            answer(word, language),
        )
        for name, word in zip(asks_for, asked, strict=True)
    ]


def joined(members: tuple[str, ...], language: Language) -> str:
    """`苹果、香蕉和葡萄。` or `Apples, bananas and grapes.`"""
    *most, last = members
    if language == "zh":
        return f"{'、'.join(most)}和{last}。"
    text = f"{', '.join(most)} and {last}."
    return text[0].upper() + text[1:]


def listing(rng: random.Random, language: Language) -> list[Turn]:
    """Two to five things of a kind."""
    group = rng.choice(groups())
    members = group.members_zh if language == "zh" else group.members_en
    kind = group.zh if language == "zh" else group.en
    count = rng.choices((2, 3, 4, 5), weights=(2, 5, 2, 2))[0]
    count = min(count, len(members))
    if rng.random() < 0.2:
        ask = _ask(rng, "list_some", language, w=kind, m=group.measure)
        return [(ask, joined(members[:3], language))]
    if language == "zh":
        number = "两" if count == 2 else NUMBERS_ZH[count - 1]
    else:
        number = NUMBERS_EN[count - 1]
    number = str(count) if rng.random() < 0.25 else number
    ask = _ask(rng, "list", language, n=number, m=group.measure, w=kind)
    return [(ask, joined(members[:count], language))]


def count(rng: random.Random, language: Language) -> list[Turn]:
    """Counting from one."""
    last = rng.randint(3, 10)
    in_digits = rng.random() < 0.5
    if in_digits:
        numbers = tuple(str(number) for number in range(1, last + 1))
    else:
        numbers = (NUMBERS_ZH if language == "zh" else NUMBERS_EN)[:last]
    ask = _ask(rng, "count", language, a=numbers[0], n=numbers[-1])
    if language == "zh":
        return [(ask, "、".join(numbers) + "。")]
    reply = ", ".join(numbers) + "."
    return [(ask, reply[0].upper() + reply[1:])]


def sentence(rng: random.Random, language: Language) -> list[Turn]:
    """A sentence with a word."""
    word = rng.choice(words())
    text, reply = (word.zh, word.sentence_zh) if language == "zh" else (word.en, word.sentence_en)
    return [(_ask(rng, "sentence", language, w=_in_quotes(rng, text, language)), reply)]


def poem(rng: random.Random, language: Language) -> list[Turn]:
    """A poem on a topic, or any poem."""
    topic, poem = rng.choice(tuple(poems(language).items()))
    if rng.random() < 0.3:
        return [(_ask(rng, "any_poem", language), poem)]
    return [(_ask(rng, "poem", language, w=topic), poem)]


def joke(rng: random.Random, language: Language) -> list[Turn]:
    """A joke, sometimes another."""
    first, second = rng.sample(jokes(language), 2)
    turns = [(_ask(rng, "joke", language), first)]
    if rng.random() < 0.2:
        turns.append((_then(rng, "another", language), second))
    return turns


def riddle(rng: random.Random, language: Language) -> list[Turn]:
    """A riddle; often the user gives up or guesses right."""
    question, answer = rng.choice(riddles(language))
    zh = language == "zh"
    text = f"{question}猜猜它是什么？" if zh else f"{question} What is it?"
    turns = [(_ask(rng, "riddle", language), text)]
    roll = rng.random()
    if roll < 0.3:
        reply = f"答案是{answer}。" if zh else f"The answer is {answer}."
        turns.append((_then(rng, "give_up", language), reply))
    elif roll < 0.5:
        reply = f"答对了，就是{answer}！" if zh else f"That is right, it is {answer}!"
        turns.append((_then(rng, "guess", language, w=answer), reply))
    return turns


def story(rng: random.Random, language: Language) -> list[Turn]:
    """A story, sometimes with praise for it."""
    subject = rng.choice(subjects(language))
    if rng.random() < 0.25:
        ask = _ask(rng, "any_story", language)
    else:
        ask = _ask(rng, "story", language, w=spoken(rng, subject, language))
    turns = [(ask, story_about(rng, subject, language))]
    if rng.random() < 0.08:
        praise = talks("asks")["nice_story"][language]
        turns.append((typed(rng, praise.ask(rng), language, opening=False), praise.reply(rng)))
    return turns


def name(rng: random.Random, language: Language) -> list[Turn]:
    """The user says a name; later the assistant still knows it."""
    name = rng.choice(children(language))
    zh = language == "zh"
    hello = f"你好，{name}！很高兴认识你。" if zh else f"Hello, {name}! Nice to meet you."
    turns = [(_ask(rng, "my_name", language, w=name), hello)]
    roll = rng.random()
    if roll < 0.5:
        if roll < 0.15:
            turns += small_talk(rng, language, opening=False)
        known = f"你叫{name}。" if zh else f"Your name is {name}."
        turns.append((_then(rng, "which_name", language), known))
    return turns


def like(rng: random.Random, language: Language) -> list[Turn]:
    """What the user likes, or whether the assistant likes it too."""
    thing_zh, nice_zh, thing_en, nice_en = rng.choice(liked())
    if language == "zh":
        if rng.random() < 0.5:
            return [(_ask(rng, "i_like", "zh", w=thing_zh), f"真好！{thing_zh}{nice_zh}。")]
        return [(_ask(rng, "do_you_like", "zh", w=thing_zh), f"我喜欢，{thing_zh}{nice_zh}。")]
    if rng.random() < 0.5:
        return [
            (_ask(rng, "i_like", "en", w=thing_en), f"How nice! {thing_en.capitalize()} {nice_en}.")
        ]
    return [(_ask(rng, "do_you_like", "en", w=thing_en), f"Yes, {thing_en} {nice_en}.")]


@cache
def _small_talk_names() -> tuple[str, ...]:
    """Intent names to draw from, the frequent ones three times."""
    return tuple(name for name in talks("smalltalk") for _ in range(3 if name in _OFTEN else 1))


def small_talk(rng: random.Random, language: Language, *, opening: bool = True) -> list[Turn]:
    """One exchange with a fixed reply."""
    return [talk_turn(rng, rng.choice(_small_talk_names()), language, opening=opening)]


def talk_turn(rng: random.Random, name: str, language: Language, *, opening: bool = True) -> Turn:
    """One exchange of the small-talk intent `name`; see `typed` for `opening`."""
    talk = talks("smalltalk")[name][language]
    return typed(rng, talk.ask(rng), language, opening=opening), talk.reply(rng)
