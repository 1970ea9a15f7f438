"""What a recipe's `parallel` means for the processes there are."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from miao.console import say, warn
from miao.errors import MiaoError, install_hint
from miao.model.decoder import Decoder
from miao.recipe import Parallelism, StageOptions
from miao.train.distributed.fsdp import Filling, FullySharded, mesh_of
from miao.train.distributed.parallel import DataParallel, Parallel
from miao.train.distributed.world import World
from miao.train.distributed.zero import Zero


def spreads(option: Parallelism, world: World) -> bool:
    """Whether the model is made on the meta device, and no process ever has all of it."""
    return option in ("fsdp", "hsdp") and world.size > 1


def mesh_for(option: Parallelism, world: World, device: torch.device) -> Any:
    """The processes that hold a model together, or each copy of it (hsdp).

    Raises:
        MiaoError: hsdp where machines have unequal numbers of processes, or there is only one.
    """
    if option != "hsdp":
        return mesh_of(world, device.type)
    sizes = {size for [size] in world.gather([world.local_size])}
    if len(sizes) > 1 or sizes == {world.size}:
        raise MiaoError(
            "hsdp keeps a copy of the model per machine, and "
            + ("there is only one" if sizes == {world.size} else "they have unequally many GPUs"),
            where="parallel",
            fix="--parallel fsdp",
        )
    return mesh_of(world, device.type, world.size // world.local_size)


def make_parallel(
    option: Parallelism,
    model: Decoder,
    options: StageOptions,
    world: World,
    filling: Filling | None = None,
    mesh: Any = None,
) -> Parallel:
    """What the recipe's `parallel` asks for.

    Args:
        filling: of a model on the meta device (where `spreads`). mesh: its `mesh_for` (default:
            made).

    Raises:
        MiaoError: several processes and `parallel: none`; DeepSpeed is not installed.
    """
    if world.size == 1:
        if option not in ("auto", "none"):
            warn(f"parallel: {option} needs several processes (torchrun); one trains alone")
        return Parallel(model, options, world)
    if option == "none":
        raise MiaoError(
            f"{world.size} processes were started, but the recipe says none",
            where="parallel",
            fix="use --parallel auto, or start without a launcher",
        )
    if spreads(option, world):
        if mesh is None:
            mesh = mesh_for(option, world, filling.device if filling else model.device)
        copies = f", {mesh.size(0)} copies over {world.local_size} each" if mesh.ndim > 1 else ""
        say(f"  {world.size} processes, FSDP2{copies}")
        return FullySharded(model, options, world, mesh, filling)
    if option in ("auto", "ddp"):
        say(f"  {world.size} processes, DDP")
        return DataParallel(model, options, world)
    if importlib.util.find_spec("deepspeed") is None:
        raise MiaoError(
            "DeepSpeed is not installed",
            where=f"parallel: {option}",
            fix=f"{install_hint('deepspeed')}, or use --parallel fsdp",
        )
    stage = int(option.removeprefix("zero"))
    say(f"  {world.size} processes, DeepSpeed ZeRO-{stage}")
    if options.muon_learning_rate > 0:
        warn(
            "ZeRO cuts matrices into pieces that Muon cannot work with: AdamW trains them, at "
            "learning_rate (--parallel ddp or fsdp keeps Muon)"
        )
    return Zero(model, options, world, stage)
