"""Facts of the seedbed in many phrasings: documents, conversations and held-out questions.

Every relation has phrasings that training shows and phrasings that only evaluation asks, so a
right answer there comes from the fact and not from a remembered line.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import zip_longest
from typing import Generic, TypeVar

from miao.corpus.records import Conversation, Document, Message
from miao.corpus.seedbed.facts import Fact, facts, relations
from miao.corpus.seedbed.items import (
    ChoiceItem,
    QuestionItem,
    continuation_of,
    one_in_ten,
    prompt_of,
)
from miao.corpus.seedbed.tables import LANGUAGES, ZH_SHARE, Language, some_language, table

T = TypeVar("T")

_FEWEST_TURNS = 14
_WHETHER_SHARE = 0.1
_IS = re.compile(r"(.+?) (is|are|was) (.+)\.")
_SMALL_FIRST = frozenset(["A", "An", "The", "There", "We"])

_GREETINGS = {"zh": ("你好，{}", "你好，请问{}"), "en": ("Hello, {}", "Hi, {}")}
_REQUESTS = {
    "zh": ("请问{}", "请问，{}", "我想知道，{}", "想问一下，{}"),
    "en": ("Please tell me: {}", "I want to know: {}", "I have a question: {}"),
}
_QUESTION_WORDS = frozenset(["What", "Who", "Where", "When", "Which", "How", "If", "In", "On"])
# Chinese that already asks, or asks somebody, takes no second "请问" in front.
_REQUEST = re.compile(r"[。：]|你知道")
_INDIRECT = re.compile(r"(What|Who) is (the .+)\?")


@cache
def _by_relation(language: Language) -> dict[str, tuple[Fact, ...]]:
    grouped: dict[str, list[Fact]] = {}
    for fact in facts():
        if fact.language == language:
            grouped.setdefault(fact.relation, []).append(fact)
    return {name: tuple(group) for name, group in grouped.items()}


@cache
def _titles(language: Language) -> dict[str, str]:
    return {relation.name: relation.title for relation in relations(language)}


def heldout_phrasings() -> list[str]:
    """Every held-out question, rendered; none of them may stand in any training text."""
    return [question for fact in facts() for question in fact.heldout]


class Deck(Generic[T]):
    """Deals the items in shuffled order and shuffles anew when all are dealt."""

    def __init__(self, items: Sequence[T], rng: random.Random):
        assert items
        self._items, self._rng, self._left = list(items), rng, list[T]()

    def deal(self, count: int = 1) -> list[T]:
        """`count` different items, or all of them when there are not so many."""
        dealt: list[T] = []
        for _ in range(min(count, len(self._items))):
            if not self._left:
                self._rng.shuffle(self._items)
                # What this hand already holds waits at the bottom of the new round.
                self._left = [item for item in self._items if item in dealt]
                self._left += [item for item in self._items if item not in dealt]
            dealt.append(self._left.pop())
        return dealt


class _Facts:
    """Deals groups of facts of one relation: every fact about equally often, those of a small
    relation more often, so that its wordings are learned too."""

    def __init__(self, language: Language, rng: random.Random):
        groups = _by_relation(language)
        turns = {name: max(len(group), _FEWEST_TURNS) for name, group in groups.items()}
        self._names = Deck([name for name, count in turns.items() for _ in range(count)], rng)
        self._groups = {name: Deck(group, rng) for name, group in groups.items()}

    def deal(self, count: int) -> list[Fact]:
        return self._groups[self._names.deal()[0]].deal(count)


def documents(rng: random.Random, zh_share: float = ZH_SHARE) -> Iterator[Document]:
    """Endless short texts that state, list, or ask and answer facts of one kind.

    Args:
        zh_share: the share of Chinese documents; the others are English.
    """
    decks = {language: _Facts(language, rng) for language in LANGUAGES}
    forms = ((_statement, 1, 1), (_paragraph, 2, 5), (_questions, 1, 3), (_list, 2, 5))
    while True:
        language = some_language(rng, zh_share)
        write, fewest, most = rng.choices(forms, cum_weights=(12, 30, 94, 100))[0]
        group = decks[language].deal(rng.randint(fewest, most))
        yield Document(write(group, language, rng), source="knowledge")


def _statement(group: list[Fact], language: Language, rng: random.Random) -> str:
    return rng.choice(group[0].statements)


def _paragraph(group: list[Fact], language: Language, rng: random.Random) -> str:
    """Sentences in a row: all of one make, or each of its own."""
    same = rng.randrange(len(group[0].statements)) if rng.random() < 0.5 else None
    sentences = [
        rng.choice(fact.statements) if same is None else fact.statements[same] for fact in group
    ]
    if language == "en":
        return " ".join(sentences)
    if same is not None and "，" not in sentences[0] and rng.random() < 0.5:
        return "，".join(sentence.rstrip("。") for sentence in sentences) + "。"
    return "".join(sentences)


def _questions(group: list[Fact], language: Language, rng: random.Random) -> str:
    """Questions, mostly with the bare value as answer: that is what evaluation scores."""
    short = rng.random() < 0.7
    return "\n".join(
        prompt_of(rng.choice(fact.questions), language)
        + continuation_of(fact.value if short else fact.sentence, language)
        for fact in group
    )


def _asked_whether(fact: Fact, rng: random.Random) -> str:
    """Asked whether the fact's value, or (half of the time) a false one, is right."""
    shown = [value for value in fact.distractors if not _is_held_out(fact, value)]
    if not shown or (rng.random() < 0.5 and not _is_held_out(fact, fact.value)):
        return whether(fact, fact.value)
    return whether(fact, rng.choice(shown))


def whether(fact: Fact, value: str) -> str:
    """`苹果是动物吗？` about this value, true or false.

    Only chats ask so, and the reply is the fact alone: what a text asks is learned like all of it,
    false values too, and a verdict beside the fact was never learned (docs/LOG.md).
    """
    said = fact.sentence.replace(fact.value, value)
    by_order = _IS.fullmatch(said) if fact.language == "en" and said[:3] != "We " else None
    if by_order is None:
        frame = table(fact.language, "frames").lines("whether", ("",))[0]
        return frame.format(_within(fact, said).rstrip("。."))
    subject, verb, rest = by_order.groups()
    return f"{verb.capitalize()} {_within(fact, subject)} {rest}?"


def _within(fact: Fact, text: str) -> str:
    """As it stands within a sentence: in English only a name keeps its capital."""
    if fact.language == "zh":
        return text
    own = text.startswith(fact.subject[:1].upper() + fact.subject[1:]) and fact.subject[0].islower()
    return text[0].lower() + text[1:] if own or text.split(" ", 1)[0] in _SMALL_FIRST else text


@cache
def _is_held_out(fact: Fact, value: str) -> bool:
    """Whether training never asks if this value is right: 1 pair in 10, by a stable hash."""
    return one_in_ten(f"{fact.language} {fact.relation} {fact.subject} {value}")


def _list(group: list[Fact], language: Language, rng: random.Random) -> str:
    colon = "：" if language == "zh" else ":"
    lines = [f"{_titles(language)[group[0].relation]}{colon}"]
    for fact in group:
        subject = fact.subject[:1].upper() + fact.subject[1:]
        lines.append(f"{subject}{colon}{continuation_of(fact.value, language)}")
    return "\n".join(lines)


def conversations(rng: random.Random, zh_share: float = ZH_SHARE) -> Iterator[Conversation]:
    """Endless chats of 1 to 3 questions, each answered with one full sentence; some ask for yes
    or no.

    Args:
        zh_share: the share of Chinese chats; the others are English.
    """
    decks = {language: _Facts(language, rng) for language in LANGUAGES}
    while True:
        language = some_language(rng, zh_share)
        group = decks[language].deal(rng.choices((1, 2, 3), cum_weights=(60, 85, 100))[0])
        messages: list[Message] = []
        for fact in group:
            question = rng.choice(fact.questions)
            if rng.random() < _WHETHER_SHARE:
                question = _asked_whether(fact, rng)
            elif messages and fact.follow_up and rng.random() < 0.5:
                question = fact.follow_up
            elif rng.random() < 0.4:
                question = _polite(question, language, rng, first=not messages)
            messages += [Message("user", question), Message("assistant", fact.sentence)]
        yield Conversation(messages, source="knowledge")


def _polite(question: str, language: Language, rng: random.Random, first: bool) -> str:
    """A training question as a request, with thanks, or (opening a chat) with a greeting."""
    frames = _REQUESTS[language] + (_GREETINGS[language] if first else ())
    if language == "zh":
        if _REQUEST.search(question):
            return question + rng.choice(("", "谢谢。"))
        if "，" not in question and rng.random() < 0.3:
            return f"你知道{question.rstrip('？')}吗？"
        return rng.choice(frames).format(question) + rng.choice(("", "", "谢谢。"))
    indirect = _INDIRECT.fullmatch(question)
    if indirect and rng.random() < 0.3:
        return f"Could you tell me {indirect[1].lower()} {indirect[2]} is?"
    if question.split(" ", 1)[0] in _QUESTION_WORDS:
        question = question[0].lower() + question[1:]
        question = rng.choice(frames).format(question)
    return question + rng.choice(("", "", " Thank you."))


def _heldout(rng: random.Random, count: int) -> Iterator[tuple[Fact, str]]:
    """Held-out questions, no two the same before all were asked; all relations take turns."""
    taken = 0
    while taken < count:
        groups = [group for name in LANGUAGES for group in _by_relation(name).values()]
        rng.shuffle(groups)
        queues = []
        for group in groups:
            queue = [(fact, question) for fact in group for question in fact.heldout]
            rng.shuffle(queue)
            queues.append(queue)
        turns = zip_longest(*queues)
        for entry in (entry for turn in turns for entry in turn if entry is not None):
            if taken == count:
                return
            taken += 1
            yield entry


def choice_items(rng: random.Random, count: int) -> list[ChoiceItem]:
    """Held-out questions with four options of the same kind; chance is 1 in 4."""
    items = []
    for fact, question in _heldout(rng, count):
        options = _false_options(fact, rng)
        answer = rng.randrange(len(options) + 1)
        options.insert(answer, fact.value)
        items.append(
            ChoiceItem(
                prompt=prompt_of(question, fact.language),
                options=[continuation_of(option, fact.language) for option in options],
                answer=answer,
                category=fact.topic,
                language=fact.language,
            )
        )
    return items


def _false_options(fact: Fact, rng: random.Random) -> list[str]:
    """Three distractors, none of which begins another option: a prefix is always likelier."""
    options: list[str] = []
    for option in rng.sample(fact.distractors, len(fact.distractors)):
        if not any(_one_begins_the_other(option, other) for other in (fact.value, *options)):
            options.append(option)
        if len(options) == 3:
            return options
    raise AssertionError(f"fewer than 3 distractors: {fact}")


def _one_begins_the_other(left: str, right: str) -> bool:
    return left.startswith(right) or right.startswith(left)


def question_items(rng: random.Random, count: int) -> list[QuestionItem]:
    """Held-out questions for the chat; a reply that also names a false value is wrong."""
    return [_item(fact, question, "knowledge") for fact, question in _heldout(rng, count)]


def _item(fact: Fact, question: str, category: str) -> QuestionItem:
    wrong = [text for text in fact.distractors if not _said_anyway(text, fact)]
    return QuestionItem(
        question, list(fact.accepted), wrong, category=category, language=fact.language
    )


def whether_items(rng: random.Random, count: int) -> list[QuestionItem]:
    """Questions for yes or no, half of each, about pairs that training never asks about; a right
    reply says the fact."""
    pools: dict[bool, list[tuple[Fact, str]]] = {True: [], False: []}
    for fact in facts():
        for value in (fact.value, *fact.distractors):
            if _is_held_out(fact, value):
                pools[value == fact.value].append((fact, value))
    decks = {true: Deck(pool, rng) for true, pool in pools.items()}
    items = []
    for number in range(count):
        [(fact, value)] = decks[number % 2 == 0].deal()
        items.append(_item(fact, whether(fact, value), "yes_no"))
    return items


def _said_anyway(text: str, fact: Fact) -> bool:
    """Whether a right reply may well hold this text: `one` in `someone`, `大` in `加拿大`."""
    right = " ".join((*fact.accepted, *fact.statements, *fact.heldout)).lower()
    return text.lower() in right
