"""Attention, and the only place that chooses how it is computed."""

from __future__ import annotations

import importlib.util
import inspect
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from miao.ops.document_attention import document_attention, has_document_attention
from miao.ops.shared_attention import SharedBeginning, shared_attention
from miao.ops.watched_attention import WatchedAttention, attention_weights, weighted

FEWEST_PLACES = 256
Mask = Tensor | SharedBeginning | WatchedAttention | None


def document_mask(segments_bt: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive mask [b, 1, t, t]: a token sees earlier tokens of its own document only.

    Args:
        segments_bt: the number of the document that each slot belongs to; padding is 0 and sees
            itself alone, so that no row of the softmax is empty.
        dtype: floating type of the queries.
    """
    length = segments_bt.shape[1]
    same = segments_bt[:, :, None] == segments_bt[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments_bt.device).tril()
    return _additive(same & causal, dtype)


def cache_mask(positions_bt: Tensor, num_keys: int, dtype: torch.dtype) -> Tensor:
    """Additive mask [b, 1, t, s] over a cache: the keys at or before a token's own position."""
    keys = torch.arange(num_keys, device=positions_bt.device)
    return _additive(keys[None, None, :] <= positions_bt[:, :, None], dtype)


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


def _within_documents(
    query_bthd: Tensor, key_btkd: Tensor, value_btkv: Tensor, starts: Tensor, scale: float | None
) -> Tensor:
    """Causal attention within documents: no score between two documents is ever computed."""
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


def _additive(visible_bts: Tensor, dtype: torch.dtype) -> Tensor:
    mask = torch.zeros(visible_bts.shape, dtype=dtype, device=visible_bts.device)
    return mask.masked_fill_(~visible_bts, float("-inf"))[:, None]


def attention(
    query_bthd: Tensor,
    key_bskd: Tensor,
    value_bskv: Tensor,
    mask: Mask,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale·q·kᵀ + mask)·v with grouped key/value heads.

    Args:
        query_bthd: [b, t, h, d]; key_bskd: [b, s, k, d] with h a multiple of k; value_bskv:
            [b, s, k, v].
        mask: additive [b, 1, t, s]; or the `document_starts` of packed rows [n + 1] (t = s), where
            `has_varlen`; or a `SharedBeginning` of texts in one row (b = 1); or a
            `WatchedAttention` of one row; or None for plain causal attention (t = s).
        scale: factor on the scores (default 1/√d).

    Returns:
        [b, t, h·v].
    """
    if isinstance(mask, WatchedAttention):
        return mask.attend(query_bthd, key_bskd, value_bskv, scale)
    if isinstance(mask, Tensor) and mask.ndim == 1:
        return _within_documents(query_bthd, key_bskd, value_bskv, mask, scale)
    value_dim, missing = value_bskv.shape[-1], query_bthd.shape[-1] - value_bskv.shape[-1]
    if missing > 0 and (query_bthd.shape[1] > 1 or isinstance(mask, SharedBeginning)):
        # The fast kernels want values as wide as keys; without them all scores would be written.
        value_bskv = F.pad(value_bskv, (0, missing))
    if isinstance(mask, SharedBeginning):
        seen_nhv = shared_attention(query_bthd[0], key_bskd[0], value_bskv[0], mask, scale)
        return seen_nhv[None, ..., :value_dim].flatten(2)
    output_bhtv = F.scaled_dot_product_attention(
        query_bthd.transpose(1, 2),
        key_bskd.transpose(1, 2),
        value_bskv.transpose(1, 2),
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=query_bthd.shape[2] != key_bskd.shape[2],
    )
    return output_bhtv[..., :value_dim].transpose(1, 2).flatten(2)


def attention_reference(
    query_bthd: Tensor,
    key_bskd: Tensor,
    value_bskv: Tensor,
    mask: Tensor | None,
    scale: float | None = None,
) -> Tensor:
    """The plain twin of `attention`: the formula, word for word."""
    if mask is None:
        length = query_bthd.shape[1]
        mask = _additive(torch.ones(1, length, length, dtype=torch.bool).tril(), query_bthd.dtype)
    weights = attention_weights(query_bthd, key_bskd, mask, scale)
    return weighted(weights, value_bskv).flatten(2)
