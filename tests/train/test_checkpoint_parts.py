"""Checkpoints in parts, as PyTorch's own reader sees them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter

from miao.errors import MiaoError
from miao.files import full_disk_is_a_user_error, is_full_disk
from miao.shards.dataset import TokenDataset
from miao.train.safety.parts import part_name, stored_parts, write_part
from miao.train.safety.spread import SpreadStore
from tests.train.tiny import trainer


def whole() -> dict[str, torch.Tensor]:
    return {
        "model.a": torch.arange(35.0).view(7, 5),
        "model.experts": torch.arange(24.0).view(3, 4, 2),
        "optimizer.exp_avg.a": torch.arange(7.0),
    }


def write(directory: Path, ranks: int) -> None:
    for rank in range(ranks):
        held, firsts = {}, {}
        for name, tensor in whole().items():
            each = -(-len(tensor) // ranks)
            part = tensor[each * rank : each * (rank + 1)]
            if len(part):
                held[name], firsts[name] = part.contiguous(), each * rank
        write_part(directory / part_name(rank), held, firsts)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_torch_reads_what_many_wrote_and_so_do_any_rows(tmp_path: Path, ranks: int) -> None:
    write(tmp_path, ranks)
    found = {name: torch.full_like(tensor, -1) for name, tensor in whole().items()}
    dcp.load(found, storage_reader=HuggingFaceStorageReader(str(tmp_path)), no_dist=True)
    stored = stored_parts(tmp_path)
    assert set(stored) == set(found)
    for name, tensor in whole().items():
        assert torch.equal(found[name], tensor)
        assert stored[name].shape == tensor.shape and torch.equal(stored[name].whole(), tensor)
        for start in range(len(tensor)):
            for stop in range(start, len(tensor) + 1):
                assert torch.equal(stored[name].rows(start, stop), tensor[start:stop])


def test_what_torch_wrote_is_read(tmp_path: Path) -> None:
    writer = HuggingFaceStorageWriter(str(tmp_path), save_distributed=True)
    dcp.save(whole(), storage_writer=writer, no_dist=True)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == [part_name(0)]
    for name, tensor in stored_parts(tmp_path).items():
        assert torch.equal(tensor.whole(), whole()[name])


def test_a_full_disk_is_known_as_one(sources: list[TokenDataset], tmp_path: Path) -> None:
    store = SpreadStore(tmp_path / "spread", trainer(sources, tmp_path).parallel, 2)

    def written(directory: Path) -> dict[str, str]:
        with full_disk_is_a_user_error(directory):
            raise OSError(errno.ENOSPC, "No space left on device")

    store._write_part(3, written)
    error = store.failure()
    assert isinstance(error, MiaoError) and is_full_disk(error)
    assert not list((tmp_path / "spread").glob("*"))
