"""A device that never answers, in place of a GPU that is not there: tensors on "meta" have a shape
and no numbers, so whatever asks for one fails, and so does whatever mixes devices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from miao.model import Decoder, ModelConfig
from tests.conftest import TINY


def model_on_meta(dtype: torch.dtype = torch.bfloat16, **changes: Any) -> Decoder:
    with torch.device("meta"):
        model = Decoder(ModelConfig(**TINY | changes))
    model.set_compute_dtype(dtype)
    return model


class NothingOfTheHost(TorchDispatchMode):
    """Refuses tensors of the host among those of the device, but single numbers, which are copied
    into a kernel's arguments: for all others the host would wait."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        values = [v for v in tree_leaves((args, kwargs, result)) if isinstance(v, Tensor)]
        if any(v.is_meta for v in values):
            for value in values:
                assert value.is_meta or not value.ndim, f"{function}: a tensor of the host"
                assert value.dtype != torch.float64, f"{function}: Apple's GPUs have no float64"
        return result


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """`miao.device.send`, which does not make a host wait: the one way that is not refused."""
    with _disable_current_modes():
        return tensor.to(device)
