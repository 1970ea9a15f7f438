"""CUDA graphs: a decoding step is launched whole, not kernel by kernel."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import torch
from torch import Tensor

from miao.engine.packed import PackedDecoder
from miao.engine.runner import Runner
from miao.model.decoder import Decoder

VISIBLE_STEP = 256
"""Graphs are made for so many visible positions and multiples of it."""
WARM_UP = 3


@dataclass
class _Graph:
    graph: torch.cuda.CUDAGraph
    ids: Tensor
    positions: Tensor
    slots: Tensor
    hidden: Tensor


class GraphRunner(Runner):
    """A `Runner` whose steps of one token per row replay a graph. Prompts are read as ever.

    A graph has fixed sizes. Batches are filled up to the next size with rows that write where
    nobody reads, and look at the next multiple of `VISIBLE_STEP` positions; the mask hides what is
    too much. Each graph is recorded when it is first needed.
    """

    def __init__(self, model: Decoder | PackedDecoder, rows: int, length: int):
        super().__init__(model, rows, length)
        sizes = [1, 2, 4, *range(8, rows, 8), rows]
        self._sizes = sorted({size for size in sizes if size <= rows})
        self._graphs: dict[tuple[int, int], _Graph] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def _forward(
        self,
        ids_bt: Tensor,
        positions_bt: Tensor,
        slots: Tensor,
        rows: slice | Tensor,
        visible: int,
    ) -> Tensor:
        in_order = isinstance(rows, slice) and rows.start == 0
        if ids_bt.shape[1] > 1 or not in_order:
            return super()._forward(ids_bt, positions_bt, slots, rows, visible)
        batch = len(ids_bt)
        size = self._sizes[bisect.bisect_left(self._sizes, batch)]
        visible = min(-(-visible // VISIBLE_STEP) * VISIBLE_STEP, self.cache.length)
        found = self._graphs.get((size, visible))
        if found is None:
            found = self._graphs[size, visible] = self._record(size, visible)
        found.slots.fill_(self.cache.trash)
        found.ids[:batch], found.positions[:batch], found.slots[:batch] = (
            ids_bt,
            positions_bt,
            slots,
        )
        found.graph.replay()
        return found.hidden[:batch]

    def _record(self, size: int, visible: int) -> _Graph:
        device = self.model.device
        ids, positions = (torch.zeros(size, 1, dtype=torch.int64, device=device) for _ in range(2))
        slots = torch.full((size,), self.cache.trash, device=device)
        arguments = (ids, positions, slots, slice(0, size), visible)
        # Libraries set themselves up in their first calls, which must not be recorded.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                super()._forward(*arguments)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            hidden = super()._forward(*arguments)
        return _Graph(graph, ids, positions, slots, hidden)
