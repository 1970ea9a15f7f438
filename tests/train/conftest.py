"""Data for the tests of the loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from miao.shards import TokenDataset


@pytest.fixture
def sources(make_dataset: Callable[..., TokenDataset]) -> list[TokenDataset]:
    return two_sources(make_dataset)


def two_sources(make: Callable[..., TokenDataset]) -> list[TokenDataset]:
    generator = torch.Generator().manual_seed(1)

    def documents(count: int) -> list[list[int]]:
        lengths = torch.randint(3, 60, (count,), generator=generator).tolist()
        return [torch.randint(0, 97, (n,), generator=generator).tolist() for n in lengths]

    return [
        make(documents(60), name="first", vocab_size=97),
        make(documents(40), name="second", vocab_size=97),
    ]
