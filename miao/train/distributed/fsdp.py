"""PyTorch's FSDP2: parameters, gradients and optimizer state are spread, block by block. No
process ever holds all of them: the model is made without memory, spread, and filled part by part.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from miao.device import begin_compiling
from miao.model.decoder import Decoder, Rotary
from miao.recipe import StageOptions
from miao.train.distributed.orthogonal import RowsOrthogonalizer
from miao.train.distributed.parallel import Named, Rows, Sharded, broadcast, own_weights
from miao.train.distributed.world import World
from miao.train.optim import local


class Filling(NamedTuple):
    """What a model on the meta device is to become."""

    device: torch.device
    values: Callable[[Decoder], Iterator[tuple[str, Rows]]]


class FullySharded(Sharded):
    """FSDP2. Parts stay float32; whole weights exist for a block at a time, in the compute type,
    and gradients are summed in float32.

    Args:
        filling: of a model on the meta device; any other is spread as the main process has it.
    """

    in_parts = True
    orthogonalizer = RowsOrthogonalizer

    def __init__(
        self, model: Decoder, options: StageOptions, world: World, filling: Filling | None = None
    ):
        self.filling = filling
        super().__init__(model, options, world)

    def distribute(self) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        # Objectives never change what the model returned in place.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
        model, filling = self.model, self.filling
        device = model.device if filling is None else filling.device
        if filling is None:
            broadcast(model)
        mesh = init_device_mesh(device.type, (self.world.size,))
        half = model.compute_dtype != torch.float32
        policy = MixedPrecisionPolicy(
            param_dtype=model.compute_dtype if half else None,
            reduce_dtype=torch.float32,
            cast_forward_inputs=False,
        )
        if half:  # its products are in float32
            for mixture in model.mixtures().values():
                fully_shard(mixture.gate, mesh=mesh)
        blocks: list[Any] = list(model.model.layers)
        for block in blocks:
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(model, mesh=mesh, mp_policy=policy)
        if device.type == "cuda":
            for block, following in pairwise(blocks):
                block.set_modules_to_forward_prefetch([following])
        if filling is not None:
            materialize(model, device)
            self._fill(filling)

    @torch.no_grad()
    def _fill(self, filling: Filling) -> None:
        own = own_weights(self.model)
        for name, rows in filling.values(self.model):
            target = own.pop(name)
            local(target).copy_(rows(*self.rows_of(target)))
        assert not own.keys() & dict(self.model.named_parameters()).keys()

    def measure(self, heldout: Callable[[Decoder], dict[str, float]]) -> dict[str, float] | None:
        self.model.eval()
        with torch.compiler.set_stance("force_eager"):  # of many shapes
            return heldout(self.model)

    def save(self, save: Callable[[Named], None]) -> None:
        whole = self.weights()
        if self.world.is_main:
            save(whole)
        for _ in whole:
            pass

    def weights(self) -> Named:
        for name, tensor in own_weights(self.model).items():
            yield name, _whole(tensor)

    def buffers(self) -> Named:
        from torch.distributed.tensor import DTensor

        parameters: dict[str, Any] = dict(self.model.named_parameters())
        for key, part in self.optimizer.state_tensors().items():
            like = parameters[key.partition(".")[2]]
            spread = DTensor.from_local(
                part,
                like.device_mesh,
                like.placements,
                run_check=False,
                shape=like.shape,
                stride=like.stride(),
            )
            yield key, _whole(spread)

    def rows_of(self, target: Tensor) -> tuple[int, int]:
        """The rows of a tensor that this process holds, `start:stop`."""
        held, each = local(target), -(-target.shape[0] // self.world.size)
        start = 0 if held is target else min(each * self.world.rank, target.shape[0])
        return start, start + held.shape[0]

    def parts(self) -> Iterator[tuple[str, Tensor, int]]:
        parameters = dict(self.model.named_parameters())
        named = [(f"model.{name}", t, t) for name, t in own_weights(self.model).items()]
        for key, part in self.optimizer.state_tensors().items():
            named.append((f"optimizer.{key}", part, parameters[key.partition(".")[2]]))
        for name, tensor, like in named:
            held, spread = local(tensor), local(like) is not like
            if held.shape[0] if spread else self.world.is_main:
                yield name, held.detach(), self.rows_of(like)[0]

    def load_parts(self, stored: Callable[[str], Rows], buffers: list[str], num_steps: int) -> None:
        self.require_known(dict.fromkeys(buffers, torch.empty(0)))
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, target in own_weights(self.model).items():
                local(target).copy_(stored(f"model.{name}")(*self.rows_of(target)))
        self.optimizer.state.clear()
        found = {
            key: stored(f"optimizer.{key}")(*self.rows_of(parameters[key.partition(".")[2]]))
            for key in buffers
        }
        self.optimizer.load_state_tensors(found, num_steps)

    def part_of(self, target: Tensor, whole: Tensor) -> Tensor:
        return whole[slice(*self.rows_of(target))]

    def compile(self, graphs: bool = True) -> None:
        begin_compiling()
        for block in self.model.model.layers:  # what collects the parts stands between them
            block.compile(dynamic=False)
        self.model.is_compiled = True


def _whole(tensor: Any) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def materialize(model: Decoder, device: torch.device) -> None:
    """Gives a model of the meta device memory; parameters are to be filled afterwards."""
    model.to_empty(device=device)
    fresh = Rotary(model.config)
    model.model.rotary.inverse_frequency.copy_(fresh.inverse_frequency)
    model.model.rotary.attention_factor = fresh.attention_factor
    for name, buffer in model.named_buffers():
        if "rotary" not in name:
            buffer.zero_()
