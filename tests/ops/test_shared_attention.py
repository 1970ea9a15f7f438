"""Texts that continue one beginning: equal to attention over each text as a whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from miao.ops.attention import attention, attention_reference
from miao.ops.shared_attention import (
    SharedBeginning,
    shared_attention,
    shared_attention_reference,
)

WAYS = [shared_attention, shared_attention_reference]


def text_by_text(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, prefix: int, widths: list[int]
) -> torch.Tensor:
    """Beginning and text stand together and are computed by the formula; [n, h, d]."""
    outputs, start = [], prefix
    for width in widths:
        whole = [torch.cat((x[:prefix], x[start : start + width]))[None] for x in (key, value)]
        own = query[None, start - prefix : start - prefix + width]
        padded = torch.cat((torch.zeros(1, prefix, *query.shape[1:]), own), dim=1)
        outputs.append(attention_reference(padded, *whole, None)[0, prefix:])
        start += width
    return torch.cat(outputs).view(query.shape)


@given(
    st.integers(0, 70),
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.sampled_from([(4, 4), (4, 2), (3, 1)]),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_equal_to_every_text_alone(
    prefix: int, widths: list[int], heads: tuple[int, int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    texts = SharedBeginning.of(prefix, widths)
    shapes = (sum(widths), heads[0]), *[(prefix + sum(widths), heads[1])] * 2
    parts = [3 * torch.randn(*shape, 16, generator=generator) for shape in shapes]
    expected = text_by_text(*parts, prefix, widths)
    for way in WAYS:
        torch.testing.assert_close(way(*parts, texts, None), expected, atol=2e-5, rtol=2e-5)


def test_equal_lengths_are_one_run() -> None:
    assert SharedBeginning.of(7, [3, 3, 5, 5, 5, 3]).runs == ((2, 3), (3, 5), (1, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_narrower_than_keys_and_a_scale(dtype: torch.dtype) -> None:
    """As latent attention has them; through `attention`, which is how a model calls it."""
    query, key, value = (
        torch.randn(1, n, 2, d).to(dtype) for n, d in ((9, 24), (14, 24), (14, 16))
    )
    found = attention(query, key, value, SharedBeginning.of(5, [4, 5]), scale=0.3)
    assert found.shape == (1, 9, 32) and found.dtype == dtype
    texts = SharedBeginning.of(5, [4, 5])
    plain = shared_attention_reference(*(x[0].float() for x in (query, key, value)), texts, 0.3)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found[0].float(), plain.flatten(1), atol=tolerance, rtol=tolerance)


def test_the_plain_twin_copies_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    from miao.ops import shared_attention as module

    parts = [torch.randn(n, 2, 8) for n in (30, 50, 50)]
    texts = SharedBeginning.of(20, [5] * 6)
    whole = shared_attention_reference(*parts, texts, None)
    monkeypatch.setattr(module, "COPIED_KEYS", 60)
    torch.testing.assert_close(shared_attention_reference(*parts, texts, None), whole)
