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

from miao.model.decoder import Decoder, Rotary
from miao.model.directory import own_tensors
from miao.recipe import StageOptions
from miao.train.adapters import merged_weights
from miao.train.distributed.orthogonal import RowsOrthogonalizer
from miao.train.distributed.parallel import (
    GRAD_DTYPES,
    Named,
    Rows,
    Sharded,
    broadcast,
    own_weights,
)
from miao.train.distributed.world import World
from miao.train.optim import ROUTER, MuonAdamW, local


class Filling(NamedTuple):
    """What a model on the meta device is to become."""

    device: torch.device
    values: Callable[[Decoder], Iterator[tuple[str, Rows]]]


def mesh_of(world: World, device: str, replicas: int = 1) -> Any:
    """The processes as rows of those that hold one copy together: [replicas, parts]."""
    from torch.distributed.device_mesh import init_device_mesh

    shape = (replicas, world.size // replicas)
    if replicas == 1:
        return init_device_mesh(device, shape[1:], mesh_dim_names=("parts",))
    return init_device_mesh(device, shape, mesh_dim_names=("replicas", "parts"))


def spread(
    model: Decoder, mesh: Any, device: torch.device, reduce_dtype: torch.dtype = torch.float32
) -> None:
    """Spreads a model over the processes, block by block; one on the meta device gets memory.

    Args:
        reduce_dtype: in which gradients are summed over the processes.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    # Objectives never change what the model returned in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    half = model.compute_dtype != torch.float32
    policy = MixedPrecisionPolicy(
        param_dtype=model.compute_dtype if half else None,
        reduce_dtype=reduce_dtype,
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
    if model.lm_head.weight.is_meta:
        materialize(model, device)


@torch.no_grad()
def fill(model: Decoder, values: Iterator[tuple[str, Rows]]) -> None:
    """Gives a spread model its weights; of each only this process's rows are asked for."""
    own = own_tensors(model)
    for name, rows in values:
        target = own.pop(name)
        local(target).copy_(rows(*rows_of(target)))
    assert not own.keys() & dict(model.named_parameters()).keys(), own.keys()


def rows_of(target: Any) -> tuple[int, int]:
    """The rows of a tensor that this process holds, `start:stop`."""
    held = local(target)
    if held is target:
        return 0, len(target) if target.ndim else 1
    mesh = target.device_mesh
    each = -(-target.shape[0] // mesh.size(mesh.ndim - 1))
    start = min(each * mesh.get_local_rank(mesh.ndim - 1), target.shape[0])
    return start, start + held.shape[0]


class FullySharded(Sharded):
    """FSDP2. Parts stay float32, gradients too; whole weights exist for a block at a time, in the
    compute type.

    Args:
        mesh: of `mesh_of`. With several copies, each spread over equally many processes (HSDP),
            only the summed gradient goes from one to the other.
        filling: of a model on the meta device; any other is spread as the main process has it.
    """

    in_parts = by_block = True
    orthogonalizer = RowsOrthogonalizer

    def __init__(
        self,
        model: Decoder,
        options: StageOptions,
        world: World,
        mesh: Any,
        filling: Filling | None = None,
    ):
        self.mesh, self.filling = mesh, filling
        self._answering: Decoder | None = None
        super().__init__(model, options, world)

    def distribute(self) -> None:
        device = self.model.device if self.filling is None else self.filling.device
        if self.filling is None:
            broadcast(self.model)
        self.group = self.mesh.get_group("parts")
        self.writes = self.mesh.ndim == 1 or self.mesh.get_local_rank("replicas") == 0
        spread(self.model, self.mesh, device, GRAD_DTYPES[self.options.grad_dtype])
        if self.filling is not None:
            fill(self.model, self.filling.values(self.model))

    def make_optimizer(self, muon_lr: float) -> MuonAdamW:
        optimizer = super().make_optimizer(muon_lr)
        assert isinstance(optimizer.orthogonalizer, RowsOrthogonalizer)
        optimizer.orthogonalizer.group = self.group
        return optimizer

    @torch.no_grad()
    def answering(self) -> Decoder:
        if self._answering is None:
            with torch.device("meta"):
                copy = Decoder(self.model.config).requires_grad_(False).eval()
            dtype = self.model.compute_dtype
            for name, parameter in copy.named_parameters():
                if parameter.ndim > 1 and not name.endswith(ROUTER):
                    parameter.data = parameter.data.to(dtype)
            copy.set_compute_dtype(dtype)
            materialize(copy, self.model.device)
            if copy.config.tie_word_embeddings:  # memory was given to each half
                copy.lm_head.weight = copy.model.embed_tokens.weight
            self._answering = copy
        own = own_tensors(self._answering)
        for name, tensor in self.whole_weights():
            own[name].copy_(tensor)
        return self._answering

    def measure(self, heldout: Callable[[Decoder], dict[str, float]]) -> dict[str, float] | None:
        self.model.eval()
        with torch.compiler.set_stance("force_eager"):  # of many shapes
            return heldout(self.model)

    def save(self, save: Callable[[Named], None]) -> None:
        whole = self.whole_weights()
        if self.world.is_main:
            save(whole)
        for _ in whole:
            pass

    def weights(self) -> Named:
        for name, tensor in own_weights(self.model).items():
            yield name, self.whole(tensor)

    def whole_weights(self) -> Named:
        return merged_weights(self.model, self.whole)

    @staticmethod
    def whole(tensor: Any) -> Tensor:
        return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor

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
            yield key, self.whole(spread)

    def parts(self) -> Iterator[tuple[str, Tensor, int]]:
        parameters = dict(self.model.named_parameters())
        named = [(f"model.{name}", t, t) for name, t in own_weights(self.model).items()]
        for key, part in self.optimizer.state_tensors().items():
            named.append((f"optimizer.{key}", part, parameters[key.partition(".")[2]]))
        for name, tensor, like in named:
            held, spread = local(tensor), local(like) is not like
            if (self.writes and held.shape[0]) if spread else self.world.is_main:
                yield name, held.detach(), rows_of(like)[0]

    def load_parts(self, stored: Callable[[str], Rows], buffers: list[str], num_steps: int) -> None:
        self.require_known(dict.fromkeys(buffers, torch.empty(0)))
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, target in own_weights(self.model).items():
                local(target).copy_(stored(f"model.{name}")(*rows_of(target)))
        self.optimizer.state.clear()
        found = {
            key: stored(f"optimizer.{key}")(*rows_of(parameters[key.partition(".")[2]]))
            for key in buffers
        }
        self.optimizer.load_state_tensors(found, num_steps)

    def part_of(self, target: Tensor, whole: Tensor) -> Tensor:
        return whole[slice(*rows_of(target))]


def materialize(model: Decoder, device: torch.device) -> None:
    """Gives what is on the meta device memory; parameters are to be filled afterwards."""
    empty = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    model._apply(lambda t: torch.empty_like(t, device=device) if t.is_meta else t.to(device))
    fresh = Rotary(model.config)
    model.model.rotary.inverse_frequency.copy_(fresh.inverse_frequency)
    model.model.rotary.attention_factor = fresh.attention_factor
    for name in empty:
        if "rotary" not in name:
            model.get_buffer(name).zero_()
