"""What is done with a request before the engine gets it: prompts and forms, made beside the engine
and the server's loop, in bounded number and time, and given up when the client is gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
from array import array
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from miao.errors import MiaoError
from miao.serve.models import Served
from miao.serve.problems import Problem
from miao.serve.scribe import ID, Job, ids_of
from miao.tokenizer.template import MIAO_TEMPLATE

Result = TypeVar("Result")
SMALL = 64 * 2**10
"""Bytes of a job that a thread does; larger ones, and foreign templates, are for processes."""
AT_ONCE = 2
"""Jobs of each kind."""
PIPES = 5.0
"""Seconds for the pipes of a process that was killed to be closed."""


class Desk:
    """Makes prompts and forms.

    Args:
        max_waiting: jobs of each kind that may wait; more are refused.
        seconds: time that a job may take, with the time it waits.
    """

    def __init__(self, max_waiting: int, seconds: float):
        self._max_waiting, self._seconds = max_waiting, seconds
        self._lanes = {name: _Lane() for name in ("prompts", "forms", "heavy")}
        self._scribes: list[Scribe] = []
        self._is_closed = False

    async def prompts(self, served: Served, jobs: list[Job]) -> list[list[int]]:
        """The ids of each job.

        Raises:
            Problem: 429, too many wait; 408, it took too long.
            MiaoError: the template refuses the conversation.
        """
        known = [list(job["ids"]) if "ids" in job else None for job in jobs]
        lines = [json.dumps(job).encode() for job in jobs if "ids" not in job]
        if not lines:
            return [ids for ids in known if ids is not None]
        if sum(map(len, lines)) <= SMALL and _is_known(served, jobs):
            return await self._in_thread("prompts", partial(_all_ids, served, jobs))
        async with self._turn("heavy"):
            scribe = self._scribe(served)
            try:
                waiting = iter(lines)
                return [await scribe.ask(next(waiting)) if ids is None else ids for ids in known]
            finally:
                scribe.is_busy = False

    async def form(self, make: Callable[[], Result]) -> Result:
        """What `make` returns.

        Raises:
            Problem: see `prompts`.
        """
        return await self._in_thread("forms", make)

    async def close(self) -> None:
        """Ends all processes; whoever waits for one is told so."""
        self._is_closed = True
        for scribe in self._scribes:
            await scribe.close()

    async def _in_thread(self, kind: str, work: Callable[[], Result]) -> Result:
        loop = asyncio.get_running_loop()
        async with self._turn(kind) as lane:
            return await loop.run_in_executor(lane.threads, work)

    @asynccontextmanager
    async def _turn(self, kind: str) -> AsyncIterator[_Lane]:
        lane = self._lanes[kind]
        with lane.waiting(self._max_waiting):
            try:
                async with asyncio.timeout(self._seconds), lane.free:
                    yield lane
            except TimeoutError:
                message = f"preparing the request took more than {self._seconds:g} seconds"
                raise Problem(408, message) from None

    def _scribe(self, served: Served) -> Scribe:
        if self._is_closed:
            raise Problem(503, STOPPED)
        self._scribes = [one for one in self._scribes if not one.has_ended]
        for scribe in self._scribes:
            if not scribe.is_busy and scribe.served is served:
                break
        else:
            for idle in [one for one in self._scribes if not one.is_busy][: -AT_ONCE + 1 or None]:
                idle.end()  # of another model
            scribe = Scribe(served)
            self._scribes.append(scribe)
        scribe.is_busy = True
        return scribe


STOPPED = "the server was stopped before the request was prepared"


class _Lane:
    """Jobs of one kind: how many run, how many wait."""

    def __init__(self) -> None:
        self.free = asyncio.Semaphore(AT_ONCE)
        self.threads = ThreadPoolExecutor(AT_ONCE, "miao-desk")
        self._open = 0

    @contextmanager
    def waiting(self, most: int) -> Iterator[None]:
        if self._open >= most + AT_ONCE:
            raise Problem(429, "the server is busy preparing other requests", retry_after=2)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


class Scribe:
    """A process that makes prompts for one model, started when it is first asked; see `scribe`."""

    def __init__(self, served: Served):
        self.served = served
        self.is_busy = self.has_ended = False
        self._process: Process | None = None

    async def ask(self, line: bytes) -> list[int]:
        """The ids for a job. Whoever gives up waiting ends the process."""
        try:
            process = self._process or await self._start()
            refusal, ids = await _asked(process, line)
        except (ConnectionError, asyncio.IncompleteReadError):
            was_stopped = self.has_ended
            self.end()
            raise (
                Problem(503, STOPPED)
                if was_stopped
                else MiaoError("the prompt could not be made: it took too much memory")
            ) from None
        except BaseException:
            self.end()
            raise
        if refusal is not None:
            raise MiaoError(refusal)
        return ids

    def end(self) -> None:
        """Kills the process, if it runs."""
        self.has_ended = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def close(self) -> None:
        """Kills the process; returns when it has ended. Somebody else may hold its pipes, for which
        `Process.wait` waits, too: not for long."""
        self.end()
        if self._process is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), PIPES)

    async def _start(self) -> Process:
        with tempfile.TemporaryDirectory(prefix="miao-scribe-") as directory:
            await asyncio.to_thread(self.served.tokenizer.save, Path(directory))
            command = (sys.executable, "-m", "miao.serve.scribe", directory)
            self._process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
            if self.has_ended:  # while it started
                self.end()
            # It has read the tokenizer when it answers for the first time.
            await _asked(self._process, b'{"text": "", "begins": false}')
        return self._process


async def _asked(process: Process, line: bytes) -> tuple[str | None, list[int]]:
    """What the process says to a job: why it refuses, or ids. Ids come as bytes, since a text of
    some megabytes has millions, which no loop should parse."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(line + b"\n")
    await process.stdin.drain()
    answer: dict[str, Any] = json.loads(await process.stdout.readuntil(b"\n"))
    ids = array(ID)
    ids.frombytes(await process.stdout.readexactly(answer["count"] * ids.itemsize))
    return answer.get("refusal"), ids.tolist()


def _is_known(served: Served, jobs: list[Job]) -> bool:
    """Whether no program but Miao's own runs for these jobs."""
    if not any("messages" in job for job in jobs):
        return True
    return served.tokenizer.chat_template.source == MIAO_TEMPLATE


def _all_ids(served: Served, jobs: list[Job]) -> list[list[int]]:
    return [ids_of(served.tokenizer, job) for job in jobs]
