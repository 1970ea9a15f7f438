"""PyTorch's FSDP2: parameters, gradients and optimizer state are spread, block by block."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from miao.model.decoder import begin_compiling
from miao.train.distributed.parallel import Named, Sharded, broadcast, own_weights
from miao.train.muon import RowsOrthogonalizer
from miao.train.optim import local


class FullySharded(Sharded):
    """PyTorch's FSDP2: parameters, gradients and optimizer state are spread, block by block."""

    orthogonalizer = RowsOrthogonalizer

    def distribute(self) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        # Objectives never change what the model returned in place.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
        broadcast(self.model)
        mesh = init_device_mesh(self.model.device.type, (self.world.size,))
        for block in self.model.model.layers:
            fully_shard(block, mesh=mesh)
        fully_shard(self.model, mesh=mesh)

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

    def part_of(self, target: Tensor, whole: Tensor) -> Tensor:
        if local(target) is target:
            return whole
        chunks = whole.chunk(self.world.size)
        return chunks[self.world.rank] if self.world.rank < len(chunks) else whole[:0]

    def compile(self, graphs: bool = True) -> None:
        begin_compiling()
        for block in self.model.model.layers:  # what collects the parts stands between them
            block.compile(dynamic=False)
        self.model.is_compiled = True


def _whole(tensor: Any) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
