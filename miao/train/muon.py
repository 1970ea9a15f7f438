"""Muon's costly part: the nearest orthogonal matrix. How several processes share it is in
`distributed/orthogonal.py`."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from miao.console import warn
from miao.errors import first_line
from miao.train.gram import by_gram, pays_by_gram

MOST_SHAPES = 64
"""Of stacks of equal matrices in a model."""
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
Finish = Callable[[], Tensor]
"""Waits for the other processes and returns the results."""


def newton_schulz(
    matrices_nrc: Tensor, dtype: torch.dtype = torch.bfloat16, steps: int = 5, eps: float = 1e-7
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
    if pays_by_gram(x.shape[-2], x.shape[-1], dtype):
        x, steps = by_gram(x, NEWTON_SCHULZ, steps), 0
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

    def begin(self, joined: Tensor, shape: torch.Size) -> Finish:
        """Begins with n matrices [n, rows, columns] or stacks of them [n, e, rows, columns].

        Args:
            joined: what this process holds of each. shape: of each one as a whole.
        """
        updates = self.nearest(joined.flatten(0, -3)).to(joined.dtype).view_as(joined)
        return lambda: updates
