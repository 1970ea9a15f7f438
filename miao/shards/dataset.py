"""Token shards: sequences of token ids in memory-mapped files, with a manifest.

A dataset directory holds `tokens-00000.bin` (uint16 or uint32), `offsets-00000.bin` (int64, one
more than sequences), for conversations `mask-00000.bin` (uint8: 1 where the token is learned),
and `manifest.json`. A sequence of n tokens trains n-1 predictions.
"""

from __future__ import annotations

import bisect
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


@dataclass
class Manifest:
    """What a dataset directory says of itself."""

    kind: str
    """document, conversation or preference (whose sequences are chosen, rejected, chosen, ...)."""
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


def write_dataset(directory: Path, manifest: Manifest, sequences: Any) -> Manifest:
    """Writes `(ids, mask or None, bytes)` sequences into `directory`, whole or not at all.

    Args:
        manifest: with everything but the counts, which are filled in.
        sequences: iterable of token ids (list or array), a mask of the same length or None
            (None for all sequences, or for none), and the length of the text in bytes.
    """
    with atomic_directory(directory) as temporary:
        writer = _ShardWriter(temporary, manifest)
        for ids, mask, num_bytes in sequences:
            writer.add(ids, mask)
            manifest.bytes += num_bytes
        writer.close_shard()
        write_json(temporary / "manifest.json", asdict(manifest))
    return manifest


class _ShardWriter:
    def __init__(self, directory: Path, manifest: Manifest):
        self.directory, self.manifest = directory, manifest
        self.dtype = np.dtype(manifest.dtype)
        self.files: dict[str, IO[bytes]] = {}
        self.offsets: list[int] = [0]

    def add(self, ids: Any, mask: Any) -> None:
        if self.offsets[-1] >= SHARD_TOKENS:
            self.close_shard()
        array = np.asarray(ids, dtype=np.int64)
        assert len(array) >= 2, "a sequence of one token has nothing to predict"
        assert array.min() >= 0 and array.max() < self.manifest.vocab_size
        self._file("tokens").write(array.astype(self.dtype).tobytes())
        if mask is not None:
            learned = np.asarray(mask, dtype=np.uint8)
            assert len(learned) == len(array)
            self._file("mask").write(learned.tobytes())
            self.manifest.trained_tokens += int(learned[1:].sum())
        else:
            self.manifest.trained_tokens += len(array) - 1
        self.offsets.append(self.offsets[-1] + len(array))

    def close_shard(self) -> None:
        if len(self.offsets) == 1:
            return
        self._file("offsets").write(np.asarray(self.offsets, dtype=np.int64).tobytes())
        shard = Shard(sequences=len(self.offsets) - 1, tokens=self.offsets[-1])
        for file in self.files.values():
            file.close()
            path = Path(file.name)
            shard.files[path.name] = sha256_of(path)
        self.manifest.shards.append(shard)
        self.files, self.offsets = {}, [0]

    def _file(self, column: str) -> IO[bytes]:
        if column not in self.files:
            path = self.directory / f"{column}-{len(self.manifest.shards):05d}.bin"
            self.files[column] = open(path, "wb")  # noqa: SIM115 (closed with its shard)
        return self.files[column]


class TokenDataset:
    """A dataset directory opened for reading; nothing is loaded but the offsets.

    Args:
        verify: compare every file's checksum with the manifest (always: its size).

    Raises:
        MiaoError: missing, incomplete or damaged, with the file's name and the remedy.
    """

    def __init__(self, directory: Path, verify: bool = False):
        self.directory = directory
        self.manifest = _read_manifest(directory / "manifest.json")
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


def _read_manifest(path: Path) -> Manifest:
    content = read_json(path)
    try:
        if content["version"] != VERSION:
            raise MiaoError(f"shards of version {content['version']}, not {VERSION}", where=path)
        return Manifest(**content | {"shards": [Shard(**shard) for shard in content["shards"]]})
    except (KeyError, TypeError) as error:
        raise MiaoError(f"the manifest is damaged: {error}", where=path) from error
