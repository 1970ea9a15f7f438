"""Rewards: plain functions `(prompt, completion, record) -> float`, added up with weights.

`prompt` is what the user said last. `completion` is all that the assistant wrote, <think> and
<tool_call> tags included, with the answers of tools between <tool_response> tags. `record` holds
the problem's other fields as they stand in its file, such as `answer`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from miao.errors import MiaoError, first_line
from miao.evaluate.tasks.extract import is_right, last_number, to_number
from miao.own_code import load_function

RewardFunction = Callable[[str, str, dict[str, Any]], float]

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_TOOLS = re.compile(r"<tool_call>.*?(?:</tool_call>|\Z)", re.DOTALL)
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_THINKS = re.compile(r"\s*<think>\s*\S.*?</think>\s*\S.*", re.DOTALL)
_RESPONSE, _END_RESPONSE = "<tool_response>", "</tool_response>"


def final_answer(completion: str) -> str:
    """What the user is told in the end: without thoughts, calls and answers of tools; of it what
    stands in <answer> tags, where there are any."""
    said = completion.rpartition(_END_RESPONSE)[2]
    said = _TOOLS.sub("", _THOUGHT.sub("", said))
    tagged = _TAGGED.findall(said)
    return (tagged[-1] if tagged else said).strip()


def exact_answer(prompt: str, completion: str, record: dict[str, Any]) -> float:
    """1 where the final answer is the record's `answer`: for a number, its last number has the
    same value; for anything else, it is the same text but for case and spaces."""
    if "answer" not in record:
        raise MiaoError("the problem has no 'answer'", fix="give each problem the key 'answer'")
    answer, said = str(record["answer"]), final_answer(completion)
    if to_number(answer) is None:
        return float(is_right(said, answer, "text"))
    return float(is_right(last_number(said), answer, "number"))


def think_format(prompt: str, completion: str, record: dict[str, Any]) -> float:
    """1 for one thought between <think> tags, and then something said."""
    once = completion.count("<think>") == completion.count("</think>") == 1
    return float(once and _THINKS.fullmatch(completion) is not None)


def answer_format(prompt: str, completion: str, record: dict[str, Any]) -> float:
    """1 where the text ends with its only <answer>...</answer>."""
    once = completion.count("<answer>") == completion.count("</answer>") == 1
    return float(once and bool(_TAGGED.search(completion)) and _ends_with_answer(completion))


def _ends_with_answer(completion: str) -> bool:
    return completion.rstrip().endswith("</answer>")


def short(prompt: str, completion: str, record: dict[str, Any]) -> float:
    """1 up to the record's `characters` (200 where it has none), then falling as their share."""
    return min(1.0, float(record.get("characters", 200)) / max(len(completion), 1))


def tool_use(prompt: str, completion: str, record: dict[str, Any]) -> float:
    """1 where a tool was called and gave a result, and something was said after it."""
    answers = completion.split(_RESPONSE)[1:]
    gave = any(not a.partition(_END_RESPONSE)[0].strip().startswith("error") for a in answers)
    return float(gave and bool(final_answer(completion)))


BUILT_IN: dict[str, RewardFunction] = {
    "exact_answer": exact_answer,
    "think_format": think_format,
    "answer_format": answer_format,
    "short": short,
    "tool_use": tool_use,
}


@dataclass(frozen=True)
class Rewards:
    """Reward functions by name, and what each counts."""

    functions: dict[str, RewardFunction]
    weights: dict[str, float]

    def values(self, prompt: str, completion: str, record: dict[str, Any]) -> dict[str, float]:
        """What every function gives.

        Raises:
            MiaoError: a function fails, or gives something other than a finite number.
        """
        found = {}
        for name, function in self.functions.items():
            try:
                value = float(function(prompt, completion, record))
            except MiaoError as error:
                raise MiaoError(
                    error.what, where=f"reward '{name}', problem {prompt[:80]!r}", fix=error.fix
                ) from error
            except Exception as error:
                raise MiaoError(
                    f"the reward function failed: {type(error).__name__}: {first_line(error)}",
                    where=f"reward '{name}', problem {prompt[:80]!r}, answer {completion[:80]!r}",
                    fix="mend the function; MIAO_DEBUG=1 shows where",
                ) from error
            if not math.isfinite(value):
                raise MiaoError(
                    f"the reward is {value}",
                    where=f"reward '{name}', problem {prompt[:80]!r}, answer {completion[:80]!r}",
                    fix="return a finite number",
                )
            found[name] = value
        return found

    def total(self, values: Mapping[str, float]) -> float:
        """The weighted sum."""
        return sum(self.weights[name] * value for name, value in values.items())


def load_rewards(weights: Mapping[str, float]) -> Rewards:
    """The functions that a recipe names: built in, or the user's as `module:function`.

    Raises:
        MiaoError: there is no such function, or it is none.
    """
    functions = {
        name: BUILT_IN.get(name) or load_function(name, "grpo.rewards", BUILT_IN)
        for name in weights
    }
    return Rewards(functions, dict(weights))
