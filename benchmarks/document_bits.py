"""Held-out bits per byte, measured for every model of a race in the same way: by document, its
start token given, in windows that do not overlap. Needs nothing of Miao."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

Row = tuple[float, int]
"""Bits and bytes of one document."""


def read_documents(path: Path) -> list[str]:
    """The texts of a JSON Lines file."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


@torch.inference_mode()
def document_bits(
    texts: Sequence[str],
    encode: Callable[[str], list[int]],
    start: Sequence[int],
    logits: Callable[[Tensor], Tensor],
    seq_len: int,
) -> list[Row]:
    """What each document costs.

    Args:
        encode: token ids of a text, all of it, without special tokens.
        start: what stands before a document in this model's training, at least one token.
        logits: ids (1, time) to logits (1, time, vocabulary), time at most `seq_len`.
    """
    rows = []
    for text in texts:
        ids = torch.tensor([*start, *encode(text)])
        nats = 0.0
        for begin in range(len(start) - 1, len(ids) - 1, seq_len):
            window = ids[begin : begin + seq_len + 1]
            # a model that needs two tokens gets two: what follows is not seen by what is before it
            inputs = window[:-1] if len(window) > 2 else window
            found = logits(inputs[None])[0, : len(window) - 1].float()
            nats += float(F.cross_entropy(found, window[1:], reduction="sum"))
        rows.append((nats / math.log(2), len(text.encode())))
    return rows


def bits_per_byte(rows: Sequence[Row]) -> float:
    return sum(bits for bits, _ in rows) / sum(size for _, size in rows)


def standard_error(rows: Sequence[Row], than: Sequence[Row] | None = None) -> float:
    """Of the bits per byte, or of their difference to another model's on the same documents: of a
    ratio of sums over documents (the delta method)."""
    if than is not None:
        rows = [(a - b, size) for (a, size), (b, _) in zip(rows, than, strict=True)]
    value, total, count = bits_per_byte(rows), sum(size for _, size in rows), len(rows)
    squares = sum((bits - value * size) ** 2 for bits, size in rows)
    return math.sqrt(squares * count / max(count - 1, 1)) / total
