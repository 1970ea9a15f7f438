"""The micro-batch is the largest of the equal passes that fit; tried on a memory of paper."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from miao.model import Decoder, ModelConfig
from miao.model.cache import KVCache
from miao.model.estimate import (
    GIB,
    Extras,
    activation_bytes_per_token,
    fitting_micro_batch,
    training_memory,
)
from miao.model.presets import preset
from miao.recipe import GrpoOptions, PretrainOptions
from miao.recipe.stages import AdapterOptions
from miao.train import microbatch
from miao.train.microbatch import (
    auto_micro_batch,
    cpu_micro_batch,
    extras_of,
    fit_to_memory,
    largest_that_fits,
    rollout_bytes,
    set_activation_checkpointing,
    trial_pass,
    wants_checkpointing,
)
from miao.train.optim import MuonAdamW

Make = Callable[..., Decoder]


class Memory:
    """Room for so many rows; remembers what was tried."""

    def __init__(self, rows: int):
        self.rows, self.tried = rows, list[int]()

    def __call__(self, rows: int) -> bool:
        self.tried.append(rows)
        return rows <= self.rows


@pytest.mark.parametrize(
    ("step", "first", "room", "found"),
    [
        (128, 64, 128, 128),  # more fits than was thought: the whole step
        (128, 64, 64, 64),
        (128, 128, 5, 5),  # 26 passes of 5 (8 does not fit)
        (100, 64, 64, 50),  # two equal passes and not 64 + 36
        (7, 100, 3, 3),  # three passes of 3, 3 and 1
        (128, 1, 40, 32),
        (1, 1, 1, 1),
        (64, 64, 0, 0),  # nothing fits
        (1, 1, 0, 0),
    ],
)
def test_by_hand(step: int, first: int, room: int, found: int) -> None:
    memory = Memory(room)
    assert largest_that_fits(step, first, memory) == found
    assert len(memory.tried) == len(set(memory.tried)), "no size is tried twice"


@given(st.integers(1, 3000), st.integers(-5, 5000), st.integers(0, 4000))
def test_whatever_the_memory(step: int, first: int, room: int) -> None:
    memory = Memory(room)
    found = largest_that_fits(step, first, memory)
    assert len(memory.tried) <= 2 * math.ceil(math.log2(step + 1)) + 4
    if found == 0:
        assert room == 0
        return
    assert found <= room and found in memory.tried
    passes = -(-step // found)
    assert found == -(-step // passes), "passes are equal: no empty rows"
    assert found * 2.01 + 1 >= min(step, room), "not far below what fits"


def test_a_gpu_begins_with_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    config = preset("64m").config
    options = PretrainOptions(seq_len=512, batch_tokens=131072)
    monkeypatch.setattr(microbatch, "memory_bytes", lambda device: (0, 8 * GIB))

    class OnGpu:
        device = torch.device("cuda")
        model = type("Backbone", (), {"activation_checkpointing": False})

    on_gpu: Any = OnGpu()
    on_gpu.config = config
    estimate = fitting_micro_batch(config, 8, 512, 256)
    assert auto_micro_batch(on_gpu, options, 256, None) == estimate == 32
    memory = Memory(48)
    assert auto_micro_batch(on_gpu, options, 256, memory) == 43  # six passes
    assert memory.tried[0] == 32
    assert auto_micro_batch(on_gpu, options, 256, Memory(10**9)) == 128, "65,536 tokens are enough"
    assert auto_micro_batch(on_gpu, options, 256, Memory(0)) == 1, "the loop says it with advice"


def test_on_a_cpu_by_tokens_and_a_quarter_of_the_memory(make_model: Make) -> None:
    config = preset("26m").config
    sizes = [cpu_micro_batch(config, 512, 128, memory=int(gib * 2**30)) for gib in (1, 4, 8, 64)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[1] < sizes[-1] == 16
    taken = sizes[1] * 512 * activation_bytes_per_token(config) * 2
    assert taken <= 2**30, "of 4 GiB"
    assert cpu_micro_batch(config, 512, 128, memory=0) == 16, "unknown: 8,192 tokens"
    assert cpu_micro_batch(config, 512, 18, memory=0) == 9, "two equal passes"
    assert cpu_micro_batch(config, 4096, 3, memory=2**20) == 1, "one row at least"
    options = PretrainOptions(seq_len=32, batch_tokens=320)
    assert auto_micro_batch(make_model(), options, 10, Memory(0)) == 10


def test_a_stage_s_options(make_model: Make) -> None:
    options = PretrainOptions(seq_len=32, batch_tokens=320)
    decided = fit_to_memory("pretrain", options, make_model(), processes=4)
    assert (decided.micro_batch, decided.activation_checkpointing) == (3, "off")
    model = make_model()
    mine = replace(options, micro_batch=2, activation_checkpointing="on")
    assert fit_to_memory("pretrain", mine, model) == mine
    assert model.model.activation_checkpointing


def test_what_grpo_s_answers_keep_is_left_free(
    make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, gpu, bf16 = make_model(), torch.device("cuda"), torch.bfloat16
    options = GrpoOptions(seq_len=30, parallel_answers=8, group_size=3, prompts_per_rollout=2)
    cache = KVCache(
        model.config, 6, 32, torch.float32, model.device
    )  # 6 answers, 30 tokens and their ends
    held = cache.keys.nbytes + cache.values.nbytes
    weights = sum(p.numel() for p in model.parameters())
    assert rollout_bytes(options, model.config, gpu, torch.float32) == held
    assert rollout_bytes(options, model.config, gpu, bf16) == held / 2 + 2 * weights
    assert rollout_bytes(options, model.config, torch.device("cpu"), bf16) == 0
    assert rollout_bytes(PretrainOptions(), model.config, gpu, bf16) == 0
    adapted = replace(options, adapter=AdapterOptions(kind="lora"))
    assert rollout_bytes(adapted, model.config, gpu, bf16) == held / 2
    for name in ("reset_peak_memory_stats", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda device: 0)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(microbatch, "memory_bytes", lambda device: (0, GIB))
    assert trial_pass(model, options)(2)
    assert not trial_pass(model, options, Extras(later=GIB))(2)
    shape = (model.config, 2, 32)
    more = training_memory(*shape, extras=Extras(later=5.0)).total
    assert more == training_memory(*shape).total + 5


def test_a_trial_leaves_nothing_behind(make_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24)
    options = PretrainOptions(seq_len=16, batch_tokens=64)
    peak = 0
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peak)
    monkeypatch.setattr(microbatch, "memory_bytes", lambda device: (0, GIB))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    fits = trial_pass(model, options)
    assert fits(2)
    peak = GIB  # no room is left for the optimizer
    assert not fits(2)

    def out_of_memory(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(model, "forward", out_of_memory)
        assert not fits(2)
    assert all(p.grad is None for p in model.parameters()) and not model.training
    assert torch.equal(torch.get_rng_state(), random)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(float(m.load.sum()) == 0 for m in model.mixtures().values())


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_an_adapter_s_optimizer_and_a_teacher_are_counted(make_model: Make, kind: str) -> None:
    """Against the tensors that training really keeps."""
    pytest.importorskip("peft")
    from miao.train.adapters import adapter_size, add_adapter

    model, teacher = make_model(), make_model(1, hidden_size=48)
    whole = training_memory(model.config, 1, 32)
    assert extras_of(model) == Extras()
    adapter = AdapterOptions(kind, rank=3, targets=["q_proj", "down_proj"])  # type: ignore[arg-type]
    size = adapter_size(model, adapter)
    add_adapter(model, adapter, Path("base"), seed=0)
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    assert size == sum(p.numel() for _, p in trained)
    extras = extras_of(model, [teacher])
    found = training_memory(model.config, 1, 32, extras=extras)
    for _, parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    optimizer = MuonAdamW(trained, 1e-3, 0.0)
    optimizer.step()
    assert found.optimizer == sum(t.nbytes for t in optimizer.state_tensors().values())
    assert found.gradients == 4 * size
    assert extras.beside == 4 * sum(p.numel() for p in teacher.parameters())
    assert found.weights == 4 * sum(p.numel() for p in model.parameters()) + extras.beside
    assert found.total - extras.beside < whole.total


def test_more_rows_fit_beside_an_adapter_and_fewer_beside_a_teacher() -> None:
    config = preset("bitbrain-0.6b").config

    def rows(size: float, extras: Extras) -> int:
        return fitting_micro_batch(config, size, 2048, 256, extras=extras) or 0

    assert 0 < rows(24, Extras()) < rows(24, Extras(adapter=10**7))
    assert 0 < rows(48, Extras(beside=16 * GIB)) < rows(48, Extras())


def test_checkpointing_when_memory_asks_for_it(
    make_model: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config: ModelConfig = preset("bitbrain-0.6b").config
    options = PretrainOptions(seq_len=2048, batch_tokens=524288)
    plain, least = (
        training_memory(config, 1, 2048, recompute=recompute).total for recompute in (False, True)
    )
    cpu = torch.device("cpu")
    for memory, wanted in ((2 * plain, False), (1.05 * plain, True), (0.5 * least, False)):
        monkeypatch.setattr(microbatch, "memory_bytes", lambda device, m=memory: (0, int(m)))
        assert wants_checkpointing("pretrain", options, config, cpu) is wanted
    said = capsys.readouterr().out
    assert said.count("activation checkpointing is on") == 1
    assert said.count("a single row takes about") == 1
    model = make_model()
    for option, wanted in (("on", True), ("off", False)):
        chosen = replace(options, activation_checkpointing=option)
        assert set_activation_checkpointing("pretrain", chosen, model) is wanted
        assert model.model.activation_checkpointing is wanted
    monkeypatch.setattr(microbatch, "memory_bytes", lambda device: (0, 0))  # nobody knows
    assert not wants_checkpointing("pretrain", options, config, cpu)
