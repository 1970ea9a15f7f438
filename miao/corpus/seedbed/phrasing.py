"""Many ways to ask the same thing: a small grammar, and the habits of people who type."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cache
from itertools import product

from miao.corpus.seedbed.tables import LANGUAGES, Entry, Language, both

Pattern = tuple[tuple[str, ...], ...]

_HAN = re.compile("[\u4e00-\u9fff]")
_GROUP = re.compile(r"\(([^()]*\|[^()]*)\)")
_PREFIXES_ZH = ("你好，", "请问", "请问，", "嗨，", "那个，", "对了，", "我想问一下，")
_CALLS_ZH = ("你好，", "嗨，", "对了，")
_PREFIXES_EN = ("Hi, ", "Hello, ", "Hey, ", "Excuse me, ", "So, ", "Hi! ", "Please tell me: ")
_CALLS_EN = ("Hi, ", "Hello, ", "Hey, ")
_GREETINGS = ("你好", "您好", "嗨", "哈喽", "请问", "Hi", "Hello", "Hey", "Excuse", "Good", "So")
_QUESTION_WORDS = re.compile("什么|谁|哪|怎么|多|几|啥")
_PARTICLES = "吗吧呢呀啊"


def language_of(text: str) -> Language:
    """Chinese when there is any Han character."""
    return "zh" if _HAN.search(text) else "en"


def pattern(line: str) -> Pattern:
    """Read a line in which `(a|b|)` stands for any one of its alternatives."""
    parts = _GROUP.split(line)
    return tuple(tuple(p.split("|")) if i % 2 else (p,) for i, p in enumerate(parts) if p)


def expansions(one: Pattern) -> list[str]:
    """Every sentence of a pattern, in a fixed order."""
    return ["".join(parts) for parts in product(*one)]


def one_of(rng: random.Random, lines: tuple[Pattern, ...]) -> str:
    """A random sentence: each pattern is equally likely, however many sentences it stands for."""
    return "".join([rng.choice(part) for part in rng.choice(lines)])


@dataclass(frozen=True)
class Talk:
    """One intent in one language: how users ask it, and the few ways to answer.

    `unseen` phrasings are for evaluation alone; a right reply to one contains one of `checks`.
    """

    asks: tuple[Pattern, ...]
    replies: tuple[str, ...]
    unseen: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()

    def ask(self, rng: random.Random) -> str:
        return one_of(rng, self.asks)

    def reply(self, rng: random.Random) -> str:
        return rng.choice(self.replies)


Talks = dict[str, dict[Language, Talk]]


_SLOTS = {
    "identity": ("name", "maker", "name_zh", "name_en"),
    "smalltalk": (),
    "asks": ("w", "n", "a", "m"),
}


@cache
def talks(table: str) -> Talks:
    """The intents of a table: "identity", "smalltalk" or "asks".

    Raises:
        MiaoError: the table is wrong, or the two languages differ; with the intent and the key.
    """
    slots = _SLOTS[table]
    needed = ("asks",) if table == "asks" else ("asks", "replies")
    found: Talks = {}
    for intent, sides in both(table, needed, ("replies", "unseen", "checks")).items():
        zh, en = (read_talk(sides[language], slots) for language in LANGUAGES)
        if len(zh.replies) != len(en.replies):
            fix = "the same line says the same in both languages"
            raise sides["en"].error("not as many replies as in Chinese", "replies", fix)
        found[intent] = {"zh": zh, "en": en}
    return found


def read_talk(entry: Entry, slots: tuple[str, ...]) -> Talk:
    """An intent in one language; `(a|b|)` in an ask stands for any one of its alternatives."""
    return Talk(
        asks=tuple(map(pattern, entry.lines("asks", slots))),
        replies=entry.lines("replies", slots),
        unseen=tuple(
            ask for line in entry.lines("unseen", slots) for ask in expansions(pattern(line))
        ),
        checks=entry.lines("checks", slots),
    )


def typed(rng: random.Random, text: str, language: Language, *, opening: bool = True) -> str:
    """`text` as people type it: with or without a mark, a particle, capitals, a greeting.

    Args:
        opening: whether a greeting may come first; it does not where a chat goes on.
    """
    too_short = len(text) < 5 if language == "zh" else text.count(" ") < 2
    greeted = opening and rng.random() < 0.25
    greeted = greeted and not too_short and not text.startswith(_GREETINGS)
    return (_typed_zh if language == "zh" else _typed_en)(rng, text, greeted)


def _typed_zh(rng: random.Random, text: str, greeted: bool) -> str:
    body, mark = (text[:-1], text[-1]) if text[-1] in "？。！" else (text, "")
    roll = rng.random()
    if greeted:
        body = rng.choice(_PREFIXES_ZH if mark == "？" else _CALLS_ZH) + body
    if mark == "？":
        if roll < 0.2:
            mark = ""
        elif roll < 0.3:
            mark = "?"
        elif roll < 0.4 and body[-1] not in _PARTICLES and _QUESTION_WORDS.search(body):
            mark = rng.choice(("呢？", "呀？"))
    elif roll < 0.3:
        mark = ""
    return body + mark


def _typed_en(rng: random.Random, text: str, greeted: bool) -> str:
    body, mark = (text[:-1], text[-1]) if text[-1] in "?.!" else (text, "")
    if greeted:
        prefix = rng.choice(_PREFIXES_EN if mark == "?" else _CALLS_EN)
        keep = body.startswith(("I ", "I'", "“", '"')) or prefix.endswith("! ")
        body = prefix + (body if keep else body[0].lower() + body[1:])
    if rng.random() < 0.3:
        mark = ""
    return (body.lower() if rng.random() < 0.2 else body) + mark


_SPACE_AND_MARKS = re.compile(r"[\s，。？！、：；“”‘’,.?!:;\"'()]+")


def bare(text: str) -> str:
    """`text` without marks, spaces and capitals: two phrasings alike in this are the same."""
    return _SPACE_AND_MARKS.sub("", text).lower()
