"""The rows of the next step are read while this one is trained."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Protocol

from miao.shards.loader import Batch, PackedLoader
from miao.train.distributed.world import World


@dataclass
class Whole:
    """Of one optimizer step over all processes."""

    rows: int
    tokens: int
    """Real tokens."""
    sequences: list[list[tuple[str, int]]]
    """Per row that this process has: (source, index of the sequence in its dataset)."""


@dataclass
class Step:
    """One optimizer step: this process's share of its rows, and where its loader then stands."""

    share: Batch
    whole: Whole
    loader_state: dict[str, Any]


class StepSource(Protocol):
    """Makes steps itself, each from the weights that the one before it left: nothing is read
    ahead."""

    def steps(self, tokens: int, budget: float) -> Generator[tuple[Step, float], None, None]:
        """Steps from `tokens` on until `budget` tokens, each with the seconds it took to make."""
        ...

    def state(self) -> dict[str, Any]:
        """JSON-like; what `restore` goes on from."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to a state returned before, exactly."""
        ...


def prefetched(
    loader: PackedLoader, rows_per_step: int, tokens: int, budget: float, world: World
) -> Generator[tuple[Step, float], None, None]:
    """Steps from `tokens` on until `budget` real tokens are read, one ahead in a thread; each with
    the seconds that it was waited for. The loader is this iterator's until it is closed."""
    before = loader.state()  # the reader moves it at once
    reader = Reader(loader, rows_per_step, world)
    try:
        while tokens < budget:
            began = time.perf_counter()
            wanted = min(rows_per_step, math.ceil((budget - tokens) / loader.seq_len))
            if wanted < rows_per_step and not reader.stop.is_set():
                reader.close()  # what was read ahead is no part of the last, shorter steps
                loader.restore(before)
            share, before = reader.read(wanted) if reader.stop.is_set() else reader.next()
            real = sum(told for [told] in world.gather([share.real_tokens]))
            tokens += real
            yield (
                Step(share, Whole(wanted, real, share.sequences), before),
                time.perf_counter() - began,
            )
    finally:
        reader.close()


class Reader:
    """Reads this process's share of whole steps, two ahead at most."""

    def __init__(self, loader: PackedLoader, rows_per_step: int, world: World):
        self.loader, self.rows_per_step, self.world = loader, rows_per_step, world
        self.ready: queue.Queue[tuple[Batch, dict[str, Any]] | BaseException] = queue.Queue(2)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, name="loader", daemon=True)
        self.thread.start()

    def read(self, rows: int) -> tuple[Batch, dict[str, Any]]:
        """The share of a step of so many rows, and where the loader then stands."""
        mine = self.loader.next_rows(rows, self.world.rank, self.world.size)
        return self.loader.batch(mine), self.loader.state()

    def next(self) -> tuple[Batch, dict[str, Any]]:
        item = self.ready.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        self.stop.set()
        self.thread.join()

    def _run(self) -> None:
        try:
            while not self.stop.is_set():
                self._put(self.read(self.rows_per_step))
        except BaseException as error:
            self._put(error)

    def _put(self, item: tuple[Batch, dict[str, Any]] | BaseException) -> None:
        while not self.stop.is_set():
            try:
                self.ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue
