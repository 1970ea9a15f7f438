"""How one model is trained by one process, or by several that each have all of it (DDP). FSDP2 is
in `fsdp.py`, DeepSpeed's ZeRO in `zero.py`, the choice in `choice.py`.

The loop, the objectives and the guard know nothing of it. They see a module to call, a gradient
that is the whole step's whoever computed it, its norm, and an optimizer; a checkpoint sees whole
tensors under their usual names, so that any number of processes, in any of these ways, goes on
from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from miao.console import warn
from miao.device import choose_muon_dtype
from miao.errors import MiaoError
from miao.model.decoder import Decoder
from miao.model.directory import Named, own_tensors
from miao.ops.experts import experts_never_wait
from miao.recipe import StageOptions
from miao.train.adapters import Rows, has_adapter, merged
from miao.train.distributed.buckets import Buckets
from miao.train.distributed.orthogonal import SharedOrthogonalizer
from miao.train.distributed.world import World
from miao.train.muon import Orthogonalizer
from miao.train.optim import MuonAdamW, local

GRAD_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Parallel:
    """One process.

    Args:
        model: on its device, in its number type, not yet compiled.
    """

    in_parts = False
    """Whether checkpoints are written and read in parts, by every process its own."""
    lockstep = False
    """Whether every process must run equally many forward and backward passes."""
    by_block = False
    """Whether blocks are compiled one by one: gradients, or weights, are exchanged between them."""
    orthogonalizer: type[Orthogonalizer] = Orthogonalizer
    optimizer_class: type[MuonAdamW] = MuonAdamW

    def __init__(self, model: Decoder, options: StageOptions, world: World):
        self.model, self.options, self.world = model, options, world
        self.graphs = False
        """Whether the compiled model is replayed as CUDA graphs."""
        self.module: nn.Module = model
        """What an objective calls."""
        self.distribute()
        self.optimizer = self.make_optimizer(options.muon_learning_rate)

    def distribute(self) -> None:
        """Spreads the model over the processes. `.grad` of what is trained is from now on of the
        type that the options say."""
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.grad_dtype = GRAD_DTYPES[self.options.grad_dtype]

    def make_optimizer(self, muon_lr: float) -> MuonAdamW:
        options, model = self.options, self.model
        dtype = choose_muon_dtype(model.device, model.compute_dtype)
        return self.optimizer_class(
            [(name, p) for name, p in model.named_parameters() if p.requires_grad],
            lr=options.learning_rate,
            muon_lr=muon_lr,
            weight_decay=options.weight_decay,
            betas=(options.adam_betas[0], options.adam_betas[1]),
            momentum=options.muon_momentum,
            orthogonalizer=self.orthogonalizer(
                dtype, compiles=model.device.type == "cuda" and options.compile != "off"
            ),
        )

    def backward(self, loss: Tensor, last: bool) -> None:
        """Adds a micro-batch's share of the step's loss to the gradient.

        Args:
            last: of this step.
        """
        loss.backward()

    def gradients(self) -> list[Tensor]:
        """What this process holds of the gradient; changed in place, it is what is applied."""
        return [local(p.grad) for p in self.model.parameters() if p.grad is not None]

    def forget_gradients(self) -> None:
        """Before a step, or instead of applying a bad one."""
        self.model.zero_grad(set_to_none=True)

    def sum_gradients(self) -> None:
        """Makes the gradient that of the whole step, once its micro-batches are through, or have
        failed: all call it."""

    def sum(self, numbers: Tensor) -> None:
        """Sums over the processes, in place."""

    def norm(self) -> Tensor:
        """Of the whole gradient; the same number in every process."""
        return total_norm(self.gradients(), self.model.device)

    def step(self, good: Tensor | None = None) -> None:
        """Applies the gradient; where `good` (bool [], on the device) does not hold, weights and
        buffers stay as they are, and the host does not have to know."""
        if good is not None:
            for gradient in self.gradients():
                gradient.masked_fill_(~good, 0.0)
        self.optimizer.good = good
        self.optimizer.step()

    def leave_out(self) -> None:
        """Instead of applying it."""

    def weights(self) -> Named:
        """Every whole parameter and buffer that belongs to the model, a tied head once. All
        processes go through it together; only the main process may need the tensors."""
        yield from own_weights(self.model).items()

    def buffers(self) -> Named:
        """Every whole optimizer buffer as `<buffer>.<parameter name>`, in the same way."""
        yield from self.optimizer.state_tensors().items()

    def load(self, weights: dict[str, Tensor], buffers: dict[str, Tensor], num_steps: int) -> None:
        """Takes back what `weights` and `buffers` gave; every process has all of it.

        Raises:
            MiaoError: the buffers are another optimizer's.
        """
        self.require_known(buffers)
        own = own_weights(self.model)
        with torch.no_grad():
            for name, target in own.items():
                local(target).copy_(self.part_of(target, weights[name]))
        parameters = dict(self.model.named_parameters())
        self.optimizer.state.clear()
        self.optimizer.load_state_tensors(
            {
                key: self.part_of(parameters[key.partition(".")[2]], tensor)
                for key, tensor in buffers.items()
            },
            num_steps,
        )

    def require_known(self, buffers: dict[str, Tensor]) -> None:
        """Momentum of Muon means nothing to AdamW, nor the other way round."""
        if not set(buffers) <= self.optimizer.buffer_names:
            raise MiaoError(
                "the checkpoint was made with Muon and goes on with AdamW, or the other way round",
                where="parallel",
                fix="go on with the same --parallel (ZeRO has no Muon), or set "
                "muon_learning_rate 0 from the beginning",
            )

    def part_of(self, target: Tensor, whole: Tensor) -> Tensor:
        """What this process holds of a whole tensor that belongs to `target`."""
        return whole

    def parts(self) -> Iterator[tuple[str, Tensor, int]]:
        """Where `in_parts`: what this process writes of `model.<weight>` and `optimizer.<buffer>`,
        with the first row of each."""
        raise NotImplementedError

    def load_parts(self, stored: Callable[[str], Rows], buffers: list[str], num_steps: int) -> None:
        """Where `in_parts`: takes back what `parts` gave.

        Args:
            stored: gives rows of the tensor so named.
        """
        raise NotImplementedError

    def compile(self, graphs: bool = True) -> None:
        """Compiles what repays it; as CUDA graphs where the options say so, and unless not."""
        graphs, why = graphs and self.options.compile == "graphs", ""
        if self.lockstep:
            why = "processes exchange weights or gradients between the kernels"
        elif self.model.mixtures() and not experts_never_wait(self.model.compute_dtype):
            why = "the experts make the host wait on this GPU"
        if graphs and why:
            warn(f"{why}: compiled, but not as CUDA graphs")
        self.graphs = graphs = graphs and not why
        self.model.compile_for_training(graphs, self.by_block and not graphs)

    def plain_model(self) -> Decoder | None:
        """A model to measure, sample and save, with the weights of now; None where it is another
        process's work. All call it together."""
        if not self.world.is_main:
            return None
        return merged(self.model) if has_adapter(self.model) else self.model

    def measure(self, heldout: Callable[[Decoder], dict[str, float]]) -> dict[str, float] | None:
        """What `heldout` says of the model; None where another process asks it. All call it
        together."""
        model = self.plain_model()
        return None if model is None else heldout(model.eval())

    def answering(self) -> Decoder:
        """A model with the weights of now that every process generates with by itself. All call
        it together."""
        return self.model

    @staticmethod
    def whole(tensor: Tensor) -> Tensor:
        """A parameter of the model as a whole. All call it together."""
        return tensor

    def save(self, save: Callable[[Named], None]) -> None:
        """Calls `save` in the main process with every whole weight to write, one after the other.
        All call it together."""
        if (model := self.plain_model()) is not None:
            save(iter(own_tensors(model).items()))


class DataParallel(Parallel):
    """Every process has the whole model and its share of each step's rows (DDP). The gradient is
    summed once per step, while the backward pass of the last micro-batch goes on. Muon's matrices
    are shared out."""

    by_block = True
    orthogonalizer = SharedOrthogonalizer

    def distribute(self) -> None:
        broadcast(self.model)
        super().distribute()
        self.buckets = Buckets(p for p in self.model.parameters() if p.requires_grad)

    def backward(self, loss: Tensor, last: bool) -> None:
        if last:
            self.buckets.last()
        super().backward(loss, last)

    def forget_gradients(self) -> None:
        self.buckets.begin()

    def sum_gradients(self) -> None:
        self.buckets.finish()

    def sum(self, numbers: Tensor) -> None:
        dist.all_reduce(numbers)

    def norm(self) -> Tensor:
        norm = super().norm()
        dist.broadcast(norm, src=0)  # different devices may add in different order
        return norm


class Sharded(Parallel):
    """Every process holds a part of each tensor; forward and backward passes collect them, so all
    processes must run equally many."""

    lockstep = True
    group: Any = None
    """The processes that hold one copy together; None: all."""

    def backward(self, loss: Tensor, last: bool) -> None:
        super().backward(loss * self.world.size, last)  # these libraries take the mean

    def sum(self, numbers: Tensor) -> None:
        dist.all_reduce(numbers)

    def norm(self) -> Tensor:
        square = super().norm().square()
        dist.all_reduce(square, group=self.group)
        return square.sqrt()

    def plain_model(self) -> Decoder | None:
        whole = {name: tensor.cpu() for name, tensor in self._kept(self.whole_weights())}
        if not self.world.is_main:
            return None
        model = Decoder(self.model.config)
        for name, target in own_weights(model).items():
            target.copy_(whole.pop(name))
        model.set_compute_dtype(self.model.compute_dtype)
        return model.to(self.model.device)

    def whole_weights(self) -> Named:
        """Every whole weight of the model as it is written, with an adapter worked into it."""
        return self.weights()

    def _kept(self, tensors: Named) -> Named:
        for name, tensor in tensors:
            if self.world.is_main:
                yield name, tensor


def total_norm(gradients: list[Tensor], device: torch.device) -> Tensor:
    """In float32, whatever type they are of."""
    if not gradients:
        return torch.zeros((), device=device)
    norms = torch._foreach_norm(gradients, 2.0, dtype=torch.float32)
    return torch.linalg.vector_norm(torch.stack(norms))


def own_weights(model: Decoder) -> dict[str, Tensor]:
    """Parameters that are trained and the buffers that belong to the model; a tied head once."""
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    return {name: tensor for name, tensor in own_tensors(model).items() if name not in frozen}


@torch.no_grad()
def broadcast(model: nn.Module) -> None:
    """Gives every process the main one's weights and buffers."""
    for tensor in (*model.parameters(), *model.buffers()):
        dist.broadcast(tensor, src=0)
