"""Recomputing blocks in the backward pass changes memory, and nothing else: not one bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from miao.model import Decoder
from tests.model.shapes import KINDS

Make = Callable[..., Decoder]
LENGTH = 24


def trained(model: Decoder, dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
    """Loss, gradients and expert loads of one pass over two packed rows."""
    model.train()
    model.set_compute_dtype(dtype)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(model.config.vocab_size, (2, LENGTH), generator=generator)
    segments = torch.tensor([[1] * 9 + [2] * 15, [1] * 20 + [0] * 4])
    positions = torch.cat((torch.arange(9), torch.arange(15), torch.arange(20), torch.zeros(4)))
    loss = model(ids, positions.long().view(2, -1), segments, labels_bt=ids, output="loss")
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), gradients, [m.take_load() for m in model.mixtures().values()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", list(KINDS))
def test_the_same_gradients_to_the_bit(make_model: Make, kind: str, dtype: torch.dtype) -> None:
    plain, recomputing = make_model(**KINDS[kind]), make_model(**KINDS[kind])
    recomputing.set_activation_checkpointing(True)
    loss, gradients, loads = trained(plain, dtype)
    again, gradients_again, loads_again = trained(recomputing, dtype)
    assert torch.equal(loss, again)
    assert gradients.keys() == gradients_again.keys() == dict(plain.named_parameters()).keys()
    for name, gradient in gradients.items():
        assert torch.equal(gradient, gradients_again[name]), name
    for load, load_again in zip(loads, loads_again, strict=True):
        assert load.sum() == 44 * plain.config.num_experts_per_tok
        assert torch.equal(load, load_again), "tokens counted twice"


def test_what_is_wanted_of_the_last_block_stays_wanted(make_model: Make) -> None:
    model = make_model().train()
    wanted, found = torch.tensor([3, 9]), []
    for recomputing in (False, True):
        model.set_activation_checkpointing(recomputing)
        found.append(model(torch.arange(12)[None], wanted_n=wanted, output="hidden"))
    assert found[1].shape[:2] == (1, 2) and torch.equal(*found)


def test_the_same_when_compiled(make_model: Make) -> None:
    """Traced, differentiated and cut in two as ever, but without generating code; against the
    decoder as it is written. A plain block, and one of latent attention and experts."""
    shape = KINDS["latent experts"] | {"num_hidden_layers": 2}
    plain, recomputing = make_model(**shape), make_model(**shape)
    recomputing.set_activation_checkpointing(True)
    recomputing.model.compile(dynamic=False, backend="aot_eager_decomp_partition")
    loss, gradients, loads = trained(plain, torch.float32)
    again, gradients_again, loads_again = trained(recomputing, torch.float32)
    assert torch.allclose(loss, again, rtol=1e-3)
    assert gradients.keys() == gradients_again.keys()
    for name, gradient in gradients.items():  # decomposed, and so rounded, differently
        assert (gradient - gradients_again[name]).norm() <= 1e-4 * gradient.norm(), name
    assert len(loads) == 1 and torch.equal(loads[0], loads_again[0]), "tokens counted twice"


def kept_bytes(model: Decoder) -> int:
    """Bytes of activations that one training pass leaves for the backward pass."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.arange(LENGTH).expand(2, -1)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.train()(ids, output="hidden")
    return sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in own)


def test_it_keeps_less_and_only_while_training(make_model: Make) -> None:
    plain, recomputing = make_model(num_hidden_layers=6), make_model(num_hidden_layers=6)
    recomputing.set_activation_checkpointing(True)
    assert kept_bytes(recomputing) < kept_bytes(plain) / 3
    ids = torch.arange(LENGTH)[None]
    with torch.no_grad():
        assert torch.equal(plain.eval()(ids), recomputing.eval()(ids))
