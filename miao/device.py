"""What this machine computes with: device, number type, memory allocator, measured peak."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from miao.errors import MiaoError, first_line
from miao.gpus import Gpu, gpu_named

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
            f"the device '{option}' cannot be used: {first_line(error)}",
            where="device",
            fix="use --device auto or --device cpu",
        ) from error
    return device


def choose_dtype(option: str, device: torch.device) -> torch.dtype:
    """The type of matrix products: bf16 where it is native and faster, fp16 on GPUs without it,
    else fp32."""
    if option == "fp32":
        return torch.float32
    if option in ("bf16", "fp16"):
        return torch.bfloat16 if option == "bf16" else torch.float16
    if device.type == "cuda":
        return torch.bfloat16 if _has_bf16() else torch.float16
    if device.type == "cpu" and matmul_flops("cpu", torch.bfloat16) > 1.2 * matmul_flops(
        "cpu", torch.float32
    ):
        return torch.bfloat16
    return torch.float32


def choose_muon_dtype(device: torch.device, compute_dtype: torch.dtype) -> torch.dtype:
    """The type of Muon's products: bf16 is enough, where it is native; float16 has too little range
    for them, so cards without bf16 use fp32."""
    if device.type == "cpu":
        return compute_dtype
    return torch.bfloat16 if device.type != "cuda" or _has_bf16() else torch.float32


def _has_bf16() -> bool:
    return torch.cuda.is_bf16_supported(including_emulation=False)


@dataclass(frozen=True)
class Peak:
    """What MFU is held against."""

    flops: float
    source: str
    """`datasheet` or `measured`."""


def peak_flops(device: torch.device, dtype: torch.dtype) -> Peak:
    """The datasheet's peak of a known GPU in bf16 or fp16; of anything else the measured one."""
    gpu = known_gpu(device)
    if gpu is not None and dtype in (torch.bfloat16, torch.float16):
        return Peak(gpu.flops, "datasheet")
    return Peak(matmul_flops(str(device), dtype), "measured")


def known_gpu(device: torch.device) -> Gpu | None:
    """The datasheet of this CUDA device, or None: no such device, or not in the table."""
    return gpu_named(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


@functools.cache
def matmul_flops(device: str, dtype: torch.dtype, size: int | None = None) -> float:
    """Best measured FLOP/s of square matrix products.

    Args:
        size: of the squares on a CPU (default: from 256 on, as long as they take less than 5 ms:
            short runs find the peak of a machine that others use too); on a GPU always 8192.
    """
    best = 0.0
    sizes = (8192,) if device != "cpu" else (256, 512, 1024, 2048) if size is None else (size,)
    for side in sizes:
        a = torch.randn(side, side, device=device, dtype=dtype)
        b = torch.randn(side, side, device=device, dtype=dtype)
        limit = 0.2 if device == "cpu" else 1.0  # the first run on a GPU is a slow one
        seconds = _best_seconds(functools.partial(torch.matmul, a, b), device, limit)
        best = max(best, 2 * side**3 / seconds)
        if seconds > 0.005:
            break
    return best


@functools.cache
def memory_bandwidth(device: str, mib: int = 64) -> float:
    """Best measured bytes per second, read and written, of adding two vectors of `mib` MiB (1 GiB
    on a GPU), far more than a cache holds."""
    numbers = (mib if device == "cpu" else 1024) * 2**20 // 4
    a, b = (torch.ones(numbers, device=device) for _ in range(2))
    out = torch.empty_like(a)
    return 3 * 4 * numbers / _best_seconds(lambda: torch.add(a, b, out=out), device)


def _best_seconds(work: Callable[[], object], device: str, limit: float = 1.0) -> float:
    """The shortest of up to twenty runs; no new one begins after `limit` seconds."""
    best, began = float("inf"), time.perf_counter()
    for _ in range(20):
        _synchronize(device)
        start = time.perf_counter()
        work()
        _synchronize(device)
        end = time.perf_counter()
        best = min(best, end - start)
        if end - began > limit:
            break
    return best


def memory_bytes(device: torch.device) -> tuple[int, int]:
    """(free, all) memory of a GPU, or of the machine (free: available to new programs)."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return free, total
    if platform.system() == "Linux":
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = re.findall(r"(\w+): +(\d+) kB", file.read())
        found = {name: 1024 * int(kibibytes) for name, kibibytes in lines}
        if "MemTotal" in found:
            free = found.get("MemAvailable", found.get("MemFree", 0))
            return _within_container(free, found["MemTotal"])
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return 0, 0
    return total, total


def _within_container(free: int, total: int) -> tuple[int, int]:
    """Memory under the limit of a control group, which /proc does not know."""
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            limit = int(file.read())
        with open("/sys/fs/cgroup/memory.current", encoding="ascii") as file:
            used = int(file.read())
    except (OSError, ValueError):  # no control group, or `max`
        return free, total
    return (min(free, max(0, limit - used)), limit) if limit < total else (free, total)


def cap_gpu_memory(gib: float, device: torch.device, context_gib: float = 0.4) -> int:
    """Lets this process allocate no more than a card of `gib` GiB would: what the CUDA context
    takes there (`context_gib`) is left out. Returns the bytes that remain for tensors.

    Raises:
        MiaoError: no CUDA device, or a smaller one.
    """
    if device.type != "cuda":
        raise MiaoError("only the memory of a CUDA device can be capped", where=str(device))
    total = torch.cuda.get_device_properties(device).total_memory
    room = int((gib - context_gib) * 2**30)
    if not 0 < room <= total:
        raise MiaoError(f"{gib} GiB is not below this card's {total / 2**30:.1f} GiB")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    torch.cuda.set_per_process_memory_fraction(room / total, device)
    return room


def flash_attention(device: torch.device) -> int:
    """The FlashAttention that PyTorch uses on a card: 2, or 3 (https://arxiv.org/abs/2407.08608),
    which this switches on where it can: on Hopper (H100, H200, H800, H20), with Dao-AILab's package
    `flash_attn_interface`. 0: not an NVIDIA card. MIAO_FLASH=2 leaves it off.
    """
    if device.type != "cuda" or torch.version.hip is not None:
        return 0
    if os.environ.get("MIAO_FLASH") == "2" or torch.cuda.get_device_capability(device)[0] != 9:
        return 2
    from torch.nn import attention

    current = getattr(attention, "current_flash_attention_impl", lambda: None)
    if current() is None and "FA3" in getattr(attention, "list_flash_attention_impls", list)():
        try:
            attention.activate_flash_attention_impl("FA3")
        except (ImportError, OSError, RuntimeError):  # not installed, or made for another PyTorch
            return 2
    return 3 if current() == "FA3" else 2


def find_compiler() -> str | None:
    """The C++ compiler that torch.compile would use on a CPU, or None."""
    names = [os.environ.get("CXX", ""), "g++", "clang++", "gcc", "clang", "cc"]
    if platform.system() == "Windows":
        names = ["cl"]
    return next((path for name in names if name and (path := shutil.which(name))), None)


def unused_gpu(device: torch.device) -> str | None:
    """Why training runs on the CPU although an NVIDIA card is there; None: all is well."""
    if device.type != "cpu" or torch.cuda.is_available() or shutil.which("nvidia-smi") is None:
        return None
    if torch.version.cuda is None:
        return (
            "an NVIDIA card seems to be here (nvidia-smi is installed), but this PyTorch is built "
            "for the CPU alone: install a CUDA build of it"
        )
    return (
        f"an NVIDIA card seems to be here, but PyTorch (CUDA {torch.version.cuda}) cannot use it: "
        "is the driver too old, or CUDA_VISIBLE_DEVICES empty? See what nvidia-smi says"
    )


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory instead of giving it back to the kernel at every step.

    PyTorch's CPU allocator asks for the same large blocks again and again; by default glibc maps
    and unmaps each one, and the page faults cost a fifth of a training step (docs/LOG.md). Returns
    whether it could be done (Linux with glibc).
    """
    libc = _glibc()
    return bool(libc and libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, -1))


def give_back_freed_memory() -> None:
    """Returns to the kernel what was freed and will not be wanted again (Linux with glibc)."""
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    is_glibc = platform.system() == "Linux" and platform.libc_ver()[0] == "glibc"
    return ctypes.CDLL(None) if is_glibc else None


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


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device; a GPU gets it without the host waiting for its turn."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def begin_compiling() -> None:
    """What was compiled before (for another stage) counts no more, and where the compiler would
    give up after too many shapes it says so instead of going on eagerly without a word."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch._dynamo.config.fail_on_recompile_limit_hit = True
