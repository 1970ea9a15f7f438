"""The problems that GRPO asks: records of files, or sums and comparisons made on the spot."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miao.corpus.read.columns import TURNS_KEYS, row_of
from miao.corpus.read.readers import read_objects
from miao.corpus.read.sources import find_files
from miao.corpus.read.turns import first_key, to_messages
from miao.corpus.records import Message
from miao.corpus.seedbed.arithmetic import ZH_SHARE, Operation, asked, is_held_out, result_of
from miao.errors import MiaoError
from miao.own_code import source_file
from miao.recipe.grpo import ArithmeticOptions, GrpoOptions

QUESTIONS = ("prompt", "question", "instruction")
MOST_TRIES = 50
"""Draws per problem that is wanted, before there are taken to be no more."""


@dataclass(frozen=True)
class Problem:
    """A conversation up to where the assistant speaks, and what its answer is judged by."""

    messages: list[Message]
    record: dict[str, Any]

    @property
    def prompt(self) -> str:
        """What the user said last."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def mark(self) -> str:
        """A hash of the conversation."""
        text = json.dumps([m.to_json() for m in self.messages], ensure_ascii=False)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def load_problems(options: GrpoOptions, seed: int) -> tuple[list[Problem], list[Problem]]:
    """Problems to train on, and those held out of it to measure on; no problem is in both.

    Of files `options.heldout` problems are held out by a hash of their conversation; equal ones
    count once. Built-in ones are held out by their numbers, which no stage has ever seen.

    Raises:
        MiaoError: no problems, or one that is none; with file and line.
    """
    if not options.problems:
        return (
            list(_arithmetic(options.arithmetic, seed, False, options.arithmetic.count)),
            list(_arithmetic(options.arithmetic, seed, True, options.heldout)),
        )
    found: dict[str, Problem] = {}
    for path in find_files(options.problems):
        for line, value in read_objects(path):
            try:
                problem = to_problem(value)
            except MiaoError as error:
                raise MiaoError(error.what, where=f"{path}:{line}", fix=error.fix) from error
            found.setdefault(problem.mark, problem)
    problems = sorted(found.values(), key=lambda problem: problem.mark)
    held_out = min(options.heldout, len(problems) // 2)
    if len(problems) <= held_out or not problems:
        raise MiaoError("there are no problems", where=", ".join(options.problems))
    return problems[held_out:], problems[:held_out]


def problem_files(options: GrpoOptions) -> list[Path]:
    """Every file that the stage's result depends on: problems, and the user's own Python."""
    own = [*options.rewards, *([options.environment] if options.environment else [])]
    code = [path for name in own if (path := source_file(name)) and path.is_file()]
    return [*(find_files(options.problems) if options.problems else []), *code]


def to_problem(value: Any) -> Problem:
    """A record with `prompt`, `question` or `messages`; whatever else it has is for the rewards.

    Of `messages` the turns from the last answer of the assistant on are left out.

    Raises:
        MiaoError: none of these keys, or nothing asked.
    """
    if not isinstance(value, dict):
        raise MiaoError("a problem is an object", fix='such as {"prompt": "2+3=?", "answer": 5}')
    key = next((key for key in QUESTIONS if isinstance(value.get(key), str)), None)
    if key is not None:
        messages = [Message("user", value[key])]
        if isinstance(value.get("system"), str):
            messages.insert(0, Message("system", value["system"]))
    else:
        fields = row_of(value)
        turns = first_key(fields, TURNS_KEYS)
        if not turns:
            raise MiaoError(
                f"no problem: it has the keys {', '.join(map(repr, value)) or 'none'}",
                fix="give it 'prompt', 'question' or 'messages', and what the rewards read, such "
                "as 'answer'",
            )
        messages = to_messages(fields[turns], f"'{turns}'")
        while messages and messages[-1].role == "assistant":
            messages.pop()
    if not messages or messages[-1].role != "user" or not messages[-1].content.strip():
        raise MiaoError("nothing is asked", fix="a problem ends with a turn of the user")
    return Problem(messages, value)


def _arithmetic(
    options: ArithmeticOptions, seed: int, held_out: bool, count: int
) -> Iterator[Problem]:
    """Different questions with uniformly drawn numbers; `held_out` ones hold other pairs."""
    rng = random.Random(f"{seed}/{held_out}")
    asked_before: set[str] = set()
    for _ in range(MOST_TRIES * count):
        if len(asked_before) == count:
            return
        operation: Operation = rng.choice(options.operations)
        a, b = rng.randint(0, options.largest), rng.randint(0, options.largest)
        if operation == "<":
            fits = a != b
        else:
            fits = 0 <= result_of(operation, a, b) <= options.largest_result
        if not fits or is_held_out(operation, a, b) != held_out:
            continue
        question, answer = asked(operation, a, b, "zh" if rng.random() < ZH_SHARE else "en", rng)
        if question not in asked_before:
            asked_before.add(question)
            yield Problem([Message("user", question)], {"prompt": question, "answer": answer})
    if count and not asked_before and not held_out:
        raise MiaoError("no numbers fit", where="grpo.arithmetic", fix="raise largest_result")
