"""Estimates: every term against the tensors that the code itself keeps, and one case by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from miao.model import Decoder, ModelConfig, count_parameters
from miao.model import layers as model_layers
from miao.model.estimate import (
    GIB,
    GPUS,
    MICRO_TOKENS,
    USABLE,
    activation_bytes_per_token,
    checkpointing_pays,
    estimate_lines,
    estimate_training,
    fitting_micro_batch,
    gib,
    long_time,
    serving_memory,
    training_memory,
)
from miao.model.presets import PRESETS, preset
from miao.ops.norm import _RMSNorm
from miao.recipe import parse_quantity
from miao.recipe.reading import load_recipe
from miao.train import gradients
from miao.train.optim import MuonAdamW
from tests.model.shapes import EXPERTS, KINDS, LATENT, SIGMOID

WIDE: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 160,
    "max_position_embeddings": 64,
}
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "llama": {"qk_norm": False},
    "wider heads": {"head_dim": 24, "num_key_value_heads": 4},
    "latent": LATENT | {"qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16},
    "latent, long values": LATENT
    | {"q_lora_rank": None, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 16},
    "experts": EXPERTS | {"moe_intermediate_size": 48},
    "latent experts": LATENT | SIGMOID | {"moe_intermediate_size": 48},
}


def kept_bytes(config: ModelConfig, rows: int, length: int) -> int:
    """Bytes of activations that autograd keeps in one training pass over the backbone."""
    model = Decoder(config)
    model.initialize(0)
    model.train()
    model.set_compute_dtype(torch.bfloat16)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    # The casts of matrices have the shape of a weight, or of its transpose.
    matrices = {tuple(p.shape[-2:]) for p in model.parameters() if p.ndim >= 2}
    matrices |= {(b, a) for a, b in matrices}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        is_cast = tuple(tensor.shape[-2:]) in matrices and (tensor.ndim == 2 or tensor.shape[0] < 8)
        if tensor.untyped_storage().data_ptr() not in weights and not is_cast:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.randint(config.vocab_size, (rows, length))
    positions = torch.arange(length).expand_as(ids)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model.forward(ids, positions, None, None)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("shape", list(SHAPES))
def test_activations_are_what_autograd_keeps(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A GPU's norm keeps its input; so does this one (an eager CPU would keep more in bfloat16).
    monkeypatch.setattr(model_layers, "rms_norm", lambda x, w, eps: _RMSNorm.apply(x, w, eps))
    config = ModelConfig(**WIDE | SHAPES[shape])
    tokens = 9 * 53
    expected = activation_bytes_per_token(config) * tokens
    found = kept_bytes(config, 9, 53)
    # Not counted: the final norm's input, softmax sums, angles, the router's choices.
    small = 2 * config.hidden_size + config.num_hidden_layers * (112 if config.num_experts else 56)
    assert expected <= found <= expected + small * tokens


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("muon", [True, False])
def test_states_are_what_the_optimizer_keeps(
    make_model: Callable[..., Decoder], kind: str, muon: bool
) -> None:
    model = make_model(**KINDS[kind])
    optimizer = MuonAdamW(list(model.named_parameters()), 1e-3, 1e-2 if muon else 0.0)
    buffers = {"muon": 1, "adamw": 2, "adamw_vectors": 2}
    expected = sum(
        4 * buffers[group["kind"]] * parameter.numel()
        for group in optimizer.param_groups
        for parameter in group["params"]
    )
    memory = training_memory(model.config, 1, 8, muon)
    assert memory.optimizer == expected
    assert memory.weights == memory.gradients == 4 * sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("muon", [True, False])
def test_states_after_a_real_step(make_model: Callable[..., Decoder], muon: bool) -> None:
    model = make_model()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer = MuonAdamW(list(model.named_parameters()), 1e-3, 1e-2 if muon else 0.0)
    optimizer.step()
    held = sum(tensor.nbytes for tensor in optimizer.state_tensors().values())
    assert training_memory(model.config, 1, 8, muon).optimizer == held


@pytest.mark.parametrize("name", PRESETS)
def test_the_largest_stack_of_muon(name: str) -> None:
    """With a tiny batch the optimizer step, or the gradients arriving, is the worst moment."""
    config = preset(name).config
    with torch.device("meta"):
        model = Decoder(config)
    stacks: dict[torch.Size, int] = {}
    for key, parameter in model.named_parameters():
        if parameter.ndim >= 2 and ".layers." in key and not key.endswith("mlp.gate.weight"):
            stacks[parameter.shape] = stacks.get(parameter.shape, 0) + parameter.numel()
    blocks = sum(stacks.values())
    passing = 2 * blocks + 6 * config.vocab_size * config.hidden_size
    work = training_memory(config, 1, 1).work
    worst = max(14 * max(stacks.values()), 4 * count_parameters(config).total, passing)
    assert work == pytest.approx(worst, rel=0.01)


def test_the_constants_are_the_training_loop_s() -> None:
    assert gradients.GPU_MICRO_TOKENS == MICRO_TOKENS


def test_bitbrain_by_hand() -> None:
    config = preset("bitbrain-0.6b").config
    tokens = 2 * 2048
    blocks = 28 * (1024 * 128 * (16 + 8 + 8) + 128 * 16 * 1024 + 3 * 1024 * 3072)
    head = 151_936 * 1024
    assert activation_bytes_per_token(config) == 28 * 2 * (
        4 * 1024 + (2048 + 2048 + 2048) + (1024 + 1024 + 1024) + 4 * 3072
    )
    memory = training_memory(config, 2, 2048)
    assert memory.weights == 4 * 596_049_920
    assert memory.optimizer == 4 * blocks + 8 * (596_049_920 - blocks)
    activations = activation_bytes_per_token(config) * tokens * 29 / 28
    chunk = 2**29 // 151_936  # 3,533 of the 4,096 tokens, so a second chunk follows the first
    loss = (8 + 6) * 151_936 * chunk + 6 * head + 6 * 1024 * tokens
    assert memory.work == pytest.approx(2 * blocks + activations + 2 * tokens * 2048 + loss)
    assert serving_memory(config, 4096) == 2 * 596_049_920 + 4096 * 28 * 2 * 8 * 128 * 2
    block = activation_bytes_per_token(config) * tokens / 28
    inputs = 28 * 2 * 1024 * tokens  # of every block, and all of one block and its gradients
    again = training_memory(config, 2, 2048, recompute=True)
    assert memory.work - again.work == pytest.approx(27 * block - inputs)
    flops = 6 * (blocks + head) + 6 * 28 * 16 * (128 + 128) * 2048 / 2
    card = GPUS[1]
    estimate = estimate_training(config, card, 9e9, 2048, 524288)
    assert estimate.mfu == pytest.approx(estimate.tokens_per_second * flops / card.flops)
    assert estimate.hours == pytest.approx(9e9 / estimate.tokens_per_second / 3600)
    assert 0.2 < estimate.mfu < 0.5 and estimate.limit == "compute"


@pytest.mark.parametrize("name", PRESETS)
def test_the_micro_batch_is_the_largest_halving_that_fits(name: str) -> None:
    entry = preset(name)
    config, rows = entry.config, entry.batch_tokens // entry.seq_len
    room = {gpu.name: USABLE * gpu.gib * GIB for gpu in GPUS}
    for gpu in GPUS:
        found = fitting_micro_batch(config, gpu.gib, entry.seq_len, rows)
        first = min(rows, MICRO_TOKENS // entry.seq_len)
        if found is None:
            assert training_memory(config, 1, entry.seq_len).total > room[gpu.name]
            continue
        assert training_memory(config, found, entry.seq_len).total <= room[gpu.name]
        if found < first:
            assert training_memory(config, 2 * found, entry.seq_len).total > room[gpu.name]
    assert fitting_micro_batch(config, 1, entry.seq_len, rows) is None or name == "26m"


@pytest.mark.parametrize(("name", "size"), [("26m", 4), ("64m", 8), ("64m-head128", 8)])
def test_small_cards(name: str, size: int) -> None:
    """Every stage of these recipes fits; computed, not run on a GPU."""
    path = Path(__file__).parents[2] / "miao" / "recipes" / f"{name}.yaml"
    recipe = load_recipe(path)
    config = preset(name).config
    for options in (recipe.pretrain, recipe.sft, recipe.dpo):
        rows = int(parse_quantity(options.batch_tokens, "batch_tokens")) // options.seq_len
        muon = options.muon_learning_rate > 0
        found = fitting_micro_batch(config, size, options.seq_len, rows, muon)
        assert found is not None and found * options.seq_len >= 8192, "and it is no crawl"
        if options is recipe.pretrain:
            takes = gib(training_memory(config, found, options.seq_len).total)
            line = f"# With {size} GiB: micro-batch {found}, {takes} (computed, not run on a GPU)."
            assert line in path.read_text(encoding="utf-8")


def test_checkpointing_pays_where_memory_is_short() -> None:
    config = preset("bitbrain-0.6b").config
    large = next(gpu for gpu in GPUS if gpu.name == "H100 80 GB")
    assert not checkpointing_pays(config, large, 2048, 524288)
    one_row = training_memory(config, 1, 2048).total
    tight = replace(large, gib=1.05 * one_row / GIB)  # 90 % of which are used
    assert fitting_micro_batch(config, tight.gib, 2048, 256) is None
    assert checkpointing_pays(config, tight, 2048, 524288)
    assert not checkpointing_pays(config, replace(large, gib=1.0), 2048, 524288), "nothing helps"


def test_more_never_takes_less() -> None:
    config = preset("64m").config
    totals = [training_memory(config, rows, 512).total for rows in (1, 2, 8, 32, 64, 128)]
    assert totals == sorted(totals)
    assert training_memory(config, 8, 512, muon=False).optimizer > (
        training_memory(config, 8, 512).optimizer
    )
    assert training_memory(config, 8, 512, recompute=True).work < (
        training_memory(config, 8, 512).work
    )
    assert training_memory(config, 8, 512, number=4).work > training_memory(config, 8, 512).work
    assert serving_memory(config, 1024, 8) > serving_memory(config, 1024)


def test_words() -> None:
    assert (gib(640 * 2**20), gib(1.25 * GIB), gib(200 * GIB)) == ("640 MiB", "1.2 GiB", "200 GiB")
    assert [long_time(hours) for hours in (0.004, 0.0167, 0.4, 3.4, 100)] == [
        "< 1 min",
        "1 min",
        "24 min",
        "3.4 h",
        "4.2 d",
    ]
    lines = estimate_lines(
        preset("104m").config, 2e9, 512, 262144, [replace(GPUS[0], gib=0.1), GPUS[0]]
    )
    assert "too small" in lines[0] and "micro-batch" in lines[1]


def test_it_needs_no_tensor_library() -> None:
    """The arithmetic itself imports neither torch nor numpy."""
    source = Path(__file__).parents[2] / "miao" / "model" / "estimate.py"
    assert "import torch" not in source.read_text(encoding="utf-8")
