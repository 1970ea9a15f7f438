"""The fast attention against the formula, and the masks against their definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from miao.ops.attention import attention, attention_reference, cache_mask, document_mask
from miao.ops.document_attention import document_attention, has_document_attention
from miao.ops.varlen import document_places, document_starts, has_varlen, varlen_kernel
from tests.ops.kernels import varlen_by_formula

HEADS, SIZE = 4, 8
SEGMENTS = [[1, 1, 1, 2, 2, 3, 3, 3, 3, 0, 0], [1, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0]]


def random_inputs(
    rows: int, queries: int, keys: int, kv_heads: int, device: torch.device | str = "cpu"
) -> list[Tensor]:
    """q [b, t, h, d], k and v [b, s, k, d]."""
    generator = torch.Generator().manual_seed(3)
    shapes = [(rows, queries, HEADS, SIZE), *2 * [(rows, keys, kv_heads, SIZE)]]
    return [torch.randn(shape, generator=generator).to(device).requires_grad_() for shape in shapes]


def with_gradients(function: object, inputs: list[Tensor], mask: Tensor | None) -> list[Tensor]:
    """The output and the gradients of its product with fixed random weights."""
    assert callable(function)
    copies = [x.detach().clone().requires_grad_() for x in inputs]
    output = function(*copies, mask)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(5))
    (output * weights.to(output)).sum().backward()
    return [output.detach(), *(x.grad for x in copies if x.grad is not None)]


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("kind", ["causal", "documents", "cache"])
def test_equals_the_formula_forward_and_backward(
    kv_heads: int, kind: str, device: torch.device
) -> None:
    segments = torch.tensor(SEGMENTS, device=device)
    positions = torch.tensor([[4, 5, 6], [0, 1, 2]], device=device)
    queries, keys = (3, 9) if kind == "cache" else (segments.shape[1], segments.shape[1])
    mask = {
        "causal": None,
        "documents": document_mask(segments, torch.float32),
        "cache": cache_mask(positions, keys, torch.float32),
    }[kind]
    inputs = random_inputs(2, queries, keys, kv_heads, device)
    fast = with_gradients(attention, inputs, mask)
    if mask is None and device.type != "cpu":  # the twin makes its own causal mask on the CPU
        mask = cache_mask(torch.arange(keys, device=device)[None], keys, torch.float32)
    plain = with_gradients(attention_reference, inputs, mask)
    assert len(fast) == 4
    for ours, truth in zip(fast, plain, strict=True):
        torch.testing.assert_close(ours, truth, atol=2e-6, rtol=1e-5)


def test_the_formula_itself_is_right() -> None:
    """One head, computed number by number."""
    query, key, value = (x.detach()[:, :, :1] for x in random_inputs(1, 3, 3, 1))
    out = attention_reference(query, key, value, None)
    for t in range(3):
        scores = [float(query[0, t, 0] @ key[0, s, 0]) / SIZE**0.5 for s in range(t + 1)]
        weights = torch.tensor(scores).softmax(0)
        expected = sum(float(weights[s]) * value[0, s, 0] for s in range(t + 1))
        torch.testing.assert_close(out[0, t], expected)


def test_document_mask_by_definition() -> None:
    segments = torch.tensor(SEGMENTS)
    mask = document_mask(segments, torch.float32)
    assert mask.shape == (2, 1, 11, 11)
    for b, row in enumerate(SEGMENTS):
        for t, own in enumerate(row):
            for s, other in enumerate(row):
                seen = s <= t and own == other
                assert float(mask[b, 0, t, s]) == (0.0 if seen else float("-inf"))


def test_cache_mask_by_definition() -> None:
    mask = cache_mask(torch.tensor([[2, 3], [0, 1]]), 5, torch.bfloat16)
    assert mask.dtype == torch.bfloat16
    assert mask.isfinite().squeeze(1).tolist() == [
        [[True, True, True, False, False], [True, True, True, True, False]],
        [[True, False, False, False, False], [True, True, False, False, False]],
    ]


def test_packed_documents_equal_separate_ones() -> None:
    inputs = random_inputs(2, 11, 11, 2)
    packed = attention(*inputs, document_mask(torch.tensor(SEGMENTS), torch.float32))
    for b, row in enumerate(SEGMENTS):
        for document in sorted(set(row) - {0}):
            slots = [t for t, own in enumerate(row) if own == document]
            alone = attention(*(x[b : b + 1, slots] for x in inputs), None)
            torch.testing.assert_close(packed[b, slots], alone[0], atol=1e-6, rtol=1e-5)


def test_padding_gives_no_nan_forward_or_backward() -> None:
    segments = torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0]])
    outputs = with_gradients(
        attention, random_inputs(2, 4, 4, 2), document_mask(segments, torch.float32)
    )
    assert all(bool(x.isfinite().all()) for x in outputs)


def test_bfloat16_stays_close_to_float32() -> None:
    inputs = random_inputs(2, 11, 11, 2)
    segments = torch.tensor(SEGMENTS)
    halves = [x.detach().bfloat16() for x in inputs]
    ours = attention(*halves, document_mask(segments, torch.bfloat16))
    assert ours.dtype == torch.bfloat16
    truth = attention_reference(*inputs, document_mask(segments, torch.float32))
    torch.testing.assert_close(ours.float(), truth, atol=0.03, rtol=0.02)


def test_document_starts_count_through_the_rows() -> None:
    starts = document_starts(torch.tensor(SEGMENTS), 8)
    assert starts.dtype == torch.int32
    # Row 1 begins at slot 11; its padding, like that of row 0, is a document of its own.
    assert starts.tolist() == [0, 3, 5, 9, 11, 12, 18, 22, 22]
    assert len(document_starts(torch.tensor(SEGMENTS))) == 256 + 1
    many = torch.arange(1, 301)[None]
    assert document_places(many[:, :256]) == 256 and document_places(many[:, :257]) == 512


def rows_of(*lengths: list[int]) -> Tensor:
    """Segments of rows filled with documents of these lengths."""
    return torch.stack(
        [torch.repeat_interleave(torch.arange(1, len(n) + 1), torch.tensor(n)) for n in lengths]
    )


@pytest.mark.parametrize("value_size", [SIZE, SIZE - 3])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize(
    "segments",
    [
        rows_of([3, 2, 4, 2], [1, 6, 4]),
        rows_of([1] * 11, [1, 10]),
        rows_of([11], [11]),
        torch.tensor(SEGMENTS),
    ],
    ids=["documents", "of one token", "of one row", "and padding"],
)
def test_documents_one_by_one_equal_the_masked_formula(
    segments: Tensor, kv_heads: int, value_size: int
) -> None:
    query, key, value = random_inputs(2, 11, 11, kv_heads)
    inputs = [query, key, value[..., :value_size].detach()]
    assert has_varlen("cpu", torch.float32, SIZE)
    fast = with_gradients(attention, inputs, document_starts(segments, segments.numel()))
    padding_as_a_document = segments.masked_fill(segments == 0, 9)
    mask = document_mask(padding_as_a_document, torch.float32)
    plain = with_gradients(attention_reference, inputs, mask)
    assert len(fast) == 4
    for ours, truth in zip(fast, plain, strict=True):
        torch.testing.assert_close(ours, truth, atol=2e-6, rtol=1e-5)


def test_documents_one_by_one_obey_the_scale_and_take_any_gradient() -> None:
    inputs = [x.detach() for x in random_inputs(2, 11, 11, 2)]
    segments = rows_of([5, 6], [11])
    results = []
    for function, mask in (
        (attention, document_starts(segments)),
        (attention_reference, document_mask(segments, torch.float32)),
    ):
        leaves = [x.clone().requires_grad_() for x in inputs]
        output = function(*leaves, mask, 0.9)
        output.sum().backward()  # its gradient is one number, expanded
        results.append([output.detach(), *(x.grad for x in leaves)])
    torch.testing.assert_close(results[0], results[1], atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_documents_one_by_one_in_half_precision(dtype: torch.dtype) -> None:
    segments = rows_of([5, 6], [2, 9])
    inputs = [x.detach().to(dtype) for x in random_inputs(2, 11, 11, 2)]
    wide = [x.float() for x in inputs]
    fast = with_gradients(attention, inputs, document_starts(segments))
    plain = with_gradients(attention_reference, wide, document_mask(segments, torch.float32))
    assert fast[0].dtype == dtype
    for ours, truth in zip(fast, plain, strict=True):
        torch.testing.assert_close(ours.float(), truth, atol=0.05, rtol=0.02)


def test_documents_one_by_one_are_an_operator_that_compilers_can_take() -> None:
    """Shapes, aliases and gradients as PyTorch demands; with checkpointing too."""
    query, key, value = (x.detach().flatten(0, 1) for x in random_inputs(2, 11, 11, 2))
    starts = document_starts(rows_of([5, 6], [2, 9]), 4)
    leaves = [x.requires_grad_() for x in (query, key, value)]
    torch.library.opcheck(torch.ops.miao.attend_documents, (*leaves, starts, 0.3))
    gradients = []
    for recompute in (False, True):
        for leaf in leaves:
            leaf.grad = None
        if recompute:
            output = checkpoint(document_attention, *leaves, starts, None, use_reentrant=False)
        else:
            output = document_attention(*leaves, starts, None)
        output.square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_only_types_that_the_kernel_knows() -> None:
    assert not has_document_attention(torch.float64)
    assert not has_varlen("cpu", torch.float64, SIZE) and not has_varlen("mps", torch.float32, 64)


def test_many_threads_have_too_few_heads_to_share(monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_document_attention(torch.float32)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert not has_document_attention(torch.float32)


def test_the_kernel_for_many_lengths_is_called_as_it_wants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It runs on NVIDIA cards only; here the formula stands in for it."""
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_by_formula)
    starts = document_starts(rows_of([5, 6], [2, 9]))
    inputs = [x.detach().flatten(0, 1) for x in random_inputs(2, 11, 11, 2)]
    found = varlen_kernel(*inputs, starts, 11, None)
    torch.testing.assert_close(found, document_attention(*inputs, starts, None))


@pytest.mark.skipif(
    not (torch.cuda.is_available() and has_varlen("cuda", torch.bfloat16, SIZE)),
    reason="needs an NVIDIA card since Ampere",
)
def test_the_kernel_equals_the_masked_attention() -> None:
    segments = torch.tensor(SEGMENTS)
    inputs = [x.detach().bfloat16() for x in random_inputs(2, 11, 11, 2, "cuda")]
    varlen = with_gradients(attention, inputs, document_starts(segments).cuda())
    masked = with_gradients(attention, inputs, document_mask(segments.cuda(), torch.bfloat16))
    real = segments > 0
    torch.testing.assert_close(varlen[0][real], masked[0][real], atol=2e-2, rtol=2e-2)
