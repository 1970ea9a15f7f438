"""The processes that train one model: who they are, what they tell each other, how they end.

A launcher (torchrun, accelerate, deepspeed) starts them and says in the environment who each one
is; nothing else of it is needed. What they tell each other between steps goes from host to host
(gloo), so that no GPU is waited for; gradients and weights go by `parallel.py`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

from miao.console import console, warn
from miao.errors import Interrupted, MiaoError, first_line
from miao.train.distributed.peers import FAILURE, LOOK, LOST, Peers

HOST_TIMEOUT = timedelta(days=30)
"""How long the others may wait while one process prepares data or measures the model, and gives
signs of life (`peers.py`)."""
DEVICE_TIMEOUT = timedelta(minutes=30)
"""How long one exchange between devices may take."""
FIRST_WORD = 2.0
"""Seconds that a process waits for another to say what went wrong, before it speaks itself."""
MEETING = timedelta(minutes=10)
"""How long the first process waits for the others to start."""
ATTEMPT = "miao/attempt"
T = TypeVar("T")


class Side:
    """Processes that tell each other something in a thread of their own."""

    def __init__(self, group: Any, size: int):
        self.group, self.size = group, size

    def gather(self, value: Any) -> list[Any]:
        """What every process gave, by rank."""
        if self.size == 1:
            return [value]
        from torch import distributed as dist

        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values


class World:
    """One process alone; `join_world` gives one of several."""

    rank = 0
    local_rank = 0
    size = 1
    local_size = 1
    """Processes on this machine."""

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def gather(self, numbers: list[int]) -> list[list[int]]:
        """What every process gave, by rank; all give equally many."""
        return [numbers]

    def gather_objects(self, value: Any) -> list[Any]:
        """The same for anything small."""
        return [value]

    def side(self) -> Side:
        """Another way to gather, for a thread beside; all processes ask for it together."""
        return Side(None, self.size)

    def from_main(self, value: T) -> T:
        """What the main process gave; the others' own value is not looked at."""
        return value

    def barrier(self) -> None:
        """Waits until every process is here."""

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process does what stands inside alone; the others do it after it, and find its
        files."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()

    def share_of(self, rows: list[T]) -> list[T]:
        """This process's part of a step's rows: neighbours, and as many as the others' or one
        more or less."""
        return rows[len(rows) * self.rank // self.size : len(rows) * (self.rank + 1) // self.size]


class LaunchedWorld(World):
    """One of the processes that a launcher has started."""

    def __init__(self, on_gpu: bool):
        import torch
        from torch import distributed as dist

        self.rank, self.size = _number("RANK"), _number("WORLD_SIZE")
        self.local_rank = _number("LOCAL_RANK", self.rank)
        self.local_size = _number("LOCAL_WORLD_SIZE", self.size)
        if on_gpu:
            if self.local_rank >= torch.cuda.device_count():
                raise MiaoError(
                    f"process {self.local_rank} of this machine has no GPU: there are only "
                    f"{torch.cuda.device_count()}",
                    where="LOCAL_RANK",
                    fix="start as many processes per machine as it has GPUs "
                    "(torchrun --nproc-per-node), or use --device cpu",
                )
            torch.cuda.set_device(self.local_rank)
        launched, *_ = next(iter(dist.rendezvous("env://", self.rank, self.size)))
        store = meet(launched, self.rank, self.size)
        self.peers = Peers(store, self.rank, self.size)
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=dist.PrefixStore("torch", store),
            rank=self.rank,
            world_size=self.size,
            timeout=DEVICE_TIMEOUT if on_gpu else HOST_TIMEOUT,
        )
        of_launcher = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        self.keeps_store = self.rank == 0 and not of_launcher
        self.host = dist.new_group(backend="gloo", timeout=HOST_TIMEOUT)

    def gather(self, numbers: list[int]) -> list[list[int]]:
        import torch
        from torch import distributed as dist

        mine = torch.tensor(numbers, dtype=torch.int64)
        everyone = torch.empty(self.size, len(numbers), dtype=torch.int64)
        dist.all_gather(list(everyone.unbind()), mine, group=self.host)
        return everyone.tolist()

    def gather_objects(self, value: Any) -> list[Any]:
        return Side(self.host, self.size).gather(value)

    def side(self) -> Side:
        from torch import distributed as dist

        return Side(dist.new_group(backend="gloo", timeout=HOST_TIMEOUT), self.size)

    def from_main(self, value: T) -> T:
        from torch import distributed as dist

        values = [value]
        dist.broadcast_object_list(values, src=0, group=self.host)
        return values[0]

    def barrier(self) -> None:
        self.gather([0])

    def claim_failure(self, error: BaseException) -> bool:
        """Whether this process is the first to fail, and so the one that says why. What follows
        from the end of another process waits for that one's word."""
        deadline = time.monotonic() + (0.0 if isinstance(error, MiaoError) else FIRST_WORD)
        try:
            while time.monotonic() < deadline:
                if self.peers.store.check([FAILURE]):
                    return False
                time.sleep(0.1)
            return self.peers.claim(f"process {self.rank}: {error}")
        except RuntimeError:  # the process that kept the store is gone; perhaps it could say why
            return not self.peers.told.is_set()

    def close(self) -> None:
        """When everything went well, as soon as it did so everywhere."""
        from torch import distributed as dist

        self.barrier()
        self.peers.end()
        dist.destroy_process_group()


def meet(store: Any, rank: int, size: int, timeout: timedelta = MEETING) -> Any:
    """A part of the launcher's store that only the processes of this attempt write to. A launcher
    that starts anew keeps its store, with the failure and the addresses of the attempt before; and
    its own count of attempts is not the same on a machine that joined later.

    The first process names the attempt by chance, the others answer under that name, and it lists
    whose answers it has: nobody goes on who is not in that list.

    Raises:
        MiaoError: not all are there in time.
    """
    from torch import distributed as dist

    me, end, attempt = uuid4().hex, time.monotonic() + timeout.total_seconds(), ""
    others: list[str] = []
    if rank == 0:
        store.set(ATTEMPT, attempt := uuid4().hex)
        store.set(f"{attempt}/0", me)
        others = [f"{attempt}/{number}" for number in range(1, size)]
    while time.monotonic() < end:
        if rank and store.check([ATTEMPT]) and attempt != (now := store.get(ATTEMPT).decode()):
            attempt = now
            store.set(f"{attempt}/{rank}", me)
        everyone = f"{attempt}/all"
        if rank == 0 and store.check(others):
            answers = [answer.decode() for answer in store.multi_get(others)]
            store.set(everyone, " ".join([me, *answers]))
        if store.check([everyone]) and me in store.get(everyone).decode().split():
            return dist.PrefixStore(attempt, store)
        time.sleep(0.05)
    missing = [number for number, key in enumerate(others, start=1) if not store.check([key])]
    raise MiaoError(
        f"of {size} processes {missing} are missing {timeout.total_seconds():.0f} s after the start"
        if missing
        else f"process 0 does not answer {timeout.total_seconds():.0f} s after the start",
        where=f"process {rank}",
        fix="look on the other machines: were they started, with the same number of processes and "
        "the same address, and can they reach it?",
    )


@contextmanager
def join_world(device: str) -> Iterator[World]:
    """The world that a launcher's environment tells of; one process where there is none. All end
    together: the failure of one ends the others, and only that one says why.

    Args:
        device: the recipe's option.

    Raises:
        MiaoError: a device that cannot be shared out; contact with the others is lost.
    """
    if _number("WORLD_SIZE", 1) == 1:
        if os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_ADDR" in os.environ:
            warn(
                "accelerate launch --cpu has started one process only, whatever --num_processes "
                "says; for several: torchrun --standalone --nproc-per-node N -m miao ..."
            )
        yield World()
        return
    console.quiet = _number("RANK") != 0
    world = LaunchedWorld(_on_gpu(device))
    try:
        yield world
        world.close()
    except Interrupted as interruption:  # all were told
        if world.is_main:
            raise
        raise SystemExit(interruption.exit_code) from None
    except KeyboardInterrupt:
        if world.is_main:
            raise
        raise SystemExit(130) from None
    except Exception as error:
        if not world.claim_failure(error):
            time.sleep(0.5)  # the first one prints before a launcher ends everything
            raise SystemExit(1) from None
        if world.keeps_store:
            time.sleep(2 * LOOK)  # so that the others have seen it
        raise _named(error, world) from error
    finally:
        world.peers.end()


@contextmanager
def said_once() -> Iterator[None]:
    """Around what every process finds wrong alike before they meet: the first one says it."""
    try:
        yield
    except MiaoError:
        if _number("RANK", 0) == 0:
            raise
        time.sleep(FIRST_WORD)  # a launcher ends everything with the first process that ends
        raise SystemExit(2) from None


def _named(error: Exception, world: World) -> Exception:
    """The same error with the process that it happened in."""
    who = f"process {world.rank} of {world.size}"
    if isinstance(error, MiaoError):
        where = who if error.where is None else f"{who}, {error.where}"
        return MiaoError(error.what, where=where, fix=error.fix)
    words = ("gloo", "nccl", "connection", "peer", "store")
    if isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words):
        return MiaoError(
            f"{LOST} ({first_line(error)})",
            where=who,
            fix="one of them was ended from outside (the launcher says which; out of memory?) or "
            "its machine cannot be reached; run the same command again, it continues",
        )
    return error


def _on_gpu(device: str) -> bool:
    import torch

    if device.startswith("cuda:"):
        raise MiaoError(
            f"several processes cannot share one device, {device}",
            where="device",
            fix="use --device auto or --device cuda: each process takes the GPU of its LOCAL_RANK",
        )
    if device == "mps":
        raise MiaoError(
            "several processes cannot train on mps", where="device", fix="use --device cpu"
        )
    return device == "cuda" or (device == "auto" and torch.cuda.is_available())


def _number(name: str, default: int | None = None) -> int:
    """A number that the launcher left in the environment."""
    text = os.environ.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError as error:
        raise MiaoError(
            f"the environment variable {name} is {'missing' if text is None else repr(text)}",
            where="launcher",
            fix="start with torchrun, accelerate launch or deepspeed, or unset WORLD_SIZE",
        ) from error
