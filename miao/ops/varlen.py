"""Attention within the documents of packed rows, by where each of them begins: no score between
two documents is ever computed, and there is no mask."""

from __future__ import annotations

import importlib.util
import inspect
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from miao.ops.document_attention import document_attention, has_document_attention

FEWEST_PLACES = 256


def within_documents(
    query_bthd: Tensor, key_btkd: Tensor, value_btkv: Tensor, starts: Tensor, scale: float | None
) -> Tensor:
    """`attention` by the `document_starts` of packed rows, [b, t, h, v] -> [b, t, h·v]."""
    rows, length, _, query_dim = query_bthd.shape
    value_dim = value_btkv.shape[-1]
    if value_dim != query_dim:
        value_btkv = F.pad(value_btkv, (0, query_dim - value_dim))
    query, key, value = (x.flatten(0, 1) for x in (query_bthd, key_btkd, value_btkv))
    if query.device.type == "cpu":
        output_nhd = document_attention(query, key, value, starts, scale)
    else:
        output_nhd = varlen_kernel(query, key, value, starts, length, scale)
    return output_nhd.view(rows, length, -1, query_dim)[..., :value_dim].flatten(2)


def document_starts(segments_bt: Tensor, places: int | None = None) -> Tensor:
    """Where each document of packed rows begins, counted through all rows: int32 [places + 1].

    The end of the last row follows as often as it takes (documents of no length).

    Args:
        segments_bt: as for `document_mask`, on the CPU; padding is a document of its own.
        places: as many as there are documents or more (default: `document_places`).
    """
    starts = _begins(segments_bt).flatten().nonzero().squeeze(1).to(torch.int32)
    missing = (places or document_places(segments_bt)) + 1 - len(starts)
    return F.pad(starts, (0, missing), value=segments_bt.numel())


def document_places(segments_bt: Tensor) -> int:
    """Room for the documents of packed rows: the next of 256, 512, 1024, ..., since a compiled
    model is compiled anew for every number."""
    return max(FEWEST_PLACES, 1 << (int(_begins(segments_bt).sum()) - 1).bit_length())


def _begins(segments_bt: Tensor) -> Tensor:
    begins = torch.ones_like(segments_bt, dtype=torch.bool)
    begins[:, 1:] = segments_bt[:, 1:] != segments_bt[:, :-1]
    return begins


@cache
def has_varlen(device_type: str, dtype: torch.dtype, query_dim: int) -> bool:
    """Whether attention for documents of many lengths runs: on a CPU (`document_attention`), and
    by FlashAttention on an NVIDIA card since Ampere, bfloat16 or float16, heads of at most 256
    numbers, a multiple of 8."""
    if device_type == "cpu":
        return has_document_attention(dtype)
    if device_type != "cuda" or torch.version.hip is not None:
        return False
    if importlib.util.find_spec("torch.nn.attention.varlen") is None:
        return False
    fits = query_dim % 8 == 0 and query_dim <= 256
    half = dtype in (torch.bfloat16, torch.float16)
    return half and fits and torch.cuda.get_device_capability() >= (8, 0)


def varlen_kernel(
    query_nhd: Tensor,
    key_nkd: Tensor,
    value_nkd: Tensor,
    starts: Tensor,
    longest: int,
    scale: float | None,
) -> Tensor:
    """`document_attention` by FlashAttention; no document is longer than `longest`."""
    from torch.nn.attention import varlen

    kernel: Any = varlen.varlen_attn
    # The kernel's words for causal attention with grouped heads changed with torch's releases.
    known = inspect.signature(kernel).parameters
    words: dict[str, Any] = {"window_size": (-1, 0)}
    if "window_size" not in known:
        words = {"is_causal": True}
    if "enable_gqa" in known:
        words["enable_gqa"] = True
    return kernel(
        query_nhd, key_nkd, value_nkd, starts, starts, longest, longest, scale=scale, **words
    )
