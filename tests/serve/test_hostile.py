"""The requests of benchmarks/serve_fuzz.py, some of them: streams beside them stay what they are."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from miao.serve.app import Limits


def test_hostile_requests_change_no_other_stream(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No 500, no stream that ends wrongly, no row left taken. How long streams wait is for the
    benchmark to measure."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import serve_fuzz

    monkeypatch.setattr(serve_fuzz, "MOST_WAIT", float("inf"))
    with serve(rows=8, limits=Limits(max_queue=64)) as server:
        fuzz = serve_fuzz.Fuzz(server.port, tokens=12, left=150)
        held = asyncio.run(serve_fuzz.run(fuzz, listeners=3, attackers=3))
        assert held, fuzz.faults
        assert fuzz.streams > 2 and len(fuzz.statuses) > 3
    sys.modules.pop("serve_fuzz"), sys.modules.pop("serve_load")


def test_the_hostile_requests_are_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import serve_fuzz

    made = [
        [serve_fuzz.damaged(dice, path) for path in serve_fuzz.PATHS]
        for dice in (random.Random(5), random.Random(5))
    ]
    assert made[0] == made[1]
