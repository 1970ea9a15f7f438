"""Reads a sentencepiece .model, which is a protocol buffer, without its library.

The fields are those of `sentencepiece_model.proto`: ModelProto has pieces (1), the trainer's
settings (2) and the normaliser's (3).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from miao.errors import MiaoError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
KINDS = {1: "unigram", 2: "bpe"}
Value = int | bytes


@dataclass
class SentencePieces:
    """What a .model holds, as far as encoding needs it."""

    kind: str = "unigram"
    """unigram or bpe."""
    ids: dict[str, int] = field(default_factory=dict)
    scores: list[float] = field(default_factory=list)
    normal: set[str] = field(default_factory=set)
    unknown: str | None = None
    controls: list[str] = field(default_factory=list)
    user_defined: list[str] = field(default_factory=list)
    byte_pieces: int = 0
    charsmap: bytes = b""
    adds_prefix: bool = True
    removes_extra_spaces: bool = True
    escapes_spaces: bool = True
    spaces_are_suffixes: bool = False


def read_sentencepiece(path: Path) -> SentencePieces:
    """The pieces and settings of a .model.

    Raises:
        MiaoError: a damaged file, another kind of model, no byte pieces.
    """
    try:
        found = _parse(path.read_bytes())
    except OSError as error:
        raise MiaoError(f"cannot be read: {error.strerror}", where=path) from error
    except (ValueError, IndexError, struct.error, AttributeError, TypeError) as error:
        raise MiaoError(
            f"not a sentencepiece model, or a damaged one: {error}",
            where=path,
            fix="a .tiktoken vocabulary must be named so; otherwise download the file again",
        ) from error
    problem = None
    if found.kind not in KINDS.values():
        problem = f"models of the kind '{found.kind}' (word, char) cannot be imported"
    elif found.byte_pieces != 256:
        problem = "the vocabulary has no byte pieces: characters that it lacks would be lost"
    elif found.spaces_are_suffixes or not found.escapes_spaces:
        problem = "a vocabulary that treats spaces as suffixes, or not at all, cannot be imported"
    if problem:
        fix = "train the vocabulary with byte_fallback=true, model_type bpe or unigram"
        raise MiaoError(problem, where=path, fix=fix)
    return found


def _parse(data: bytes) -> SentencePieces:
    found = SentencePieces()
    for number, value in _fields(data):
        if number == 1:
            _add_piece(found, dict(_fields(_bytes(value))))
        elif number == 2:
            trainer = dict(_fields(_bytes(value)))
            kind = int(trainer.get(3, 1))
            found.kind = KINDS.get(kind, f"type {kind}")
            found.spaces_are_suffixes = bool(trainer.get(24, 0))
        elif number == 3:
            normalizer = dict(_fields(_bytes(value)))
            found.charsmap = _bytes(normalizer.get(2, b""))
            found.adds_prefix = bool(normalizer.get(3, 1))
            found.removes_extra_spaces = bool(normalizer.get(4, 1))
            found.escapes_spaces = bool(normalizer.get(5, 1))
    if not found.ids:
        raise ValueError("it has no pieces")
    return found


def _add_piece(found: SentencePieces, fields: dict[int, Value]) -> None:
    token, kind = _bytes(fields[1]).decode(), int(fields.get(3, NORMAL))
    if token in found.ids:
        raise ValueError(f"the piece {token!r} is there twice")
    found.ids[token] = len(found.ids)
    found.scores.append(struct.unpack("<f", _bytes(fields.get(2, bytes(4))))[0])
    if kind == UNKNOWN:
        found.unknown = token
    elif kind == CONTROL:
        found.controls.append(token)
    elif kind == USER_DEFINED:
        found.user_defined.append(token)
    elif kind == BYTE:
        found.byte_pieces += 1
    elif kind == NORMAL:
        found.normal.add(token)


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """(number, value) of each field of a message; fixed-size values as their bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        size = {1: 8, 5: 4}.get(wire)
        if wire == 2:
            size, at = _varint(data, at)
        if size is None or number == 0:
            raise ValueError(f"a field of type {wire}")
        if at + size > len(data):
            raise ValueError("it ends too early")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _bytes(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number where bytes are expected")
    return value
