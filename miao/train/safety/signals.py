"""Ctrl-C and SIGTERM: training ends after the current step, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from miao.console import warn

NO_ROOM = 255
"""Asks all processes to stop as a signal does: a checkpoint found no room on the disk."""


class StopRequest:
    """While entered, notes the first Ctrl-C or SIGTERM in `number`; a second one raises
    KeyboardInterrupt. Python takes signals in the main thread only: elsewhere nothing is noted."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._old: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number == signal.SIGINT and number == signal.SIGTERM:
            return  # torchrun passes on the Ctrl-C that the terminal has given to all
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number
        warn("stopping after this step; a checkpoint is written (Ctrl-C again: stop at once)")
