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
    """What every process knows of one optimizer step, though it has read only its share."""

    rows: int
    tokens: int
    """Real tokens."""
    sequences: list[list[tuple[str, int]]]
    """Per row: (source, index of the sequence in its dataset)."""


@dataclass
class Step:
    """One optimizer step: this process's share of its rows, and where the loader stands after
    all of them."""

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
    the seconds that it was waited for. The loader is the thread's until the iterator is closed."""
    ready: queue.Queue[Step | BaseException | None] = queue.Queue(maxsize=2)
    stop = threading.Event()

    def read() -> None:
        seen = tokens
        try:
            while seen < budget and not stop.is_set():
                wanted = math.ceil((budget - seen) / loader.seq_len)
                rows = loader.next_rows(min(rows_per_step, wanted))
                whole = Whole(len(rows), loader.real_tokens(rows), loader.names(rows))
                seen += whole.tokens
                batch = loader.batch(world.share_of(rows))
                _put(ready, Step(batch, whole, loader.state()), stop)
            _put(ready, None, stop)
        except BaseException as error:
            _put(ready, error, stop)

    thread = threading.Thread(target=read, name="loader", daemon=True)
    thread.start()
    try:
        while True:
            began = time.perf_counter()
            item = ready.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item, time.perf_counter() - began
    finally:
        stop.set()
        thread.join()


def _put(items: queue.Queue[Any], item: Any, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            items.put(item, timeout=0.1)
            return
        except queue.Full:
            continue
