"""Graphics cards by their datasheets: memory, peak arithmetic, bandwidth."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """A graphics card.

    `flops`: dense products of bfloat16 (of float16 before Ampere) with float32 sums, per second.
    `bandwidth`: bytes per second of its memory.
    """

    name: str
    gib: float
    flops: float
    bandwidth: float = 0.0
    pattern: str = ""
    """What the driver calls it, as a regular expression for the whole name."""

    @property
    def is_hopper(self) -> bool:
        """Whether FlashAttention-3 is made for it."""
        return re.match(r"H\d", self.name) is not None


def gpu_named(name: str) -> Gpu | None:
    """The card that a driver calls `name` ("NVIDIA A100-SXM4-80GB"), or None: it is not in the
    table, or only a part of one (MIG), or a laptop's, whose clocks the maker of the laptop sets."""
    short = re.sub(r"^(NVIDIA |GeForce |Tesla )+", "", name.strip())
    return next((gpu for gpu in DEVICES if re.fullmatch(gpu.pattern, short)), None)


def _card(
    name: str, gib: float, teraflops: float, terabytes: float, pattern: str | None = None
) -> Gpu:
    return Gpu(name, gib, teraflops * 1e12, terabytes * 1e12, pattern or re.escape(name))


def _geforce(
    name: str, gib: float, multiprocessors: int, gigahertz: float, terabytes: float
) -> Gpu:
    """NVIDIA's architecture papers: 512 FLOP per multiprocessor and boost clock."""
    teraflops = multiprocessors * 512 * gigahertz / 1000
    short = re.sub(r" \d+ GB$", "", name)
    return _card(name, gib, teraflops, terabytes, rf"{short}( {gib:g}GB)?")


DEVICES = (
    _card("B200", 180, 2250, 8.0, "B200( .*)?"),
    _card("H200 141 GB", 141, 989.4, 4.8, "H200"),
    _card("H100 80 GB", 80, 989.4, 3.35, "H100( 80GB HBM3|-SXM5-80GB)"),
    _card("H100 NVL", 94, 835, 3.9),
    _card("H100 PCIe", 80, 756, 2.0),
    _card("H800", 80, 989.4, 3.35, "H800(-SXM5-80GB| 80GB HBM3)?"),
    _card("H20", 96, 148, 4.0),
    _card("A100 80 GB", 80, 312, 2.039, "A100-SXM4-80GB"),
    _card("A100 PCIe 80 GB", 80, 312, 1.935, "A100 80GB PCIe"),
    _card("A100 40 GB", 40, 312, 1.555, "A100-(SXM4|PCIE)-40GB"),
    _card("A800 80 GB", 80, 312, 2.039, "A800-SXM4-80GB"),
    _card("A40", 48, 149.7, 0.696),
    _card("RTX A6000", 48, 154.8, 0.768),
    _card("A10", 24, 125, 0.6),
    _card("L40S", 48, 362, 0.864),
    _card("L40", 48, 181, 0.864),
    _card("L4", 24, 121, 0.3),
    _card("V100", 16, 125, 0.9, "V100-SXM2-(16|32)GB(-LS)?"),
    _card("T4", 16, 65, 0.32),
    _geforce("RTX 5090", 32, 170, 2.407, 1.792),
    _geforce("RTX 5080", 16, 84, 2.617, 0.96),
    _geforce("RTX 5070 Ti", 16, 70, 2.452, 0.896),
    _geforce("RTX 5070", 12, 48, 2.512, 0.672),
    _geforce("RTX 4090 24 GB", 24, 128, 2.52, 1.008),
    _geforce("RTX 4080", 16, 76, 2.505, 0.717),
    _geforce("RTX 4070 Ti", 12, 60, 2.61, 0.504),
    _geforce("RTX 4070", 12, 46, 2.475, 0.504),
    _geforce("RTX 4060 Ti", 8, 34, 2.535, 0.288),
    _geforce("RTX 4060", 8, 24, 2.46, 0.272),
    _geforce("RTX 3090", 24, 82, 1.695, 0.936),
    _geforce("RTX 3080", 10, 68, 1.71, 0.76),
    _geforce("RTX 3070", 8, 46, 1.725, 0.448),
    _geforce("RTX 3060 12 GB", 12, 28, 1.777, 0.36),
)
