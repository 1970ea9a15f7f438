"""Token shards on disk: written whole, with their manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from miao.files import atomic_directory, sha256_of, write_json
from miao.shards.dataset import Manifest, Shard

SHARD_TOKENS = 2**28


@dataclass
class Block:
    """Encoded sequences, end to end."""

    ids: NDArray[Any]
    lengths: NDArray[np.int64]
    """Tokens of each sequence."""
    mask: NDArray[np.uint8] | None
    """1 where the token is learned; None: everywhere."""
    bytes: int
    """UTF-8 bytes of the text."""
    notes: Counter[str] = field(default_factory=Counter)
    """See `Shard.notes`."""


def write_dataset(directory: Path, manifest: Manifest, sequences: Any) -> Manifest:
    """Writes `(ids, mask or None, bytes)` sequences into `directory`, whole or not at all.

    Args:
        manifest: with everything but the counts, which are filled in.
        sequences: iterable of token ids (list or array), a mask of the same length or None
            (None for all sequences, or for none), and the length of the text in bytes.
    """
    blocks = (
        Block(
            np.asarray(ids, dtype=np.int64),
            np.array([len(ids)], dtype=np.int64),
            None if mask is None else np.asarray(mask, dtype=np.uint8),
            num_bytes,
        )
        for ids, mask, num_bytes in sequences
    )
    return write_blocks(directory, manifest, blocks)


def write_blocks(directory: Path, manifest: Manifest, blocks: Iterable[Block]) -> Manifest:
    """Writes encoded sequences into `directory`, whole or not at all; see `write_dataset`."""
    with atomic_directory(directory) as temporary:
        shards: list[Shard] = []
        writer: ShardWriter | None = None
        for block in blocks:
            if writer is not None and writer.tokens >= SHARD_TOKENS:
                shards, writer = [*shards, writer.close()], None
            if writer is None:
                writer = ShardWriter(temporary, manifest, f"-{len(shards):05d}")
            writer.add(block)
        if writer is not None:
            shards.append(writer.close())
        finish_manifest(temporary, manifest, shards)
    return manifest


def numbered_file(name: str, number: int) -> str:
    """What a shard's file is called as the `number`-th of a dataset: `tokens.bin` and
    `tokens-00003.bin` both as `tokens-00007.bin`."""
    return f"{name.removesuffix('.bin').split('-')[0]}-{number:05d}.bin"


def finish_manifest(directory: Path, manifest: Manifest, shards: list[Shard]) -> None:
    """Fills in the shards and the sums over them, and writes the manifest."""
    manifest.shards = shards
    manifest.trained_tokens = sum(shard.trained_tokens for shard in shards)
    manifest.bytes = sum(shard.bytes for shard in shards)
    write_json(directory / "manifest.json", asdict(manifest))


class ShardWriter:
    """The files of one shard: `tokens<suffix>.bin` and, as needed, mask and offsets beside it."""

    def __init__(self, directory: Path, manifest: Manifest, suffix: str = ""):
        self.directory, self.manifest, self.suffix = directory, manifest, suffix
        self.tokens = self.trained = self.bytes = 0
        self.notes: Counter[str] = Counter()
        self._dtype = np.dtype(manifest.dtype)
        self._files: dict[str, IO[bytes]] = {}
        self._offsets: list[NDArray[np.int64]] = [np.zeros(1, dtype=np.int64)]

    def add(self, block: Block) -> None:
        self.notes += block.notes
        if not len(block.lengths):
            return
        ends = np.cumsum(block.lengths)
        present = block.lengths > 0
        assert present.all() or self.manifest.kind == "preference"
        shortest = block.lengths[present].min(initial=2)
        assert shortest >= 2, "a sequence of one token has nothing to predict"
        assert block.ids.min(initial=0) >= 0
        assert block.ids.max(initial=0) < self.manifest.vocab_size
        assert ends[-1] == len(block.ids)
        self._file("tokens").write(block.ids.astype(self._dtype).tobytes())
        if block.mask is None:
            self.trained += len(block.ids) - len(ends)
        else:
            assert len(block.mask) == len(block.ids)
            self._file("mask").write(block.mask.astype(np.uint8).tobytes())
            first = block.mask[(ends - block.lengths)[present]]
            self.trained += int(block.mask.sum(dtype=np.int64)) - int(first.sum(dtype=np.int64))
        self._offsets.append(self.tokens + ends)
        self.tokens += int(ends[-1])
        self.bytes += block.bytes

    def close(self) -> Shard:
        """Closes the files; what the shard holds."""
        offsets = np.concatenate(self._offsets)
        shard = Shard(len(offsets) - 1, self.tokens, trained_tokens=self.trained, bytes=self.bytes)
        shard.notes = dict(self.notes)
        if shard.sequences:
            self._file("offsets").write(offsets.tobytes())
        for file in self._files.values():
            file.close()
            path = Path(file.name)
            shard.files[path.name] = sha256_of(path)
        return shard

    def _file(self, column: str) -> IO[bytes]:
        if column not in self._files:
            path = self.directory / f"{column}{self.suffix}.bin"
            self._files[column] = open(path, "wb")  # noqa: SIM115 (closed with its shard)
        return self._files[column]
