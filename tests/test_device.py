"""What the machine is asked: peaks, memory, compiler, and the card that nobody uses."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from miao import device as module
from miao.device import (
    Peak,
    cap_gpu_memory,
    choose_dtype,
    choose_muon_dtype,
    find_compiler,
    flash_attention,
    matmul_flops,
    memory_bandwidth,
    memory_bytes,
    peak_flops,
    unused_gpu,
)
from miao.errors import MiaoError

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def test_measured_peaks_are_of_this_world() -> None:
    assert 1e7 < matmul_flops("cpu", torch.float32) < 1e14
    assert 1e7 < memory_bandwidth("cpu", 4) < 1e13


def test_a_slow_type_is_not_measured_twenty_times(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    calls = []
    assert module._best_seconds(lambda: calls.append(1), "cpu", limit=0.6) == 1.0
    assert len(calls) == 1


def test_the_peak_is_the_datasheet_s_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "matmul_flops", lambda device, dtype: 7e11)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    assert peak_flops(CUDA, torch.bfloat16) == Peak(989.4e12, "datasheet")
    assert peak_flops(CUDA, torch.float32) == Peak(7e11, "measured")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some New Card")
    assert peak_flops(CUDA, torch.bfloat16) == Peak(7e11, "measured")
    assert peak_flops(CPU, torch.float32) == Peak(7e11, "measured")


def test_memory() -> None:
    free, total = memory_bytes(CPU)
    assert 0 < free <= total < 2**50


def test_memory_of_a_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = open

    def redirected(path: str, *args: object, **kwargs: object) -> object:
        name = Path(path).name
        return real(tmp_path / name if "cgroup" in str(path) else path, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", redirected)
    (tmp_path / "memory.max").write_text("1000")
    (tmp_path / "memory.current").write_text("300")
    assert module._within_container(900, 5000) == (700, 1000)
    assert module._within_container(900, 800) == (900, 800), "a limit above the machine is none"
    (tmp_path / "memory.max").write_text("max")
    assert module._within_container(900, 5000) == (900, 5000)


def test_capping_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MiaoError, match="only the memory of a CUDA device"):
        cap_gpu_memory(4, CPU)
    set_to: list[float] = []
    total = 8 * 2**30
    facts = SimpleNamespace(total_memory=total)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: facts)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda f, device: set_to.append(f)
    )
    assert cap_gpu_memory(4, CUDA) == int(3.6 * 2**30)
    assert set_to == [pytest.approx(0.45)]
    with pytest.raises(MiaoError, match="not below"):
        cap_gpu_memory(80, CUDA)


def test_a_card_that_is_there_but_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert unused_gpu(CPU) is None
    assert find_compiler() is None
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built for the CPU alone" in (unused_gpu(CPU) or "")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert "driver" in (unused_gpu(CPU) or "")
    assert unused_gpu(CUDA) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert unused_gpu(CPU) is None, "the user has chosen the CPU"


@pytest.mark.parametrize("native", [True, False])
def test_muon_computes_in_fp32_on_cards_without_bf16(
    monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    card, half = torch.device("cuda"), torch.float16
    assert choose_muon_dtype(card, half) == (torch.bfloat16 if native else torch.float32)
    assert choose_dtype("auto", card) == (torch.bfloat16 if native else torch.float16)
    assert choose_muon_dtype(torch.device("cpu"), torch.float32) == torch.float32


def test_flash_attention_3_is_switched_on_where_its_package_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a package that only has the names, and PyTorch's own switch."""
    attention = torch.nn.attention
    if not hasattr(attention, "activate_flash_attention_impl"):
        pytest.skip("this PyTorch has no such switch")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.syspath_prepend(str(tmp_path))
    device, package = torch.device("cuda"), tmp_path / "flash_attn_interface.py"
    assert flash_attention(device) == 2  # not installed
    package.write_text("")
    assert flash_attention(device) == 2  # without kernels
    package.write_text(
        "import torch\n"
        "library = torch.library.Library('flash_attn_3', 'DEF')\n"
        "for name in ('fwd', 'bwd'):\n"
        "    library.define(f'{name}(Tensor x) -> Tensor')\n"
    )
    monkeypatch.delitem(sys.modules, "flash_attn_interface", raising=False)
    importlib.invalidate_caches()
    monkeypatch.setenv("MIAO_FLASH", "2")
    assert flash_attention(device) == 2
    monkeypatch.delenv("MIAO_FLASH")
    try:
        assert flash_attention(device) == 3 == flash_attention(device)
        assert attention.current_flash_attention_impl() == "FA3"
    finally:
        attention.restore_flash_attention_impl(_raise_warn=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert flash_attention(device) == 2  # an A100
    assert flash_attention(torch.device("cpu")) == 0
