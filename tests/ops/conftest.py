"""The devices that the operations are tested on."""

from __future__ import annotations

import pytest
import torch

has_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=has_cuda)])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)
