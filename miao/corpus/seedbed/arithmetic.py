"""Sums, differences, the multiplication table and comparisons, with pairs held out for evaluation.

A pair of numbers is held out by a stable hash. Training text never shows it, in no wording, so a
right answer to it was computed and not remembered.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from itertools import cycle, islice
from typing import Literal

from miao.corpus.records import Conversation, Document, Message
from miao.corpus.seedbed.items import QuestionItem, continuation_of, one_in_ten, prompt_of
from miao.corpus.seedbed.tables import ZH_SHARE, Language, entries, some_language

Operation = Literal["+", "-", "*", "<"]
Pair = tuple[int, int]

LIMIT = 100
_HARD_SHARE = 0.25
_DRILL_SHARE = 0.5
_ASKED_SHARE = 0.75
_PLUS_MINUS: tuple[Operation, ...] = ("+", "-")
_SIGNS = {"+": "+", "-": "-", "*": "×"}

_ENTRIES = {"+": "plus", "-": "minus", "*": "times"}
_KEYS = {"asks": ("a", "b"), "statement": ("a", "b", "c"), "problems": ("a", "b", "name", "thing")}
_OF_PROBLEMS = ("names", "things")


@cache
def _phrases(entry: str, language: Language, key: str) -> tuple[str, ...]:
    """What the table of a language has under a key of an operation, or of "problem"."""
    found = entries(language, "arithmetic", (), (*_KEYS, *_OF_PROBLEMS))
    return found[_ENTRIES.get(entry, entry)].lines(key, _KEYS.get(key, ()))


def result_of(operation: Operation, a: int, b: int) -> int:
    """The value of `a + b`, `a - b` or `a * b`."""
    assert operation in _SIGNS, operation
    return a + b if operation == "+" else a - b if operation == "-" else a * b


@cache
def is_held_out(operation: str, a: int, b: int) -> bool:
    """Whether training must never show this pair: about 1 in 10 of `+`, `-` and `<`.

    `+` and `<` (the comparison of two numbers) do not heed the order of the pair. The
    multiplication table is there to be learnt by heart: nothing of `*` is held out.
    """
    assert operation in ("+", "-", "*", "<"), operation
    if operation == "*":
        return False
    if operation in "+<":
        a, b = min(a, b), max(a, b)
    return one_in_ten(f"{operation} {a} {b}")


def is_hard(operation: Operation, a: int, b: int) -> bool:
    """Whether the ones carry in `a + b` or borrow in `a - b`."""
    if operation == "+":
        return a % 10 + b % 10 > 9
    return operation == "-" and a % 10 < b % 10


@cache
def pairs(operation: Operation, held_out: bool) -> tuple[Pair, ...]:
    """All pairs of one side: operands and results in 0..100; `*` is 1..9 by 1..9; `<` differ."""
    numbers = range(1, 10) if operation == "*" else range(LIMIT + 1)
    return tuple(
        (a, b)
        for a in numbers
        for b in numbers
        if (operation != "+" or a + b <= LIMIT)
        and (operation != "-" or a >= b)
        and (operation != "<" or a != b)
        and is_held_out(operation, a, b) == held_out
    )


@cache
def _hard_pairs(operation: Operation) -> tuple[Pair, ...]:
    return tuple(pair for pair in pairs(operation, False) if is_hard(operation, *pair))


def training_pair(rng: random.Random, operation: Operation) -> Pair:
    """A pair that training may show, uniform but for a little more weight on carries."""
    if operation in "+-" and rng.random() < _HARD_SHARE:
        return rng.choice(_hard_pairs(operation))
    return rng.choice(pairs(operation, False))


def equation(operation: Operation, a: int, b: int) -> str:
    """`37+45=82`: the one compact form of a computation, in both languages."""
    return f"{a}{_SIGNS[operation]}{b}={result_of(operation, a, b)}"


def documents(rng: random.Random, zh_share: float = ZH_SHARE) -> Iterator[Document]:
    """Endless pages of 4 to 8 short lines: most are drills of plain equations, the others mix
    wordings, questions and comparisons.

    A tiny model learns to carry from the drills; mixed pages alone taught it far slower
    (docs/LOG.md).

    Args:
        zh_share: the share of mixed pages whose words are Chinese; the others are English.
    """
    while True:
        language = some_language(rng, zh_share)
        drill = rng.random() < _DRILL_SHARE
        lines = [_drill(rng) if drill else _line(language, rng) for _ in range(rng.randint(4, 8))]
        yield Document("\n".join(lines), source="arithmetic")


def _drill(rng: random.Random) -> str:
    operation = rng.choice(_PLUS_MINUS)
    return equation(operation, *training_pair(rng, operation))


def _line(language: Language, rng: random.Random) -> str:
    if rng.random() < 0.18:
        return _comparison_line(language, rng)
    if rng.random() < _ASKED_SHARE:
        # Answered by the whole equation: the operands have to be copied from the question.
        question, answer = _computation(language, rng)
        return prompt_of(question, language) + continuation_of(answer, language)
    operation = _operation(rng)
    a, b = training_pair(rng, operation)
    c = result_of(operation, a, b)
    if rng.random() < 0.3:
        return f"{a} {_SIGNS[operation]} {b} = {c}"
    return _phrases(operation, language, "statement")[0].format(a=a, b=b, c=c)


def _operation(rng: random.Random) -> Operation:
    choices: tuple[Operation, ...] = ("+", "-", "*")
    return rng.choices(choices, cum_weights=(45, 90, 100))[0]


def _comparison_line(language: Language, rng: random.Random) -> str:
    a, b = training_pair(rng, "<")
    low, high = min(a, b), max(a, b)
    # A sorted pair teaches no choice: most lines ask for one.
    form = rng.choices(range(6), cum_weights=(10, 20, 60, 72, 85, 100))[0]
    if form == 0:
        return f"{low}<{high}"
    if form == 1:
        return f"{high}>{low}"
    if form == 2:
        question, answer = _comparison(language, rng)
        return prompt_of(question, language) + continuation_of(answer, language)
    if form == 3:
        return _parity(a, language)
    if form == 4 and not is_held_out("-", high, low):
        return _difference(high, low, language)
    if language == "zh":
        return f"{a}{'大于' if a > b else '小于'}{b}。"
    return f"{a} is {'greater' if a > b else 'less'} than {b}."


def _difference(high: int, low: int, language: Language) -> str:
    more = high - low
    if language == "zh":
        return f"{high}比{low}大{more}。"
    return f"{high} is {more} more than {low}."


def _parity(number: int, language: Language) -> str:
    if language == "zh":
        return f"{number}是{'奇数' if number % 2 else '偶数'}。"
    return f"{number} is an {'odd' if number % 2 else 'even'} number."


def _which(a: int, b: int, language: Language, rng: random.Random) -> tuple[str, int]:
    """A question for the greater or the smaller of two numbers, and its answer."""
    if rng.random() < 0.5:
        word, answer = ("大" if language == "zh" else "greater"), max(a, b)
    else:
        word, answer = ("小" if language == "zh" else "smaller"), min(a, b)
    if language == "zh":
        return f"{a}和{b}哪个更{word}？", answer
    return f"Which is {word}, {a} or {b}?", answer


def conversations(rng: random.Random, zh_share: float = ZH_SHARE) -> Iterator[Conversation]:
    """Endless chats of 1 to 3 tasks; every answer copies the operands and ends in the result.

    Args:
        zh_share: the share of Chinese chats; the others are English.
    """
    tasks = (_computation, _word_problem, _comparison, _ordering, _parity_question)
    while True:
        language = some_language(rng, zh_share)
        messages: list[Message] = []
        for _ in range(rng.choices((1, 2, 3), cum_weights=(60, 85, 100))[0]):
            task = rng.choices(tasks, cum_weights=(58, 71, 87, 93, 100))[0]
            question, answer = task(language, rng)
            messages += _turns(question, answer)
            if task is _computation and rng.random() < 0.2:
                messages += _go_on(answer, language, rng)
        yield Conversation(messages, source="math")


def _turns(question: str, answer: str) -> list[Message]:
    return [Message("user", question), Message("assistant", answer)]


def full_stop(language: Language) -> str:
    return "。" if language == "zh" else "."


def _computation(language: Language, rng: random.Random) -> tuple[str, str]:
    operation = _operation(rng)
    a, b = training_pair(rng, operation)
    question = _question(operation, a, b, language, rng)
    return question, equation(operation, a, b) + full_stop(language)


def _question(operation: Operation, a: int, b: int, language: Language, rng: random.Random) -> str:
    return rng.choice(_phrases(operation, language, "asks")).format(a=a, b=b)


def _go_on(answer: str, language: Language, rng: random.Random) -> list[Message]:
    """A further step from the result ("再加5呢？"); none where it would be a held-out pair."""
    start = int(answer.rstrip("。.").split("=")[1])
    steps: list[tuple[Operation, str]] = [
        ("+", "再加{b}呢？" if language == "zh" else "Now add {b}."),
        ("-", "再减{b}呢？" if language == "zh" else "Now take away {b}."),
    ]
    operation, ask = rng.choice(steps)
    b = rng.randint(1, 10)
    if not 0 <= result_of(operation, start, b) <= LIMIT or is_held_out(operation, start, b):
        return []
    return _turns(ask.format(b=b), equation(operation, start, b) + full_stop(language))


def _word_problem(language: Language, rng: random.Random) -> tuple[str, str]:
    operation = rng.choice(_PLUS_MINUS)
    a, b = training_pair(rng, operation)
    # "1 apples" and "0 more" are no language to learn from.
    while min(a, b, result_of(operation, a, b)) < 2:
        a, b = training_pair(rng, operation)
    problem = rng.choice(_phrases(operation, language, "problems"))
    name, thing = (rng.choice(_phrases("problem", language, key)) for key in _OF_PROBLEMS)
    story = problem.format(name=name, thing=thing, a=a, b=b)
    return story, equation(operation, a, b) + full_stop(language)


def _comparison(language: Language, rng: random.Random) -> tuple[str, str]:
    a, b = training_pair(rng, "<")
    question, answer = _which(a, b, language, rng)
    sign = ">" if a > b else "<"
    if language == "zh":
        word = "大" if answer == max(a, b) else "小"
        return question, f"{a}{sign}{b}，更{word}的是{answer}。"
    word = "greater" if answer == max(a, b) else "smaller"
    return question, f"{a}{sign}{b}, so the {word} number is {answer}."


def _ordering(language: Language, rng: random.Random) -> tuple[str, str]:
    while True:
        a, b = training_pair(rng, "<")
        c = rng.randint(0, LIMIT)
        if c not in (a, b) and not is_held_out("<", a, c) and not is_held_out("<", b, c):
            break
    answer = "<".join(map(str, sorted((a, b, c)))) + full_stop(language)
    if language == "zh":
        return f"把{a}、{b}、{c}从小到大排好。", answer
    return f"Put {a}, {b} and {c} in order, the smallest first.", answer


def _parity_question(language: Language, rng: random.Random) -> tuple[str, str]:
    number = rng.randint(0, LIMIT)
    if language == "zh":
        return f"{number}是奇数还是偶数？", _parity(number, language)
    return f"Is {number} odd or even?", _parity(number, language)


def asked(
    operation: Operation, a: int, b: int, language: Language, rng: random.Random
) -> tuple[str, int]:
    """A question for the result, or (`<`) for the greater or the smaller of two numbers, in a
    phrasing of training; and its answer."""
    if operation == "<":
        return _which(a, b, language, rng)
    return _question(operation, a, b, language, rng), result_of(operation, a, b)


def question_items(
    rng: random.Random, count: int, zh_share: float = ZH_SHARE
) -> list[QuestionItem]:
    """Sums and differences of held-out pairs in the phrasings of training.

    No pair comes twice before all 1000 or so were asked.
    """
    items = []
    for operation, a, b in _held_out(rng, _PLUS_MINUS, count):
        language = some_language(rng, zh_share)
        question = _question(operation, a, b, language, rng)
        items.append(_item(question, result_of(operation, a, b), "arithmetic", language))
    return items


def comparison_items(
    rng: random.Random, count: int, zh_share: float = ZH_SHARE
) -> list[QuestionItem]:
    """The greater or the smaller of two numbers that training never compares."""
    items = []
    for _, a, b in _held_out(rng, ("<",), count):
        language = some_language(rng, zh_share)
        question, answer = _which(a, b, language, rng)
        items.append(_item(question, answer, "comparison", language))
    return items


def _held_out(
    rng: random.Random, operations: tuple[Operation, ...], count: int
) -> Iterator[tuple[Operation, int, int]]:
    pool = [(name, a, b) for name in operations for a, b in pairs(name, True)]
    rng.shuffle(pool)
    return islice(cycle(pool), count)


def _item(question: str, answer: int, category: str, language: Language) -> QuestionItem:
    return QuestionItem(
        question, [str(answer)], match="number", category=category, language=language
    )
