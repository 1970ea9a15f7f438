"""Evaluation items: multiple choice scored by perplexity, and chat questions scored by text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from typing import Any, Literal

from miao.errors import MiaoError

Match = Literal["contains", "number"]

_LATIN = r"0-9A-Za-z\u00c0-\u024f"
_CHINESE_DIGITS = "零〇一二三四五六七八九十百千万亿"
# A minus is a sign only where no number or bracket stands before it: "82-45" holds no -45.
_NUMBER = re.compile(r"(?:(?<![\d)])-)?\d+(?:,\d{3})*(?:\.\d+)?")


def one_in_ten(text: str) -> bool:
    """By a stable hash: what is for evaluation alone and no training text shows."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 10 == 0


def prompt_of(question: str, language: str) -> str:
    """The text that a base model continues with the answer; English ends without a space."""
    return f"问：{question}\n答：" if language == "zh" else f"Q: {question}\nA:"


def continuation_of(answer: str, language: str) -> str:
    """The answer as it follows `prompt_of`: English words carry their leading space."""
    return answer if language == "zh" else f" {answer}"


@dataclass(slots=True)
class ChoiceItem:
    """A prompt and its possible continuations, of which `options[answer]` is the right one."""

    prompt: str
    options: list[str]
    answer: int
    category: str
    language: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ChoiceItem:
        """Reads what `to_json` wrote; a missing key or an impossible answer is a MiaoError."""
        item = cls(**_known(cls, record))
        if not 0 <= item.answer < len(item.options):
            raise MiaoError(
                f"answer {item.answer} names none of the {len(item.options)} options",
                where=item.prompt,
                fix="count the options from 0",
            )
        return item


@dataclass(slots=True)
class QuestionItem:
    """What a user asks, and the texts by which a reply is judged.

    Args:
        answers: a reply is right when it contains one of these (`match="contains"`), or when its
            last number equals the first of these (`match="number"`).
        wrong: a reply that contains one of these is wrong whatever else it says.
    """

    question: str
    answers: list[str]
    wrong: list[str] = field(default_factory=list)
    match: Match = "contains"
    category: str = ""
    language: str = "zh"

    def is_right(self, reply: str) -> bool:
        """Judges a reply; English ignores case, and no match may be a part of a longer word."""
        if self.match == "number":
            return _last_number(reply) == float(self.answers[0])
        ignore_case = self.language == "en"
        if any(_contains(reply, text, ignore_case) for text in self.wrong):
            return False
        return any(_contains(reply, text, ignore_case) for text in self.answers)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> QuestionItem:
        """Reads what `to_json` wrote; a missing key or an unknown match is a MiaoError."""
        item = cls(**_known(cls, record))
        if item.match not in ("contains", "number"):
            raise MiaoError(
                f"unknown match '{item.match}'",
                where=item.question,
                fix="use 'contains' or 'number'",
            )
        return item


def _known(kind: type, record: Mapping[str, Any]) -> dict[str, Any]:
    names = [entry.name for entry in fields(kind)]
    missing = [name for name in names if name not in record]
    if missing:
        raise MiaoError(
            f"an evaluation item lacks {', '.join(missing)}",
            fix=f"give each {kind.__name__} the keys {', '.join(names)}",
        )
    return {name: record[name] for name in names}


def _last_number(text: str) -> float | None:
    numbers = _NUMBER.findall(text)
    return float(numbers[-1].replace(",", "")) if numbers else None


def _contains(text: str, phrase: str, ignore_case: bool) -> bool:
    return _phrase_pattern(phrase, ignore_case).search(text) is not None


@lru_cache(maxsize=4096)
def _phrase_pattern(phrase: str, ignore_case: bool) -> re.Pattern[str]:
    """A pattern for `phrase` that does not match inside a longer word or number.

    Chinese has no word borders, and `\\b` sees none between 是 and Fe, so they are spelt out.
    """
    before, after = "", ""
    if re.match(f"[{_LATIN}]", phrase[0]):
        before = f"(?<![{_LATIN}])(?<![{_LATIN}]['’-])"
    if phrase[0].isdigit():
        before += r"(?<!\d[.,])(?<!(?<!\d)-)"
    if re.match(f"[{_LATIN}]", phrase[-1]):
        after = f"(?![{_LATIN}])(?!-[{_LATIN}])"
    if phrase[-1].isdigit():
        after += r"(?![.,]\d)"
    if phrase[0] in _CHINESE_DIGITS:
        before = f"(?<![{_CHINESE_DIGITS}])"
    if phrase[-1] in _CHINESE_DIGITS:
        after = f"(?![{_CHINESE_DIGITS}])"
    return re.compile(before + re.escape(phrase) + after, re.IGNORECASE if ignore_case else 0)
