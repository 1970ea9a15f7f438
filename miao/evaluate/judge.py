"""Win-rate: another model, behind an OpenAI-compatible address, says which answer is better."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from miao.errors import MiaoError
from miao.evaluate.statistics import mcnemar
from miao.openai_api import NoAnswer, ask, base_url

PROMPT = """Two assistants answered the same request. Say which answer is better: more correct,
more helpful, in the language of the request. Length alone is no merit.

[Request]
{question}

[Answer 1]
{first}

[Answer 2]
{second}

End with exactly one line: "Verdict: 1", "Verdict: 2" or "Verdict: tie"."""
_VERDICT = re.compile(r"verdict\s*[:：]\s*\**\s*(1|2|tie)\b", re.IGNORECASE)
Ask = Callable[[str], str]
RETRIES = 6


@dataclass(frozen=True)
class WinRate:
    """Model B against model A. A question counts for one only when it is preferred in both orders
    of showing; else it is a tie, since judges favour a place."""

    wins: int
    losses: int
    ties: int
    unclear: int
    """Judgements without a verdict; they count as ties."""
    first_place: float
    """Share of verdicts for the answer shown first; far from 0.5: the judge looks at places."""

    @property
    def value(self) -> float:
        """Wins and half of the ties, as a share."""
        count = self.wins + self.losses + self.ties
        return (self.wins + 0.5 * self.ties) / count if count else 0.5

    @property
    def stderr(self) -> float:
        count = self.wins + self.losses + self.ties
        if count < 2:
            return 0.5
        squares = self.wins + 0.25 * self.ties
        spread = math.sqrt(max(squares / count - self.value**2, 0.0) / (count - 1))
        return spread or 1 / (2 * (count + 1))  # all alike: as `accuracy` has it

    @property
    def p_value(self) -> float:
        """Of a fair coin for every question that is not tied."""
        return mcnemar(self.losses, self.wins)


Verdicts = tuple[str | None, str | None]
"""Of one question in both orders: "1", "2", "tie", or None where there was no verdict."""


def judge_pair(question: str, a: str, b: str, ask: Ask) -> Verdicts:
    """The verdicts with a shown first, and with b shown first."""
    one, two = (
        _verdict(ask(PROMPT.format(question=question, first=x, second=y)))
        for x, y in ((a, b), (b, a))
    )
    return one, two


def outcome(verdicts: Verdicts) -> float:
    """What B gets of a question: 1, 0, or a half for a tie."""
    return {("2", "1"): 1.0, ("1", "2"): 0.0}.get((verdicts[0] or "", verdicts[1] or ""), 0.5)


def win_rate(found: Sequence[Verdicts]) -> WinRate:
    """Sums up the verdicts on model B against model A."""
    results = [outcome(verdicts) for verdicts in found]
    said = [verdict for verdicts in found for verdict in verdicts]
    first, second = said.count("1"), said.count("2")
    return WinRate(
        results.count(1.0),
        results.count(0.0),
        results.count(0.5),
        said.count(None),
        first / (first + second) if first + second else 0.5,
    )


def _verdict(text: str) -> str | None:
    found = _VERDICT.findall(text)
    return found[-1].lower() if found else None


def _content(reply: Any) -> str:
    try:
        return str(reply["choices"][0]["message"]["content"] or "")
    except (KeyError, IndexError, TypeError) as error:
        raise NoAnswer("its answer is not that of a chat") from error


class OpenAIJudge:
    """A judge behind an OpenAI-compatible address, asked at temperature 0; one that has answered
    before is asked again when it is busy or talks nonsense. `tokens`: what it has read and written,
    as it says.

    Raises (when asked):
        MiaoError: no answer, or one that is not of the protocol.
    """

    def __init__(self, url: str, model: str, key: str | None = None, timeout: float = 120.0):
        self.address, self.model = base_url(url) + "/chat/completions", model
        self.key, self.timeout = key, timeout
        self.answered = 0
        self.tokens = [0, 0]

    def __call__(self, prompt: str) -> str:
        messages = [{"role": "user", "content": prompt}]
        body = {"model": self.model, "messages": messages, "temperature": 0}
        attempt = 0
        while True:
            try:
                reply = ask(self.address, body, self.key, self.timeout)
                content = _content(reply)
            except NoAnswer as error:
                if not (self.answered and error.may_pass and attempt < RETRIES):
                    raise MiaoError(
                        f"the judge does not answer: {error}",
                        where=self.address,
                        fix="what it has said is kept: the same command goes on from there"
                        if self.answered
                        else f"does it run, does it know the model '{self.model}', and is its key "
                        "set?",
                    ) from error
                time.sleep(error.pause(attempt))
                attempt += 1
            else:
                self.answered += 1
                used = reply.get("usage")
                for place, name in enumerate(("prompt_tokens", "completion_tokens")):
                    number = used.get(name) if isinstance(used, dict) else None
                    self.tokens[place] += number if isinstance(number, int) else 0
                return content
