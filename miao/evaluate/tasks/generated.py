"""Questions that need no data: made from a seed, in Chinese and in English, as many as wanted.

Every question has one right option and three that could as well be right for another question: a
model that does not look at the question is at chance, whatever options it prefers. (Three slips
made in the right answer would not do: each of them is likelier than it half of the time, so that
it would be the likeliest in one case of eight, not of four.) Nothing has to be known, so a model of
a few million parameters can score.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from importlib import resources
from itertools import islice, product
from typing import Any

from miao.options import read_yaml

EXAMPLES = 8
"""The first questions of a stream are kept for examples; they are never asked."""
COUNT = 50
"""Questions of a subject where no number is asked for."""
OPTIONS = 4
_TRIES = 1000
"""Repetitions in a row after which a kind of question counts as used up."""
_THINGS = {
    "zh": list("山水火木石风云雨花草鱼鸟马牛羊门车船书笔灯茶米刀"),
    "en": re.findall(
        r"\w+",
        "sun moon tree stone wind cloud rain fish bird horse cow sheep door car boat book pen lamp "
        "tea rice knife hill road bell",
    ),
}
_COLOURS = {
    "zh": list("红黄蓝绿白黑灰紫"),
    "en": ["red", "yellow", "blue", "green", "white", "black", "grey", "purple"],
}
_PAIRS = dict(zip("([{", ")]}", strict=True))
_Made = tuple[str, str, list[str]]
"""A question, its right answer, and wrong ones, which may repeat each other."""


def _copying(rng: random.Random, language: str, rank: int) -> _Made:
    """Two places with two words each make four texts; one of them is shown."""
    *words, one, two = rng.sample(_THINGS[language], rng.randint(5, 8))
    first, second = rng.sample(range(len(words)), 2)
    texts = []
    for a, b in product((words[first], one), (words[second], two)):
        words[first], words[second] = a, b
        texts.append(" ".join(words))
    rng.shuffle(texts)
    ask = {"zh": "抄写：{}", "en": "Copy: {}"}[language]
    return ask.format(texts[0]), texts[0], texts[1:]


def _induction(rng: random.Random, language: str, rank: int) -> _Made:
    things = rng.sample(_THINGS[language], rng.randint(OPTIONS, 6))
    colours = rng.sample(_COLOURS[language], len(things))
    told = {
        "zh": "，".join(f"{a}是{b}色" for a, b in zip(things, colours, strict=True)),
        "en": ", ".join(f"{a} is {b}" for a, b in zip(things, colours, strict=True)),
    }[language]
    asked = rng.randrange(len(things))
    ask = {"zh": "{}。{}是什么颜色？", "en": "{}. Which colour is {}?"}[language]
    others = [colour for i, colour in enumerate(colours) if i != asked]
    rng.shuffle(others)
    return ask.format(told, things[asked]), colours[asked], others


def _counting(rng: random.Random, language: str, rank: int) -> _Made:
    count, (one, other) = rng.randint(1, 6) + rank, rng.sample(_THINGS[language], 2)
    row = [one] * count + [other] * rng.randint(1, 4)
    rng.shuffle(row)
    ask = {"zh": "{}。“{}”有几个？", "en": "{}. How often is there {}?"}[language]
    return ask.format(" ".join(row), one), str(count), _spaced(count, rank, 1)


def _sorting(rng: random.Random, language: str, rank: int) -> _Made:
    numbers = rng.sample(range(1, 100), rng.randint(3, 5))
    right = sorted(numbers)
    wrong: list[str] = []
    while len(set(wrong)) < OPTIONS - 1:
        other = rng.sample(numbers, len(numbers))
        if other != right:
            wrong.append(" ".join(map(str, other)))
    ask = {"zh": "从小到大排列：{}", "en": "Sort from small to large: {}"}[language]
    return ask.format(" ".join(map(str, numbers))), " ".join(map(str, right)), wrong


def _brackets(rng: random.Random, language: str, rank: int) -> _Made:
    opened: list[str] = []
    text = ""
    for _ in range(rng.randint(4, 8)):
        if len(opened) > 1 and rng.random() < 0.4:
            text += _PAIRS[opened.pop()]
        else:
            opened.append(rng.choice(list(_PAIRS)))
            text += opened[-1]
    while len(opened) < 2:
        opened.append(rng.choice(list(_PAIRS)))
        text += opened[-1]
    right = "".join(_PAIRS[one] for one in reversed(opened))
    wrong: list[str] = []
    while len(set(wrong)) < OPTIONS - 1:
        other = "".join(rng.choice(list(_PAIRS.values())) for _ in right)
        if other != right:
            wrong.append(other)
    ask = {"zh": "补全右括号：{}", "en": "Close the brackets: {}"}[language]
    return ask.format(" ".join(text)), " ".join(right), [" ".join(one) for one in wrong]


def _sums(rng: random.Random, language: str, rank: int, digits: int) -> _Made:
    least = 10 ** (digits - 1) if digits > 1 else 0
    step, right, minus = 10 ** rng.randrange(digits), -1, False
    while right < (OPTIONS - 1) * step:  # so that its rank says nothing about it
        a, b = rng.randrange(least, 10**digits), rng.randrange(least, 10**digits)
        minus = rng.random() < 0.5
        a, b = (max(a, b), min(a, b)) if minus else (a, b)
        right = a - b if minus else a + b
    ask = {"zh": "计算：{} {} {}", "en": "Calculate: {} {} {}"}[language]
    return ask.format(a, "-" if minus else "+", b), str(right), _spaced(right, rank, step)


@cache
def _pairs(language: str) -> dict[str, Any]:
    with resources.as_file(resources.files(__package__) / "texts" / "grammar.yaml") as path:
        return dict(read_yaml(path)[language])


_MARKED = re.compile(r"\[([^|]*)\|([^\]]*)\]")
_WORD = re.compile(r"\{(\w+)('?)(?:\.(\d))?\}")


def _grammar(rng: random.Random, language: str, rank: int) -> _Made:
    """A minimal pair: a sentence of texts/grammar.yaml, its kind as the question."""
    known = _pairs(language)
    kind = rng.choice(list(known["pairs"]))
    sentence = rng.choice(known["pairs"][kind])
    drawn: dict[str, list[Any]] = {}

    def word(match: re.Match[str]) -> str:
        name, other, column = match.groups()
        if name not in drawn:
            drawn[name] = rng.sample(known["words"][name], 2)
        found = drawn[name][bool(other)]
        return str(found if column is None else found[int(column)])

    whole = _WORD.sub(word, sentence)
    good, bad = (_MARKED.sub(rf"\{side}", whole) for side in (1, 2))
    return f"{kind}: {good}", good, [bad]


def _spaced(right: int, rank: int, step: int) -> list[str]:
    """The other numbers of an evenly spaced row in which the right one has this rank."""
    return [str(right + (place - rank) * step) for place in range(OPTIONS) if place != rank]


SKILLS: dict[str, Callable[[random.Random, str, int], _Made]] = {
    "copying": _copying,
    "induction": _induction,
    "counting": _counting,
    "sorting": _sorting,
    "brackets": _brackets,
    **{f"sums{digits}": partial(_sums, digits=digits) for digits in (1, 2, 3)},
}
_MAKERS = {**SKILLS, "grammar": _grammar}
LANGUAGES = tuple(_THINGS)


def kinds() -> list[str]:
    """All that can be generated: NAME_LANGUAGE."""
    return [f"{name}_{language}" for language in LANGUAGES for name in _MAKERS]


def generated(kind: str, seed: int, examples: bool, count: int | None) -> Iterator[dict[str, Any]]:
    """Questions of a kind (`kinds`), with the place of the right option drawn as well.

    A larger count begins with the questions of a smaller one. No question comes twice; a kind of
    which there are fewer gives all that were found.

    Args:
        examples: those that are shown, which are others than those that are asked.
    """
    skill, _, language = kind.rpartition("_")
    stream = _stream(kind, _MAKERS[skill], language, seed)
    if examples:
        return islice(stream, min(count or EXAMPLES, EXAMPLES))
    return islice(stream, EXAMPLES, EXAMPLES + (count or COUNT))


def _stream(
    kind: str, make: Callable[[random.Random, str, int], _Made], language: str, seed: int
) -> Iterator[dict[str, Any]]:
    """Of every four questions each has the right answer at another place and, of numbers, of
    another rank: who prefers one of them is at chance in every sample, not only on average."""
    rng = random.Random(f"{seed}/{kind}")
    seen: set[str] = set()
    repeated = 0
    ranks: list[int] = []
    places: list[int] = []
    while repeated < _TRIES:
        ranks = ranks or rng.sample(range(OPTIONS), OPTIONS)
        places = places or rng.sample(range(OPTIONS), OPTIONS)
        question, right, wrong = make(rng, language, ranks[-1])
        if question in seen:
            repeated += 1
            continue
        ranks.pop()
        options = _options(right, wrong, rng, places.pop())
        seen.add(question)
        repeated = 0
        yield {
            "question": question,
            "options": options,
            "answer": options.index(right),
            "language": language,
        }


def _options(right: str, wrong: Sequence[str], rng: random.Random, place: int) -> list[str]:
    options = list(dict.fromkeys(w for w in wrong if w != right))[: OPTIONS - 1]
    rng.shuffle(options)
    options.insert(place % (len(options) + 1), right)
    return options
