"""Applies the rules to a record: edits to each of its texts, then checks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from miao.corpus.clean.dialogue import empty_turn, refusal, wrong_order
from miao.corpus.clean.rules import Check, common_checks, document_checks, edits_of
from miao.corpus.ngrams import TextView, views_of
from miao.corpus.records import Conversation, Document, Message, Preference, Record, text_of
from miao.recipe.cleaning import CleanOptions

AROUND = 40  # characters shown on each side of an edit


@dataclass(slots=True)
class Cleaned:
    """A record that may stay, its text for what follows, and what each edit changed in it."""

    record: Record
    view: TextView
    edits: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    """Rule -> (characters taken out, an excerpt before, the same after)."""


@dataclass(slots=True)
class Rejected:
    """A record that goes: the rule, and what it measured."""

    rule: str
    detail: str


class Cleaner:
    """The rules that the options switch on.

    Raises:
        MiaoError: options that cannot be followed (a missing library or word list, unknown names).
    """

    def __init__(self, options: CleanOptions):
        self.options = options
        on = options.enabled
        self.edits = edits_of(options) if on else []
        acted_on = "".join(rule.acts_on for rule in self.edits)
        self._acted_on = re.compile(f"[{acted_on}]" if acted_on else "$^")
        self.checks = common_checks(options) if on else []
        self.document_checks = document_checks(options) if on else []

    def clean(self, record: Record) -> Cleaned | Rejected:
        """The record after all edits, or the first rule that rejects it. Changes nothing given."""
        return self.clean_all([record])[0]

    def clean_all(self, records: Sequence[Record]) -> list[Cleaned | Rejected]:
        """`clean` of each of some records, which is faster for many small ones."""
        edited = [self._edited(record) for record in records]
        views = views_of([text_of(record) for record, _ in edited])
        return [
            self._judge(record, view) or Cleaned(record, view, done)
            for (record, done), view in zip(edited, views, strict=True)
        ]

    def _edited(self, record: Record) -> tuple[Record, dict[str, tuple[int, str, str]]]:
        """The record after all edits, and what they did."""
        done: dict[str, tuple[int, str, str]] = {}
        if isinstance(record, Document):
            text = self._edit(record.text, done)
            record = record if text is record.text else replace(record, text=text)
        elif isinstance(record, Conversation):
            record = replace(record, messages=self._edit_all(record.messages, done))
        else:
            record = replace(
                record,
                prompt=self._edit_all(record.prompt, done),
                chosen=self._edit_all(record.chosen, done),
                rejected=self._edit_all(record.rejected, done),
            )
        return record, done

    def _judge(self, record: Record, view: TextView) -> Rejected | None:
        checks: list[Check] = list(self.checks)
        if isinstance(record, Document):
            checks = self.document_checks + checks
        elif self.options.enabled and (wrong := self._dialogue(record)):
            return wrong
        for check in checks:
            if (found := check.judge(view)) is not None:
                return Rejected(check.name, found)
        return None

    def _dialogue(self, record: Conversation | Preference) -> Rejected | None:
        options = self.options
        if isinstance(record, Preference):
            answers = (record.chosen, record.rejected)
            sides = [record.prompt + answer for answer in answers if answer]
            wanted = record.chosen  # the rejected side may well refuse: that is why it is rejected
        else:
            sides, wanted = [record.messages], record.messages
        for messages in sides:
            if options.empty_turns and (found := empty_turn(messages)):
                return Rejected("empty turn", found)
            if options.role_order and (found := wrong_order(messages)):
                return Rejected("role order", found)
        if isinstance(record, Preference) and record.chosen == record.rejected:
            return Rejected("empty turn", "after cleaning both sides are the same")
        if options.refusals and (found := refusal(wanted)):
            return Rejected("refusal", found)
        return None

    def _edit_all(
        self, messages: list[Message], done: dict[str, tuple[int, str, str]]
    ) -> list[Message]:
        return [
            replace(
                message,
                content=self._edit(message.content, done),
                reasoning=self._edit(message.reasoning, done) if message.reasoning else None,
            )
            for message in messages
        ]

    def _edit(self, text: str, done: dict[str, tuple[int, str, str]]) -> str:
        usual = not self._acted_on.search(text)
        for rule in self.edits:
            changed = text if usual and rule.acts_on else rule.apply(text)
            if changed is not text and changed != text:
                usual = False
                taken = done[rule.name][0] if rule.name in done else 0
                excerpts = done[rule.name][1:] if rule.name in done else excerpt(text, changed)
                done[rule.name] = (taken + len(text) - len(changed), *excerpts)
                text = changed
        return text


def excerpt(before: str, after: str) -> tuple[str, str]:
    """The surroundings of the first difference, in both texts."""
    low, high = 0, min(len(before), len(after))
    while low < high:  # the longest common beginning, by halves
        middle = (low + high + 1) // 2
        if before[:middle] == after[:middle]:
            low = middle
        else:
            high = middle - 1
    begin = max(0, low - AROUND)
    return before[begin : low + 2 * AROUND], after[begin : low + 2 * AROUND]
