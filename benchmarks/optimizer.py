"""Miao's optimizer against PyTorch's: seconds per update, equal updates, share of a step.

    python benchmarks/optimizer.py --shapes 6m,27m

Arms: `MuonAdamW` (same-shape matrices stacked; Newton-Schulz in the type it would choose here, and
in bfloat16, which torch.optim.Muon always takes); torch.optim.Muon with torch.optim.AdamW beside it
for embeddings and vectors; fused AdamW for everything. The share is of a step of `--step-tokens`
tokens: by arithmetic (FLOPs), and measured (a pass of `--micro-tokens` tokens, scaled). On a CPU
that only emulates bfloat16 torch.optim.Muon takes minutes per update: `--without-bf16` leaves it
out.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from common import best_and_median, parser_for, report, side_by_side
from material import shape

from miao.device import choose_device, choose_dtype, keep_freed_memory
from miao.model import Decoder, ModelConfig, flops_per_token
from miao.model.counts import muon_flops
from miao.recipe import parse_quantity
from miao.train.optim import MuonAdamW

LR, MUON_LR, DECAY, BETAS = 3e-3, 2e-2, 0.1, (0.9, 0.95)
TORCH = "torch Muon + AdamW"
STEPS = 3
"""Updates behind which the arms' weights are compared."""


class TorchMuon:
    """torch.optim.Muon for the matrices that Miao gives to Muon, torch.optim.AdamW for the rest."""

    def __init__(self, model: Decoder):
        matrices, others, vectors = [], [], []
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                vectors.append(parameter)
            else:
                (matrices if ".layers." in name else others).append(parameter)
        self.muon = torch.optim.Muon(
            matrices, lr=MUON_LR, weight_decay=DECAY, momentum=0.95, adjust_lr_fn="original"
        )
        groups = [
            {"params": others, "weight_decay": DECAY},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW(groups, lr=LR, betas=BETAS, fused=True)

    def step(self) -> None:
        self.muon.step()
        self.adamw.step()


def miao(model: Decoder, dtype: torch.dtype) -> MuonAdamW:
    return MuonAdamW(
        list(model.named_parameters()),
        lr=LR,
        muon_lr=MUON_LR,
        weight_decay=DECAY,
        betas=BETAS,
        muon_dtype=dtype,
    )


def main() -> int:
    parser = parser_for(__doc__)
    parser.add_argument("--shapes", default="6m,27m", help="comma-separated (also presets)")
    parser.add_argument("--step-tokens", default="512K", help="tokens of a whole step")
    parser.add_argument("--micro-tokens", type=int, default=4096, help="tokens of a measured pass")
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--without-bf16", action="store_true", help="leave out what computes in bfloat16"
    )
    options = parser.parse_args()
    if options.quick:
        options.shapes, options.rounds, options.micro_tokens = "tiny", 2, 512
    device = choose_device(options.device)
    if device.type == "cpu":
        keep_freed_memory()
    step_tokens = parse_quantity(options.step_tokens, "--step-tokens")
    rows = []
    for name in options.shapes.split(","):
        rows += measured(name, device, step_tokens, options)
    columns = ["shape", "arm", "median ms", "best ms", "slower by", "difference", "share"]
    columns += ["share by arithmetic"]
    report("optimizer", options, str(device), columns, rows, step_tokens=step_tokens)
    return 0


def measured(name: str, device: torch.device, step_tokens: float, options: Any) -> list[dict]:
    """A row for each arm of one shape."""
    config = ModelConfig(**shape(name, options.seq_len))
    dtype = choose_dtype("auto", device)
    own = torch.bfloat16 if device.type != "cpu" else dtype
    kinds: dict[str, Any] = {f"MuonAdamW {short(own)}": lambda m: miao(m, own)}
    if not options.without_bf16:
        if own != torch.bfloat16:
            kinds["MuonAdamW bf16"] = lambda m: miao(m, torch.bfloat16)
        kinds[TORCH] = TorchMuon
    kinds["torch AdamW for all"] = lambda m: torch.optim.AdamW(
        m.parameters(), lr=LR, betas=BETAS, weight_decay=DECAY, fused=True
    )
    share = arithmetic(config, options.seq_len, step_tokens, own == torch.float32)
    models = {kind: fresh(config, device) for kind in kinds}
    optimizers = {kind: make(models[kind]) for kind, make in kinds.items()}
    for _ in range(STEPS):
        for optimizer in optimizers.values():
            optimizer.step()
    differences = {
        kind: difference(model, models[TORCH]) if TORCH in models and "Muon" in kind else None
        for kind, model in models.items()
    }
    times = side_by_side(
        {kind: optimizer.step for kind, optimizer in optimizers.items()},
        options.rounds,
        str(device),
    )
    passing = pass_seconds(config, device, dtype, options)
    whole = passing * step_tokens / options.micro_tokens
    fastest = min(best_and_median(values)["median"] for values in times.values())
    rows = []
    for kind, values in times.items():
        seconds = best_and_median(values)
        muon = "Muon" in kind
        rows.append(
            {
                "shape": name,
                "arm": kind,
                "median ms": seconds["median"] * 1e3,
                "best ms": seconds["best"] * 1e3,
                "slower by": seconds["median"] / fastest,
                "difference": differences[kind],
                "share": f"{seconds['median'] / (whole + seconds['median']):.2%}",
                "share by arithmetic": f"{share:.2%}" if muon else None,
            }
        )
    return rows


def difference(model: Decoder, other: Decoder) -> float:
    """The largest of any weight."""
    truth = dict(other.named_parameters())
    return max(float((p - truth[n]).detach().abs().max()) for n, p in model.named_parameters())


def fresh(config: ModelConfig, device: torch.device) -> Decoder:
    """The same weights and the same gradients every time."""
    model = Decoder(config)
    model.initialize(0)
    model.to(device)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        values = torch.randn(parameter.shape, generator=generator) * 1e-3
        parameter.grad = values.to(device)
    return model


def pass_seconds(
    config: ModelConfig, device: torch.device, dtype: torch.dtype, options: Any
) -> float:
    """Seconds of a forward and backward pass of `micro_tokens`."""
    model = fresh(config, device)
    model.set_compute_dtype(dtype)
    shape_bt = (max(1, options.micro_tokens // options.seq_len), options.seq_len)
    if options.micro_tokens < options.seq_len:
        shape_bt = (1, options.micro_tokens)
    ids = torch.randint(config.vocab_size, shape_bt, device=device)

    def once() -> None:
        model(ids, labels_bt=ids, output="loss").backward()

    times = side_by_side({"pass": once}, max(2, options.rounds // 2), str(device))
    return best_and_median(times["pass"])["median"]


def arithmetic(config: ModelConfig, seq_len: int, step_tokens: float, fp32: bool) -> float:
    """Share of Newton-Schulz in the FLOPs of a step."""
    newton_schulz = muon_flops(config, fp32)
    passing = flops_per_token(config, seq_len) * step_tokens
    return newton_schulz / (newton_schulz + passing)


def short(dtype: torch.dtype) -> str:
    return {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]


if __name__ == "__main__":
    sys.exit(main())
