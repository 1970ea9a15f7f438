"""Token shards on disk, packing, and the loader with its exact state.

The loader needs torch, which processes that only tokenise do without: it is imported when one of
its names is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from miao.shards.build import build_dataset
from miao.shards.bulk import Job, build_datasets
from miao.shards.dataset import TokenDataset

if TYPE_CHECKING:
    from miao.shards.loader import Batch, PackedLoader, PackedSource


def __getattr__(name: str) -> Any:
    if name in ("Batch", "PackedLoader", "PackedSource"):
        from miao.shards import loader

        return getattr(loader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
