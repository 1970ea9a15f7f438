"""Two processes that train together, kept for a whole test file: starting them costs seconds."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch

from miao.console import console
from miao.train.world import LaunchedWorld


class Pair:
    """Runs `function(world, *arguments)` in both processes at once."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = get_context("spawn")
        self.ends, self.processes = [], []
        for rank in range(2):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, port, there), daemon=True)
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
            assert end.poll(120), "a process does not answer"
            answers.append(end.recv())
        return answers

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def _serve(rank: int, port: int, end: Connection) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
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
