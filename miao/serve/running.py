"""Runs an application until it is told to stop, and says how that goes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from miao.console import say

LAST_RESORT = 5
"""Seconds that connections get to close after their answers were cut off."""
GLANCE = 0.1
"""Seconds between two looks whether it is time to cut answers off."""


HEAD_TIMEOUT = 30.0
"""Seconds in which the head of a request must have come."""
TOO_LATE = (
    b"HTTP/1.1 408 Request Timeout\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)


class Connection(H11Protocol):
    """uvicorn's connection, which does not wait for ever for the head of a request."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP ends the connection; an answer that is being made goes nowhere."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.close()
                return
        super().send_400_response(msg)

    def _wait(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None
        elif self._patience is None:
            self._patience = self.loop.call_later(HEAD_TIMEOUT, self._give_up)

    def _give_up(self) -> None:
        self._patience = None
        if not self.transport.is_closing():
            self.transport.write(TOO_LATE)
            self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn's server, which finishes what has begun, but not for ever."""

    def __init__(
        self,
        config: uvicorn.Config,
        patience: float,
        open_answers: Callable[[], int],
        cut_off: Callable[[], None],
        refuse: Callable[[], Awaitable[None]],
    ):
        super().__init__(config)
        self._patience, self._open_answers, self._cut_off = patience, open_answers, cut_off
        self._refuse = refuse
        self._is_hurried = False
        self.left = 0
        """Answers that were open when the first signal came."""
        self.was_cut = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self._is_hurried = True
            return
        super().handle_exit(sig, frame)  # first: the next signal may come at any moment
        self.left = self._open_answers()
        if self.left:
            say(
                f"stopping; answers still to finish: {self.left} (at most {self._patience:g} s; "
                "Ctrl-C again: at once)"
            )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends connections when their answers have ended, or are cut off. What has not begun to be
        answered is not waited for."""
        await self._refuse()
        impatience = asyncio.create_task(self._cut_in_time())
        try:
            await super().shutdown(sockets)
        finally:
            impatience.cancel()

    async def _cut_in_time(self) -> None:
        end = time.monotonic() + self._patience
        while time.monotonic() < end and not self._is_hurried:
            await asyncio.sleep(GLANCE)
        self.was_cut = True
        await asyncio.to_thread(self._cut_off)


async def _nothing() -> None:
    pass


def run_until_stopped(
    app: FastAPI,
    listening: socket.socket,
    patience: float,
    open_answers: Callable[[], int] = lambda: 0,
    cut_off: Callable[[], None] = lambda: None,
    refuse: Callable[[], Awaitable[None]] = _nothing,
) -> None:
    """Serves until Ctrl-C or SIGTERM; then takes nothing new and finishes what streams.

    Args:
        patience: seconds that it gets for that; a second Ctrl-C ends them.
        open_answers: how many answers have begun or wait.
        cut_off: ends all of them.
        refuse: gives up what is still being prepared.
    """
    config = uvicorn.Config(
        app,
        http=Connection,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=round(patience) + LAST_RESORT,
        server_header=False,
    )
    gc.collect()
    gc.freeze()  # collections need not walk all that was loaded, while streams wait
    server = _Server(config, patience, open_answers, cut_off, refuse)
    with _sigterm_as_ctrl_c(), contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
    if not server.left:
        say("stopped")
    elif server.was_cut:
        say("stopped; answers that took longer were cut off")
    else:
        say("stopped; all answers that had begun were finished")


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """uvicorn sends itself the signal again when it has ended; that must not kill the process
    before it has cleaned up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: Any = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
