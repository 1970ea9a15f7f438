"""Attention that can be looked at: the plain formula, its weights kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class WatchedAttention:
    """Causal attention within one row of tokens that keeps what every head looks at; it stands in
    the place of a mask, for one pass over the layers in order.

    Args:
        unseen: places that no other place sees.
        silent: heads whose result is zero, by the number of the layer.
    """

    unseen: Collection[int] = ()
    silent: Mapping[int, Collection[int]] = field(default_factory=dict)
    layer: int = 0
    """The number of the layer that attends next."""
    weights: dict[int, Tensor] = field(default_factory=dict)
    """Layer -> float32 [h, t, t]: the share of each place (last) that each place takes in."""

    def attend(
        self, query_bthd: Tensor, key_bskd: Tensor, value_bskv: Tensor, scale: float | None
    ) -> Tensor:
        """As `attention`, of one row [1, t, ...]."""
        length = query_bthd.shape[1]
        visible = torch.ones(length, length, dtype=torch.bool, device=query_bthd.device).tril()
        visible[:, list(self.unseen)] = False
        visible.fill_diagonal_(True)
        hidden = torch.zeros_like(visible, dtype=torch.float32).masked_fill_(~visible, -torch.inf)
        weights = attention_weights(query_bthd, key_bskd, hidden[None, None], scale)
        self.weights[self.layer] = weights[0]
        seen_bthv = weighted(weights, value_bskv).to(query_bthd.dtype)
        seen_bthv[:, :, list(self.silent.get(self.layer, ()))] = 0
        return seen_bthv.flatten(2)


def attention_weights(
    query_bthd: Tensor, key_bskd: Tensor, mask: Tensor, scale: float | None
) -> Tensor:
    """softmax(scale·q·kᵀ + mask) [b, h, t, s], in the type of the mask."""
    key = key_bskd.repeat_interleave(query_bthd.shape[2] // key_bskd.shape[2], dim=2)
    scale = query_bthd.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.einsum("bthd,bshd->bhts", query_bthd.to(mask.dtype), key.to(mask.dtype)) * scale
    return (scores + mask).softmax(dim=-1)


def weighted(weights_bhts: Tensor, value_bskv: Tensor) -> Tensor:
    """The values' mean by these weights [b, t, h, v]."""
    value = value_bskv.repeat_interleave(weights_bhts.shape[1] // value_bskv.shape[2], dim=2)
    return torch.einsum("bhts,bshv->bthv", weights_bhts, value.to(weights_bhts.dtype))
