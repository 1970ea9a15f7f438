"""Muon's costly part, the nearest orthogonal matrix, and how processes share it.

One process orthogonalises a whole stack of matrices. Several that hold the same matrices (DDP) each
take some of them and exchange the results. Where each holds some rows of every matrix (FSDP), they
first exchange rows for whole matrices, and afterwards whole matrices for rows; so in both cases a
matrix is computed once, by one process, and its result is the same as without sharing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch import distributed as dist

from miao.console import warn
from miao.errors import first_line

# The newer of two names; torch 2.11 has the older one.
_all_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
MOST_SHAPES = 64
"""Of stacks of equal matrices in a model."""
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
Finish = Callable[[], list[Tensor]]
"""Waits for the other processes and returns the results."""


def newton_schulz(
    matrices_nrc: Tensor,
    dtype: torch.dtype = torch.bfloat16,
    steps: int = 5,
    eps: float = 1e-7,
) -> Tensor:
    """Approximates U·Vᵀ of each matrix's U·S·Vᵀ by a quintic iteration.

    Args:
        matrices_nrc: a stack [n, rows, columns]. dtype: what it is computed in.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices_nrc.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


@functools.cache
def _compiled() -> Callable[[Tensor, torch.dtype], Tensor]:
    return torch.compile(newton_schulz, dynamic=False, fullgraph=True)


class Orthogonalizer:
    """One process: everything at once.

    Args:
        dtype: of the products.
        compiles: the steps are compiled, once for every shape of a stack.
    """

    ahead = 0
    """How many stacks are begun before the first is finished."""

    def __init__(self, dtype: torch.dtype, compiles: bool = False):
        self.dtype, self.compiles = dtype, compiles

    def nearest(self, matrices_nrc: Tensor) -> Tensor:
        """`newton_schulz`, compiled where that is wanted and works."""
        if self.compiles:
            from torch._dynamo.exc import TorchDynamoException

            try:
                with torch._dynamo.config.patch(recompile_limit=MOST_SHAPES):
                    return _compiled()(matrices_nrc, self.dtype)
            except (TorchDynamoException, RuntimeError) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                self.compiles = False
                warn(f"Muon is not compiled: {first_line(error)}")
        return newton_schulz(matrices_nrc, self.dtype)

    def begin(self, parts: list[Tensor], shape: torch.Size) -> Finish:
        """Begins with matrices [rows, columns] or stacks of them [e, rows, columns].

        Args:
            parts: what this process holds of each. shape: of each one as a whole.
        """
        joined = torch.stack(parts)
        flat = joined.flatten(0, -3)  # experts are stacked already
        updates = self.nearest(flat).to(joined.dtype).view_as(joined)
        return lambda: list(updates.unbind())


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

    def begin(self, parts: list[Tensor], shape: torch.Size) -> Finish:
        if len(shape) > 2:  # whole experts: nothing to exchange
            return super().begin(parts, shape) if len(parts[0]) else lambda: parts
        rank, size = dist.get_rank(), dist.get_world_size()
        heights = chunk_sizes(shape[0], size)
        each = -(-len(parts) // size)
        counts = [len(parts[each * r : each * (r + 1)]) for r in range(size)]
        columns, mine = shape[1], counts[rank]
        sent = [n * heights[rank] * columns for n in counts]
        received = [mine * height * columns for height in heights]
        whole = parts[0].new_empty(sum(received))
        dist.all_to_all_single(whole, torch.cat([p.flatten() for p in parts]), received, sent)
        stack = torch.cat(
            [
                rows.view(mine, height, columns)
                for rows, height in zip(whole.split(received), heights, strict=True)
            ],
            dim=1,
        )
        results = self.nearest(stack) if mine else stack.to(self.dtype)
        back = torch.cat([rows.flatten() for rows in results.split(heights, dim=1)])
        returned = back.new_empty(sum(sent))
        work = dist.all_to_all_single(returned, back, sent, received, async_op=True)

        def finish() -> list[Tensor]:
            work.wait()
            rows = returned.to(parts[0].dtype).view(len(parts), heights[rank], columns)
            return list(rows.unbind())

        return finish


def chunk_sizes(length: int, parts: int) -> list[int]:
    """The sizes that `torch.chunk` gives, with zeros for the parts it leaves out."""
    each = -(-length // parts)
    return [max(0, min(each, length - each * part)) for part in range(parts)]
