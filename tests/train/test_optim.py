"""MuonAdamW against torch's Muon and AdamW, and the schedules against golden values."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim._muon import _zeropower_via_newtonschulz
from torch.utils.flop_counter import FlopCounterMode

from miao.model import Decoder, count_parameters
from miao.model.counts import muon_flops
from miao.recipe.schedule import Schedule, learning_rate_factor
from miao.train import muon, optim
from miao.train.gram import pays_by_gram
from miao.train.muon import Orthogonalizer, newton_schulz
from miao.train.optim import MuonAdamW
from tests.model.shapes import KINDS

# Tall, wide and square, two of them of one shape; the last three are AdamW's.
SHAPES = {
    "model.layers.0.mlp.up_proj.weight": (24, 16),
    "model.layers.1.mlp.up_proj.weight": (24, 16),
    "model.layers.0.mlp.down_proj.weight": (16, 24),
    "model.layers.0.self_attn.q_proj.weight": (16, 16),
    "model.embed_tokens.weight": (30, 16),
    "lm_head.weight": (30, 16),
    "model.layers.0.input_layernorm.weight": (16,),
    "model.layers.0.self_attn.q_proj.bias": (16,),
}
LR, MUON_LR, DECAY = 3e-3, 2e-2, 0.1
FACTORS = [0.1, 0.5, 1.0, 1.0, 0.7, 0.2, 0.0, 0.3]
Named = list[tuple[str, nn.Parameter]]


def parameters(seed: int = 0) -> Named:
    generator = torch.Generator().manual_seed(seed)
    return [(n, nn.Parameter(torch.randn(s, generator=generator))) for n, s in SHAPES.items()]


def set_gradients(named: Named, step: int) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    for _, parameter in named:
        parameter.grad = torch.randn(parameter.shape, generator=generator) * 10 ** (step % 3 - 1)


def ours(named: Named, muon_lr: float = MUON_LR, **options: Any) -> MuonAdamW:
    return MuonAdamW(named, LR, muon_lr, DECAY, (0.9, 0.95), 0.95, eps=1e-8, **options)


def theirs(named: Named, with_muon: bool) -> list[torch.optim.Optimizer]:
    inside = [p for n, p in named if ".layers." in n and p.ndim == 2]
    muon = inside if with_muon else []
    muon_ids = {id(p) for p in muon}
    matrices = [p for _, p in named if p.ndim == 2 and id(p) not in muon_ids]
    vectors = [p for _, p in named if p.ndim == 1]
    groups = [
        {"params": matrices, "weight_decay": DECAY},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95), eps=1e-8)
    ]
    if muon:
        optimizers.append(
            torch.optim.Muon(muon, lr=MUON_LR, weight_decay=DECAY, momentum=0.95, nesterov=True)
        )
    return optimizers


@pytest.mark.parametrize(
    ("with_muon", "dtype", "tolerance", "fused"),
    [
        (False, torch.bfloat16, 1e-6, optim.FUSED),
        (False, torch.bfloat16, 1e-6, ()),
        (True, torch.float32, 1e-6, optim.FUSED),
        (True, torch.bfloat16, 1e-4, optim.FUSED),
    ],
    ids=["adamw", "adamw, one operation at a time", "muon in float32", "muon in bfloat16"],
)
def test_equals_torch_over_several_steps(
    monkeypatch: pytest.MonkeyPatch,
    with_muon: bool,
    dtype: torch.dtype,
    tolerance: float,
    fused: tuple[str, ...],
) -> None:
    """In bfloat16 a batched and a single product may round apart, so Muon's own arithmetic is
    compared in float32 too."""
    monkeypatch.setattr(optim, "FUSED", fused)
    if dtype == torch.float32:
        monkeypatch.setattr(Tensor, "bfloat16", Tensor.clone)  # torch knows no other type
    mine, other = parameters(), parameters()
    optimizer = ours(mine, MUON_LR if with_muon else 0.0, muon_dtype=dtype)
    others = theirs(other, with_muon)
    peaks = [[group["lr"] for group in o.param_groups] for o in others]
    for step, factor in enumerate(FACTORS):
        set_gradients(mine, step)
        set_gradients(other, step)
        optimizer.set_lr_factor(factor)
        optimizer.step()
        for o, rates in zip(others, peaks, strict=True):
            for group, rate in zip(o.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            o.step()
        for (name, a), (_, b) in zip(mine, other, strict=True):
            assert float((a - b).detach().abs().max()) < tolerance, name
    for (name, a), (_, start) in zip(mine, parameters(), strict=True):
        assert float((a - start).detach().abs().max()) > 1e-3, name


def test_who_goes_where(make_model: Callable[..., Decoder]) -> None:
    model = make_model(tie_word_embeddings=False)
    optimizer = ours(list(model.named_parameters()))
    kinds = {
        optimizer.names[id(p)]: (group["kind"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert set(kinds) == {name for name, _ in model.named_parameters()}
    for name, kind in kinds.items():
        if "norm" in name:
            assert kind == ("adamw_vectors", 0.0), name
        elif name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert kind == ("adamw", DECAY), name
        else:
            assert kind == ("muon", DECAY), name


def test_a_tied_embedding_is_updated_once(make_model: Callable[..., Decoder]) -> None:
    model = make_model()
    optimizer = ours(list(model.named_parameters()))
    found = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(found) == len({id(p) for p in found})
    assert sum(p.numel() for p in found) == count_parameters(model.config).total


@pytest.mark.parametrize("shape", [(8, 8), (24, 16), (16, 24), (64, 4)])
def test_newton_schulz_equals_torch_for_every_matrix_of_a_stack(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(6)
    scales = torch.tensor([1e-3, 1.0, 50.0])[:, None, None]
    stack = torch.randn(3, *shape, generator=generator) * scales
    found = newton_schulz(stack)
    assert found.dtype == torch.bfloat16
    for matrix, update in zip(stack, found, strict=True):
        expected = _zeropower_via_newtonschulz(matrix, (3.4445, -4.7750, 2.0315), 5, 1e-7)
        torch.testing.assert_close(update, expected, atol=0.02, rtol=0.02)
        values = torch.linalg.svdvals(update.float())
        assert float(values.min()) > 0.3 and float(values.max()) < 1.3


@pytest.mark.parametrize("shape", [(5, 12), (12, 5), (8, 16), (6, 6), (1, 9)])
def test_wide_matrices_are_done_on_their_small_side(shape: tuple[int, int]) -> None:
    """In float32; exactly what the step by step iteration gives in float64, also of matrices with
    a rank that is not full."""
    stack = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    stack[0] = torch.outer(stack[0, :, 0], stack[0, 0])
    stack[1] = 0
    assert pays_by_gram(min(shape), max(shape), torch.float32) == (shape != (6, 6))
    assert not pays_by_gram(2, 9, torch.bfloat16)
    found, exact = (newton_schulz(stack, dtype) for dtype in (torch.float32, torch.float64))
    torch.testing.assert_close(found.double(), exact, atol=3e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_muon_takes_the_flops_that_plans_count(
    make_model: Callable[..., Decoder], kind: str, dtype: torch.dtype
) -> None:
    model = make_model(**KINDS[kind])
    optimizer = ours(list(model.named_parameters()), muon_dtype=dtype)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    with FlopCounterMode(display=False) as counter:
        optimizer.step()
    assert counter.get_total_flops() == muon_flops(model.config, dtype == torch.float32)


def test_newton_schulz_keeps_the_singular_vectors() -> None:
    matrix = torch.randn(12, 8, generator=torch.Generator().manual_seed(1))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inner = left.T @ newton_schulz(matrix[None])[0].float() @ right.T
    assert float((inner - inner.diag().diag()).abs().max()) < 0.05
    assert bool((inner.diag() > 0.3).all())


def test_a_zero_gradient_gives_no_nan() -> None:
    assert not newton_schulz(torch.zeros(2, 4, 4)).any()
    named = parameters()
    optimizer = ours(named)
    for _, parameter in named:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert all(bool(p.isfinite().all()) for _, p in named)


@pytest.mark.parametrize("fused", [optim.FUSED, ()])
def test_an_update_that_does_not_count_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, fused: tuple[str, ...]
) -> None:
    monkeypatch.setattr(optim, "FUSED", fused)
    named = parameters()
    optimizer = ours(named)
    kept: list[Tensor] = []
    for counts in (True, False):
        set_gradients(named, 0)
        if not counts:
            for _, parameter in named:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.good = torch.tensor(counts)
        optimizer.step()
        found = [*(p for _, p in named), *optimizer.state_tensors().values()]
        assert counts or all(map(torch.equal, kept, found))
        kept = [t.detach().clone() for t in found]


def test_saved_and_loaded_it_goes_on_to_the_bit() -> None:
    straight = parameters()
    optimizer = ours(straight)
    for step in range(3):
        set_gradients(straight, step)
        optimizer.step()
    content = load(save({name: t.clone() for name, t in optimizer.state_tensors().items()}))
    weights = [p.detach().clone() for _, p in straight]
    resumed = [(n, nn.Parameter(w.clone())) for (n, _), w in zip(straight, weights, strict=True)]
    other = ours(resumed)
    other.load_state_tensors(content, optimizer.num_steps)
    assert other.num_steps == 3
    for step in range(3, 6):
        for named, one in ((straight, optimizer), (resumed, other)):
            set_gradients(named, step)
            one.set_lr_factor(FACTORS[step])
            one.step()
    for (name, a), (_, b) in zip(straight, resumed, strict=True):
        assert torch.equal(a, b), name
    fresh = [(n, nn.Parameter(w.clone())) for (n, _), w in zip(straight, weights, strict=True)]
    without = ours(fresh)
    set_gradients(fresh, 3)
    without.step()
    assert not any(torch.equal(a, b) for (_, a), (_, b) in zip(fresh, resumed, strict=True))


def test_the_saved_state_has_every_buffer_by_name() -> None:
    named = parameters()
    optimizer = ours(named)
    set_gradients(named, 0)
    optimizer.step()
    expected: set[str] = set()
    for name, shape in SHAPES.items():
        muon = ".layers." in name and len(shape) == 2
        buffers = ("momentum",) if muon else ("exp_avg", "exp_avg_sq")
        expected |= {f"{buffer}.{name}" for buffer in buffers}
    tensors = optimizer.state_tensors()
    assert set(tensors) == expected
    assert all(tuple(t.shape) == SHAPES[key.partition(".")[2]] for key, t in tensors.items())


def test_a_parameter_without_gradient_stays() -> None:
    named = parameters()
    optimizer = ours(named)
    set_gradients(named, 0)
    before: dict[str, Tensor] = {name: p.detach().clone() for name, p in named}
    for _, parameter in named[::2]:
        parameter.grad = None
    optimizer.step()
    changed = [not torch.equal(before[name], p) for name, p in named]
    assert changed == [False, True] * 4


@pytest.mark.parametrize(
    ("schedule", "final", "golden"),
    [
        # budget 1000, warm-up 100, decay 400: the rate after 0, 50, 100, 325, 600, 800, 1000
        ("wsd", 0.0, [0.0, 0.5, 1.0, 1.0, 1.0, 0.5, 0.0]),
        ("wsd", 0.1, [0.0, 0.5, 1.0, 1.0, 1.0, 0.55, 0.1]),
        ("linear", 0.0, [0.0, 0.5, 1.0, 0.75, 4 / 9, 2 / 9, 0.0]),
        ("linear", 0.2, [0.0, 0.5, 1.0, 0.8, 5 / 9, 0.2 + 0.8 * 2 / 9, 0.2]),
        ("cosine", 0.0, [0.0, 0.5, 1.0, 0.853553, 0.413176, 0.116978, 0.0]),
        ("cosine", 0.5, [0.0, 0.5, 1.0, 0.926777, 0.706588, 0.558489, 0.5]),
        ("constant", 0.0, [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_schedules(schedule: Schedule, final: float, golden: list[float]) -> None:
    done = [0, 50, 100, 325, 600, 800, 1000]
    found = [learning_rate_factor(schedule, tokens, 1000, 100, 400, final) for tokens in done]
    assert found == pytest.approx(golden, abs=1e-6)


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_the_rate_moves_smoothly_and_within_bounds(schedule: Schedule) -> None:
    rates = [learning_rate_factor(schedule, t, 1000, 100, 400, 0.1) for t in range(1201)]
    assert all(abs(b - a) <= 0.0101 for a, b in pairwise(rates))
    assert all(0 <= rate <= 1 for rate in rates)
    assert rates[1200] == rates[1000] == pytest.approx(1.0 if schedule == "constant" else 0.1)


def test_a_schedule_without_a_shape_is_an_error_not_wsd() -> None:
    with pytest.raises(ValueError, match="no shape for the schedule 'another'"):
        learning_rate_factor("another", 500, 1000, 100, 400, 0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_no_warmup_and_no_decay_are_allowed(schedule: Schedule) -> None:
    assert learning_rate_factor(schedule, 0, 1000, 0, 0, 0.0) == 1.0
    assert learning_rate_factor(schedule, 0, 0, 0, 0, 0.5) <= 1.0
    if schedule == "wsd":
        assert learning_rate_factor(schedule, 999, 1000, 0, 0, 0.0) == 1.0


def test_stacked_experts_are_updated_one_by_one() -> None:
    """[e, rows, columns], tall and wide, equal as many matrices of their own."""
    generator = torch.Generator().manual_seed(5)
    stacks = {"gate_proj": (3, 16, 24), "down_proj": (3, 24, 16), "up_proj": (3, 16, 24)}
    prefix = "model.layers.0.mlp.experts."
    stacked = [
        (prefix + name, nn.Parameter(torch.randn(shape, generator=generator)))
        for name, shape in stacks.items()
    ]
    alone = [
        (f"{name}.{number}", nn.Parameter(part.clone()))
        for name, stack in stacked
        for number, part in enumerate(stack.detach())
    ]
    together, apart = (ours(named, muon_dtype=torch.float32) for named in (stacked, alone))
    for step in range(3):
        set_gradients(stacked, step)
        gradients = [part for _, stack in stacked for part in stack.grad]
        for (_, parameter), gradient in zip(alone, gradients, strict=True):
            parameter.grad = gradient.clone()
        together.step()
        apart.step()
    parts = [part for _, stack in stacked for part in stack.detach()]
    for (name, expected), found in zip(alone, parts, strict=True):
        torch.testing.assert_close(found, expected.detach(), atol=1e-6, rtol=1e-5, msg=name)


def test_routers_go_to_adamw() -> None:
    router = nn.Parameter(torch.ones(4, 8))
    optimizer = ours([("model.layers.0.mlp.gate.weight", router)])
    assert [group["kind"] for group in optimizer.param_groups] == ["adamw"]


def test_newton_schulz_is_compiled_once_for_a_shape_and_given_up_where_that_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[int] = []

    def backend(graph: torch.fx.GraphModule, examples: list[torch.Tensor]) -> object:
        made.append(1)
        return graph.forward

    def broken(graph: torch.fx.GraphModule, examples: list[torch.Tensor]) -> object:
        raise RuntimeError("no room for its files")

    generator = torch.Generator().manual_seed(0)
    shapes = [(1 + n % 3, 4 + n, 6) for n in range(12)]  # more than the compiler's own limit
    for backend_now, graphs in ((backend, len(shapes)), (broken, 0)):
        torch._dynamo.reset()
        step = torch.compile(newton_schulz, dynamic=False, fullgraph=True, backend=backend_now)
        monkeypatch.setattr(muon, "_compiled", lambda step=step: step)
        ours, plain = Orthogonalizer(torch.float32, compiles=True), Orthogonalizer(torch.float32)
        for _ in range(2):
            for count, rows, columns in shapes:
                parts = torch.randn(count, rows, columns, generator=generator)
                found, truth = (o.begin(parts, parts[0].shape)() for o in (ours, plain))
                torch.testing.assert_close(found, truth)
        assert sum(made) == graphs or backend_now is broken
        assert ours.compiles == (backend_now is backend)
    assert capsys.readouterr().out.count("Muon is not compiled") == 1
