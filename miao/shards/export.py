"""Shards to plain tensors, one row per example, for training programs of other people.

`part-00000.safetensors`, ... hold, padded to the longest row of the file:

    input_ids  int32 [examples, length]
    labels     int64 [examples, length]   the id itself where it is learned, else -100
    loss_mask  uint8 [examples, length]   1 where it is learned
    lengths    int32 [examples]

For preferences each of them stands twice: `chosen_input_ids`, `rejected_input_ids`, ...; a side
that is not there (a single answer for KTO) has the length 0. Labels are not shifted: models of
Hugging Face shift them themselves. `manifest.json` says the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from miao.errors import MiaoError
from miao.files import (
    atomic_directory,
    read_json,
    require_replaceable,
    sha256_of,
    write_json,
)
from miao.shards.dataset import TokenDataset

IGNORE = -100
ROWS_PER_FILE = 4096
SIDES = ("chosen", "rejected")
Example = tuple[NDArray[np.int64], NDArray[np.bool_]]
"""Ids and learned-mask."""


@dataclass
class TensorOptions:
    """How examples become rows."""

    max_length: int = 2048
    """Tokens of a row at most; what is longer loses its end."""
    split: bool = False
    """Of a longer document, the rest becomes further rows instead."""
    bos: bool | None = None
    """Put the boundary token before each example, or take it away; None: as the shards have it."""
    eos: bool | None = None
    """The same after each example that is not cut; it is learned."""
    pad_id: int = 0
    """What fills a row; never learned."""


@dataclass
class TensorManifest:
    """What an export holds."""

    kind: str
    source: str
    tokenizer: str
    options: TensorOptions
    examples: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    truncated: int = 0
    """Examples that lost their end."""
    nothing_learned: int = 0
    """Examples of which, so cut, nothing is learned."""
    files: dict[str, str] = field(default_factory=dict)
    """Name -> SHA-256."""


def export_tensors(
    dataset: TokenDataset,
    directory: Path,
    options: TensorOptions,
    boundary_id: int = -1,
    rows_per_file: int = ROWS_PER_FILE,
    advance: Callable[[int], None] = lambda examples: None,
) -> TensorManifest:
    """Writes a dataset as tensors, whole or not at all.

    Args:
        boundary_id: the token that begins and ends documents; needed for `bos` and `eos`.

    Raises:
        MiaoError: a length below 2, no boundary token where one is to be added or taken away, a
            directory that holds something else.
    """
    if options.max_length < 2:
        raise MiaoError("a row needs two tokens at least", where="--max-length")
    if boundary_id < 0 and (options.bos is not None or options.eos is not None):
        raise MiaoError(
            "which token begins and ends a text is not known", fix="name it: --tokenizer DIR"
        )
    require_replaceable(directory, _is_export)
    source = dataset.manifest
    manifest = TensorManifest(source.kind, source.source, source.tokenizer, options)
    with atomic_directory(directory) as temporary:
        rows: list[list[Example]] = []
        for row in _rows(dataset, options, boundary_id, manifest):
            rows.append(row)
            advance(1)
            if len(rows) == rows_per_file:
                _write(temporary, rows, manifest)
                rows = []
        if rows:
            _write(temporary, rows, manifest)
        write_json(temporary / "manifest.json", asdict(manifest))
    return manifest


def _is_export(directory: Path) -> bool:
    manifest = directory / "manifest.json"
    found = read_json(manifest) if manifest.is_file() else None
    return isinstance(found, dict) and {"examples", "files", "truncated"} <= found.keys()


def read_tensors(directory: Path) -> Iterator[tuple[list[int], list[bool]]]:
    """Ids and learned-mask of every row of an export, in order; of a preference chosen, then
    rejected.

    Raises:
        MiaoError: a damaged file.
    """
    manifest = read_json(directory / "manifest.json")
    prefixes = [f"{side}_" for side in SIDES] if manifest["kind"] == "preference" else [""]
    for name, checksum in manifest["files"].items():
        if not (directory / name).exists() or sha256_of(directory / name) != checksum:
            raise MiaoError("this file is missing or damaged", where=directory / name)
        tensors = load_file(directory / name)
        for number in range(len(tensors[f"{prefixes[0]}lengths"])):
            for prefix in prefixes:
                length = int(tensors[f"{prefix}lengths"][number])
                ids = tensors[f"{prefix}input_ids"][number, :length]
                mask = tensors[f"{prefix}loss_mask"][number, :length]
                yield ids.tolist(), mask.astype(bool).tolist()


def _rows(
    dataset: TokenDataset, options: TensorOptions, boundary: int, manifest: TensorManifest
) -> Iterator[list[Example]]:
    """The rows of all examples, each one side or (preferences) two."""
    sides = dataset.group_size
    for first in range(0, len(dataset), sides):
        examples = [_framed(dataset, first + side, options, boundary) for side in range(sides)]
        too_long = any(len(ids) > options.max_length for ids, _ in examples)
        if too_long and options.split and dataset.manifest.kind == "document":
            ids, mask = examples[0]
            for at in range(0, len(ids), options.max_length):
                piece = slice(at, at + options.max_length)
                yield _counted([(ids[piece], mask[piece])], manifest)
            continue
        manifest.truncated += too_long
        cut = slice(0, options.max_length)
        yield _counted([(ids[cut], mask[cut]) for ids, mask in examples], manifest)


def _framed(dataset: TokenDataset, sequence: int, options: TensorOptions, boundary: int) -> Example:
    """One sequence with the first and last token that the options ask for."""
    ids = dataset.tokens(sequence)
    learned = dataset.mask(sequence)
    mask = np.ones(len(ids), dtype=bool) if learned is None else learned.copy()
    if not len(ids):
        return ids, mask
    mask[0] = False  # nothing comes before it
    has_bos, has_eos = ids[0] == boundary, ids[-1] == boundary
    if options.bos is True and not has_bos:
        ids, mask = np.append(boundary, ids), np.append(False, mask)
    elif options.bos is False and has_bos:
        ids, mask = ids[1:], mask[1:].copy()
        mask[0] = False
    if options.eos is True and not has_eos:
        ids, mask = np.append(ids, boundary), np.append(mask, True)
    elif options.eos is False and has_eos and len(ids) > 1:
        ids, mask = ids[:-1], mask[:-1]
    return ids, mask


def _counted(row: list[Example], manifest: TensorManifest) -> list[Example]:
    manifest.examples += 1
    manifest.tokens += sum(len(ids) for ids, _ in row)
    manifest.trained_tokens += sum(int(mask.sum()) for _, mask in row)
    manifest.nothing_learned += any(len(mask) and not mask.any() for _, mask in row)
    return row


def _write(directory: Path, rows: list[list[Example]], manifest: TensorManifest) -> None:
    prefixes = [f"{side}_" for side in SIDES] if len(rows[0]) == 2 else [""]
    tensors: dict[str, NDArray[np.generic]] = {}
    for side, prefix in enumerate(prefixes):
        lengths = np.array([len(row[side][0]) for row in rows], dtype=np.int32)
        shape = (len(rows), int(lengths.max()))
        ids = np.full(shape, manifest.options.pad_id, dtype=np.int32)
        mask = np.zeros(shape, dtype=np.uint8)
        for number, row in enumerate(rows):
            ids[number, : lengths[number]], mask[number, : lengths[number]] = row[side]
        tensors[f"{prefix}input_ids"] = ids
        tensors[f"{prefix}labels"] = np.where(mask == 1, ids, IGNORE).astype(np.int64)
        tensors[f"{prefix}loss_mask"] = mask
        tensors[f"{prefix}lengths"] = lengths
    path = directory / f"part-{len(manifest.files):05d}.safetensors"
    path.write_bytes(save(tensors, metadata={"kind": manifest.kind}))  # a full disk: an OSError
    manifest.files[path.name] = sha256_of(path)
