"""Passes that a runner makes, one after the other: prompts, tokens, several at once."""

from __future__ import annotations

from miao.engine.runner import Piece

PIECES = [
    [Piece(0, [1, 2, 3, 4, 5], 0), Piece(1, [9, 8], 0), Piece(2, [7, 7, 7, 6], 0)],
    [Piece(0, [11], 5), Piece(1, [12], 2), Piece(2, [13], 4)],
    [Piece(1, [20, 21, 22], 3)],
    [Piece(0, [30], 6)],
    [Piece(2, [40], 5), Piece(0, [41], 7)],
]
