"""CUDA graphs: what they can record, a pass that asks the device nothing and takes nothing from the
host (shown without a GPU, on a device that never answers); and what is replayed for which batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from miao.engine.graphs import GraphRunner, _Graph
from miao.engine.runner import Piece, Runner
from miao.model import Decoder
from miao.ops import experts
from tests.conftest import TINY
from tests.engine.pieces import EXPERTS, LATENT, PLAIN_KINDS
from tests.on_meta import NothingOfTheHost, model_on_meta

ROWS, LENGTH = 4, 32
KINDS = PLAIN_KINDS | {"latent": LATENT, "experts": EXPERTS, "latent experts": LATENT | EXPERTS}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_step_can_be_recorded(
    kind: dict[str, Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What `experts_swiglu` takes while a GPU without the fast product records.
    monkeypatch.setattr("miao.model.mixture.experts_swiglu", experts.experts_swiglu_dense)
    runner = Runner(model_on_meta(dtype, **kind).eval(), ROWS, LENGTH)
    ids, positions = (torch.zeros(ROWS, 1, dtype=torch.int64, device="meta") for _ in range(2))
    slots = torch.zeros(ROWS, dtype=torch.int64, device="meta")
    with torch.inference_mode(), NothingOfTheHost():
        hidden = runner._forward(ids, positions, slots, slice(0, ROWS), LENGTH)
    assert hidden.shape == (ROWS, 1, TINY["hidden_size"])


def test_the_check_itself_finds_what_it_should() -> None:
    numbers = torch.zeros(3, device="meta")
    with NothingOfTheHost(), pytest.raises(AssertionError, match="host"):
        numbers.copy_(torch.tensor([1.0, 2.0, 3.0]))
    with pytest.raises(NotImplementedError):
        numbers.nonzero()


class Replayed(GraphRunner):
    """Its graphs are replayed by running the pass again, on the tensors that were recorded."""

    def _record(self, size: int, visible: int) -> _Graph:
        ids, positions = (torch.zeros(size, 1, dtype=torch.int64) for _ in range(2))
        slots = torch.full((size,), self.cache.trash)
        forward = super(GraphRunner, self)._forward
        hidden = torch.zeros(size, 1, self.model.config.hidden_size)

        class Graph:
            def replay(self) -> None:
                hidden.copy_(forward(ids, positions, slots, slice(0, size), visible))

        graph: Any = Graph()
        return _Graph(graph, ids, positions, slots, hidden)


def test_graphs_of_fixed_sizes_give_what_each_batch_gives_by_itself(
    make_model: Callable[..., Decoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr("miao.engine.graphs.VISIBLE_STEP", 8)
    model = make_model(max_position_embeddings=LENGTH)
    rows = 11
    plain, graphs = Runner(model, rows, LENGTH), Replayed(model, rows, LENGTH)
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> list[int]:
        return torch.randint(0, TINY["vocab_size"], (count,), generator=generator).tolist()

    def both(pieces: list[Piece]) -> tuple[Tensor, Tensor]:
        return graphs(pieces), plain(pieces)

    ends = [1 + int(n) for n in torch.randint(0, 12, (rows,), generator=generator)]
    both([Piece(row, draw(end), 0) for row, end in enumerate(ends)])
    # Fewer rows than before, more again, and some that are not the first.
    for batch in ([*range(rows)], [0], [0, 1, 2], [*range(9)], [4, 5], [7, 2], [*range(rows)]):
        for _ in range(2):
            ours, truth = both([Piece(row, draw(1), ends[row]) for row in batch])
            torch.testing.assert_close(ours, truth, atol=1e-5, rtol=1e-4)
            for row in batch:
                ends[row] += 1
    assert {size for size, _ in graphs._graphs} == {1, 4, 11}
    assert {visible for _, visible in graphs._graphs} <= {8, 16, 24}
