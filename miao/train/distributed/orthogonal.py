"""How processes share the orthogonalising of Muon.

Several that hold the same matrices (DDP) each take some of them and exchange the results. Where
each holds some rows of every matrix (FSDP), they first exchange rows for whole matrices, and
afterwards whole matrices for rows; so in both cases a matrix is computed once, by one process, and
its result is the same as without sharing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from miao.train.muon import Finish, Orthogonalizer

# The newer of two names; torch 2.11 has the older one.
_all_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)


class SharedOrthogonalizer(Orthogonalizer):
    """Processes that hold the same matrices."""

    ahead = 1

    def begin(self, parts: list[Tensor], shape: torch.Size) -> Finish:
        rank, size = dist.get_rank(), dist.get_world_size()
        joined = torch.stack(parts)
        flat = joined.flatten(0, -3)
        each = -(-len(flat) // size)
        mine = flat[each * rank : each * (rank + 1)]
        results = flat.new_zeros((each, *flat.shape[1:]), dtype=self.dtype)
        if len(mine):
            results[: len(mine)] = self.nearest(mine)
        gathered = results.new_empty((each * size, *flat.shape[1:]))
        work = _all_gather(gathered, results, async_op=True)

        def finish() -> list[Tensor]:
            work.wait()
            return list(gathered[: len(flat)].to(joined.dtype).view_as(joined).unbind())

        return finish


class RowsOrthogonalizer(Orthogonalizer):
    """Processes that each hold some rows of every matrix, or some experts of every stack: what
    `torch.chunk` along the first dimension gives them."""

    ahead = 1
    group: Any = None
    """The processes that hold one copy of the matrices together; None: all."""

    def begin(self, parts: list[Tensor], shape: torch.Size) -> Finish:
        if len(shape) > 2:  # whole experts: nothing to exchange
            return super().begin(parts, shape) if len(parts[0]) else lambda: parts
        group = self.group
        rank, size = dist.get_rank(group), dist.get_world_size(group)
        heights = chunk_sizes(shape[0], size)
        each = -(-len(parts) // size)
        counts = [len(parts[each * r : each * (r + 1)]) for r in range(size)]
        columns, mine = shape[1], counts[rank]
        sent = [n * heights[rank] * columns for n in counts]
        received = [mine * height * columns for height in heights]
        whole = parts[0].new_empty(sum(received))
        rows = torch.cat([p.flatten() for p in parts])
        dist.all_to_all_single(whole, rows, received, sent, group=group)
        stack = torch.cat(
            [
                piece.view(mine, height, columns)
                for piece, height in zip(whole.split(received), heights, strict=True)
            ],
            dim=1,
        )
        results = self.nearest(stack) if mine else stack.to(self.dtype)
        back = torch.cat([rows.flatten() for rows in results.split(heights, dim=1)])
        returned = back.new_empty(sum(sent))
        work = dist.all_to_all_single(returned, back, sent, received, group=group, async_op=True)

        def finish() -> list[Tensor]:
            work.wait()
            rows = returned.to(parts[0].dtype).view(len(parts), heights[rank], columns)
            return list(rows.unbind())

        return finish


def chunk_sizes(length: int, parts: int) -> list[int]:
    """The sizes that `torch.chunk` gives, with zeros for the parts it leaves out."""
    each = -(-length // parts)
    return [max(0, min(each, length - each * part)) for part in range(parts)]
