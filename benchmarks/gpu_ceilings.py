"""The most that a device does: matrix products, memory bandwidth, attention."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from common import side_by_side
from material import document_numbers

from miao.device import matmul_flops, memory_bandwidth
from miao.ops.attention import attention, document_mask
from miao.ops.varlen import document_starts, has_varlen

SHAPES = {
    "8192³": (8192, 8192, 8192),
    "26m, gate and up": (65536, 512, 2816),
    "26m, down": (65536, 1408, 512),
    "0.6b, gate and up": (32768, 1024, 6144),
    "0.6b, head": (16384, 1024, 151_936),
}


def ceilings(device: str, quick: bool) -> dict[str, Any]:
    """TFLOP/s and TB/s, best of several."""
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    found: dict[str, Any] = {
        "matmul TFLOP/s": matmul_flops(device, dtype, 256 if quick else 1024) / 1e12,
        "bandwidth TB/s": memory_bandwidth(device, 1 if quick else 64) / 1e12,
    }
    shapes = {"64³": (64, 64, 64)} if quick else SHAPES
    for name, (rows, inner, columns) in shapes.items():
        found[f"matmul {name} TFLOP/s"] = product(rows, inner, columns, device, dtype)
    length, tokens = (64, 128) if quick else (2048, 65536)
    for head_dim in (16,) if quick else (64, 96, 128):
        heads = max(1, 768 // head_dim) if not quick else 2
        found |= causal_attention(tokens // length, length, heads, head_dim, device, dtype)
    if device.startswith("cuda"):
        found["packed attention, head 64, TFLOP/s"] = guarded(packed_attention, device)
    return {name: round(v, 3) if isinstance(v, float) else v for name, v in found.items()}


def product(rows: int, inner: int, columns: int, device: str, dtype: torch.dtype) -> float:
    a = torch.randn(rows, inner, device=device, dtype=dtype)
    b = torch.randn(inner, columns, device=device, dtype=dtype)
    times = side_by_side({"product": lambda: a @ b}, 5, device)["product"]
    return 2 * rows * inner * columns / min(times) / 1e12


def causal_attention(
    rows: int, length: int, heads: int, head_dim: int, device: str, dtype: torch.dtype
) -> dict[str, float]:
    """Causal SDPA, counting only the scores that are needed: 4·t²·d/2 per head, 2.5 times as much
    backward."""
    query, key, value = (
        torch.randn(rows, heads, length, head_dim, device=device, dtype=dtype, requires_grad=True)
        for _ in range(3)
    )

    def forward() -> torch.Tensor:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)

    upstream = torch.randn_like(query)
    calls = {"forward": forward, "both": lambda: forward().backward(upstream)}
    times = {name: min(values) for name, values in side_by_side(calls, 5, device).items()}
    flops = 2 * rows * heads * length**2 * head_dim
    backward = max(times["both"] - times["forward"], 1e-9)
    return {
        f"attention forward, head {head_dim}, TFLOP/s": flops / times["forward"] / 1e12,
        f"attention backward, head {head_dim}, TFLOP/s": 2.5 * flops / backward / 1e12,
    }


def packed_attention(device: str) -> float:
    """Miao's attention over packed documents of some 340 tokens, forward and backward, in TFLOP/s;
    only scores within documents count."""
    segments = torch.from_numpy(document_numbers(32, 2048))
    starts = document_starts(segments)
    lengths = starts.diff().double()
    query, key, value = (
        torch.randn(32, 2048, 8, 64, device=device, dtype=torch.bfloat16, requires_grad=True)
        for _ in range(3)
    )
    if has_varlen("cuda", torch.bfloat16, 64):
        mask = starts.to(device)
    else:
        mask = document_mask(segments.to(device), torch.bfloat16)

    def both() -> None:
        attention(query, key, value, mask).sum().backward()

    seconds = min(side_by_side({"both": both}, 5, device)["both"])
    return 3.5 * 2 * 8 * 64 * float((lengths**2).sum()) / seconds / 1e12


def guarded(measure: Any, device: str) -> float | str:
    try:
        return float(measure(device))
    except Exception as error:
        return f"failed: {error}"[:200]
