"""What is built for GPUs and could only be tested without one: is it right on this card?

    python benchmarks/gpu_checks.py
    python benchmarks/gpu_checks.py --device cpu      # does the script itself work

Every line is a check of its own with its figures: pass, fail or skip; the exit status tells whether
any failed. `gpu.py` does all of them first.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from miao.device import choose_device, choose_muon_dtype, flash_attention
from miao.engine.graphs import GraphRunner
from miao.engine.packed import PackedDecoder
from miao.engine.runner import Piece, Runner
from miao.model import Decoder, ModelConfig
from miao.ops.attention import attention, document_mask
from miao.ops.linear_cross_entropy import linear_cross_entropy, linear_cross_entropy_reference
from miao.ops.varlen import document_starts, has_varlen
from miao.recipe import PretrainOptions
from miao.shards.batch import Batch
from miao.train.distributed.parallel import Parallel
from miao.train.distributed.world import World
from miao.train.gradients import StepGradients
from miao.train.muon import Orthogonalizer, newton_schulz
from miao.train.objectives import LanguageObjective

VOCABULARY = 1001
"""No multiple of 64."""
Check = Callable[[torch.device], dict[str, Any] | str]
"""Figures, or why it is skipped. It fails by an error."""


def half(device: torch.device) -> torch.dtype:
    return choose_muon_dtype(device, torch.float32)


def small_model(device: torch.device, dtype: torch.dtype = torch.float32) -> Decoder:
    model = Decoder(ModelConfig(VOCABULARY, 128, 2, 2, 1, 64, 256, max_position_embeddings=512))
    model.initialize(0)
    model.set_compute_dtype(dtype)
    return model.to(device)


def error(found: torch.Tensor, truth: torch.Tensor, most: float) -> float:
    """The relative error, which may be `most`."""
    truth = truth.detach().float()
    value = float((found.detach().float() - truth).norm() / truth.norm().clamp(min=1e-20))
    assert value <= most, f"off by {value:.2g}, where {most:g} is allowed"
    return round(value, 6)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return best


def head_and_loss(device: torch.device, fused: bool) -> dict[str, Any]:
    rows = 32_768 if device.type == "cuda" else 256
    hidden = torch.randn(rows, 128, device=device).to(half(device))
    weight = torch.randn(VOCABULARY, 128, device=device)
    labels = torch.randint(VOCABULARY, (rows,), device=device)

    def gradients(loss: Callable[..., torch.Tensor], **more: Any) -> list[torch.Tensor]:
        own = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
        value = loss(own[0], own[1], labels, **more)
        value.backward()
        return [value.detach(), *(x.grad for x in own if x.grad is not None)]

    ours = gradients(linear_cross_entropy, fused=fused)
    truth = gradients(linear_cross_entropy_reference)
    most = 1e-5 if hidden.dtype == torch.float32 else 2e-2
    figures = {
        name: error(a, b, most)
        for name, a, b in zip(("loss", "by hidden", "by head"), ours, truth, strict=True)
    }
    if not fused:
        return figures
    times = [
        seconds(lambda f=way: gradients(linear_cross_entropy, fused=f), device)
        for way in (fused, False)
    ]
    return figures | {"time to the plain way": round(times[0] / times[1], 3)}


def padded_head(device: torch.device) -> dict[str, Any]:
    return head_and_loss(device, fused=False)


def fused_loss(device: torch.device) -> dict[str, Any] | str:
    return head_and_loss(device, fused=True) if device.type == "cuda" else "compiled on GPUs alone"


def compilations(device: torch.device) -> dict[str, Any] | str:
    if device.type != "cuda":
        return "compiled on GPUs as a rule"
    model = small_model(device, half(device)).train()
    model.compile_for_training()
    for documents in (2, 60, 7, 30):
        segments = (torch.arange(512) * documents // 512 + 1).expand(4, 512).contiguous()
        ids = torch.ones_like(segments).to(device)
        starts = document_starts(segments, 256).to(device) if model.has_varlen else None
        loss = model(ids, ids, segments.to(device), labels_bt=ids, starts_n=starts, output="loss")
        loss.backward()
    counted = model.compilations()["compilations"]
    assert counted <= 4, f"{counted} graphs for four numbers of documents"
    return {"graphs": counted}


def gradient(
    device: torch.device, micro_batch: int, compile: Any = "off", grad_dtype: Any = "fp32"
) -> tuple[torch.Tensor, Parallel]:
    """That of a step of four rows, taken three times: graphs are recorded with the second and
    replayed with the third."""
    options = PretrainOptions(
        seq_len=64,
        batch_tokens=4 * 64,
        micro_batch=micro_batch,
        compile=compile,
        grad_dtype=grad_dtype,
    )
    parallel = Parallel(small_model(device, half(device)).train(), options, World())
    if compile != "off":
        parallel.compile()
    steps = StepGradients("pretrain", options, parallel, LanguageObjective(), 4)
    ids = torch.arange(4 * 64).view(4, 64) % VOCABULARY
    places = torch.arange(64).expand(4, 64)
    rows = [[("check", row)] for row in range(4)]
    batch = Batch(ids, ids, places, torch.ones_like(ids), sequences=rows)
    for _ in range(3):
        steps.of(batch)
    return torch.cat([g.flatten() for g in parallel.gradients()]).clone(), parallel


def graphs(device: torch.device) -> dict[str, Any]:
    """Replayed graphs and gradients that several micro-batches add to: left, or right."""
    compile = "graphs" if device.type == "cuda" else "off"
    truth, _ = gradient(device, 4)
    figures: dict[str, Any] = {}
    for micro_batch in (4, 1):
        found, parallel = gradient(device, micro_batch, compile)
        figures[f"error with rows of {micro_batch}"] = error(found, truth, 2e-2)
        figures[f"replayed with rows of {micro_batch}"] = parallel.graphs
    return figures


def half_sums(device: torch.device) -> dict[str, Any]:
    """Four micro-batches summed in bfloat16, compiled too: at most a rounding for each."""
    truth, _ = gradient(device, 1)
    figures: dict[str, Any] = {}
    for compile in ("off", "on") if device.type == "cuda" else ("off",):
        found, _ = gradient(device, 1, compile, "bf16")
        assert found.dtype == torch.bfloat16
        figures[f"error, compile {compile}"] = error(found, truth, 2e-2)
    return figures


def documents(device: torch.device) -> dict[str, Any]:
    dtype = half(device)
    segments = torch.tensor([[1] * 50 + [2] * 14, [1] * 20 + [2] * 40 + [0] * 4])
    shapes = ((2, 64, 4, 64), (2, 64, 2, 64), (2, 64, 2, 64))
    inputs = [torch.randn(s, device=device, dtype=dtype, requires_grad=True) for s in shapes]
    masks = [document_mask(segments.to(device), dtype)]
    if has_varlen(device.type, dtype, 64):
        masks.append(document_starts(segments).to(device))
    found = []
    for mask in masks:
        output = attention(*inputs, mask)[segments.to(device) > 0]
        found.append([output, *torch.autograd.grad(output.float().square().sum(), inputs)])
    figures: dict[str, Any] = {"FlashAttention": flash_attention(device), "varlen": len(masks) > 1}
    for name, a, b in zip(
        ("output", "by query", "by key", "by value"), *found[::-1][:2], strict=True
    ):
        figures[name] = error(a, b, 2e-2)
    return figures


def skipped_step(device: torch.device) -> dict[str, Any]:
    model = small_model(device)
    parallel = Parallel(model, PretrainOptions(), World())
    ids = torch.ones(2, 64, dtype=torch.int64, device=device)

    def step(good: bool) -> list[torch.Tensor]:
        parallel.forget_gradients()
        model(ids, labels_bt=ids, output="loss").backward()
        if not good:
            parallel.gradients()[0].fill_(float("nan"))
        parallel.step(torch.tensor(good, device=device))
        state = parallel.optimizer.state_tensors()
        return [x.detach().clone() for x in (*model.parameters(), *state.values())]

    before, after = step(True), step(False)
    same = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert same, "a step that does not count has moved weights or momenta"
    return {"tensors to the bit": len(before)}


def muon(device: torch.device) -> dict[str, Any] | str:
    if device.type != "cuda":
        return "compiled on GPUs alone"
    matrices, dtype = torch.randn(8, 512, 1408, device=device), half(device)
    made = Orthogonalizer(dtype, compiles=True)
    figures: dict[str, Any] = {
        "error": error(made.nearest(matrices), newton_schulz(matrices, dtype), 2e-2)
    }
    assert made.compiles, "the compiler failed"
    plain, ours = (seconds(lambda w=w: w(matrices), device) for w in (newton_schulz, made.nearest))
    return figures | {"time to the plain way": round(ours / plain, 3)}


def rollouts(device: torch.device) -> dict[str, Any]:
    dtype = torch.bfloat16 if half(device) == torch.bfloat16 else torch.float32
    model = small_model(device, dtype).eval()
    packed = PackedDecoder(model, "bf16" if dtype == torch.bfloat16 else "fp32")
    kind = GraphRunner if device.type == "cuda" else Runner
    ours, truth, worst = kind(packed, 4, 64), Runner(model, 4, 64), 0.0
    for _ in range(3):
        for pieces in ([Piece(0, [1, 2, 3], 0)], [Piece(0, [4], 3)], [Piece(0, [5], 4)]):
            worst = max(worst, error(ours(pieces), truth(pieces), 3e-2))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        packed.follow()
    return {"runner": kind.__name__, "worst error after two updates": worst}


CHECKS: dict[str, Check] = {
    "1.1 padded vocabulary": padded_head,
    "1.2 compilations": compilations,
    "1.3 graphs and accumulation": graphs,
    "1.4 attention by documents": documents,
    "1.5 fused loss": fused_loss,
    "1.5 compiled Muon": muon,
    "1.5 gradient sums in bfloat16": half_sums,
    "1.6 a skipped step": skipped_step,
    "1.7 rollouts follow the weights": rollouts,
}


def run_checks(device: torch.device) -> list[dict[str, Any]]:
    """A row of each: what was checked, pass, fail or skip, and the figures or the reason."""
    rows = []
    for name, check in CHECKS.items():
        torch.manual_seed(0)
        try:
            found = check(device)
            row = {"result": "skip" if isinstance(found, str) else "pass", "figures": found}
        except Exception as fault:
            row = {"result": "fail", "figures": f"{type(fault).__name__}: {fault}"[:400]}
        rows.append({"check": name, **row})
        print(f"  {row['result']:<4}  {name}: {row['figures']}", file=sys.stderr, flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    rows = run_checks(choose_device(parser.parse_args().device))
    print(json.dumps(rows))
    return int(any(row["result"] == "fail" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
