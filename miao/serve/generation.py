"""From the worker's thread to the server's loop: the answers of one request, as they grow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from miao.engine import Event, Request
from miao.engine.text import TextStream
from miao.errors import MiaoError
from miao.serve.metrics import Metrics
from miao.serve.models import Served
from miao.serve.problems import Problem, failure
from miao.serve.worker import Busy, Worker

RETRY_AFTER = 2
"""Seconds that a refused client is told to wait."""


@dataclass
class Growth:
    """What one answer has gained."""

    request: Request
    text: str
    first: int
    end: int
    """Which of its tokens: from `first` up to `end`."""
    is_last: bool


@dataclass
class Generation:
    """Answers in the making. Iterate it once; `cancel` frees what is left."""

    worker: Worker
    served: Served
    requests: list[Request]
    metrics: Metrics
    timeout: float
    _events: asyncio.Queue[tuple[Event, str]] = field(default_factory=asyncio.Queue)
    _began: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Queues the requests.

        Raises:
            Problem: 429, there is no room.
        """
        loop = asyncio.get_running_loop()

        def deliver(event: Event) -> None:
            stream, text = event.request.watcher, ""
            if event.request.error is None:
                assert isinstance(stream, TextStream)
                text = stream.take() + (stream.finish() if event.finishes else "")
            try:
                loop.call_soon_threadsafe(self._events.put_nowait, (event, text))
            except RuntimeError:  # the loop has ended, and everybody who listened
                return

        limit = self.worker.limit(self.served.name)
        if len(self.requests) > limit:
            raise Problem(400, f"{len(self.requests)} answers at once; at most {limit} fit", "n")
        try:
            self.worker.submit(self.served.name, self.requests, deliver)
        except Busy:
            self.metrics.refused.labels(self.served.name).inc()
            raise Problem(
                429, "the server is busy and its queue is full", retry_after=RETRY_AFTER
            ) from None

    async def __aiter__(self) -> AsyncIterator[Growth]:
        """Every gain of every answer, until all have ended.

        Raises:
            Problem: 408, it took too long; 500, the engine failed.
        """
        open_requests = {request.number for request in self.requests}
        delivered = dict.fromkeys(open_requests, 0)
        deadline = self._began + self.timeout
        while open_requests:
            try:
                # Not wait_for: in Python 3.11 it forgets a cancellation that comes with a token.
                async with asyncio.timeout(max(0.001, deadline - time.monotonic())):
                    event, text = await self._events.get()
            except TimeoutError:
                raise Problem(408, f"the answer took more than {self.timeout:g} seconds") from None
            request, number = event.request, event.request.number
            first = delivered[number]
            if first == 0:
                self._note_first(request)
            delivered[number] += event.token is not None
            if request.error is not None:
                raise self._failure(request.error)
            if event.finishes:
                open_requests.discard(number)
                self._note_end(request)
            yield Growth(request, text, first, delivered[number], event.finishes)
            # Where tokens come faster than they are sent, a client that hung up is noticed here.
            await asyncio.sleep(0)

    def cancel(self) -> None:
        """Frees the rows of answers that nobody waits for."""
        left = [request for request in self.requests if request.finish is None]
        if left:
            self.worker.cancel(self.served.name, left)

    def _failure(self, error: Exception) -> Problem:
        if isinstance(error, Problem):
            return error
        if isinstance(error, MiaoError):
            return Problem(400, str(error))
        self.metrics.failures.inc()
        return failure("the engine", error)

    def _note_first(self, request: Request) -> None:
        self.metrics.first_token.labels(self.served.name).observe(
            time.monotonic() - request.submitted
        )

    def _note_end(self, request: Request) -> None:
        name, seconds = self.served.name, time.monotonic() - request.submitted
        self.metrics.seconds.labels(name).observe(seconds)
        self.metrics.prompt_tokens.labels(name).inc(len(request.prompt))
        self.metrics.reused_tokens.labels(name).inc(request.reused)
        self.metrics.answer_tokens.labels(name).inc(len(request.answer))
        self.metrics.finished.labels(name, request.finish or "").inc()


@asynccontextmanager
async def generation(
    worker: Worker,
    served: Served,
    requests: list[Request],
    metrics: Metrics,
    timeout: float,
) -> AsyncIterator[Generation]:
    """Queues requests; whatever happens, nothing of them is left behind."""
    running = Generation(worker, served, requests, metrics, timeout)
    running.begin()
    try:
        yield running
    finally:
        running.cancel()
