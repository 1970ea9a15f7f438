"""Attention, and the only place that chooses how it is computed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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


def _additive(visible_bts: Tensor, dtype: torch.dtype) -> Tensor:
    mask = torch.zeros(visible_bts.shape, dtype=dtype, device=visible_bts.device)
    return mask.masked_fill_(~visible_bts, float("-inf"))[:, None]


def attention(
    query_bthd: Tensor, key_bskd: Tensor, value_bskd: Tensor, mask: Tensor | None
) -> Tensor:
    """softmax(q·kᵀ/√d + mask)·v with grouped key/value heads.

    Args:
        query_bthd: [b, t, h, d]; key_bskd, value_bskd: [b, s, k, d] with h a multiple of k.
        mask: additive [b, 1, t, s], or None for plain causal attention (t = s).

    Returns:
        [b, t, h·d].
    """
    output_bhtd = F.scaled_dot_product_attention(
        query_bthd.transpose(1, 2),
        key_bskd.transpose(1, 2),
        value_bskd.transpose(1, 2),
        attn_mask=mask,
        is_causal=mask is None,
        enable_gqa=query_bthd.shape[2] != key_bskd.shape[2],
    )
    return output_bhtd.transpose(1, 2).flatten(2)


def attention_reference(
    query_bthd: Tensor, key_bskd: Tensor, value_bskd: Tensor, mask: Tensor | None
) -> Tensor:
    """The plain twin of `attention`: the formula, word for word."""
    groups = query_bthd.shape[2] // key_bskd.shape[2]
    key = key_bskd.repeat_interleave(groups, dim=2)
    value = value_bskd.repeat_interleave(groups, dim=2)
    scores = torch.einsum("bthd,bshd->bhts", query_bthd, key) / query_bthd.shape[-1] ** 0.5
    if mask is None:
        length = scores.shape[-1]
        mask = _additive(torch.ones(1, length, length, dtype=torch.bool).tril(), scores.dtype)
    weights = (scores + mask).softmax(dim=-1)
    return torch.einsum("bhts,bshd->bthd", weights, value).flatten(2)
