"""KTO's single answers, labelled desirable or not -> pairs of a better and a worse answer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from hashlib import blake2b

from miao.corpus.problems import Problem
from miao.corpus.records import Conversation, Message, Preference
from miao.errors import MiaoError

WAITING = 100_000
"""Answers that wait for their counterpart at a time; beyond that the oldest is given up."""


class KtoPairs:
    """Pairs a desirable and an undesirable answer to the same prompt, in the order of the file."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[bytes, bool], list[tuple[Conversation, Problem]]] = {}
        self._count = 0

    def add(self, label: bool, turns: Conversation, place: Problem) -> Preference | None:
        """The pair that this answer completes; None: it waits.

        Raises:
            MiaoError: no prompt, or an answer that does not come last.
        """
        prompt, answer = turns.messages[:-1], turns.messages[-1]
        if answer.role != "assistant" or not any(m.role == "user" for m in prompt):
            raise MiaoError("a labelled answer must follow a prompt", fix="mend or drop the record")
        digest = _digest(prompt)
        others = self._waiting.get((digest, not label), [])
        for number, (other, _) in enumerate(others):
            if other.messages[-1] != answer:
                del others[number]
                self._count -= 1
                if not others:
                    del self._waiting[digest, not label]
                chosen, rejected = (answer, other.messages[-1])[:: 1 if label else -1]
                return Preference(prompt, [chosen], [rejected], turns.source)
        self._waiting.setdefault((digest, label), []).append((turns, place))
        self._count += 1
        return None

    def overflow(self) -> Iterator[Problem]:
        """Gives up the oldest answers while too many wait."""
        while self._count > WAITING:
            yield self._give_up()

    def rest(self) -> Iterator[Problem]:
        """Gives up all answers that still wait."""
        while self._count:
            yield self._give_up()

    def _give_up(self) -> Problem:
        key = next(iter(self._waiting))
        _, place = self._waiting[key].pop(0)
        if not self._waiting[key]:
            del self._waiting[key]
        self._count -= 1
        other = "undesirable" if key[1] else "desirable"
        return dataclasses.replace(
            place,
            reason=f"no {other} answer to the same prompt",
            fix="DPO compares two answers: add the other one"
            + (", or use the record as a conversation" if key[1] else ""),
        )


def _digest(prompt: list[Message]) -> bytes:
    text = json.dumps([message.to_json() for message in prompt], sort_keys=True)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
