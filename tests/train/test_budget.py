"""Budgets by the clock: whatever the machine does, the rate is down when the time is over."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from miao.recipe import PretrainOptions, Recipe
from miao.run import clock
from miao.run.clock import RunClock, moment
from miao.train import budget
from miao.train.budget import Budget
from miao.train.distributed.world import World


class Hands:
    """A clock that is set by hand; servers in this process keep theirs (`time.monotonic` is also when
    an event loop wakes: set back for a moment, it may sleep for hours)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.at = 100.0
        for module in (budget, clock):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.at))

    def go(self, seconds: float) -> None:
        self.at += seconds


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    return Hands(monkeypatch)


OPTIONS = PretrainOptions(tokens=None, minutes=1.0, warmup=0.1, decay=0.5, schedule="wsd")


def trained(budget: Budget, hands: Hands, speeds: list[float]) -> list[float]:
    """The rates of the steps, each of so many seconds; the last speed goes on to the end."""
    rates = []
    while not budget.is_spent:
        rates.append(budget.rate(1000))
        hands.go(speeds.pop(0) if len(speeds) > 1 else speeds[0])
        budget.step_to(0, World())
    return rates


@pytest.mark.parametrize("speeds", [[1.0], [0.5] * 40 + [4.0], [3.0] * 8 + [0.5]])
def test_a_timed_stage_ends_on_time_with_its_rate_down(hands: Hands, speeds: list[float]) -> None:
    rates = trained(Budget("pretrain", OPTIONS, 60.0), hands, list(speeds))
    assert abs(hands.at - 160) <= max(speeds) / 2, "half a step early or late"
    assert max(rates) == 1.0 and rates[0] < 0.6 and rates[-1] <= max(speeds) / 30 + 0.02
    assert all(b <= a for a, b in zip(rates[-4:], rates[-3:], strict=False))


def test_time_is_kept_for_the_end_and_what_was_trained_before_counts(hands: Hands) -> None:
    budget = Budget("pretrain", OPTIONS, 60.0)
    budget.ending = 6.0
    trained(budget, hands, [1.0])
    assert 153 <= hands.at <= 155
    state = budget.state() | {"tokens": 5}
    hands.go(1000)  # interrupted
    later = Budget("pretrain", OPTIONS, 60.0, deadline=hands.at + 30)
    later.restore(state)
    assert later.at == pytest.approx(54, abs=1) and later.total == pytest.approx(84, abs=1)
    hands.go(5)
    later.restore(state, rollback=True)
    assert later.now() == pytest.approx(59, abs=1), "what a rollback left was trained all the same"
    assert later.crossed("eval_every") is False


def test_a_budget_of_tokens_is_what_it_was(hands: Hands) -> None:
    options = PretrainOptions(tokens=4000, eval_every=0.25)
    budget = Budget("pretrain", options, 4000)
    budget.step_to(1100, World())
    assert budget.crossed("eval_every") and not budget.is_spent and budget.tokens == 4000
    budget.step_to(4000, World())
    assert budget.is_spent and budget.share == 1 and "tokens" in budget.words()


def test_stages_share_what_is_left_of_a_run(hands: Hands, tmp_path: Path) -> None:
    recipe = Recipe(minutes=10.0)
    recipe.dpo.enabled = recipe.grpo.enabled = False
    for stage, minutes in (("pretrain", 6.0), ("sft", 2.0)):
        options = getattr(recipe, stage)
        options.tokens, options.epochs, options.minutes = None, None, minutes
    clock = RunClock(recipe, tmp_path, hands.at)
    hands.go(100)
    first = clock.deadline("pretrain", {})
    assert first is not None and clock.left == 500
    aside = 2 * (1 + 0.02 * 600) + 0.02 * 600
    assert first - hands.at == pytest.approx((500 - aside) * 0.75)
    hands.go(200)  # it took less, and its evaluation was measured
    second = clock.deadline("sft", {"evaluate pretrain": {"seconds": 30.0}})
    assert second is not None and second - hands.at == pytest.approx(300 - 31 - 12)
    with clock.running():
        pass
    hands.go(5000)
    again = RunClock(recipe, tmp_path, hands.at)
    assert again.spent == pytest.approx(300, abs=1), "interruptions do not count"
    assert RunClock(Recipe(), tmp_path, 0.0).deadline("pretrain", {}) is None


def test_times_of_the_clock() -> None:
    assert moment("2026-11-29T07:30").hour == 7
    assert moment("07:30").minute == 30
    with pytest.raises(Exception, match="is no time"):
        moment("half past")
