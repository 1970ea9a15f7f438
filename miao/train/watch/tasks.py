"""Tasks asked of the model while it is trained: what it learns first, seen as it learns it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from miao.evaluate.results.ensemble import part_of
from miao.evaluate.results.sets import Prepared, ask_set, count_tokens, ensemble_of, read_set
from miao.evaluate.scores import Score
from miao.evaluate.tasks.items import read_questions
from miao.evaluate.tasks.prompts import Encoder
from miao.evaluate.tasks.sets import TaskSet, is_set, load_set
from miao.evaluate.tasks.task import load_task
from miao.model.decoder import Decoder
from miao.recipe import DuringOptions, of_budget
from miao.tokenizer import Tokenizer

CAUTION = 2.0
"""Before anything was timed: how much more a question's token may take than a trained one, which
is read forward and backward."""


class TaskWatch:
    """The same few questions at every asking, within a share of the time of training.

    It asks when `every` is due and can be paid: its time so far and that of the next asking stay
    within `share` of the time trained. What cannot be paid yet waits.

    Args:
        budget: of the stage, in tokens or (where the clock ends it) seconds. clock: seconds.

    Raises:
        MiaoError: an unknown task, or one without its files.
    """

    def __init__(
        self,
        options: DuringOptions,
        tokenizer: Tokenizer,
        budget: float,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.options, self.budget, self.clock = options, budget, clock
        self.encoder = Encoder(tokenizer, tokenizer.own_start)
        self.work = prepare(options)
        self.every = of_budget(options.every, budget, "evaluate.during.every")
        self.spent, self.cost, self.asked_at, self.times = 0.0, 0.0, -1, 0
        self.tokens = 0
        """Of all questions; counted when it is first needed."""

    def wants(self, at: float, tokens: int, seconds: float) -> bool:
        """Whether to ask now: so far in the budget, after these tokens and seconds of training."""
        if self.every <= 0 or at // self.every <= self.asked_at:
            return False
        return self.spent + self._expected(tokens, seconds) <= self.options.share * seconds

    def _expected(self, tokens: int, seconds: float) -> float:
        if self.cost or not tokens:
            return self.cost
        self.tokens = self.tokens or sum(count_tokens(self.encoder, w) for _, w in self.work)
        return CAUTION * self.tokens * seconds / tokens

    def ask(self, model: Decoder, at: float, tokens: int) -> dict[str, Any]:
        """The scores of now, for metrics.jsonl."""
        began = self.clock()
        scores = [score for work in self.work for score in _scores(model, self.encoder, *work)]
        self.cost = self.clock() - began
        self.spent += self.cost
        self.times += 1
        self.asked_at = int(at // self.every)
        found = [score.to_json() for score in scores]
        return {"tokens": tokens, "scores": found, "asking_seconds": round(self.cost, 3)}

    def state(self) -> dict[str, float]:
        """For a checkpoint; the questions follow from the options."""
        return {"spent": self.spent, "cost": self.cost, "at": self.asked_at, "times": self.times}

    def restore(self, state: dict[str, float]) -> None:
        self.spent, self.cost = max(self.spent, state["spent"]), max(self.cost, state["cost"])
        self.asked_at, self.times = int(state["at"]), int(state["times"])

    @property
    def fell_short(self) -> bool:
        """Whether (on the process that asks) fewer than half of the askings could be paid."""
        return self.times < (self.budget // self.every) / 2

    def summary(self, seconds: float) -> str:
        """What it came to, where fewer askings could be paid than were wanted."""
        share = 100 * self.spent / max(seconds, 1e-9)
        return (
            f"tasks were asked {self.times} times while training ({share:.1f} % of its time); "
            f"oftener: a larger evaluate.during.share, or fewer questions"
        )


def prepare(options: DuringOptions) -> list[tuple[TaskSet | None, list[Prepared]]]:
    """The questions of every set and task, read.

    Raises:
        MiaoError: an unknown task, or one without its files.
    """
    data = Path(options.data or "")
    found: list[tuple[TaskSet | None, list[Prepared]]] = []
    for name in options.tasks:
        if is_set(name):
            chosen = load_set(name)
            found.append((chosen, read_set(chosen, data, options.questions)))
        else:
            task = load_task(name)
            style_name, style = task.style(None)
            questions = read_questions(task, data, None, style.shots, (), options.questions)
            found.append((None, [(task, style_name, style, questions)]))
    return found


def _scores(
    model: Decoder, encoder: Encoder, chosen: TaskSet | None, work: list[Prepared]
) -> list[Score]:
    """Of a set its score and its parts; of a task its share of right answers."""
    asked = ask_set(model, encoder, work)
    if chosen is not None:
        ensemble = ensemble_of(chosen, asked)
        return ensemble.scores() + [part.score() for part in ensemble.parts]
    return [part_of(one.task.name, "all", one.answers).score() for one in asked]
