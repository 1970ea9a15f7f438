"""How processes share the orthogonalising of Muon.

Several that hold the same matrices (DDP) each take some of them and exchange the results. Where
each holds some rows of every matrix (FSDP), they first exchange rows for whole matrices, and
afterwards whole matrices for rows; so in both cases a matrix is computed once, by one process, and
its result is the same as without sharing.
"""

from __future__ import annotations

from functools import partial
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

    def begin(self, joined: Tensor, shape: torch.Size) -> Finish:
        rank, size = dist.get_rank(), dist.get_world_size()
        whole, dtype = joined.shape, joined.dtype
        joined = joined.flatten(0, -3)
        count, each = len(joined), -(-len(joined) // size)
        mine = joined[each * rank : each * (rank + 1)]
        results = self.nearest(mine) if len(mine) else mine.to(self.dtype)
        if len(mine) < each:
            results = torch.cat([results, results.new_zeros(each - len(mine), *whole[-2:])])
        del joined, mine
        gathered = results.new_empty((each * size, *whole[-2:]))
        work = _all_gather(gathered, results, async_op=True)

        def finish() -> Tensor:
            work.wait()
            return gathered[:count].to(dtype).view(whole)

        return finish


class RowsOrthogonalizer(Orthogonalizer):
    """Processes that each hold some rows of every matrix, or some experts of every stack: what
    `torch.chunk` along the first dimension gives them."""

    ahead = 1
    group: Any = None
    """The processes that hold one copy of the matrices together; None: all."""

    def begin(self, joined: Tensor, shape: torch.Size) -> Finish:
        if len(shape) > 2:  # whole experts: nothing to exchange
            if joined.shape[1]:
                return super().begin(joined, shape)
            return partial(torch.empty_like, joined)
        group, held, dtype = self.group, joined.shape, joined.dtype
        rank, size = dist.get_rank(group), dist.get_world_size(group)
        heights = chunk_sizes(shape[0], size)
        counts, columns = chunk_sizes(len(joined), size), shape[1]
        mine = counts[rank]
        sent = [n * heights[rank] * columns for n in counts]
        received = [mine * height * columns for height in heights]
        rows = joined.new_empty(sum(received))
        dist.all_to_all_single(rows, joined.flatten(), received, sent, group=group)
        del joined  # every one of these is as large as the others
        pieces = zip(rows.split(received), heights, strict=True)
        stack = torch.cat([piece.view(mine, high, columns) for piece, high in pieces], dim=1)
        del rows, pieces
        results = self.nearest(stack) if mine else stack.to(self.dtype)
        del stack
        parts, back = results.split(heights, dim=1), results.new_empty(results.numel())
        torch._foreach_copy_(
            [place.view_as(p) for place, p in zip(back.split(received), parts, strict=True)], parts
        )
        del results, parts
        returned = back.new_empty(sum(sent))
        work = dist.all_to_all_single(returned, back, sent, received, group=group, async_op=True)

        def finish() -> Tensor:
            work.wait()
            return returned.to(dtype).view(held)

        return finish


def chunk_sizes(length: int, parts: int) -> list[int]:
    """The sizes that `torch.chunk` gives, with zeros for the parts it leaves out."""
    each = -(-length // parts)
    return [max(0, min(each, length - each * part)) for part in range(parts)]
