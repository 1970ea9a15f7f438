"""Causal attention within the documents of packed rows, on a CPU.

A mask makes the kernel compute every score of a row, most of them for nothing: with documents of a
third of a row two thirds and more are between documents. Here every document is a call of
PyTorch's flash kernel of its own, forward and backward in one node each, which the compiler takes
as it is.

What the compiler keeps on disk knows an operator by its name alone: other shapes need a new name.
Defined by name, as one of `torch.library.custom_op` imports the compiler (seconds) when called.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_FORWARD = "_scaled_dot_product_flash_attention_for_cpu"
_BACKWARD = "_scaled_dot_product_flash_attention_for_cpu_backward"
_MOST_THREADS = 8
"""The threads share a document's heads; with a mask they share those of all rows."""
_OPERATOR = "miao::attend_documents"
torch.library.define(
    _OPERATOR,
    "(Tensor query, Tensor key, Tensor value, Tensor starts, float scale) -> (Tensor, Tensor)",
    tags=torch.Tag.pt2_compliant_tag,
)
torch.library.define(
    f"{_OPERATOR}_backward",
    "(Tensor upstream, Tensor query, Tensor key, Tensor value, Tensor output, Tensor logsumexp,"
    " Tensor starts, float scale) -> (Tensor, Tensor, Tensor)",
    tags=torch.Tag.pt2_compliant_tag,
)


def document_attention(
    query_nhd: Tensor, key_nkd: Tensor, value_nkd: Tensor, starts: Tensor, scale: float | None
) -> Tensor:
    """softmax(scale·q·kᵀ)·v of every token over the tokens of its document up to itself, [n, h, d].

    Args:
        query_nhd: the tokens of all rows; key_nkd, value_nkd: with h a multiple of k, and the head
            size of the queries.
        starts: `document_starts` of the rows. scale: factor on the scores (default 1/√d).
    """
    scale = query_nhd.shape[-1] ** -0.5 if scale is None else scale
    attend = torch.ops.miao.attend_documents
    output_nhd: Tensor = attend(query_nhd, key_nkd, value_nkd, starts, scale)[0]
    return output_nhd


def has_document_attention(dtype: torch.dtype) -> bool:
    """Whether this PyTorch has the kernels for a type, and no thread would be idle."""
    known = all(hasattr(torch.ops.aten, name) for name in (_FORWARD, _BACKWARD))
    few = torch.get_num_threads() <= _MOST_THREADS
    return known and few and dtype in (torch.float32, torch.bfloat16, torch.float16)


def _documents(starts: Tensor, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Of every document its part of these tensors [k, g, n, ...]."""
    lengths = [length for length in starts.diff().tolist() if length > 0]
    return zip(*(x.split(lengths, dim=2) for x in tensors), strict=True)


def _by_group(x_nhd: Tensor, groups: int) -> Tensor:
    """[k, h / k, n, d], as the kernel wants it, with groups of heads for a batch; a view."""
    return x_nhd.unflatten(1, (groups, -1)).permute(1, 2, 0, 3)


def _for_group(x_nkd: Tensor, heads: int) -> Tensor:
    """The same of keys or values, which all heads of a group share."""
    return x_nkd.transpose(0, 1)[:, None].expand(-1, heads // x_nkd.shape[1], -1, -1)


@torch.library.impl(_OPERATOR, "cpu")
def _attend(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """The output, and the logarithm of every softmax's denominator, float32 [k, h / k, n]."""
    kernel = getattr(torch.ops.aten, _FORWARD)
    heads, groups = query.shape[1], key.shape[1]
    views = _by_group(query, groups), _for_group(key, heads), _for_group(value, heads)
    found = [kernel(*parts, 0.0, True, scale=scale) for parts in _documents(starts, *views)]
    outputs = [part.permute(2, 0, 1, 3) for part, _ in found]
    return torch.cat(outputs).flatten(1, 2), torch.cat([sums for _, sums in found], dim=2)


@torch.library.register_fake(_OPERATOR)
def _attend_shapes(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    tokens, heads, _ = query.shape
    shape = (key.shape[1], heads // key.shape[1], tokens)
    return query.new_empty(query.shape), query.new_empty(shape, dtype=torch.float32)


@torch.library.impl(f"{_OPERATOR}_backward", "cpu")
def _attend_backward(
    upstream: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    logsumexp: Tensor,
    starts: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    kernel = getattr(torch.ops.aten, _BACKWARD)
    heads, groups = query.shape[1], key.shape[1]
    views = [_by_group(x, groups) for x in (upstream, query, output)]
    views[2:2] = [_for_group(x, heads) for x in (key, value)]
    found = [
        kernel(*parts, 0.0, True, scale=scale) for parts in _documents(starts, *views, logsumexp)
    ]
    whole = [
        torch.cat([part.permute(2, 0, 1, 3) for part in parts])
        for parts in zip(*found, strict=True)
    ]
    return whole[0].flatten(1, 2), whole[1].sum(dim=2), whole[2].sum(dim=2)


@torch.library.register_fake(f"{_OPERATOR}_backward")
def _attend_backward_shapes(
    upstream: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    logsumexp: Tensor,
    starts: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, starts, ctx.scale = inputs
    ctx.save_for_backward(query, key, value, *output, starts)


def _differentiate(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    saved = (*ctx.saved_tensors, ctx.scale)
    gradients = torch.ops.miao.attend_documents_backward(upstream.contiguous(), *saved)
    return (*gradients, None, None)


torch.library.register_autograd(_OPERATOR, _differentiate, setup_context=_keep)
