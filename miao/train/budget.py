"""How far a stage is and when it ends: in real tokens, or by the clock.

By the clock the rate falls as time passes, whatever the machine does meanwhile: warm-up, decay and
the intervals are shares of the time, and what ends a stage (the last held-out loss, the last
checkpoint) is kept for from what it took before.
"""

from __future__ import annotations

import math
import time
from typing import Any

from miao.console import count, duration
from miao.recipe import StageOptions, of_budget
from miao.recipe.schedule import learning_rate_factor
from miao.train.distributed.world import World

WATCHING = 0.06
"""Share of a timed stage that goes into held-out losses at most, but for the last one."""
ENDLESS = 1e15
"""Tokens, of a stage that ends by the clock."""


class Budget:
    """The budget of a stage.

    Args:
        total: real tokens; seconds where the options give minutes.
        deadline: where `time.monotonic` is when a timed stage ends (default: `total` from now on);
            what was trained before an interruption does not change it.
    """

    def __init__(
        self,
        stage: str,
        options: StageOptions,
        total: float,
        deadline: float | None = None,
    ):
        self.stage, self.options, self.total = stage, options, total
        self.timed, self.deadline = options.minutes is not None, deadline
        self.at = self.before = 0.0
        """How far it is now, and was a step before; in the unit of `total`."""
        self.ending = 0.0
        """Seconds that the end takes."""
        self._watched = 0.0
        self._step = self._from = 0.0
        self._began, self._spent = time.monotonic(), 0.0
        self._set_total()

    @property
    def is_spent(self) -> bool:
        if not self.timed:
            return self.at >= self.total
        return self.at + self._step / 2 >= self._length

    @property
    def share(self) -> float:
        """Of the budget that is spent."""
        return round(min(self.at / self._length, 1.0), 4)

    @property
    def tokens(self) -> float:
        """The most tokens that may be read."""
        return ENDLESS if self.timed else self.total

    @property
    def _length(self) -> float:
        return max(self.total - self.ending, 1e-3) if self.timed else self.total

    def now(self) -> float:
        """Seconds that a timed stage has taken."""
        return self._spent + time.monotonic() - self._began

    def agree(self, world: World) -> None:
        """Takes over the main process's clock, by which all decide alike."""
        if self.timed:
            self.total, self.at, self.before = world.from_main((self.total, self.at, self.before))

    def step_to(self, tokens: int, world: World) -> None:
        """Goes to where a step ended: tokens seen, or the main process's seconds."""
        at = self.now() if self.timed else float(tokens)
        if self.timed:
            last = at - self._from
            self._step = last if not self._step else 0.7 * self._step + 0.3 * last
            self._from = at
            mine = (at, self._step, self.ending, self._watched)
            at, self._step, self.ending, self._watched = world.from_main(mine)
        self.before, self.at = self.at, at

    def pause(self) -> None:
        """What went on since the step was no training."""
        self._from = self.now()

    def rate(self, tokens: float) -> float:
        """The learning rate of the step that comes, as a fraction of its peak.

        Args:
            tokens: that the step will have.
        """
        half = (self._step if self.timed else tokens) / 2
        options, length = self.options, self._length
        warmup, decay = (
            of_budget(value, length, f"{self.stage}.{name}")
            for name, value in (("warmup", options.warmup), ("decay", options.decay))
        )
        final = options.final_learning_rate
        done = self.at + half
        return learning_rate_factor(options.schedule, done, length, warmup, decay, final)

    def crossed(self, option: str) -> bool:
        """Whether the last step went over a multiple of an interval."""
        every = self.every(option)
        return every > 0 and self.before // every != self.at // every

    def watches(self) -> bool:
        """Whether it is time for a held-out loss, and (of a timed stage) time is left for it."""
        paid = self._watched + self.ending <= WATCHING * self.at
        return self.is_spent or (self.crossed("eval_every") and (paid or not self.timed))

    def watched(self, seconds: float, world: World) -> None:
        """Notes what a held-out loss took the main process: it moves the end, for all alike."""
        if self.timed:
            seconds = world.from_main(seconds)
        self.ending, self._watched = max(self.ending, seconds), self._watched + seconds

    def every(self, option: str) -> float:
        return of_budget(getattr(self.options, option), self.total, f"{self.stage}.{option}")

    def words(self) -> str:
        """`1.2M of 4.0M tokens`, `1:20 of 4:00`."""
        if self.timed:
            return f"{duration(self.at)} of {duration(self.total)}"
        return f"{count(self.at)} of {count(self.total)} tokens"

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"budget": self.total} | ({"clock": self.at} if self.timed else {})

    def restore(self, state: dict[str, Any], rollback: bool = False) -> None:
        """Goes on from a checkpoint. Time that went into what a rollback left is gone."""
        if not self.timed:
            self.at = self.before = float(state["tokens"])
        elif not rollback:
            self._spent = self.at = self.before = float(state.get("clock", 0.0))
            self._began, self._from = time.monotonic(), self._spent
            self._set_total()

    def _set_total(self) -> None:
        if self.timed and self.deadline is not None:
            self.total = max(self._spent + self.deadline - self._began, 1.0)
        assert math.isfinite(self.total)
