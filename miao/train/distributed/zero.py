"""DeepSpeed's ZeRO (arXiv:1910.02054) by its own engine: 1 spreads the optimizer's buffers over the
processes, 2 also the gradient, 3 also the weights.

The engine flattens many tensors into one and cuts that, so no process sees a matrix: AdamW trains
everything. The engine gets our own optimizer for it, so that arithmetic, clipping, guard and
checkpoints are those of every other way to train.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from miao.console import warn
from miao.model.decoder import Decoder
from miao.recipe import StageOptions
from miao.train.distributed.parallel import Named, Sharded, broadcast, own_weights
from miao.train.distributed.world import World
from miao.train.optim import MuonAdamW

BUFFERS = ("exp_avg", "exp_avg_sq")


class PartAdamW(MuonAdamW):
    """DeepSpeed calls `step` once for every group of parameters, not once per step."""

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        self.update()


class Zero(Sharded):
    """ZeRO of `zero_stage` 1, 2 or 3."""

    optimizer_class = PartAdamW

    def __init__(self, model: Decoder, options: StageOptions, world: World, zero_stage: int):
        self.zero_stage = zero_stage
        super().__init__(model, options, world)

    def distribute(self) -> None:
        broadcast(self.model)

    def make_optimizer(self, muon_lr: float) -> MuonAdamW:
        import deepspeed

        deepspeed.utils.logging.logger.setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
        # For inference on CPUs; the engine would compile it, for minutes, and then go without.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        optimizer = super().make_optimizer(0.0)
        optimizer.num_steps = 1
        optimizer.set_lr_factor(0.0)  # the engine may try a step to make the buffers
        self.engine: Any
        self.engine, *_ = deepspeed.initialize(
            model=self.model,
            optimizer=optimizer,
            dist_init_required=False,
            config={
                "train_micro_batch_size_per_gpu": 1,
                "gradient_accumulation_steps": 1,
                "gradient_clipping": 0.0,
                "zero_allow_untested_optimizer": True,
                "zero_optimization": {"stage": self.zero_stage},
                "communication_data_type": self.options.grad_dtype,
                "steps_per_print": 2**62,
            },
        )
        optimizer.num_steps = 0
        optimizer.set_lr_factor(1.0)
        inner = self.engine.optimizer
        cut_weights = self.zero_stage == 3
        parts = "fp32_partitioned_groups_flat" if cut_weights else "single_partition_of_fp32_groups"
        for part in getattr(inner, parts):  # a checkpoint is read before the first step
            for buffer in BUFFERS:
                optimizer.state[part][buffer] = torch.zeros_like(part)
        if cut_weights:  # the loss takes this weight without calling its module
            deepspeed.zero.register_external_parameter(self.model, self.model.lm_head.weight)
        else:  # the engine looks for the buffers once, before all groups have them
            inner._lazy_init_hp_params_optimizer_state()
        self.module = self.engine
        return optimizer

    def backward(self, loss: Tensor, last: bool) -> None:
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss * self.world.size)

    def gradients(self) -> list[Tensor]:
        groups = self.engine.optimizer.averaged_gradients.values()
        return [part for group in groups if group is not None for part in group]

    def forget_gradients(self) -> None:
        self.engine.optimizer.zero_grad()

    def step(self, good: Tensor | None = None) -> None:
        self.optimizer.num_steps += 1
        self._step(good)

    def leave_out(self) -> None:
        self._step(torch.zeros((), dtype=torch.bool, device=self.model.device))

    def _step(self, good: Tensor | None) -> None:
        if good is not None:
            for part in self.gradients():  # the engine drops such a gradient and all it would do
                part.masked_fill_(~good, torch.nan)
        self.engine.step()

    def weights(self) -> Named:
        from deepspeed.utils import safe_get_full_fp32_param

        parameters = dict(self.model.named_parameters())
        for name, tensor in own_weights(self.model).items():
            yield (
                name,
                safe_get_full_fp32_param(parameters[name]) if name in parameters else tensor,
            )

    def buffers(self) -> Named:
        from deepspeed.utils import safe_get_full_optimizer_state

        if self.optimizer.num_steps:
            for name, parameter in self.model.named_parameters():
                for buffer in BUFFERS:
                    yield f"{buffer}.{name}", safe_get_full_optimizer_state(parameter, buffer)

    def load(self, weights: dict[str, Tensor], buffers: dict[str, Tensor], num_steps: int) -> None:
        import deepspeed
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        self.require_known(buffers)
        parameters, device = dict(self.model.named_parameters()), self.model.device
        for name, target in own_weights(self.model).items():
            if name not in parameters:
                target.copy_(weights[name])
        for name, parameter in parameters.items():
            whole = weights[name].to(device)
            with torch.no_grad(), deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
                parameter.copy_(whole)
            safe_set_full_fp32_param(parameter, whole)
            for buffer in BUFFERS:
                value = buffers.get(f"{buffer}.{name}")
                value = torch.zeros_like(whole) if value is None else value.to(device)
                safe_set_full_optimizer_state(parameter, value, buffer)
        self.optimizer.num_steps = num_steps

    def compile(self, graphs: bool = True) -> None:
        if self.zero_stage == 3:
            warn("with ZeRO-3 the model is not compiled")
        else:
            super().compile()
