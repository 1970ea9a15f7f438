"""The parts of a training step, each against its alternatives: forward and backward, side by side.

    python benchmarks/ops.py                  # on a CPU: sizes of the 27M shape
    python benchmarks/ops.py --device cuda    # sizes of Qwen3-0.6B; Liger-Kernel if installed

Rivals: plain PyTorch in full, `F.linear_cross_entropy`, `F.rms_norm`, SDPA, `torch.compile` of the
plain form, Liger-Kernel (GPUs only). Memory is the most that is allocated beyond the inputs. The
difference is the largest one of the result, and of the input's gradient, from the plain form in
float32, relative to its largest value.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from common import best_and_median, parser_for, report, side_by_side
from material import document_numbers
from torch import Tensor

from miao.device import choose_device, choose_dtype, keep_freed_memory
from miao.ops.attention import attention, attention_reference, document_mask
from miao.ops.experts import experts_swiglu, experts_swiglu_reference
from miao.ops.linear_cross_entropy import linear_cross_entropy, linear_cross_entropy_reference
from miao.ops.norm import rms_norm, rms_norm_reference
from miao.ops.rope import apply_rope, apply_rope_reference, rope_tables
from miao.ops.varlen import document_starts, has_varlen

Variant = Callable[..., Tensor]


@dataclass
class Sizes:
    tokens: int
    hidden: int
    inner: int
    vocab: int
    heads: int
    key_heads: int
    head_dim: int
    length: int
    experts: int = 8


CPU = Sizes(4096, 512, 1408, 6400, 8, 4, 64, 512)
GPU = Sizes(32768, 1024, 3072, 151_936, 16, 8, 128, 2048)
QUICK = Sizes(128, 32, 48, 256, 2, 1, 16, 64, 4)


@dataclass
class Case:
    """An operation, its inputs (the first ones get gradients), and the ways to compute it; the
    first is Miao's, `plain` is the reference."""

    name: str
    inputs: list[Tensor]
    variants: dict[str, Variant]
    plain: Variant
    fixed: list[Any] = field(default_factory=list)


def main() -> int:
    parser = parser_for(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", default="auto", help="fp32 or bf16")
    parser.add_argument("--only", default="", help="comma-separated names of operations")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    options = parser.parse_args()
    device = choose_device(options.device)
    dtype = choose_dtype(options.precision, device)
    sizes = GPU if device.type == "cuda" else CPU
    if options.quick:
        sizes, options.rounds, options.no_compile = QUICK, 2, True
    if device.type == "cpu":
        keep_freed_memory()
    rows: list[dict[str, Any]] = []
    for make in (loss_case, norm_case, rope_case, swiglu_case, attention_case, experts_case):
        name = make.__name__.removesuffix("_case")
        if options.only and name not in options.only.split(","):
            continue
        case = make(sizes, device, dtype)
        if not options.no_compile:
            case.variants["plain, compiled"] = torch.compile(case.plain, dynamic=False)
        rows += measured(case, options.rounds, device)
    columns = ["operation", "variant", "median ms", "best ms", "miao is faster by", "MiB"]
    columns += ["difference", "gradient's"]
    report("ops", options, str(device), columns, rows, sizes=vars(sizes), precision=str(dtype))
    return 0


def measured(case: Case, rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """A row for each variant that works here."""
    wide = [tensor.detach().float() for tensor in case.inputs]
    result = case.plain(*wide, *case.fixed).detach()
    upstream = torch.linspace(-1, 1, result.numel(), device=device).view(result.shape)
    upstream = upstream if result.ndim else torch.ones_like(result)
    truth = both_ways(case.plain, wide, case.fixed, upstream)
    upstream = upstream.to(case.inputs[0].dtype) if result.ndim else upstream
    working: dict[str, Callable[[], Any]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name, variant in case.variants.items():
        row: dict[str, Any] = {"operation": case.name, "variant": name}
        try:
            found = both_ways(variant, case.inputs, case.fixed, upstream)
        except Exception as error:
            rows[name] = row | {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
            print(f"  {case.name}, {name}: {rows[name]['failed']}", file=sys.stderr)
            continue
        row["difference"], row["gradient's"] = (
            float((a.float() - b).abs().max() / b.abs().max().clamp(min=1e-30))
            for a, b in zip(found, truth, strict=True)
        )
        call = lambda v=variant: both_ways(v, case.inputs, case.fixed, upstream)  # noqa: E731
        row["MiB"] = extra_memory(call, device)
        working[name], rows[name] = call, row
    times = side_by_side(working, rounds, str(device), warmup=2)
    ours = best_and_median(times[next(iter(case.variants))])["median"]
    for name, values in times.items():
        seconds = best_and_median(values)
        rows[name] |= {
            "median ms": seconds["median"] * 1e3,
            "best ms": seconds["best"] * 1e3,
            "miao is faster by": seconds["median"] / ours,
        }
    return list(rows.values())


def both_ways(
    variant: Variant, inputs: list[Tensor], fixed: list[Any], upstream: Tensor
) -> tuple[Tensor, Tensor]:
    """The result, and the gradient of the first input."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    result = variant(*leaves, *fixed)
    result.backward(upstream.to(result.dtype))
    gradient = leaves[0].grad
    assert gradient is not None
    return result.detach(), gradient


def extra_memory(call: Callable[[], Any], device: torch.device) -> float | None:
    """MiB at the worst moment of a call, beyond what was there before."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    results = getattr(profiler.profiler, "kineto_results", None)
    if results is None:
        return None
    changes = [e for e in results.events() if e.name() == "[memory]"]
    now = most = 0
    for change in sorted(changes, key=lambda e: e.start_ns()):
        now += change.nbytes()
        most = max(most, now)
    return round(most / 2**20, 1)


def random(device: torch.device, dtype: torch.dtype, *shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(device, dtype)


def liger(path: str) -> Any | None:
    """Something of Liger-Kernel, by its dotted path; None where it is not installed."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(__import__(f"liger_kernel.{module}", fromlist=[name]), name)
    except (ImportError, AttributeError, RuntimeError):
        return None


def loss_case(s: Sizes, device: torch.device, dtype: torch.dtype) -> Case:
    hidden = random(device, dtype, s.tokens, s.hidden)
    weight = random(device, torch.float32, s.vocab, s.hidden, seed=1) * s.hidden**-0.5
    labels = torch.arange(s.tokens, device=device) * 7919 % s.vocab
    variants: dict[str, Variant] = {
        "miao": linear_cross_entropy,
        "plain": linear_cross_entropy_reference,
    }
    fused = getattr(F, "linear_cross_entropy", None)
    if fused is not None:
        variants["F.linear_cross_entropy"] = lambda h, w, n: fused(
            h, w.to(h.dtype), n, reduction="sum"
        )
    function = liger("ops.fused_linear_cross_entropy.LigerFusedLinearCrossEntropyFunction")
    if function is not None and device.type == "cuda":
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        module = LigerFusedLinearCrossEntropyLoss(reduction="sum")
        variants["Liger-Kernel"] = lambda h, w, n: module(w.to(h.dtype), h, n)
    return Case(
        "head + cross-entropy", [hidden, weight], variants, linear_cross_entropy_reference, [labels]
    )


def norm_case(s: Sizes, device: torch.device, dtype: torch.dtype) -> Case:
    x, weight = random(device, dtype, s.tokens, s.hidden), random(device, torch.float32, s.hidden)

    def spelled_out(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
        return weight.to(x.dtype) * wide.to(x.dtype)

    variants: dict[str, Variant] = {
        "miao": rms_norm,
        "F.rms_norm": rms_norm_reference,
        "spelled out, as in transformers": spelled_out,
    }
    function = liger("ops.rms_norm.LigerRMSNormFunction")
    if function is not None and device.type == "cuda":
        variants["Liger-Kernel"] = lambda x, w, eps: function.apply(x, w.to(x.dtype), eps)
    return Case("RMSNorm", [x, weight], variants, spelled_out, [1e-6])


def rope_case(s: Sizes, device: torch.device, dtype: torch.dtype) -> Case:
    rows = max(1, s.tokens // s.length)
    x = random(device, dtype, rows, s.length, s.heads, s.head_dim)
    frequencies = 1e4 ** (-torch.arange(0, s.head_dim, 2, device=device) / s.head_dim)
    positions = torch.arange(s.length, device=device).expand(rows, -1)
    cos, sin = rope_tables(positions, frequencies, dtype)

    def rotate_half(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        cos, sin = torch.cat((cos, cos), dim=-1), torch.cat((sin, sin), dim=-1)
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-second, first), dim=-1) * sin

    variants: dict[str, Variant] = {
        "miao": apply_rope,
        "plain": apply_rope_reference,
        "rotate_half, as in transformers": rotate_half,
    }
    return Case("RoPE", [x], variants, apply_rope_reference, [cos, sin])


def swiglu_case(s: Sizes, device: torch.device, dtype: torch.dtype) -> Case:
    gate, up = (random(device, dtype, s.tokens, s.inner, seed=n) for n in (0, 1))

    def plain(gate: Tensor, up: Tensor) -> Tensor:
        return F.silu(gate) * up

    try:
        from miao.ops.swiglu import swiglu
    except ImportError:
        swiglu = plain
    variants: dict[str, Variant] = {"miao": swiglu, "plain": plain}
    function = liger("ops.swiglu.LigerSiLUMulFunction")
    if function is not None and device.type == "cuda":
        variants["Liger-Kernel"] = lambda gate, up: function.apply(gate, up)
    return Case("SwiGLU", [gate, up], variants, plain)


def attention_case(s: Sizes, device: torch.device, dtype: torch.dtype) -> Case:
    rows = max(1, s.tokens // s.length)
    query = random(device, dtype, rows, s.length, s.heads, s.head_dim)
    key, value = (
        random(device, dtype, rows, s.length, s.key_heads, s.head_dim, seed=n) for n in (1, 2)
    )
    segments = torch.from_numpy(document_numbers(rows, s.length))
    starts = document_starts(segments).to(device)
    segments = segments.to(device)
    whole = has_varlen(device.type, dtype, s.head_dim)

    def packed(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attention(
            query, key, value, starts if whole else document_mask(segments, query.dtype)
        )

    def reference(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attention_reference(query, key, value, document_mask(segments, query.dtype))

    def boolean(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        same = segments[:, None, :, None] == segments[:, None, None, :]
        mask = same & torch.ones(s.length, s.length, dtype=torch.bool, device=device).tril()
        return (
            F.scaled_dot_product_attention(
                query.transpose(1, 2),
                key.transpose(1, 2),
                value.transpose(1, 2),
                attn_mask=mask,
                enable_gqa=True,
            )
            .transpose(1, 2)
            .flatten(2)
        )

    def causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attention(query, key, value, None)

    variants: dict[str, Variant] = {
        "miao, documents masked": packed,
        "SDPA with a boolean mask": boolean,
        "plain": reference,
        "causal only (other result)": causal,
    }
    return Case("attention", [query, key, value], variants, reference)


def experts_case(s: Sizes, device: torch.device, dtype: torch.dtype) -> Case:
    x = random(device, dtype, s.tokens, s.hidden)
    inner = s.inner // 2 // 16 * 16
    gate, up = (
        random(device, dtype, s.experts, inner, s.hidden, seed=n) * s.hidden**-0.5 for n in (1, 2)
    )
    down = random(device, dtype, s.experts, s.hidden, inner, seed=3) * inner**-0.5
    chosen = random(device, torch.float32, s.tokens, s.experts, seed=4).topk(2, dim=-1)
    weights = chosen.values.softmax(dim=-1)

    def grouped(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
        return experts_swiglu(x, gate, up, down, weights, chosen.indices)

    def loop(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
        return experts_swiglu_reference(x, gate, up, down, weights, chosen.indices)

    variants: dict[str, Variant] = {"miao": grouped, "loop over experts": loop}
    return Case("experts", [x, gate, up, down], variants, loop)


if __name__ == "__main__":
    sys.exit(main())
