"""Attention, and the only place that chooses how it is computed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from miao.ops.shared_attention import SharedBeginning, shared_attention
from miao.ops.varlen import within_documents
from miao.ops.watched_attention import WatchedAttention, attention_weights, weighted

Mask = Tensor | SharedBeginning | WatchedAttention | None


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
        return within_documents(query_bthd, key_bskd, value_bskv, mask, scale)
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


def document_mask(segments_bt: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive mask [b, 1, t, t]: a token sees earlier tokens of its own document only.

    Args:
        segments_bt: the number of the document that each slot belongs to; padding is 0 and sees
            padding alone, so that no row of the softmax is empty.
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


def _additive(visible_bts: Tensor, dtype: torch.dtype) -> Tensor:
    mask = torch.zeros(visible_bts.shape, dtype=dtype, device=visible_bts.device)
    return mask.masked_fill_(~visible_bts, float("-inf"))[:, None]
