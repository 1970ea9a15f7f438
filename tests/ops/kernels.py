"""Plain stand-ins for kernels that run on graphics cards only."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from miao.ops.attention import attention_reference


def varlen_by_formula(
    query_nhd: Tensor,
    key_nkd: Tensor,
    value_nkd: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Tensor:
    """What the kernel computes, document by document, with the formula."""
    assert window_size == (-1, 0) and enable_gqa and cu_seq_q is cu_seq_k
    ends = cu_seq_q.tolist()
    parts = []
    for first, end in pairwise(ends):
        assert end - first <= max_q == max_k
        if first < end:
            one = [x[None, first:end] for x in (query_nhd, key_nkd, value_nkd)]
            parts.append(attention_reference(*one, None, scale)[0])
    return torch.cat(parts).unflatten(-1, (query_nhd.shape[1], -1))
