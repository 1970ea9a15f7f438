"""What this machine computes with: device, number type, memory allocator, measured peak."""

from __future__ import annotations

import ctypes
import functools
import platform
import time

import torch

from miao.errors import MiaoError

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def choose_device(option: str) -> torch.device:
    """`auto`: CUDA, else Apple's MPS, else the CPU; or the device that is named.

    Raises:
        MiaoError: no such device here.
    """
    if option == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        device = torch.device(option)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise MiaoError(
            f"the device '{option}' cannot be used: {str(error).splitlines()[0]}",
            where="device",
            fix="use --device auto or --device cpu",
        ) from error
    return device


def choose_dtype(option: str, device: torch.device) -> torch.dtype:
    """The type of matrix products: bf16 where it is native and faster, else fp32."""
    if option == "fp32":
        return torch.float32
    if option == "bf16":
        return torch.bfloat16
    if device.type == "cuda":
        return (
            torch.bfloat16
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else torch.float32
        )
    if device.type == "cpu" and matmul_flops("cpu", torch.bfloat16) > 1.2 * matmul_flops(
        "cpu", torch.float32
    ):
        return torch.bfloat16
    return torch.float32


@functools.cache
def matmul_flops(device: str, dtype: torch.dtype, size: int = 1024) -> float:
    """Best measured FLOP/s of square matrix products: the peak that MFU is held against."""
    size = size if device == "cpu" else 8192
    a = torch.randn(size, size, device=device, dtype=dtype)
    b = torch.randn(size, size, device=device, dtype=dtype)
    best = float("inf")
    a @ b
    for _ in range(8):
        _synchronize(device)
        start = time.perf_counter()
        a @ b
        _synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory instead of giving it back to the kernel at every step.

    PyTorch's CPU allocator asks for the same large blocks again and again; by default glibc maps
    and unmaps each one, and the page faults cost a fifth of a training step (docs/LOG.md). Returns
    whether it could be done (Linux with glibc).
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, -1))


def peak_memory_mib(device: torch.device) -> float:
    """Highest memory use so far: the GPU's allocations, or this process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if platform.system() == "Darwin" else 2**10)


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
