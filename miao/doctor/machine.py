"""What this machine is and what it reaches: looked up, and measured in a few seconds."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from miao.cores import usable_cores
from miao.device import find_compiler, flash_attention, matmul_flops, memory_bandwidth, memory_bytes
from miao.gpus import gpu_named
from miao.ops.varlen import has_varlen
from miao.provenance import installed_version, processor_name

PACKAGES = (
    "numpy", "tokenizers", "safetensors", "transformers", "peft", "deepspeed", "liger-kernel",
    "fastokens", "pyarrow", "lm-eval", "vllm", "gguf", "wandb", "tensorboard", "swanlab",
)  # fmt: skip
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FASTER = 1.2
"""A number type is worth using from this factor over fp32 on."""


@dataclass(frozen=True)
class Card:
    """A GPU that PyTorch sees."""

    name: str
    memory: int
    capability: str
    datasheet_flops: float | None
    """None: not in the table of `miao.gpus`."""


@dataclass(frozen=True)
class Machine:
    """Facts are looked up; `peaks` and `bandwidth` are measured on `device`."""

    system: str
    python: str
    torch: str
    processor: str
    cores: int
    """Those that this process may use."""
    threads: int
    cache: int
    """Bytes of the last-level cache; 0: unknown."""
    allocator: str
    memory: int
    memory_free: int
    disk_free: int
    device: str
    gpus: list[Card]
    compiler: str | None
    kernels: dict[str, bool]
    packages: dict[str, str]
    """Installed optional packages and their versions."""
    settings: dict[str, str]
    """Environment variables that matter for speed."""
    peaks: dict[str, float] = field(default_factory=dict)
    """FLOP/s of square matrix products by number type."""
    bandwidth: float = 0.0
    """Bytes per second of memory."""

    @property
    def fast_types(self) -> list[str]:
        """Number types at least 1.2 times as fast as fp32."""
        base = self.peaks.get("fp32", 0.0)
        return [name for name, flops in self.peaks.items() if flops > FASTER * base > 0]


def examine(device: torch.device, where: Path) -> Machine:
    """This machine, with `device` measured. `where`: the directory whose disk counts."""
    memory_free, memory = memory_bytes(torch.device("cpu"))
    peaks = {}
    for name, dtype in DTYPES.items():
        try:
            peaks[name] = matmul_flops(str(device), dtype)
        except RuntimeError:  # this device has no such products
            continue
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
        processor=processor_name(),
        cores=usable_cores(),
        threads=torch.get_num_threads(),
        cache=last_level_cache(),
        allocator=allocator(),
        memory=memory,
        memory_free=memory_free,
        disk_free=shutil.disk_usage(_existing(where)).free,
        device=str(device),
        gpus=_cards(),
        compiler=find_compiler(),
        kernels=_kernels(device),
        packages=_packages(),
        settings={
            name: os.environ[name]
            for name in (
                "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_PROC_BIND",
                "LD_PRELOAD", "PYTORCH_CUDA_ALLOC_CONF", "CUDA_VISIBLE_DEVICES",
            )
            if name in os.environ
        },
        peaks=peaks,
        bandwidth=memory_bandwidth(str(device)),
    )  # fmt: skip


def last_level_cache() -> int:
    """Bytes of this CPU's last-level cache; 0: unknown."""
    try:
        size = os.sysconf("SC_LEVEL3_CACHE_SIZE") or os.sysconf("SC_LEVEL2_CACHE_SIZE")
    except (AttributeError, ValueError, OSError):
        size = 0
    if size > 0:
        return size
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        try:
            sizes.append(int(path.read_text(encoding="ascii").strip().removesuffix("K")) * 1024)
        except (OSError, ValueError):
            continue
    return max(sizes, default=0)


def allocator() -> str:
    """Which malloc this process uses: tcmalloc, jemalloc, mimalloc, glibc, or the system's."""
    try:
        mapped = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "system"
    found = (name for name in ("tcmalloc", "jemalloc", "mimalloc") if f"lib{name}" in mapped)
    return next(found, platform.libc_ver()[0] or "system")


def _cards() -> list[Card]:
    cards = []
    for number in range(torch.cuda.device_count()):
        name, facts = torch.cuda.get_device_name(number), torch.cuda.get_device_properties(number)
        sheet = gpu_named(name)
        capability = f"{facts.major}.{facts.minor}"
        cards.append(Card(name, facts.total_memory, capability, sheet.flops if sheet else None))
    return cards


def _kernels(device: torch.device) -> dict[str, bool]:
    cuda = device.type == "cuda"
    found: dict[str, Any] = {
        "SDPA": True,
        "SDPA flash": cuda and torch.backends.cuda.is_flash_attention_available(),
        "varlen flash": any(
            has_varlen(device.type, dtype, 64) for dtype in (torch.bfloat16, torch.float16)
        ),
        "FlashAttention-3": flash_attention(device) == 3,
        "flex (training)": cuda
        and importlib.util.find_spec("torch.nn.attention.flex_attention") is not None,
        "grouped matrix products": hasattr(torch.nn.functional, "grouped_mm")
        or hasattr(torch, "_grouped_mm"),
        "torch.compile": bool(find_compiler())
        and (not cuda or importlib.util.find_spec("triton") is not None),
    }
    return {name: bool(there) for name, there in found.items()}


def _packages() -> dict[str, str]:
    found = {name: installed_version(name) for name in PACKAGES}
    return {name: version for name, version in found.items() if version}


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next((p for p in (path, *path.parents) if p.exists()), Path(sys.prefix))
