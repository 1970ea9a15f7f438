"""Win-rate: another model, behind an OpenAI-compatible address, says which answer is better."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
        return math.sqrt(max(squares / count - self.value**2, 0.0) / (count - 1))

    @property
    def p_value(self) -> float:
        """Of a fair coin for every question that is not tied."""
        return mcnemar(self.losses, self.wins)


def judge_pairs(
    questions: Sequence[str],
    answers_a: Sequence[str],
    answers_b: Sequence[str],
    ask: Ask,
    advance: Callable[[int], None] = lambda done: None,
) -> WinRate:
    """Has every pair judged twice, in both orders."""
    wins = losses = ties = unclear = first = said = 0
    for question, a, b in zip(questions, answers_a, answers_b, strict=True):
        verdicts = [
            _verdict(ask(PROMPT.format(question=question, first=x, second=y)))
            for x, y in ((a, b), (b, a))
        ]
        unclear += verdicts.count(None)
        first += verdicts.count("1")
        said += verdicts.count("1") + verdicts.count("2")
        if verdicts == ["2", "1"]:
            wins += 1
        elif verdicts == ["1", "2"]:
            losses += 1
        else:
            ties += 1
        advance(1)
    return WinRate(wins, losses, ties, unclear, first / said if said else 0.5)


def _verdict(text: str) -> str | None:
    found = _VERDICT.findall(text)
    return found[-1].lower() if found else None


def openai_judge(url: str, model: str, key: str | None = None, timeout: float = 120.0) -> Ask:
    """A judge behind an OpenAI-compatible address, asked at temperature 0; one that has answered
    before is asked again when it is busy.

    Raises (when asked):
        MiaoError: no answer, or one that is not of the protocol.
    """
    address = base_url(url) + "/chat/completions"
    answered = 0

    def ask_judge(prompt: str) -> str:
        nonlocal answered
        body = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
        }
        attempt = 0
        while True:
            try:
                content = ask(address, body, key, timeout)["choices"][0]["message"]["content"]
            except NoAnswer as error:
                if not (answered and error.may_pass and attempt < RETRIES):
                    raise MiaoError(
                        f"the judge does not answer: {error}",
                        where=address,
                        fix=f"does it run, does it know the model '{model}', and is its key set?",
                    ) from error
                time.sleep(error.pause(attempt))
                attempt += 1
            except (KeyError, IndexError, TypeError) as error:
                raise MiaoError(
                    "the judge's answer is not that of a chat", where=address
                ) from error
            else:
                answered += 1
                return str(content or "")

    return ask_judge
