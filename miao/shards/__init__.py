"""Token shards on disk, packing, and the loader with its exact state."""

from miao.shards.build import build_dataset
from miao.shards.dataset import TokenDataset
from miao.shards.loader import Batch, PackedLoader, PackedSource

__all__ = ["Batch", "PackedLoader", "PackedSource", "TokenDataset", "build_dataset"]
