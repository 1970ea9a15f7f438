"""The thread that owns the models: takes requests from the server, gives their tokens back."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from miao.engine import Event, Request, Scheduler
from miao.serve.problems import Problem

Deliver = Callable[[Event], None]
Result = TypeVar("Result")
IDLE_WAIT = 1.0
"""Seconds after which an idle thread looks whether it should end."""


class Busy(Exception):
    """All rows are taken and the queue is full."""


class Stopped(Problem):
    """The server ends before the answer does."""

    def __init__(self) -> None:
        super().__init__(503, "the server was stopped before the answer was complete")


class Worker:
    """Steps the schedulers of all models in one thread, one after the other.

    Args:
        schedulers: one per model that is served, by name.
        max_queue: requests that may wait beside those that run; more are refused.
    """

    def __init__(self, schedulers: dict[str, Scheduler], max_queue: int):
        self.schedulers, self.max_queue = schedulers, max_queue
        self._changed = threading.Condition()
        self._arrived: deque[Callable[[], None]] = deque()
        self._deliver: dict[int, Deliver] = {}
        self._open: dict[str, int] = dict.fromkeys(schedulers, 0)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="miao-engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; whatever still runs is cancelled. A second call does nothing."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def limit(self, model: str) -> int:
        """How many requests to a model may be open."""
        return self.schedulers[model].runner.cache.rows + self.max_queue

    def counts(self, model: str) -> tuple[int, int]:
        """How many requests to a model run, and how many wait."""
        running = len(self.schedulers[model].running)
        return running, max(0, self._open[model] - running)

    def total_open(self) -> int:
        """How many requests to all models run or wait."""
        return sum(self._open.values())

    def submit(self, model: str, requests: Sequence[Request], deliver: Deliver) -> None:
        """Queues requests, all or none. Every event goes to `deliver`, in the worker's thread.

        Raises:
            Busy: there is no room for all of them.
            Stopped: the worker has been stopped.
        """
        with self._changed:
            if self._stopping:
                raise Stopped
            if self._open[model] + len(requests) > self.limit(model):
                raise Busy
            self._open[model] += len(requests)
            self._arrived.append(lambda: self._begin(model, requests, deliver))
            self._changed.notify()

    def cancel(self, model: str, requests: Sequence[Request]) -> None:
        """Ends requests, and frees their rows before the next token is made."""
        with self._changed:
            self._arrived.append(lambda: self._cancel(model, requests))
            self._changed.notify()

    def call(self, work: Callable[[], Result]) -> Future[Result]:
        """Runs something else that needs a model, between two tokens."""
        future: Future[Result] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)

        with self._changed:
            if self._stopping:
                future.set_exception(Stopped())
            else:
                self._arrived.append(run)
                self._changed.notify()
        return future

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._arrived and not self._has_work() and not self._stopping:
                    self._changed.wait(IDLE_WAIT)
                if self._stopping:
                    break
                arrived = list(self._arrived)
                self._arrived.clear()
            for act in arrived:
                act()
            for model, scheduler in self.schedulers.items():
                if scheduler.has_work:
                    self._step(model, scheduler)
        while self._arrived:
            self._arrived.popleft()()
        for model, scheduler in self.schedulers.items():
            requests = [*scheduler.running, *scheduler.waiting]
            scheduler.clear()
            for request in requests:
                self._end(model, request, Event(request, None, finishes=True), Stopped())

    def _has_work(self) -> bool:
        return any(scheduler.has_work for scheduler in self.schedulers.values())

    def _step(self, model: str, scheduler: Scheduler) -> None:
        try:
            events = scheduler.step()
        except Exception as error:
            # What no single request is to blame for must not leave clients waiting either.
            requests = [*scheduler.running, *scheduler.waiting]
            scheduler.clear()
            for request in requests:
                request.error = error
            events = [Event(request, None, finishes=True) for request in requests]
        for event in events:
            request = event.request
            if event.finishes:
                self._end(model, request, event, request.error)
                continue
            try:
                self._deliver[request.number](event)
            except Exception as error:
                scheduler.cancel(request)
                self._end(model, request, Event(request, None, finishes=True), error)

    def _begin(self, model: str, requests: Sequence[Request], deliver: Deliver) -> None:
        for request in requests:
            self._deliver[request.number] = deliver
            try:
                self.schedulers[model].submit(request)
            except Exception as error:
                self._end(model, request, Event(request, None, finishes=True), error)

    def _cancel(self, model: str, requests: Sequence[Request]) -> None:
        for request in requests:
            if request.number in self._deliver:
                self.schedulers[model].cancel(request)
                self._end(model, request, Event(request, None, finishes=True))

    def _end(
        self, model: str, request: Request, event: Event, error: Exception | None = None
    ) -> None:
        deliver: Any = self._deliver.pop(request.number)
        with self._changed:
            self._open[model] -= 1
        request.error = error
        try:
            deliver(event)
        except Exception as fault:
            # A receiver that fails at the end is told so, without what it failed at.
            request.error = fault
            deliver(Event(request, None, finishes=True))
