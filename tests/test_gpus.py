"""The table of graphics cards: names as drivers give them, figures that hold together."""

from __future__ import annotations

import pytest

from miao.gpus import DEVICES, gpu_named


@pytest.mark.parametrize(
    ("driver", "found"),
    [
        ("NVIDIA H200", "H200 141 GB"),
        ("NVIDIA H100 80GB HBM3", "H100 80 GB"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H800", "H800"),
        ("NVIDIA A100-SXM4-80GB", "A100 80 GB"),
        ("NVIDIA A100-SXM4-40GB", "A100 40 GB"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80 GB"),
        ("NVIDIA GeForce RTX 3060", "RTX 3060 12 GB"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090 24 GB"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA A10", "A10"),
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-32GB", "V100"),
        # A part of a card, another card, a laptop's: better measured than wrong.
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA A10G", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 3080 Ti", None),
        ("AMD Instinct MI300X", None),
        ("", None),
    ],
)
def test_by_the_driver_s_name(driver: str, found: str | None) -> None:
    gpu = gpu_named(driver)
    assert (gpu.name if gpu else None) == found


def test_figures() -> None:
    assert len({gpu.name for gpu in DEVICES}) == len(DEVICES)
    for gpu in DEVICES:
        assert 8 <= gpu.gib <= 192 and 20e12 < gpu.flops < 3e15 and 2e11 < gpu.bandwidth < 1e13
    by_name = {gpu.name: gpu for gpu in DEVICES}
    # NVIDIA's own figures for products with float32 sums.
    for name, teraflops in {"RTX 4090 24 GB": 165.2, "RTX 5090": 209.5, "RTX 3090": 71}.items():
        assert by_name[name].flops / 1e12 == pytest.approx(teraflops, rel=0.01)
