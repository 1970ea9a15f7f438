"""Processes that train together, kept for a whole test file: starting them costs seconds."""

from __future__ import annotations

import itertools
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch

from miao.console import console
from miao.errors import MiaoError
from miao.train.distributed.world import LaunchedWorld

FORKS = "forkserver" in get_all_start_methods()
CONTEXT = get_context("forkserver" if FORKS else "spawn")
if FORKS:  # one process imports what all others begin with
    PRELOADED = ["tests.train.shared_cases", "miao.run"]
    CONTEXT.set_forkserver_preload(PRELOADED)
SPREAD_AND_COMPILED = [
    "torch.distributed.fsdp",
    "torch.distributed.tensor.experimental",
    "torch._dynamo",
    "torch._functorch.aot_autograd",
    "torch._inductor.debug",
    "torch._inductor.pattern_matcher",
    "peft",
]
"""What is imported when these are asked for; what is not installed is passed over."""


PORTS = itertools.count(
    10_000 + 1_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) + os.getpid() % 500
)


def free_port() -> int:
    """One of this test process, below those that systems give to whoever asks for any: nobody else
    takes it before it is used."""
    for port in PORTS:
        with suppress(OSError), socket.socket() as free:
            free.bind(("", port))
            return port
    raise AssertionError


class Ended(NamedTuple):
    """How one of two processes ended."""

    code: int | None
    """Its exit code; minus the signal's number where one killed it."""
    said: str
    """What it printed."""
    seconds: float
    """From the start of both to its end."""


def run_two(function: Callable[..., Any], *arguments: Any, directory: Path) -> list[Ended]:
    """Runs `function(*arguments)` in two processes that find what a launcher would tell them; but
    nothing ends one of them because the other has ended."""
    return run_processes(2, function, *arguments, directory=directory)


def run_processes(
    count: int, function: Callable[..., Any], *arguments: Any, directory: Path, seconds: float = 600
) -> list[Ended]:
    """As `run_two`, in any number of processes."""
    port, began = free_port(), time.monotonic()
    logs = [directory / f"{rank}.log" for rank in range(count)]
    processes = []
    for rank, log in enumerate(logs):
        place = (rank, count, port)
        process = CONTEXT.Process(
            target=_alone, args=(place, log, function, arguments), daemon=True
        )
        process.start()
        processes.append(process)
    took = [0.0] * count
    while any(process.is_alive() for process in processes) and max(took) < seconds:
        time.sleep(0.05)
        for rank, process in enumerate(processes):
            took[rank] = time.monotonic() - began if process.is_alive() else took[rank]
    for process in processes:
        process.kill()
        process.join()
    return [
        Ended(process.exitcode, log.read_text(encoding="utf-8"), spent)
        for process, log, spent in zip(processes, logs, took, strict=True)
    ]


def _alone(
    place: tuple[int, int, int],
    log: Path,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    _launched(*place)
    try:
        code = function(*arguments)
    except MiaoError as error:
        print("miao:", error, file=sys.stderr)
        code = 2
    sys.stdout.flush()
    sys.exit(code)


def _launched(rank: int, count: int, port: int) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    os.fsync = lambda file: None  # as in conftest.py


class Pair:
    """Runs `function(world, *arguments)` in both processes (or in all of another number) at once."""

    def __init__(self, count: int = 2) -> None:
        if FORKS:  # where nothing was started yet
            CONTEXT.set_forkserver_preload([*PRELOADED, *SPREAD_AND_COMPILED])
        port = free_port()
        self.ends, self.processes = [], []
        for rank in range(count):
            here, there = CONTEXT.Pipe()
            process = CONTEXT.Process(target=_serve, args=(rank, count, port, there), daemon=True)
            process.start()
            there.close()
            self.ends.append(here)
            self.processes.append(process)

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What it returned in each process; an exception's type and text where it raised one."""
        for end in self.ends:
            end.send((function, arguments))
        answers = []
        for end in self.ends:
            assert end.poll(600), "a process does not answer"
            answers.append(end.recv())
        return answers

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def _serve(rank: int, count: int, port: int, end: Connection) -> None:
    _launched(rank, count, port)
    console.quiet = True
    world = LaunchedWorld(on_gpu=False)
    while True:
        function, arguments = end.recv()
        try:
            end.send(function(world, *arguments))
        except Exception as error:
            if os.environ.get("MIAO_DEBUG"):
                traceback.print_exc()
            end.send(f"{type(error).__name__}: {error}")
