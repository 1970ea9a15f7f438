"""What would help, in sentences: from what the machine is and what the stages are limited by."""

from __future__ import annotations

import torch

from miao.device import unused_gpu
from miao.doctor.machine import Machine
from miao.doctor.plan import StagePlan, checkpoint_bytes
from miao.model import ModelConfig
from miao.model.estimate import USABLE, gib
from miao.recipe import Recipe

LONG_HOURS = 14 * 24.0


def machine_advice(machine: Machine, device: torch.device) -> list[str]:
    """About the machine alone; what is wrong stands first."""
    advice = []
    if reason := unused_gpu(device):
        advice.append(f"THE GPU IS NOT USED: {reason}")
    elif device.type == "cpu":
        advice.append(
            "training runs on the CPU: right for models of a few million parameters; for tens of "
            "millions take a GPU"
        )
    if device.type == "cpu":
        advice += _cpu_advice(machine)
    elif "PYTORCH_CUDA_ALLOC_CONF" not in machine.settings and device.type == "cuda":
        advice.append(
            "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True leaves less memory in fragments"
        )
    if not machine.kernels["torch.compile"]:
        advice.append(
            "no C++ compiler was found: torch.compile is worth about a fifth on a CPU and more on "
            "a GPU (apt install g++, xcode-select --install)"
        )
    return advice


def _cpu_advice(machine: Machine) -> list[str]:
    advice = []
    if machine.threads < machine.cores:
        where = "OMP_NUM_THREADS" if "OMP_NUM_THREADS" in machine.settings else "the settings"
        advice.append(
            f"PyTorch uses {machine.threads} of {machine.cores} cores: {where} says so; "
            f"OMP_NUM_THREADS={machine.cores} for a single run"
        )
    elif machine.threads > machine.cores:
        advice.append(
            f"{machine.threads} threads share {machine.cores} cores and wait for each other: "
            f"OMP_NUM_THREADS={machine.cores}"
        )
    if machine.settings.get("OMP_WAIT_POLICY", "").upper() == "ACTIVE":
        advice.append(
            "OMP_WAIT_POLICY=ACTIVE lets waiting threads spin: several times slower as soon as "
            "anything else runs here; unset it"
        )
    if machine.allocator == "system":
        advice.append(
            "this C library frees memory at every step: preloading tcmalloc or jemalloc "
            "(LD_PRELOAD) saves up to a fifth"
        )
    if "bf16" not in machine.fast_types:
        advice.append("bf16 is not faster than fp32 here: `precision: auto` takes fp32")
    return advice


def recipe_advice(
    plans: list[StagePlan], recipe: Recipe, config: ModelConfig, machine: Machine
) -> list[str]:
    """About the stages of a recipe."""
    advice = []
    for plan in plans:
        advice += _stage_advice(plan, machine)
    heads = config.query_dim
    on_gpu = not machine.device.startswith("cpu")
    if on_gpu and not config.is_latent and heads not in (64, 128):
        advice.append(
            f"attention kernels are built for heads of 64 and 128, not of {heads} (model.head_dim)"
        )
    needed = sum(checkpoint_bytes(config, getattr(recipe, plan.stage)) for plan in plans)
    if needed > machine.disk_free:
        advice.append(
            f"checkpoints take up to {gib(needed)}, and {gib(machine.disk_free)} of disk are free: "
            "lower keep_last, or choose another out_dir"
        )
    return list(dict.fromkeys(advice))


def _stage_advice(plan: StagePlan, machine: Machine) -> list[str]:
    stage, advice = plan.stage, []
    if plan.micro_batch is None:
        advice.append(
            f"{stage}: a single row takes {gib(plan.memory.total)}, {gib(plan.device_memory)} are "
            f"there: shorten --{stage}.seq_len, choose a smaller model or vocabulary, or train an "
            "adapter"
        )
    elif plan.device_memory and plan.memory.total > USABLE * plan.device_memory:
        advice.append(
            f"{stage}: micro_batch {plan.micro_batch} takes {gib(plan.memory.total)} of "
            f"{gib(plan.device_memory)}: --{stage}.micro_batch auto"
        )
    elif plan.limit == "data":
        advice.append(
            f"{stage}: {plan.data_wait:.0%} of the last run was waiting for data: is the disk "
            "slow, or a network's? Put the run directory on a local one"
        )
    elif plan.limit == "small batches":
        advice.append(
            f"{stage}: passes of {plan.micro_batch * plan.seq_len} tokens are too small to fill "
            f"this device: raise --{stage}.batch_tokens (or micro_batch), if the loss allows it"
        )
    elif plan.limit == "optimizer":
        advice.append(
            f"{stage}: the optimizer takes most of a step of {plan.batch_tokens} tokens: raise "
            f"--{stage}.batch_tokens, if the loss allows it"
        )
    elif plan.limit == "vocabulary":
        advice.append(
            f"{stage}: most of the time goes into the output head: a smaller vocabulary would be "
            "faster (tokenizer.vocab_size)"
        )
    if plan.uncounted:
        advice.append(
            f"{stage}: the teacher {plan.uncounted} cannot be read here: its memory (4 bytes per "
            "parameter) comes on top"
        )
    if plan.recompute:
        advice.append(
            f"{stage}: activation checkpointing is on; it costs about a quarter of the speed"
        )
    if plan.hours is not None and plan.hours > LONG_HOURS:
        advice.append(f"{stage}: {plan.hours / 24:.0f} days are long: lower --{stage}.tokens")
    return advice
