"""Token shards: sequences of token ids in memory-mapped files, with a manifest.

A dataset directory holds `tokens-00000.bin` (uint16 or uint32), `offsets-00000.bin` (int64, one
more than sequences), for conversations `mask-00000.bin` (uint8: 1 where the token is learned),
and `manifest.json`. A sequence of n tokens trains n-1 predictions.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from miao.errors import MiaoError
from miao.files import atomic_directory, read_json, sha256_of, write_json

SHARD_TOKENS = 2**28
VERSION = 1


@dataclass
class Shard:
    """One set of files: how many sequences and tokens, and each file's checksum."""

    sequences: int
    tokens: int
    files: dict[str, str] = field(default_factory=dict)
    trained_tokens: int = 0
    """Tokens that are learned (mask 1)."""
    bytes: int = 0
    """UTF-8 bytes of the text."""
    origin: str = ""
    """The part of the input that it was made from."""
    key: str = ""
    """Hash of that part and of all that decides its tokens: made again, it would be the same."""
    notes: dict[str, int] = field(default_factory=dict)
    """What was left out of it and is to be said, and how often."""


@dataclass
class Manifest:
    """What a dataset directory says of itself."""

    kind: str
    """document, conversation or preference (whose sequences are chosen, rejected, chosen, ...; a
    side that is not there is a sequence of no tokens)."""
    source: str
    tokenizer: str
    """Fingerprint of the tokenizer."""
    vocab_size: int
    dtype: str
    trained_tokens: int = 0
    """Tokens that are learned (mask 1)."""
    bytes: int = 0
    """UTF-8 bytes of the text."""
    shards: list[Shard] = field(default_factory=list)
    version: int = VERSION

    @property
    def sequences(self) -> int:
        return sum(shard.sequences for shard in self.shards)

    @property
    def tokens(self) -> int:
        return sum(shard.tokens for shard in self.shards)

    @property
    def notes(self) -> Counter[str]:
        """Of all shards."""
        return sum((Counter(shard.notes) for shard in self.shards), Counter())


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


class TokenDataset:
    """A dataset directory opened for reading; nothing is loaded but the offsets.

    Args:
        verify: compare every file's checksum with the manifest (always: its size).

    Raises:
        MiaoError: missing, incomplete or damaged, with the file's name and the remedy.
    """

    def __init__(self, directory: Path, verify: bool = False):
        self.directory = directory
        self.manifest = read_manifest(directory / "manifest.json")
        self._tokens: list[NDArray[Any]] = []
        self._masks: list[NDArray[np.uint8]] = []
        self._first: list[int] = [0]
        lengths: list[NDArray[np.int64]] = []
        self._offsets: list[NDArray[np.int64]] = []
        for number, shard in enumerate(self.manifest.shards):
            self._check_files(shard, verify)
            offsets = np.fromfile(directory / f"offsets-{number:05d}.bin", dtype=np.int64)
            self._tokens.append(self._map("tokens", number, self.manifest.dtype))
            if f"mask-{number:05d}.bin" in shard.files:
                self._masks.append(self._map("mask", number, "uint8"))
            self._offsets.append(offsets)
            lengths.append(np.diff(offsets))
            self._first.append(self._first[-1] + shard.sequences)
        self.lengths = np.concatenate(lengths) if lengths else np.zeros(0, dtype=np.int64)
        """Tokens of every sequence, int64 [sequences]."""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def group_size(self) -> int:
        """How many neighbouring sequences belong together (a preference is a pair)."""
        return 2 if self.manifest.kind == "preference" else 1

    def tokens(self, sequence: int, start: int = 0, stop: int | None = None) -> NDArray[np.int64]:
        """Token ids `start:stop` of a sequence, int64."""
        return self._slice(self._tokens, sequence, start, stop).astype(np.int64)

    def mask(
        self, sequence: int, start: int = 0, stop: int | None = None
    ) -> NDArray[np.bool_] | None:
        """Which of these tokens are learned; None: all."""
        if not self._masks:
            return None
        return self._slice(self._masks, sequence, start, stop).astype(bool)

    def learns(self, slots: int | None = None) -> NDArray[np.bool_]:
        """Of every sequence, whether any of its first `slots` predictions (None: of all) is
        learned; bool [sequences]."""
        if not self._masks:
            return self.lengths > 1
        found = []
        for offsets, mask in zip(self._offsets, self._masks, strict=True):
            first, end = offsets[:-1] + 1, offsets[1:]
            stop = end if slots is None else np.minimum(first + slots, end)
            learned = np.zeros(len(first), dtype=bool)
            some = first < stop
            # In pairs: from a first token up to its stop, and from there to the next one.
            bounds = np.stack([first[some], stop[some]], axis=1).reshape(-1)
            if len(bounds):
                within = bounds[:-1] if bounds[-1] == len(mask) else bounds
                learned[some] = np.maximum.reduceat(mask, within)[::2] > 0
            found.append(learned)
        return np.concatenate(found)

    def flat_offset(self, sequence: int) -> int:
        """Where the sequence begins when all shards are laid end to end (for extra columns)."""
        shard = bisect.bisect_right(self._first, sequence) - 1
        before = sum(part.tokens for part in self.manifest.shards[:shard])
        return before + int(self._offsets[shard][sequence - self._first[shard]])

    def _slice(
        self, columns: list[NDArray[Any]], sequence: int, start: int, stop: int | None
    ) -> Any:
        shard = bisect.bisect_right(self._first, sequence) - 1
        begin, end = self._offsets[shard][sequence - self._first[shard] :][:2]
        end = end if stop is None else min(end, begin + stop)
        return columns[shard][begin + start : end]

    def _map(self, column: str, number: int, dtype: str) -> NDArray[Any]:
        return np.memmap(self.directory / f"{column}-{number:05d}.bin", dtype=dtype, mode="r")

    def _check_files(self, shard: Shard, verify: bool) -> None:
        sizes = {
            "tokens": shard.tokens * np.dtype(self.manifest.dtype).itemsize,
            "offsets": (shard.sequences + 1) * 8,
            "mask": shard.tokens,
        }
        for name, checksum in shard.files.items():
            path = self.directory / name
            expected = sizes[name.split("-")[0]]
            found = path.stat().st_size if path.exists() else -1
            if found != expected or (verify and sha256_of(path) != checksum):
                state = "missing" if found < 0 else "damaged"
                detail = (
                    f" ({found:,} bytes instead of {expected:,})" if 0 <= found != expected else ""
                )
                raise MiaoError(
                    f"this shard file is {state}{detail}",
                    where=path,
                    fix=f"delete {self.directory} and run again: it is made anew from the corpus",
                )


def read_manifest(path: Path) -> Manifest:
    """The manifest of a dataset directory.

    Raises:
        MiaoError: missing, damaged, or of another version.
    """
    content = read_json(path)
    try:
        if content["version"] != VERSION:
            raise MiaoError(f"shards of version {content['version']}, not {VERSION}", where=path)
        return Manifest(**content | {"shards": [Shard(**shard) for shard in content["shards"]]})
    except (KeyError, TypeError) as error:
        raise MiaoError(
            f"not the manifest of token shards, or a damaged one ({error})",
            where=path,
            fix="name a run, its shards, or one dataset in them",
        ) from error
