"""Compilations are few, the same in every process, and counted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from miao.model import Decoder, ModelConfig
from miao.ops import varlen
from miao.shards import TokenDataset
from miao.train.loop import Trainer
from tests.train import tiny


@pytest.fixture(autouse=True)
def without_machine_code(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_module = torch.nn.Module.compile
    eager = partialmethod(compile_module, backend="aot_eager")
    monkeypatch.setattr(torch.nn.Module, "compile", eager)
    counters.clear()


def one_block() -> Decoder:
    """Every block is compiled alike; one costs half the time of two."""
    model = Decoder(ModelConfig(97, 32, 1, 2, 1, 16, 48, max_position_embeddings=64))
    model.initialize(0)
    return model


def documents(make_dataset: Callable[..., TokenDataset], name: str) -> TokenDataset:
    """Some long, some short: from 4 to 64 in a micro-batch."""
    lengths = [31] * 30 + [7] * 200 + [3] * 300 + [2] * 500
    texts = [[1 + place % 90 for place in range(length)] for length in lengths]
    return make_dataset(texts, name=name, vocab_size=97)


def watched(running: Trainer) -> tuple[set[Any], set[int]]:
    """Every room for documents that it takes, and how many documents there were."""
    rooms: set[Any] = set()
    counts: set[int] = set()
    agree, places = running.gradients._agree_on_places, running.gradients._places

    def agreed(needed: list[int]) -> Any:
        rooms.add(agree(needed))
        return running.gradients.places

    def counted(parts: list[Any]) -> int:
        counts.update(sum(map(len, part.sequences)) for part in parts)
        return places(parts)

    running.gradients._agree_on_places = agreed  # type: ignore[method-assign]
    running.gradients._places = counted  # type: ignore[method-assign]
    return rooms, counts


def test_any_number_of_documents_compiles_a_few_times_in_each_stage(
    make_dataset: Callable[..., TokenDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for documents only grows, by doubling; the second stage has its own compilations."""
    monkeypatch.setattr(varlen, "FEWEST_PLACES", 4)
    for stage in ("first", "second"):
        data = [documents(make_dataset, stage)]
        running = tiny.trainer(data, tmp_path / stage, one_block(), tokens=3000)
        rooms, counts = watched(running)
        running.parallel.compile()
        running.run()
        assert running.model.is_compiled
        assert counters["stats"]["unique_graphs"] == len(rooms) <= 4 < len(counts)
        lines = tiny.curve(tmp_path / stage)
        assert lines[-1]["compilations"] == len(rooms)
        counters.clear()


def test_too_many_compilations_are_said(
    make_dataset: Callable[..., TokenDataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where every step has a shape of its own, training goes on without the compiler, aloud."""
    data = [documents(make_dataset, "one")]
    running = tiny.trainer(data, tmp_path, one_block(), tokens=2000)
    numbers = iter(range(200, 400))
    monkeypatch.setattr(running.gradients, "_agree_on_places", lambda needed: next(numbers))
    running.parallel.compile()
    with torch._dynamo.config.patch(recompile_limit=3):
        running.run()
    assert not running.model.is_compiled
    assert "the compiler failed, going on without it" in capsys.readouterr().out


@pytest.mark.parametrize("micro_batch", [4, 8])
def test_graphs_are_left_where_a_step_has_several_micro_batches(
    make_dataset: Callable[..., TokenDataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    micro_batch: int,
) -> None:
    running = tiny.trainer(
        [documents(make_dataset, "one")], tmp_path, compile="graphs", micro_batch=micro_batch
    )
    compiled: list[bool] = []
    model = running.model
    monkeypatch.setattr(model, "compile_for_training", lambda graphs, _: compiled.append(graphs))
    running.parallel.compile()
    running.run()
    several = micro_batch < 8
    assert compiled == ([True, False] if several else [True])
    assert running.parallel.graphs != several
    assert ("compiled without them" in capsys.readouterr().out) == several
