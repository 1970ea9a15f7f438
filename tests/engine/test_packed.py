"""Packed weights against their twin, the decoder itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from miao.engine import Request, Runner, SamplingOptions, Scheduler
from miao.engine.packed import Int8Linear, PackedDecoder
from miao.engine.runner import Piece
from miao.errors import MiaoError
from miao.model import Decoder
from tests.engine.pieces import EXPERTS, LATENT, PIECES, PLAIN_KINDS

Make = Callable[..., Decoder]
KINDS = PLAIN_KINDS | {"experts": EXPERTS, "latent": LATENT}


def int8_works() -> bool:
    try:
        Int8Linear(torch.zeros(4, 4))
    except MiaoError:
        return False
    return True


NEEDS_INT8 = pytest.mark.skipif(not int8_works(), reason="no int8 kernel on this machine")


@pytest.mark.parametrize("consume", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_equal_those_of_the_decoder(make_model: Make, kind: str, consume: bool) -> None:
    theirs = Runner(make_model(**KINDS[kind]), 3, 16)
    ours = Runner(PackedDecoder(make_model(**KINDS[kind]), consume=consume), 3, 16)
    for pieces in PIECES:
        torch.testing.assert_close(ours(pieces), theirs(pieces), atol=2e-5, rtol=1e-5)


@NEEDS_INT8
@pytest.mark.parametrize("kind", ["qk_norm", "bias", "experts"])
def test_int8_is_near(make_model: Make, kind: str) -> None:
    theirs = Runner(make_model(**KINDS[kind]), 3, 16)
    ours = Runner(PackedDecoder(make_model(**KINDS[kind]), "int8"), 3, 16)
    for pieces in PIECES[:2]:
        expected, found = theirs(pieces), ours(pieces)
        error = (found - expected).norm() / expected.norm()
        assert 1e-6 < error < 0.05


def test_bf16_is_near(make_model: Make) -> None:
    theirs, ours = Runner(make_model(), 3, 16), Runner(PackedDecoder(make_model(), "bf16"), 3, 16)
    assert ours.cache.keys.dtype == torch.bfloat16
    for pieces in PIECES[:2]:
        expected, found = theirs(pieces), ours(pieces)
        assert (found - expected).norm() / expected.norm() < 0.05


@NEEDS_INT8
def test_an_int8_product_by_hand() -> None:
    """Only the weights are rounded: with those rounded, the product is exact to 14 bits."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(40, 70, generator=generator)
    bias = torch.randn(40, generator=generator)
    x = torch.randn(6, 70, generator=generator) * torch.tensor([[1e-3], [1], [50], [1], [7], [0]])
    scale = weight.abs().amax(1, keepdim=True) / 127
    rounded = (weight / scale).round() * scale
    found = Int8Linear(weight, bias)(x)
    expected = x.double() @ rounded.double().T + bias
    error = (found - expected).abs().amax(1) / (x.abs().amax(1) + 1e-9)
    assert float(error[:5].max()) < 2e-3 * 70**0.5
    assert torch.equal(found[5], bias), "zeros stay zeros"


@NEEDS_INT8
def test_an_int8_row_does_not_depend_on_its_company() -> None:
    generator = torch.Generator().manual_seed(2)
    product = Int8Linear(torch.randn(64, 96, generator=generator))
    x = torch.randn(9, 96, generator=generator) * torch.logspace(-3, 3, 9)[:, None]
    together = product(x)
    for row in range(9):
        assert torch.equal(product(x[row : row + 1])[0], together[row])


def test_it_generates_what_the_decoder_generates(make_model: Make) -> None:
    answers = []
    for model in (make_model(), PackedDecoder(make_model(), consume=True)):
        scheduler = Scheduler(Runner(model, 3, 64), frozenset())
        prompts = [[n, 5, 6, 7] for n in range(6)]
        requests = [Request(prompt, SamplingOptions(max_new_tokens=20)) for prompt in prompts]
        for request in requests:
            scheduler.submit(request)
        while scheduler.has_work:
            scheduler.step()
        answers.append([request.answer for request in requests])
    assert answers[0] == answers[1]


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["plain", "latent", "experts"])
def test_packed_weights_follow_the_decoder_at_their_places(
    make_model: Callable[..., Decoder], kind: str, weights: Any
) -> None:
    """As CUDA graphs want it, which know addresses: after a step of training the same runner reads
    what a new one would."""
    changes = {"plain": {"qk_norm": True}, "latent": LATENT, "experts": EXPERTS}[kind]
    model = make_model(**changes)
    packed = PackedDecoder(model, weights)
    runner = Runner(packed, 2, 16)
    piece = [Piece(0, [1, 2, 3, 4], 0)]
    before = runner(piece)
    places = [tensor.data_ptr() for tensor, _ in packed._copies]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    packed.follow()
    after, new = runner(piece), Runner(PackedDecoder(model, weights), 2, 16)(piece)
    assert torch.equal(after, new) and not torch.allclose(after, before, atol=1e-2)
    assert places == [tensor.data_ptr() for tensor, _ in packed._copies]
