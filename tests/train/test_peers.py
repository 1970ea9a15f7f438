"""Signs of life: who is lost is noticed, who only works long is waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch.distributed import HashStore, PrefixStore

from miao.train.distributed import peers
from miao.train.distributed.peers import FAILURE, Peers


class Blocking:
    """A store that stops answering, as over a network that is cut."""

    def __init__(self, store: Any):
        self.store, self.reachable = store, threading.Event()
        self.reachable.set()

    def clone(self) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        self.reachable.wait()
        return getattr(self.store, name)


Start = Callable[..., tuple[Peers, list[int]]]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    for name, value in (("LOOK", 0.005), ("BEAT", 2), ("SILENCE", 200), ("GRACE", 0.01)):
        monkeypatch.setattr(peers, name, value)
    begun: list[Peers] = []

    def begin(store: Any, rank: int, size: int = 3) -> tuple[Peers, list[int]]:
        left: list[int] = []
        begun.append(Peers(store, rank, size, left.append))
        return begun[-1], left

    yield begin
    for one in begun:
        one.end()


def met() -> Any:
    """What `meet` leaves."""
    store = PrefixStore("attempt", HashStore())
    for rank in range(3):
        store.set(str(rank), "met")
    return store


def wait_for(condition: Callable[[], Any]) -> bool:
    end = time.monotonic() + 300
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return bool(condition())


@pytest.mark.parametrize("lost", [0, 2])
def test_a_lost_process_ends_all_and_is_named_once(
    start: Start, capfd: pytest.CaptureFixture[str], lost: int
) -> None:
    store = met()
    world = [start(store, rank) for rank in range(3)]
    assert wait_for(lambda: world[1][0].looks > 300)
    assert not any(left for _, left in world)  # long work: all give signs
    world[lost][0].end()  # gives none from here on
    assert wait_for(lambda: all(left for rank, (_, left) in enumerate(world) if rank != lost))
    said = capfd.readouterr().err
    assert said.count("has given no sign of life") == 1, said
    assert f"process {lost}, on " in said and "it continues" in said
    assert b"no sign of life" in store.get(FAILURE)


def test_a_process_that_comes_back_finds_that_all_have_ended(start: Start) -> None:
    store = met()
    store.set(FAILURE, "process 1 has given no sign of life")
    _, left = start(store, 1)
    assert wait_for(lambda: left == [1])


def test_a_store_that_does_not_answer_is_noticed(
    start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    """A short cut is waited for; after a long one the process ends, and says why."""
    store = Blocking(met())
    start(store.store, 1, 2)
    one, left = start(store, 0, 2)
    assert wait_for(lambda: one.looks > 4)
    store.reachable.clear()
    time.sleep(0.02)
    store.reachable.set()
    looks = one.looks
    assert wait_for(lambda: one.looks > looks + 10) and not left
    store.reachable.clear()
    assert wait_for(lambda: left)
    assert "the launcher's store has not answered" in capfd.readouterr().err
    store.reachable.set()
