"""What goes wrong with one request ends that one alone: the others' answers stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from miao.engine import Engine, Request, Runner, SamplingOptions
from miao.engine import scheduler as scheduling
from tests.engine.test_scheduler import Make, by_full_forward, random_prompts, scheduler_of


class _Broken:
    """A constraint or watcher that raises at the nth token."""

    is_ready = True

    def __init__(self, at: int):
        self.left = at

    def feed(self, token: int) -> bool:
        self.left -= 1
        if self.left < 0:
            raise ZeroDivisionError
        return False

    def accept(self, token: int) -> bool:
        return self.feed(token)

    def wait(self, seconds: float) -> None:
        pass

    def allowed(self, logits_v: torch.Tensor) -> torch.Tensor:
        return logits_v


class _Forbidding(_Broken):
    """Nothing may follow the nth token."""

    def allowed(self, logits_v: torch.Tensor) -> torch.Tensor:
        return logits_v if self.left else torch.full_like(logits_v, float("-inf"))


class _Unable(_Broken):
    def allowed(self, logits_v: torch.Tensor) -> torch.Tensor:
        self.feed(0)
        return logits_v


def _break_sampling(victim: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch's sampling fails where the victim stands in it."""
    real = scheduling.next_tokens

    def failing(logits_bv: torch.Tensor, draws: list[Any]) -> torch.Tensor:
        tokens = real(logits_bv, draws)  # the dice are thrown before it fails
        if victim.draw in draws and len(victim.answer) == 3:
            raise ZeroDivisionError
        return tokens

    monkeypatch.setattr(scheduling, "next_tokens", failing)


def _break_reading(victim: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass of the model fails where the victim is read in it."""
    real = Runner.__call__

    def failing(self: Runner, pieces: Any) -> torch.Tensor:
        if any(piece.row == victim.row for piece in pieces) and len(victim.answer) == 3:
            raise ZeroDivisionError
        return real(self, pieces)

    monkeypatch.setattr(Runner, "__call__", failing)


def _constrain(kind: type[_Broken]) -> Callable[..., None]:
    def fault(victim: Request, monkeypatch: pytest.MonkeyPatch) -> None:
        victim.constraint = kind(3)

    return fault


def _watch(victim: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    victim.watcher = _Broken(3)


@pytest.mark.parametrize(
    "fault",
    [
        _break_sampling,
        _break_reading,
        _constrain(_Broken),
        _constrain(_Forbidding),
        _constrain(_Unable),
        _watch,
    ],
    ids=["sampling", "reading", "constraint notes", "constraint forbids", "constraint", "watcher"],
)
def test_a_fault_of_one_request_ends_that_one_alone(
    make_model: Make, fault: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    options = [
        SamplingOptions(max_new_tokens=12),
        SamplingOptions(max_new_tokens=12, temperature=1.0, top_p=0.9, seed=1, logprobs=2),
        SamplingOptions(max_new_tokens=12, temperature=1.0, seed=2),
        SamplingOptions(max_new_tokens=12, temperature=1.2, repetition_penalty=1.3, seed=3),
    ]

    def run(with_fault: bool) -> list[Request]:
        prompts = random_prompts(20, [5, 9, 2, 30])
        requests = [Request(p, o) for p, o in zip(prompts, options, strict=True)]
        with monkeypatch.context() as patch:
            if with_fault:
                fault(requests[1], patch)
            scheduler = scheduler_of(model, rows=3)
            for request in requests:
                scheduler.submit(request)
            ended = []
            while scheduler.has_work:
                ended += [event.request for event in scheduler.step() if event.finishes]
            assert sorted(r.number for r in ended) == [r.number for r in requests]
        return requests

    usual, found = run(False), run(True)
    assert found[1].error is not None and found[1].finish == "cancelled"
    begun = found[1].answer
    assert len(begun) > 1 and begun[:3] == usual[1].answer[: min(3, len(begun))]
    for index in (0, 2, 3):
        assert found[index].error is None
        assert found[index].answer == usual[index].answer


class _Slow(_Broken):
    """Ready only when told so."""

    is_ready = False

    def __init__(self) -> None:
        super().__init__(100)

    def accept(self, token: int) -> bool:
        self.is_ready = False
        return False


def test_a_slow_constraint_delays_its_own_request_alone(make_model: Make) -> None:
    """The others grow; its logits wait, and its answer is the same in the end."""
    model = make_model()
    options = SamplingOptions(max_new_tokens=6)
    slow = Request([1, 2, 3], options, constraint=_Slow())
    others = [Request([7 + n], options) for n in range(3)]
    scheduler = scheduler_of(model, rows=3)
    for request in (others[0], slow, *others[1:]):
        scheduler.submit(request)
    while any(request.finish is None for request in others):
        scheduler.step()
        assert slow.answer == []
    assert [r.answer for r in others] == [by_full_forward(model, [7 + n], 6) for n in range(3)]
    for count in range(1, 7):
        assert scheduler.step() == [] and len(slow.answer) == count - 1
        slow.constraint.is_ready = True
        scheduler.step()
        if count < 6:  # with its next token it is read again, and its logits wait again
            assert len(slow.answer) == count
            scheduler.step()
    assert slow.answer == by_full_forward(model, [1, 2, 3], 6) and slow.finish == "length"
    cancelled = Request([1, 2, 3], options, constraint=_Slow())
    scheduler.submit(cancelled)
    scheduler.step()
    scheduler.cancel(cancelled)
    assert scheduler.step() == [] and not scheduler.has_work


def test_an_engine_raises_what_went_wrong(make_model: Make) -> None:
    engine = Engine(make_model(), frozenset())
    options = SamplingOptions(max_new_tokens=8)
    with pytest.raises(ZeroDivisionError):
        engine.generate([[1, 2], [3]], options, watcher=lambda: _Broken(2))
    assert engine.generate([[1, 2]], options) == [by_full_forward(engine.model, [1, 2], 8)]
