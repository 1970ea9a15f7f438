"""Which of the processes still live. Each gives a sign of life in the launcher's store; one that
gives none (its host hangs, its network is cut) ends all, within minutes. Work may take as long as
it likes meanwhile: threads give the sign.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from miao.language import translated

LOOK = 1.0
"""Seconds between two looks of a process at whether another has failed."""
BEAT = 5
"""Looks between two signs of life."""
SILENCE = 120
"""Looks without one after which a process is taken to be lost. Not seconds: a machine that was
suspended must not blame the others for its own sleep."""
GRACE = 10.0
"""Seconds after another's failure in which a process may end by itself."""
FAILURE = "miao/failure"
LOST = "contact with the other processes is lost"


class Peers:
    """Ends this process when another has failed, or is lost, and it still waits for that one: an
    exchange cannot be interrupted otherwise.

    The first process listens for all the others, and they for the first.

    Args:
        store: of `meet`. leave: ends the process.
    """

    def __init__(
        self, store: Any, rank: int, size: int, leave: Callable[[int], Any] = os._exit
    ) -> None:
        self.store, self.rank, self.leave = store, rank, leave
        self._own = store.clone()  # the main thread may wait within its own
        self.heard = range(1, size) if rank == 0 else range(1)
        self.over, self.told = threading.Event(), threading.Event()
        """Whether this process needs no watch any more; whether a failure is known."""
        self.looks = 0
        self.threads = [
            threading.Thread(target=run, name="peers", daemon=True)
            for run in (self._watch, self._watch_the_watch)
        ]
        for thread in self.threads:
            thread.start()

    def claim(self, word: str) -> bool:
        """Whether this process is the first to tell of a failure."""
        return _claim(self.store, word)

    def end(self) -> None:
        """Before this process ends: a thread that still runs then would abort it."""
        self.over.set()
        self.threads[0].join(GRACE)

    def _watch(self) -> None:
        store, gone = self._own, False
        last: dict[int, bytes] = {}
        silent = dict.fromkeys(self.heard, 0)
        while not (gone or self.told.is_set() or self.over.wait(LOOK)):
            try:
                if self.looks % BEAT == 0:
                    store.set(str(self.rank), f"{self.looks} {socket.gethostname()}")
                    signs = store.multi_get([str(rank) for rank in self.heard])
                    for rank, sign in zip(self.heard, signs, strict=True):
                        silent[rank] = silent[rank] + BEAT if last.get(rank) == sign else 0
                        last[rank] = sign
                        if silent[rank] > SILENCE:
                            self._give_up(rank, sign.decode().partition(" ")[2])
                if store.check([FAILURE]):
                    self.told.set()
            except RuntimeError:  # the process that kept the store is gone
                gone = not self.told.is_set()
            self.looks += 1
        if not self.over.wait(GRACE):
            if gone:
                self._say(LOST)
            self.leave(1)

    def _give_up(self, rank: int, host: str) -> None:
        who = f"process {rank}, on {host}," if host else f"process {rank}"
        word = f"{who} has given no sign of life for {SILENCE * LOOK:.0f} s"
        if _claim(self._own, f"process {self.rank}: {word}"):
            self._say(
                f"{word}: its machine hangs or cannot be reached\n"
                "  -> look at that machine; run the same command again, it continues"
            )

    def _watch_the_watch(self) -> None:
        """A store that cannot be reached does not answer, for as long as one cares to wait."""
        seen, still = -1, 0
        while still <= SILENCE:
            if self.over.wait(LOOK) or not self.threads[0].is_alive():
                return
            still = still + 1 if self.looks == seen else 0
            seen = self.looks
        self._say(
            f"{LOST}: the launcher's store has not answered for {SILENCE * LOOK:.0f} s\n"
            "  -> can this machine reach the first one? run the same command again, it continues"
        )
        self.leave(1)

    def _say(self, words: str) -> None:
        said = translated(f"process {self.rank}: {words}")
        print(f"miao: {said}", file=sys.stderr, flush=True)


def _claim(store: Any, word: str) -> bool:
    return bool(store.compare_set(FAILURE, "", word).decode() == word)
