"""Our decoder against transformers' classes, and directories in both directions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from miao.model import Decoder, count_parameters, load_model, native_architecture, save_model
from miao.ops.head_chunks import IGNORE
from tests.model.shapes import EXPERTS, LATENT, SIGMOID

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"qk_norm": False},
    "qwen2": {"qk_norm": False, "attention_bias": True, "head_dim": 8},  # Qwen2's is hidden / heads
    "qwen3": {"qk_norm": True},
    "qwen3_moe": {"qk_norm": True} | EXPERTS,
    "dots1": {"qk_norm": True} | SIGMOID,
    "deepseek_v3": LATENT | SIGMOID,
    "deepseek_v3 dense": LATENT,
    "deepseek_v3 without query latent": LATENT | {"q_lora_rank": None},
}
TIES = pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
KINDS = pytest.mark.parametrize("kind", list(ARCHITECTURES))
Make = Callable[..., Decoder]


def ids_bt(rows: int = 3, length: int = 21) -> Tensor:
    return torch.randint(97, (rows, length), generator=torch.Generator().manual_seed(7))


def with_joined_experts(ours: dict[str, Any]) -> dict[str, Any]:
    """transformers 5 holds the experts' gate and up matrices as one."""
    gates = [name for name in ours if name.endswith("experts.gate_proj")]
    for gate in gates:
        up = gate.replace("gate_proj", "up_proj")
        joined = torch.cat((ours.pop(gate), ours.pop(up)), dim=1)
        ours[gate.replace("gate_proj", "gate_up_proj")] = joined
    return ours


def theirs(directory: Path) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    return model.eval()


def assert_close(ours: Tensor, truth: Tensor) -> None:
    assert float(truth.detach().abs().max()) > 0.1, "both are nearly zero: nothing is compared"
    largest = max(1.0, float(truth.detach().abs().max()))
    assert float((ours - truth).detach().abs().max()) < 1e-5 * largest


@KINDS
@TIES
@pytest.mark.parametrize("theta", [10_000.0, 1_000_000.0])
def test_a_saved_model_gives_the_same_logits_in_transformers(
    make_model: Make, tmp_path: Path, kind: str, tied: bool, theta: float
) -> None:
    changes = {"rms_norm_eps": 1e-5, "rope_theta": theta, "tie_word_embeddings": tied}
    model = make_model(**ARCHITECTURES[kind], **changes)
    save_model(model, tmp_path)
    other = theirs(tmp_path)
    assert other.config.model_type == kind.split()[0]
    assert other.config.architectures == [type(other).__name__]
    with torch.no_grad():
        assert_close(model(ids_bt()), other(ids_bt()).logits)
    assert sum(p.numel() for p in other.parameters()) == count_parameters(model.config).total


@KINDS
@TIES
def test_a_transformers_model_gives_the_same_logits_here(
    make_model: Make, tmp_path: Path, kind: str, tied: bool
) -> None:
    """Their own `save_pretrained`, of a config that they filled in."""
    save_model(make_model(**ARCHITECTURES[kind], tie_word_embeddings=tied), tmp_path / "seed")
    other = theirs(tmp_path / "seed")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    other.save_pretrained(tmp_path / "theirs")
    model = load_model(tmp_path / "theirs")
    assert native_architecture(model.config) == kind.split()[0]
    assert not model.training
    with torch.no_grad():
        assert_close(model(ids_bt()), other(ids_bt()).logits)


@KINDS
def test_loss_and_every_gradient_equal_transformers(
    make_model: Make, tmp_path: Path, kind: str
) -> None:
    model = make_model(**ARCHITECTURES[kind], router_aux_loss_coef=0.0).train()
    save_model(model, tmp_path)
    other = theirs(tmp_path).train()
    ids = ids_bt()
    labels = ids.clone()
    labels[:, :5] = IGNORE
    loss = model(ids[:, :-1], labels_bt=labels[:, 1:], output="loss")
    mean = loss / (labels[:, 1:] != IGNORE).sum()
    mean.backward()
    expected = other(ids, labels=labels).loss
    expected.backward()
    assert mean.item() == pytest.approx(expected.item(), abs=1e-5)
    gradients = {name: p.grad for name, p in other.named_parameters()}
    ours = with_joined_experts({name: p.grad for name, p in model.named_parameters()})
    assert set(ours) == set(gradients)
    for name, gradient in ours.items():
        truth = gradients[name]
        assert gradient is not None and truth is not None, name
        assert float((gradient - truth).abs().max()) < 1e-5 * max(1.0, float(truth.abs().max()))
        assert float(truth.abs().max()) > 0, name


def test_packed_rows_equal_transformers_on_separate_documents(
    make_model: Make, tmp_path: Path
) -> None:
    model = make_model()
    save_model(model, tmp_path)
    other = theirs(tmp_path)
    documents = [ids_bt(1, length) for length in (3, 9, 1, 6)]
    segments = torch.tensor([[n for n, d in enumerate(documents, 1) for _ in d[0]] + [0] * 4])
    positions = torch.tensor([[t for d in documents for t in range(d.shape[1])] + [0] * 4])
    row = torch.cat([*documents, torch.zeros(1, 4, dtype=torch.int64)], dim=1)
    with torch.no_grad():
        logits = model(row, positions, segments)
        separate = torch.cat([other(d).logits for d in documents], dim=1)
    assert bool(logits.isfinite().all())
    assert_close(logits[:, : separate.shape[1]], separate)


def test_sharded_weights_are_read(make_model: Make, tmp_path: Path) -> None:
    save_model(make_model(), tmp_path / "one")
    theirs(tmp_path / "one").save_pretrained(tmp_path / "many", max_shard_size="20KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    with torch.no_grad():
        logits = [load_model(tmp_path / name)(ids_bt()) for name in ("one", "many")]
    assert torch.equal(*logits)


def test_weights_of_half_precision_become_float32(make_model: Make, tmp_path: Path) -> None:
    model = make_model()
    save_model(model, tmp_path, dtype=torch.bfloat16)
    loaded = load_model(tmp_path)
    expected = {name: p.bfloat16().float() for name, p in model.named_parameters()}
    found = dict(loaded.named_parameters())
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert {p.dtype for p in found.values()} == {torch.float32}
    assert theirs(tmp_path).config.dtype == torch.float32  # what from_pretrained was asked for
    assert AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").dtype == torch.bfloat16


def test_bfloat16_compute_stays_close_to_transformers_in_float32(
    make_model: Make, tmp_path: Path
) -> None:
    model = make_model()
    save_model(model, tmp_path)
    model.set_compute_dtype(torch.bfloat16)
    with torch.no_grad():
        ours, truth = model(ids_bt()), theirs(tmp_path)(ids_bt()).logits
    assert ours.dtype == torch.bfloat16
    assert float((ours.float() - truth).norm() / truth.norm()) < 0.03
    assert {p.dtype for p in model.parameters()} == {torch.float32}
