"""The built-in corpus: generated Chinese and English, so that a first run needs no download.

Deterministic from a seed, of any size. What is evaluated (question phrasings, operand pairs,
preference prompts) is never generated for training; tests prove it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

from miao.corpus.records import Conversation, Document, Kind, Preference, Record
from miao.corpus.seedbed import (
    arithmetic,
    calculator,
    dialogues,
    general,
    identity,
    knowledge,
    preferences,
    recall,
    stories,
)
from miao.corpus.seedbed.items import ChoiceItem, QuestionItem
from miao.corpus.seedbed.persona import Persona
from miao.errors import MiaoError, did_you_mean
from miao.recipe import SeedbedOptions, parse_quantity

DOCUMENT_WEIGHTS = {
    "knowledge": 0.51,
    "arithmetic": 0.38,
    "stories": 0.07,
    "dialogues": 0.04,
    "recall": 0.0,  # long texts, for recipes that extend a context
}
"""Share of each topic in the characters of the pretraining text."""
CONVERSATION_WEIGHTS = {
    "general": 0.35,
    "knowledge": 0.25,
    "math": 0.25,
    "identity": 0.15,
    "calculator": 0.0,  # calls of a tool, for recipes that train with one
}
"""Share of each topic in the conversations."""
QUESTION_WEIGHTS = {
    "identity": 0.25,
    "arithmetic": 0.25,
    "knowledge": 0.2,
    "comparison": 0.1,
    "general": 0.1,
    "yes_no": 0.1,
}
"""Share of each category in the held-out questions."""

T = TypeVar("T")


class Seedbed:
    """The built-in corpus of one recipe.

    Args:
        options: sizes, shares, and the assistant's name and maker.
        seed: everything follows from it.
        facts: conversations, pairs and questions about the built-in facts; not for a model that is
            trained on other text, which cannot know them.

    Raises:
        MiaoError: a share of a topic that does not exist.
    """

    def __init__(self, options: SeedbedOptions, seed: int, facts: bool = True):
        self.options, self.seed = options, seed
        self.persona = Persona(options.name_zh, options.name_en, options.maker_zh, options.maker_en)
        self.document_weights = _weights(
            DOCUMENT_WEIGHTS, options.document_weights, "corpus.seedbed.document_weights"
        )
        self.conversation_weights = _weights(
            CONVERSATION_WEIGHTS,
            options.conversation_weights,
            "corpus.seedbed.conversation_weights",
        )
        talk = {**self.conversation_weights, "knowledge": 0.0}
        if not facts and any(talk.values()):
            self.conversation_weights = talk
        taught = {"knowledge": "facts", "math": "sums"}
        self.pairs = frozenset(
            kind for topic, kind in taught.items() if self.conversation_weights[topic]
        )
        """What pairs may be about, beside manners: what is taught."""

    def size(self, kind: Kind) -> float:
        """How much there is of a kind: characters of documents, else the number of records."""
        if kind == "document":
            return parse_quantity(self.options.characters, "corpus.seedbed.characters")
        if kind == "conversation":
            return self.options.conversations
        return self.options.preferences

    def records(self, kind: Kind) -> Iterator[Record]:
        """All training records of a kind, in a random order."""
        if kind == "document":
            return self._documents()
        if kind == "conversation":
            return self._conversations()
        pairs = islice(
            preferences.preferences(self._rng("preferences"), self.persona, self.pairs),
            self.options.preferences,
        )
        return self._single_answers(pairs) if self.options.single_answers else pairs

    def choice_items(self, count: int) -> list[ChoiceItem]:
        """Multiple-choice questions on the facts of the text, in phrasings never trained on."""
        return knowledge.choice_items(self._rng("choice"), count)

    def question_items(self, count: int) -> list[QuestionItem]:
        """Questions for the chat: phrasings and operand pairs never trained on."""
        rng = self._rng("questions")
        makers: dict[str, Callable[[int], list[QuestionItem]]] = {
            "identity": lambda n: identity.question_items(rng, self.persona, n),
            "arithmetic": lambda n: arithmetic.question_items(rng, n),
            "knowledge": lambda n: knowledge.question_items(rng, n),
            "comparison": lambda n: arithmetic.comparison_items(rng, n),
            "general": lambda n: general.question_items(rng, n),
            "yes_no": lambda n: knowledge.whether_items(rng, n),
        }
        untaught = {topic for topic, weight in self.conversation_weights.items() if not weight}
        asked = {"arithmetic": "math", "comparison": "math", "yes_no": "knowledge"}
        return [
            item
            for name, make in makers.items()
            if asked.get(name, name) not in untaught
            for item in make(max(1, round(count * QUESTION_WEIGHTS[name])))
        ]

    def heldout_preferences(self, count: int) -> list[Preference]:
        """Pairs whose prompts are never trained on."""
        rng = self._rng("heldout preferences")
        return preferences.heldout(rng, self.persona, count, self.pairs)

    def _single_answers(self, pairs: Iterator[Preference]) -> Iterator[Preference]:
        """One side of each pair, drawn at random."""
        rng = self._rng("single answers")
        for pair in pairs:
            is_good = rng.random() < 0.5
            yield replace(pair, rejected=[]) if is_good else replace(pair, chosen=[])

    def _documents(self) -> Iterator[Document]:
        rng = self._rng("documents")
        streams = {
            "knowledge": knowledge.documents(rng),
            "arithmetic": arithmetic.documents(rng),
            "stories": stories.documents(rng),
            "dialogues": dialogues.documents(rng),
            "recall": recall.documents(rng, self.options.recall_characters),
        }
        streams = {name: stream for name, stream in streams.items() if self.document_weights[name]}
        size = self.size("document")
        written = dict.fromkeys(streams, 0)
        while (total := sum(written.values())) < size:
            # The topic that is furthest behind its share of the characters comes next.
            name = max(streams, key=lambda n: self.document_weights[n] * (total + 1) - written[n])
            document = next(streams[name])
            written[name] += len(document.text)
            yield document

    def _conversations(self) -> Iterator[Conversation]:
        rng = self._rng("conversations")
        streams: dict[str, Iterator[Any]] = {
            "general": general.conversations(rng, self.persona),
            "knowledge": knowledge.conversations(rng),
            "math": arithmetic.conversations(rng),
            "identity": identity.conversations(rng, self.persona),
            "calculator": calculator.conversations(rng),
        }
        names = list(streams)
        weights = [self.conversation_weights[name] for name in names]
        for name in rng.choices(names, weights, k=self.options.conversations):
            yield next(streams[name])

    def _rng(self, purpose: str) -> random.Random:
        return random.Random(f"{self.seed}/{purpose}")


def _weights(defaults: dict[str, float], given: dict[str, float], where: str) -> dict[str, float]:
    for name, weight in given.items():
        if name not in defaults:
            hint = did_you_mean(name, defaults) or f"topics: {', '.join(defaults)}"
            raise MiaoError(f"there is no topic '{name}'", where=where, fix=hint)
        if weight < 0:
            raise MiaoError(f"the weight of '{name}' is negative", where=where)
    weights = defaults | given
    total = sum(weights.values())
    if total <= 0:
        raise MiaoError("all weights are 0", where=where)
    return {name: weight / total for name, weight in weights.items()}
