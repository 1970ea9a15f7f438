"""What is in a dataset: counts, lengths, and how often each token occurs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miao.errors import MiaoError
from miao.shards.dataset import TokenDataset, read_manifest

CHUNK = 2**22
PERCENTILES = (50, 90, 99)
ROW_LENGTHS = (512, 1024, 2048, 4096)


@dataclass(frozen=True)
class DatasetStats:
    """One dataset in numbers; lengths in tokens."""

    directory: str
    kind: str
    source: str
    tokenizer: str
    vocab_size: int
    dtype: str
    shards: int
    sequences: int
    tokens: int
    trained_tokens: int
    text_bytes: int
    bytes_on_disk: int
    shortest: int
    median: int
    p90: int
    p99: int
    longest: int
    longer_than: dict[int, int]
    """Sequences with more predictions than these row lengths hold."""
    used_ids: int
    """Ids that occur."""

    @property
    def bytes_per_token(self) -> float:
        return self.text_bytes / max(self.tokens, 1)


def find_datasets(path: Path) -> list[Path]:
    """The dataset directories at or below a path: a dataset, a `shards` directory, a run.

    Raises:
        MiaoError: there are none.
    """
    if (path / "manifest.json").exists() and not (path / "shards").is_dir():
        return [path]
    top = path / "shards" if (path / "shards").is_dir() else path
    found = sorted(
        file.parent
        for file in top.rglob("manifest.json")
        if not any(part.startswith(".") for part in file.relative_to(top).parts)
    )
    if not found:
        raise MiaoError(
            "there are no shards here",
            where=path,
            fix="make them with `miao shards RECIPE`, or `miao shards append`",
        )
    return found


def dataset_stats(
    directory: Path, row_lengths: tuple[int, ...] = ROW_LENGTHS, verify: bool = False
) -> DatasetStats:
    """Reads a dataset's manifest, offsets and ids.

    Args:
        verify: compare every file with its checksum, too.

    Raises:
        MiaoError: missing or damaged.
    """
    data = TokenDataset(directory, verify=verify)
    manifest, lengths = data.manifest, data.lengths
    of = lengths[lengths > 0] if len(lengths) else np.zeros(1, dtype=np.int64)
    median, p90, p99 = (int(value) for value in np.percentile(of, PERCENTILES))
    counts, _ = token_counts(directory)
    return DatasetStats(
        directory=str(directory),
        kind=manifest.kind,
        source=manifest.source,
        tokenizer=manifest.tokenizer,
        vocab_size=manifest.vocab_size,
        dtype=manifest.dtype,
        shards=len(manifest.shards),
        sequences=manifest.sequences,
        tokens=manifest.tokens,
        trained_tokens=manifest.trained_tokens,
        text_bytes=manifest.bytes,
        bytes_on_disk=sum(file.stat().st_size for file in directory.glob("*.bin")),
        shortest=int(of.min()),
        median=median,
        p90=p90,
        p99=p99,
        longest=int(of.max()),
        longer_than={row: int((lengths - 1 > row).sum()) for row in row_lengths},
        used_ids=int((counts > 0).sum()),
    )


def token_counts(directory: Path) -> tuple[NDArray[np.int64], str]:
    """How often each id occurs, int64 [vocab_size], and the tokenizer's fingerprint."""
    manifest = read_manifest(directory / "manifest.json")
    counts = np.zeros(manifest.vocab_size, dtype=np.int64)
    for number in range(len(manifest.shards)):
        path = directory / f"tokens-{number:05d}.bin"
        ids: NDArray[Any] = np.memmap(path, dtype=manifest.dtype, mode="r")
        for at in range(0, len(ids), CHUNK):
            counts += np.bincount(ids[at : at + CHUNK], minlength=len(counts))
    return counts, manifest.tokenizer
