"""Asks a model behind an OpenAI-compatible address, and keeps its answers as
conversations to fine-tune on.

One line is written per answer, as soon as it is there; begun again, what has been answered is not
asked again.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from miao.console import ProgressLine, warn
from miao.corpus.read.convert import to_prompt
from miao.corpus.read.opened import format_of
from miao.corpus.read.problems import place
from miao.corpus.read.readers import read_objects
from miao.corpus.read.streams import read_lines
from miao.errors import MiaoError
from miao.files import append_jsonl, fingerprint, read_jsonl
from miao.openai_api import NoAnswer, ask, base_url

TIMEOUT = 300.0
"""Seconds."""
Messages = list[dict[str, Any]]


class _Refused(Exception):
    """One request that will not get better by asking again."""


@dataclass(frozen=True)
class Question:
    """One thing to ask, and the hash of all that decides the answer."""

    messages: Messages
    key: str


@dataclass
class Endpoint:
    """Where and how to ask.

    Args:
        settings: of every request: model, temperature, ...
        per_minute: at most so many requests, over all threads; 0: no limit.
        retries: after a refusal for want of capacity (429, 5xx) or a broken connection.
    """

    url: str
    settings: dict[str, Any]
    api_key: str | None = None
    per_minute: float = 0.0
    retries: int = 5
    first_wait: float = 1.0

    def __post_init__(self) -> None:
        self.url = base_url(self.url) + "/chat/completions"
        self._lock, self._next = threading.Lock(), 0.0
        self.stopped = threading.Event()
        """Set: threads that wait give up."""

    def ask(self, messages: Messages, seed: int) -> dict[str, Any]:
        """The assistant's message.

        Raises:
            _Refused: this request is not answered. MiaoError: no request would be.
        """
        body = self.settings | {"messages": messages, "seed": seed}
        reason = ""
        for attempt in range(self.retries + 1):
            self._take_turn()
            try:
                return _message(ask(self.url, body, self.api_key, TIMEOUT))
            except NoAnswer as error:
                reason = str(error)
                if error.code in (401, 403, 404):
                    raise MiaoError(
                        reason, where=self.url, fix="check --url, --model and MIAO_API_KEY"
                    ) from error
                if not error.may_pass:
                    raise _Refused(reason) from error
                pause = error.pause(attempt, self.first_wait)
            if attempt < self.retries and self.stopped.wait(pause):
                break
        raise MiaoError(
            f"{reason}, {self.retries + 1} times",
            where=self.url,
            fix="run the same command again later: it goes on where it was",
        )

    def _take_turn(self) -> None:
        if not self.per_minute:
            return
        with self._lock:
            now = time.monotonic()
            mine = max(now, self._next)
            self._next = mine + 60 / self.per_minute
        self.stopped.wait(mine - now)


def _message(reply: Any) -> dict[str, Any]:
    """The one message of a reply that is whole."""
    try:
        choice = reply["choices"][0]
        message = choice["message"]
        content = message.get("content")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise _Refused("the reply is not that of a chat") from error
    if choice.get("finish_reason") == "length":
        raise _Refused("the answer was cut off (raise --max-tokens)")
    if not isinstance(content, str) or not content.strip():
        raise _Refused("the answer is empty")
    answer = {"role": "assistant", "content": content.strip()}
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(reasoning, str) and reasoning.strip():
        answer["reasoning"] = reasoning.strip()
    return answer


def read_prompts(path: Path) -> Iterator[Messages]:
    """What to ask: every line of a text file; of any other file what its records ask, up to the
    last turn of the user.

    Raises:
        MiaoError: a file that cannot be read, or a record that asks nothing; with the line.
    """
    known = format_of(path)
    if known is None or known[0] in (".txt", ".md"):
        for _, line in read_lines(path):
            if line.strip():
                yield [{"role": "user", "content": line.strip()}]
        return
    for number, value in read_objects(path):
        try:
            turns = to_prompt(value)
        except MiaoError as error:
            raise MiaoError(error.what, where=place(path, number), fix=error.fix) from error
        yield [{"role": turn.role, "content": turn.content} for turn in turns]


def questions(
    prompts: Iterable[Messages], settings: dict[str, Any], system: str | None, samples: int
) -> Iterator[Question]:
    """Every prompt `samples` times, with the system prompt where it has none of its own."""
    for messages in prompts:
        if system and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": system}, *messages]
        for sample in range(samples):
            yield Question(messages, fingerprint([messages, settings, sample]))


def distill(
    asked: Iterable[Question],
    endpoint: Endpoint,
    output: Path,
    concurrency: int = 4,
    total: int = 0,
) -> Counter[str]:
    """Asks what `output` does not answer yet, and appends each conversation to it.

    Returns:
        how many were written ("written"), known before ("known"), asked twice ("repeated
        prompt"), answered in the same words ("repeated answer"), and refused, by reason.
    """
    _end_with_a_line(output)
    known: set[str | None] = set()
    answers: set[str] = set()
    for record in read_jsonl(output):
        known.add(record.get("key"))
        answers.add(fingerprint(record.get("messages")))
    counts: Counter[str] = Counter()
    before = frozenset(known)
    todo = _new_ones(asked, known, before, counts)
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="distill")
    running: dict[Future[dict[str, Any]], Question] = {}
    with ProgressLine("asking", total) as line:
        try:
            while True:
                for question in islice(todo, 2 * concurrency - len(running)):
                    seed = int(question.key[:7], 16)
                    running[pool.submit(endpoint.ask, question.messages, seed)] = question
                if not running:
                    return counts
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    _keep(running.pop(done), done, output, answers, counts)
                    line.advance(1, f"{counts['written']} written")
        finally:
            endpoint.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _new_ones(
    asked: Iterable[Question], known: set[str | None], before: frozenset[str | None],
    counts: Counter[str],
) -> Iterator[Question]:  # fmt: skip
    for question in asked:
        if question.key in known:
            counts["known" if question.key in before else "repeated prompt"] += 1
            continue
        known.add(question.key)
        yield question


def _keep(
    question: Question,
    done: Future[dict[str, Any]],
    output: Path,
    answers: set[str],
    counts: Counter[str],
) -> None:
    try:
        messages = [*question.messages, done.result()]
    except _Refused as error:
        # Reasons that differ in their numbers only ("932 tokens are too many") count as the first.
        alike = (r for r in counts if _without_numbers(r) == _without_numbers(str(error)))
        counts[next(alike, str(error))] += 1
        return
    if (mark := fingerprint(messages)) in answers:
        counts["repeated answer"] += 1
        return
    answers.add(mark)
    append_jsonl(output, {"messages": messages, "source": "distill", "key": question.key})
    counts["written"] += 1


def _without_numbers(reason: str) -> str:
    return re.sub(r"\d+", "0", reason)


def _end_with_a_line(path: Path) -> None:
    """Takes away a last line that a crash cut short."""
    if path.exists():
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            warn(f"{path}: its last line was cut short; that question is asked again")
            with open(path, "r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)
