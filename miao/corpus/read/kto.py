"""Single answers, labelled desirable or not (KTO): those to the same prompt become pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from miao.corpus.records import Message, Preference

WAITING = 100_000
"""Answers that wait for their counterpart at a time; beyond that the oldest stays single."""
Answer = tuple[Preference, Any]
"""A preference of which one side is empty, and the raw object that it was read from."""


class KtoPairs:
    """Pairs a desirable and an undesirable answer to the same prompt, in the order of the file.

    No answer is lost: those without a counterpart come out single.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[bytes, bool], list[Answer]] = {}
        self._count = 0

    def add(self, answer: Preference, raw: Any) -> Preference | None:
        """The pair that this answer completes; None: it waits."""
        digest, label = _digest(answer.prompt), bool(answer.chosen)
        others = self._waiting.get((digest, not label), [])
        for number, (other, _) in enumerate(others):
            chosen, rejected = answer.chosen or other.chosen, answer.rejected or other.rejected
            if chosen != rejected:
                del others[number]
                self._count -= 1
                if not others:
                    del self._waiting[digest, not label]
                tools = answer.tools or other.tools
                return replace(answer, chosen=chosen, rejected=rejected, tools=tools)
        self._waiting.setdefault((digest, label), []).append((answer, raw))
        self._count += 1
        return None

    def overflow(self) -> Iterator[Answer]:
        """The oldest answers, while too many wait."""
        while self._count > WAITING:
            yield self._oldest()

    def rest(self) -> Iterator[Answer]:
        """All answers that still wait."""
        while self._count:
            yield self._oldest()

    def _oldest(self) -> Answer:
        key = next(iter(self._waiting))
        oldest = self._waiting[key].pop(0)
        if not self._waiting[key]:
            del self._waiting[key]
        self._count -= 1
        return oldest


def _digest(prompt: list[Message]) -> bytes:
    text = json.dumps([message.to_json() for message in prompt], sort_keys=True)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
