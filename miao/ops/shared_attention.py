"""Attention of many texts that continue the same one, whose keys and values stand there once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

_KERNEL = "_scaled_dot_product_flash_attention_for_cpu"
COPIED_KEYS = 2**18
"""Keys that the plain twin writes at one time, at most."""


@dataclass(frozen=True)
class SharedBeginning:
    """Who sees whom: every text sees the beginning and itself, up to the token that looks.

    Keys are those of the beginning (`prefix` tokens, maybe none) and then of all texts, end to end;
    queries are those of the texts. `runs`: (how many texts, of how many tokens each) one after the
    other.
    """

    prefix: int
    runs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, prefix: int, widths: Sequence[int]) -> SharedBeginning:
        """Texts of these lengths; equal ones that stand together cost one call of the kernel."""
        return cls(prefix, tuple((len(list(same)), width) for width, same in groupby(widths)))


def shared_attention(
    query_nhd: Tensor,
    key_skd: Tensor,
    value_skd: Tensor,
    texts: SharedBeginning,
    scale: float | None,
) -> Tensor:
    """softmax(scale·q·kᵀ)·v over what `texts` says that a token sees, [n, h, d].

    On a CPU nothing is copied for each text: attention to the beginning and attention within the
    texts are computed apart, and weighed by their softmaxes' denominators (as in arXiv:2402.05099).

    Args:
        query_nhd: the texts' tokens; key_skd, value_skd: with h a multiple of k, s = prefix + n.
        scale: factor on the scores (default 1/√d).
    """
    known = query_nhd.dtype in (torch.float32, torch.bfloat16)
    if query_nhd.device.type != "cpu" or not known or not hasattr(torch.ops.aten, _KERNEL):
        return shared_attention_reference(query_nhd, key_skd, value_skd, texts, scale)
    kernel = getattr(torch.ops.aten, _KERNEL)
    prefix, (_, heads, _), groups = texts.prefix, query_nhd.shape, key_skd.shape[1]
    own_nhd, own_nh = _within(kernel, query_nhd, key_skd[prefix:], value_skd[prefix:], texts, scale)
    if not prefix:
        return own_nhd
    # Nothing hides a part of the beginning: all queries of a group of heads are one text.
    query_kgnd = query_nhd.unflatten(1, (groups, -1)).permute(1, 2, 0, 3)
    seen_kmd, seen_km = kernel(
        query_kgnd.flatten(1, 2)[None],
        key_skd[None, :prefix].transpose(1, 2),
        value_skd[None, :prefix].transpose(1, 2),
        scale=scale,
    )
    shape = (groups, heads // groups, len(query_nhd))
    seen_nhd = seen_kmd[0].unflatten(1, shape[1:]).permute(2, 0, 1, 3).flatten(1, 2)
    seen_nh = seen_km[0].view(shape).permute(2, 0, 1).flatten(1, 2)
    share_nh1 = torch.sigmoid(seen_nh - own_nh)[..., None].to(own_nhd.dtype)
    return own_nhd.lerp_(seen_nhd, share_nh1)


def _within(
    kernel: torch._ops.OpOverloadPacket,
    query_nhd: Tensor,
    key_nkd: Tensor,
    value_nkd: Tensor,
    texts: SharedBeginning,
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    """Causal attention within every text, and the logarithm of the denominators [n, h]."""
    group = query_nhd.shape[1] // key_nkd.shape[1]
    output_nhd, sums_nh = torch.empty_like(query_nhd), query_nhd.new_empty(
        query_nhd.shape[:2], dtype=torch.float32
    )  # fmt: skip
    start = 0
    for count, width in texts.runs:
        part = slice(start, start := start + count * width)
        own = (key_nkd[part], value_nkd[part])
        pair = [x.repeat_interleave(group, dim=1) if group > 1 else x for x in own]
        views = [x.unflatten(0, (count, width)).transpose(1, 2) for x in (query_nhd[part], *pair)]
        seen_bhtd, sums_bht = kernel(*views, 0.0, True, scale=scale)
        output_nhd[part] = seen_bhtd.transpose(1, 2).flatten(0, 1)
        sums_nh[part] = sums_bht.transpose(1, 2).flatten(0, 1)
    return output_nhd, sums_nh


def shared_attention_reference(
    query_nhd: Tensor,
    key_skd: Tensor,
    value_skd: Tensor,
    texts: SharedBeginning,
    scale: float | None,
) -> Tensor:
    """The plain twin: the beginning is written before every text."""
    prefix, outputs, start = texts.prefix, [], 0
    for texts_left, width in texts.runs:
        see = torch.ones(width, prefix + width, dtype=torch.bool, device=query_nhd.device)
        see = see.tril(diagonal=prefix)
        step = max(1, COPIED_KEYS // (prefix + width))
        for first in range(0, texts_left, step):
            count = min(step, texts_left - first)
            part = slice(start, start := start + count * width)
            own = slice(prefix + part.start, prefix + part.stop)
            query_bhtd = query_nhd[part].unflatten(0, (count, width)).transpose(1, 2)
            key_bksd, value_bksd = (
                torch.cat(
                    (x[:prefix].expand(count, -1, -1, -1), x[own].unflatten(0, (count, width))),
                    dim=1,
                ).transpose(1, 2)
                for x in (key_skd, value_skd)
            )
            seen_bhtd = F.scaled_dot_product_attention(
                query_bhtd,
                key_bksd,
                value_bksd,
                attn_mask=see,
                scale=scale,
                enable_gqa=query_nhd.shape[1] != key_skd.shape[1],
            )
            outputs.append(seen_bhtd.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)
