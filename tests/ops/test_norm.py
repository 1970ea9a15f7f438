"""RMS norm with its hand-written gradient, against the formula in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from miao.ops.norm import rms_norm, rms_norm_reference

SIZE = 12


def formula(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def random(shape: tuple[int, ...], scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """x, weight, and what the output is multiplied with before it is summed."""
    generator = torch.Generator().manual_seed(2)
    x = scale * torch.randn(shape, generator=generator)
    weight = 1 + torch.randn(shape[-1], generator=generator)
    return x, weight, torch.randn(shape, generator=generator)


@pytest.mark.parametrize("shape", [(1, SIZE), (3, 5, SIZE), (2, 7, 4, SIZE)])
@pytest.mark.parametrize(("scale", "eps"), [(1.0, 1e-6), (1e-3, 1e-5), (100.0, 1e-6), (1.0, 0.5)])
def test_equals_the_formula_forward_and_backward(
    shape: tuple[int, ...], scale: float, eps: float, device: torch.device
) -> None:
    x, weight, upstream = random(shape, scale)
    truth = [t.double().requires_grad_() for t in (x, weight)]
    expected = formula(truth[0], truth[1], eps)
    (expected * upstream.double()).sum().backward()
    for function in (rms_norm, rms_norm_reference):
        ours = [t.to(device).clone().requires_grad_() for t in (x, weight)]
        output = function(ours[0], ours[1], eps)
        (output * upstream.to(device)).sum().backward()
        torch.testing.assert_close(output.cpu().double(), expected, atol=1e-5, rtol=1e-5)
        for value, true in zip(ours, truth, strict=True):
            assert value.grad is not None and true.grad is not None
            error = (value.grad.cpu().double() - true.grad).abs().max()
            assert float(error) < 1e-5 * max(1.0, float(true.grad.abs().max()))


def test_inputs_stay_as_they_are_and_need_not_be_contiguous() -> None:
    x, weight, upstream = random((3, 5, 2 * SIZE))
    part, upstream = x[..., SIZE:], upstream[..., :SIZE]
    assert not part.is_contiguous()
    copies = [t.clone() for t in (x, weight[:SIZE], upstream)]
    ours = [t.detach().requires_grad_() for t in (part, weight[:SIZE])]
    torch.autograd.backward(rms_norm(ours[0], ours[1], 1e-6), upstream)
    truth = [t.detach().clone().requires_grad_() for t in (part, weight[:SIZE])]
    torch.autograd.backward(rms_norm_reference(truth[0], truth[1], 1e-6), upstream)
    for value, true in zip(ours, truth, strict=True):
        torch.testing.assert_close(value.grad, true.grad, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip((x, weight[:SIZE], upstream), copies, strict=True))


def test_a_row_of_zeros_gives_zeros_and_finite_gradients() -> None:
    x = torch.zeros(2, SIZE, requires_grad=True)
    weight = torch.ones(SIZE, requires_grad=True)
    output = rms_norm(x, weight, 1e-6)
    output.sum().backward()
    assert not output.any()
    assert x.grad is not None and torch.allclose(x.grad, torch.full_like(x, 1000.0))
    assert weight.grad is not None and not weight.grad.any()


def test_bfloat16_keeps_its_type_and_sums_in_float32() -> None:
    x, weight, _ = random((50, 512))
    output = rms_norm(x.bfloat16(), weight, 1e-6)
    assert output.dtype == torch.bfloat16
    truth = formula(x.bfloat16().float(), weight.bfloat16().float(), 1e-6)
    torch.testing.assert_close(output.float(), truth, atol=0, rtol=0.01)


def test_frozen_weights_or_inputs_are_allowed() -> None:
    x, weight, _ = random((3, SIZE))
    for number in range(2):
        inputs = [x.clone(), weight.clone()]
        inputs[number].requires_grad_()
        rms_norm(inputs[0], inputs[1], 1e-6).sum().backward()
        assert inputs[number].grad is not None and inputs[1 - number].grad is None
