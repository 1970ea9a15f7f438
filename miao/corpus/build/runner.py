"""The built-in runner: the phases of a stage in processes of this machine, and how far they are."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from itertools import groupby
from typing import Any

from miao.cores import usable_cores
from miao.corpus.build.cleaning import read_of
from miao.corpus.build.processes import worker_pool
from miao.corpus.build.stages import Stage
from miao.corpus.build.timing import Timing
from miao.corpus.read.formats import RecordCounts
from miao.corpus.read.meter import metering
from miao.corpus.steps import Line, Phase, Progress, silent

WORTH_PROCESSES = 24 << 20
"""Bytes of input from which on processes are worth their start."""
STEPS = {"finding the files": "clean", "cleaning": "clean", "putting together": "clean"}
"""The larger steps that the phases belong to, for the times; others are "duplicates"."""
Call = tuple[str, tuple[Any, ...]]
"""A method of `Stage`, and its arguments."""


def run_here(stage: Stage, timing: Timing, progress: Progress) -> dict[str, Any]:
    """Does what is not done of a stage; its result.

    Raises:
        MiaoError: whatever the tasks raise; of several the first one in order.
    """
    if not stage.given:
        if stage.done("built-in", 0) is None:
            stage.folder.remove()
            stage.note("built-in", 0, stage.write_built_in(progress))
        return stage.result()
    if stage.done("parts", 0) is None:  # what stands there is of other inputs
        stage.folder.remove()
    with ExitStack() as stack:
        tasks = _Tasks(stage, stack)
        steps = {**STEPS, "writing": "mix and write"}
        for name, phases in groupby(
            stage.phases.values(), lambda phase: steps.get(phase.title, "duplicates")
        ):
            with timing.step(stage.stage, name) as step:
                for title, some in groupby(phases, lambda phase: phase.title):
                    _run(stage, title, list(some), tasks, progress)
                facts = stage.done("chunks", 0)
                step.characters = (
                    facts["facts"]["characters"] if name == "clean" else facts["characters"]
                )
    return stage.result()


def _run(stage: Stage, title: str, phases: list[Phase], tasks: _Tasks, progress: Progress) -> None:
    if title == "cleaning":
        size = sum(part.size for part in stage.cleaning.parts)
        tasks.few = not stage.options.workers and size < WORTH_PROCESSES
        with progress(f"{stage.stage}: cleaning", size) as line:
            _clean(stage, tasks, line)
        return
    with ExitStack() as stack:
        show = silent if title in STEPS else progress
        line = stack.enter_context(show(f"{stage.stage}: {title}", len(phases)))
        for phase in phases:
            count = phase.count()
            for task in range(count):
                share = 1 / count
                tasks.submit(("do", (phase.name, task)), count, _advance(line, share))
            tasks.settle()
            if not count:
                line.advance(1)
            for folder in phase.spent:
                (stage.folder / "duplicates").remove(folder)


def _advance(line: Line, amount: float) -> Callable[[], None]:
    return lambda: line.advance(amount)


def _clean(stage: Stage, tasks: _Tasks, line: Line) -> None:
    """The phase `clean`: what can only be read from its beginning is read here, and cleaned in
    blocks by the others. Progress is in bytes of the files."""
    for number, part in enumerate(stage.cleaning.parts):
        if not part.in_blocks or stage.done("clean", number) is not None:
            few = len(stage.cleaning.parts)
            tasks.submit(("do", ("clean", number)), few, _advance(line, part.size))
            continue
        counts, blocks = RecordCounts(), 0
        with metering() as meter:
            for items in stage.cleaning.blocks(number, counts):
                then = _advance(line, meter.take())
                if stage.done(f"block-{number:06d}", blocks) is None:
                    tasks.submit(("clean_block", (number, blocks, items)), 2, then)
                else:
                    then()
                blocks += 1
            tasks.settle()
            line.advance(meter.take())
        stage.note("clean", number, read_of(counts, blocks))
    tasks.settle()


class _Tasks:
    """Calls of a stage's methods, in other processes where there are many."""

    def __init__(self, stage: Stage, stack: ExitStack):
        self.stage, self._stack = stage, stack
        self.workers = stage.options.workers or usable_cores()
        self.few = False
        self._pool: ProcessPoolExecutor | None = None
        self._running: dict[Future[None], tuple[int, Callable[[], None]]] = {}
        self._number = 0

    def submit(self, call: Call, count: int, then: Callable[[], None]) -> None:
        """Does a call, or has it done; waits while enough are.

        Args:
            count: how many there are of its kind.
            then: is called when it is done.
        """
        if self.workers == 1 or self.few or count == 1:
            getattr(self.stage, call[0])(*call[1])
            then()
            return
        if self._pool is None:
            self._pool = self._stack.enter_context(
                worker_pool(self.workers, "corpus.workers", _start_worker, self.stage)
            )
        self._number += 1
        self._running[self._pool.submit(_work, call)] = self._number, then
        self.settle(self.workers + 1)

    def settle(self, at_most: int = 0) -> None:
        """Waits until no more than so many are running."""
        while len(self._running) > at_most:
            for future in wait(self._running, return_when=FIRST_COMPLETED).done:
                if future.exception():
                    self._fail()
                self._running.pop(future)[1]()

    def _fail(self) -> None:
        """Raises the error of the earliest call that has one."""
        for future in self._running:
            future.cancel()
        wait(self._running)
        failed = [
            (number, future.exception())
            for future, (number, _) in self._running.items()
            if not future.cancelled() and future.exception()
        ]
        raise min(failed, key=lambda one: one[0])[1] or AssertionError


_stage: Stage


def _start_worker(stage: Stage) -> None:
    global _stage
    _stage = stage


def _work(call: Call) -> None:
    getattr(_stage, call[0])(*call[1])
