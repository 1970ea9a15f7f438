"""Processes that work for this one: they end with it, and leave Ctrl-C to it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import FrameType
from typing import Any

from miao.errors import Interrupted, MiaoError


@contextmanager
def stoppable() -> Iterator[None]:
    """While entered, SIGTERM ends the work like Ctrl-C does: with its files and processes in order.
    Python takes signals in the main thread only: elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise Interrupted(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def worker_pool(
    workers: int, option: str, start: Callable[..., None], *arguments: Any
) -> Iterator[ProcessPoolExecutor]:
    """Spawned processes (a fork would inherit the locks of other threads), each begun with
    `start(*arguments)`; whatever ends the block early ends them at once.

    Args:
        option: the recipe's key for the number of processes.

    Raises:
        MiaoError: a process was ended from outside.
    """
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    pool = _Pool(workers, context, _begin, (start, *arguments))
    try:
        yield pool
        pool.shutdown()
    except BaseException as error:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise MiaoError(
                "a working process was ended from outside, probably for want of memory",
                fix=f"run again, it goes on; with fewer processes: --{option} 1",
            ) from error
        raise


class _Pool(ProcessPoolExecutor):
    def submit(self, *arguments: Any, **options: Any) -> Any:
        with _signals_wait():  # this may start a process
            return super().submit(*arguments, **options)


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Ctrl-C and SIGTERM that come while entered are answered at its end: one that cut the start of
    a process short would leave it half made. Processes started meanwhile see neither before they
    have begun: Ctrl-C in a terminal goes to them too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        came.append(number)

    handlers = {number: signal.signal(number, remember) for number in _STOPPING}
    _mask("SIG_BLOCK")  # processes started inherit it
    try:
        yield
    finally:
        _mask("SIG_UNBLOCK")
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


_STOPPING = (signal.SIGINT, signal.SIGTERM)


def _mask(how: str) -> None:
    if hasattr(signal, "pthread_sigmask"):  # Windows has none
        signal.pthread_sigmask(getattr(signal, how), _STOPPING)


def _begin(start: Callable[..., None], *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    _mask("SIG_UNBLOCK")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    start(*arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
