"""What becomes of a training's checkpoints: saving, going on, going back, and a full disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from miao.console import say, warn
from miao.errors import MiaoError
from miao.files import is_full_disk
from miao.train.budget import Budget
from miao.train.safety.checkpoint import CheckpointStore, Loaded
from miao.train.safety.guard import Guard
from miao.train.watch.metrics import DespiteFullDisk, MetricsLog
from miao.train.watch.samples import SampleLog


class Training(Protocol):
    """What is kept."""

    step: int
    tokens: int

    def content(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a checkpoint holds beside weights and optimizer."""
        ...

    def restore(self, loaded: Loaded, rollback: bool = False) -> None:
        """Takes back a `content`; after a rollback the guard keeps its decisions."""
        ...

    def repeat_step(self) -> None:
        """The data go back to where the last finished step left them."""
        ...


class Keeper:
    """Saves a training, and brings it back; every process calls its methods together.

    Args:
        store: of the stage's checkpoints. metrics, samples: whose lines behind a step are
            forgotten when training goes back to it.
    """

    def __init__(
        self,
        budget: Budget,
        training: Training,
        store: CheckpointStore,
        guard: Guard[Any],
        metrics: MetricsLog,
        samples: SampleLog | None,
    ):
        self.stage, self.options, self.budget = budget.stage, budget.options, budget
        self.training, self.store, self.guard = training, store, guard
        self.metrics, self.samples, self.world = metrics, samples, store.world
        self.despite_full_disk = DespiteFullDisk()
        self.disk_full = False
        """A checkpoint could not be written for want of room."""

    def begin(self) -> None:
        """Goes on from the newest good checkpoint, if there is one."""
        total = self.budget.total
        self.store.require_room(0 < self.budget.every("save_every") < total, warn)
        loaded = self.store.resume_stable(warn, self.stage, self.options, total)
        if loaded is None:
            self._forget_lines_after(-1)
            if self.options.spike_action == "rollback":
                self.save()
            return
        training, state = self.training, loaded[0]
        training.restore(loaded)
        self._forget_lines_after(training.step)
        if "small" in state:
            say("  the optimizer begins anew: there was no room on the disk to keep its state")
        say(f"  resumed at step {training.step} ({self.budget.words()})")
        self._note(self.metrics.went_on, step=training.step, tokens=training.tokens)
        if (before := state.get("processes", 1)) != self.world.size:
            say(
                f"  the data goes on in the same order, with {self.world.size} processes ({before}"
                " before): sums may round differently"
            )

    def save(self, must: bool = False, permanent: bool = False) -> bool:
        """Begins a checkpoint in the background. Whether it is whole, as far as is known.

        Args:
            must: wait until it is on disk, and raise what went wrong.
        """
        self.tell_failure(wait=True)
        self.store.save(*self.training.content(), permanent)
        if must:
            error = self.store.failure(wait=True)
            if self.world.from_main(is_full_disk(error)) and self._save_small():
                return False
            if error:
                raise error
        return True

    def end(self) -> None:
        """The last checkpoint, unless it is there."""
        if self.world.from_main(self.store.newest_step != self.training.step):
            self.save(must=True)

    def tell_failure(self, wait: bool = False) -> None:
        """Says once why a save failed. Training goes on."""
        if (error := self.store.failure(wait)) is not None:
            self.disk_full |= is_full_disk(error)
            warn(f"a checkpoint could not be written; training goes on, older ones stay: {error}")

    def roll_back(self, before: int, trouble: dict[str, Any]) -> float:
        """Goes back to the newest checkpoint of a step below `before`; returns the budget gained, a
        negative number. Whichever it is, training comes to the same weights from there.

        Args:
            trouble: what led to it, for the log.
        """
        training, guard = self.training, self.guard
        position, last_bad = self.budget.at, guard.bad_steps[-1]
        loaded = self.store.resume(warn, before)
        event = trouble | {"from_step": training.step, "left_out": [before, last_bad]}
        if loaded is None:
            warn(f"{self.stage}: there is no checkpoint before step {before} to go back to")
            training.repeat_step()
            event["event"] = "skipped"
        else:
            training.restore(loaded, rollback=True)
            self.store.forget_after(training.step)
            self._forget_lines_after(training.step)
            say(f"  back at step {training.step}; steps {before} to {last_bad} will be left out")
        guard.went_back(training.step)
        self.write(step=training.step + 1, tokens=training.tokens, **event)
        return self.budget.at - position

    def end_for_want_of_room(self) -> None:
        """Ends training (`MiaoError`) unless nothing can be written: somebody may make room."""
        self.disk_full = False
        if self._save_small():
            raise MiaoError(
                f"the disk is full, training ends after step {self.training.step} "
                f"({self.budget.words()})",
                where=self.store.directory,
                fix="free some space, or lower keep_last, then run again: it goes on from there",
            )

    def write(self, **values: Any) -> None:
        """A line of the log, by the main process."""
        self._note(self.metrics.write, **values)

    def _note(self, write: Callable[..., None], **values: Any) -> None:
        if self.world.is_main:
            with self.despite_full_disk():
                write(**values)

    def _save_small(self) -> bool:
        done = self.store.save_small(*self.training.content())
        if done and self.world.is_main:
            kept = f"step {self.training.step} is kept without the optimizer's state"
            warn(f"the disk is full: {kept}, older checkpoints stay")
        return done

    def _forget_lines_after(self, step: int) -> None:
        if self.world.is_main:
            self.metrics.forget_after(step)
            if self.samples:
                self.samples.forget_after(self.training.tokens)
