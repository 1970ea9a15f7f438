"""MuonAdamW: Muon for the matrices inside the blocks, AdamW for everything else.

Muon (https://kellerjordan.github.io/posts/muon/) replaces a matrix's momentum by the nearest
orthogonal matrix, found by a few Newton-Schulz steps. Matrices of one shape are stacked, so that
the steps are batched products. Updates equal `torch.optim.Muon` and `torch.optim.AdamW`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from miao.train.muon import Finish, Orthogonalizer

ROUTER = "mlp.gate.weight"
FUSED = ("cpu", "cuda")
"""Devices whose AdamW is one pass over memory here; elsewhere it is one for each operation."""


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: all of it, unless it is spread over several (FSDP)."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


class MuonAdamW(torch.optim.Optimizer):
    """One optimizer for a whole decoder.

    Args:
        named_parameters: all trainable parameters. Matrices inside the blocks, also stacked ones
            (experts), go to Muon when `muon_lr` is positive; embeddings, head, routers, norms and
            biases go to AdamW.
        lr, muon_lr: peak rates; `set_lr_factor` scales both. weight_decay: on matrices only.
        muon_dtype: type of the Newton-Schulz products; bfloat16 is enough, but not every CPU is
            faster with it.
        orthogonalizer: of processes that share the work (default: one process).
    """

    def __init__(
        self,
        named_parameters: list[tuple[str, nn.Parameter]],
        lr: float,
        muon_lr: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.95),
        momentum: float = 0.95,
        eps: float = 1e-8,
        muon_dtype: torch.dtype = torch.bfloat16,
        orthogonalizer: Orthogonalizer | None = None,
    ):
        self.orthogonalizer = orthogonalizer or Orthogonalizer(muon_dtype)
        self.names = {id(parameter): name for name, parameter in named_parameters}
        kinds: dict[str, list[nn.Parameter]] = defaultdict(list)
        for name, parameter in named_parameters:
            hidden_matrix = parameter.ndim >= 2 and ".layers." in name and not name.endswith(ROUTER)
            matrix_kind = "muon" if hidden_matrix and muon_lr > 0 else "adamw"
            kinds[matrix_kind if parameter.ndim >= 2 else "adamw_vectors"].append(parameter)
        self.buffer_names = {
            f"{buffer}.{self.names[id(parameter)]}"
            for kind, parameters in kinds.items()
            for parameter in parameters
            for buffer in (("momentum",) if kind == "muon" else ("exp_avg", "exp_avg_sq"))
        }
        """Every buffer that it may make, as `state_tensors` calls them."""
        groups = [
            {
                "kind": kind,
                "params": parameters,
                "peak_lr": muon_lr if kind == "muon" else lr,
                "weight_decay": 0.0 if kind == "adamw_vectors" else weight_decay,
                "betas": betas,
                "momentum": momentum,
                "eps": eps,
            }
            for kind, parameters in kinds.items()
        ]
        super().__init__(groups, {"lr": lr})
        self.num_steps = 0
        self.good: Tensor | None = None
        """Whether the next update counts (bool [], on the device); None: it does. Of one that does
        not the gradient must be zero."""
        self.set_lr_factor(1.0)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As the base class does, whose wrapper would import the compiler: seconds."""
        plain = torch.optim.Optimizer.add_param_group.__wrapped__  # type: ignore[attr-defined]
        plain(self, param_group)

    def set_lr_factor(self, factor: float) -> None:
        """Sets every group's rate to its peak times `factor`."""
        for group in self.param_groups:
            group["lr"] = group["peak_lr"] * factor

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient."""
        assert closure is None
        self.num_steps += 1
        self.update()

    @torch.no_grad()
    def update(self) -> None:
        """The update of step number `num_steps`."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            if group["kind"] == "muon":
                self._muon(parameters, group)
            else:
                self._adamw(parameters, group)

    def _muon(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for parameter in parameters:
            by_shape[parameter.shape].append(parameter)
        begun: list[tuple[list[nn.Parameter], Finish]] = []
        for shape, stack in by_shape.items():
            nesterov = self._nesterov(stack, group["momentum"])
            begun.append((stack, self.orthogonalizer.begin(nesterov, shape)))
            del nesterov
            if len(begun) > self.orthogonalizer.ahead:
                self._apply(*begun.pop(0), group)
        for stack, finish in begun:
            self._apply(stack, finish, group)

    def _nesterov(self, stack: list[nn.Parameter], momentum: float) -> Tensor:
        gradients = _gradients(stack)
        buffers = [self._buffer(p, "momentum") for p in stack]
        self._average(buffers, gradients, momentum)
        joined = torch.stack(gradients)
        torch._foreach_lerp_(list(joined.unbind()), buffers, momentum)
        return joined

    def _apply(self, stack: list[nn.Parameter], finish: Finish, group: dict[str, Any]) -> None:
        rows, columns = stack[0].shape[-2:]
        scale = math.sqrt(max(1.0, rows / columns))
        matrices, updates = [local(p) for p in stack], list(finish().unbind())
        torch._foreach_mul_(matrices, self._if_good(1 - group["lr"] * group["weight_decay"]))
        if self.good is not None:
            torch._foreach_mul_(updates, self._if_good(1.0, 0.0))
        torch._foreach_add_(matrices, updates, alpha=-group["lr"] * scale)

    def _adamw(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        gradients, values = _gradients(parameters), [local(p) for p in parameters]
        first = [self._buffer(p, "exp_avg") for p in parameters]
        second = [self._buffer(p, "exp_avg_sq") for p in parameters]
        device = values[0].device
        if device.type in FUSED:
            torch._fused_adamw_(
                values,
                gradients,
                first,
                second,
                [],
                [torch.full((), float(self.num_steps), device=device)] * len(values),
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
                found_inf=None if self.good is None else (~self.good).float(),
            )
            return
        self._average(first, gradients, beta1)
        torch._foreach_mul_(second, self._if_good(beta2))
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        denominators = torch._foreach_sqrt(second)
        torch._foreach_div_(denominators, math.sqrt(1 - beta2**self.num_steps))
        torch._foreach_add_(denominators, group["eps"])
        if self.good is not None:
            torch._foreach_mul_(denominators, self._if_good(1.0, math.inf))
        torch._foreach_mul_(values, self._if_good(1 - group["lr"] * group["weight_decay"]))
        step_size = group["lr"] / (1 - beta1**self.num_steps)
        torch._foreach_addcdiv_(values, first, denominators, -step_size)

    def _average(self, buffers: list[Tensor], gradients: list[Tensor], kept: float) -> None:
        """buffer = kept·buffer + (1 - kept)·gradient."""
        if self.good is not None:  # a buffer averaged with itself stays, to the bit
            pairs = zip(gradients, buffers, strict=True)
            gradients = [torch.where(self.good, gradient, buffer) for gradient, buffer in pairs]
        torch._foreach_lerp_(buffers, gradients, 1 - kept)

    def _if_good(self, value: float, otherwise: float = 1.0) -> Any:
        """The value, or what changes nothing where the update does not count."""
        if self.good is None:
            return value
        return torch.full((), value, device=self.good.device).masked_fill_(~self.good, otherwise)

    def _buffer(self, parameter: nn.Parameter, name: str) -> Tensor:
        state = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(local(parameter))
        return state[name]

    def state_tensors(self) -> dict[str, Tensor]:
        """Every buffer as `<buffer>.<parameter name>`, as far as this process holds it."""
        return {
            f"{buffer}.{self.names[id(parameter)]}": tensor
            for group in self.param_groups
            for parameter in group["params"]
            for buffer, tensor in self.state[parameter].items()
        }

    def load_state_tensors(self, tensors: dict[str, Tensor], num_steps: int) -> None:
        """Takes back what `state_tensors` gave."""
        parameters = {
            self.names[id(parameter)]: parameter
            for group in self.param_groups
            for parameter in group["params"]
        }
        for key, tensor in tensors.items():
            buffer, _, name = key.partition(".")
            parameter = parameters[name]
            self.state[parameter][buffer] = tensor.to(parameter.device, parameter.dtype).clone()
        self.num_steps = num_steps


def _gradients(parameters: list[nn.Parameter]) -> list[Tensor]:
    return [local(p.grad).to(p.dtype) for p in parameters if p.grad is not None]
