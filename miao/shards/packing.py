"""Best-fit packing: whole pieces into rows of a fixed number of slots."""

from __future__ import annotations

from collections.abc import Sequence


def best_fit_rows(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Packs pieces into rows, largest first, each into the fullest row that still takes it.

    Best-fit decreasing, as in "Fewer Truncations Improve Language Modeling" (arXiv:2404.10830).
    The fullest row is found in a bit set over the free space: constant time per piece.

    Args:
        sizes: slots of each piece, 1..capacity.

    Returns:
        Rows of indices into `sizes`.
    """
    rows: list[list[int]] = []
    open_rows: list[list[int]] = [[] for _ in range(capacity + 1)]  # free slots -> row numbers
    occupied = 0  # bit f is set when some row has f free slots
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        size = sizes[index]
        fitting = occupied >> size
        if fitting:
            free = size + (fitting & -fitting).bit_length() - 1
            row = open_rows[free].pop()
            if not open_rows[free]:
                occupied &= ~(1 << free)
            rows[row].append(index)
        else:
            free, row = capacity, len(rows)
            rows.append([index])
        left = free - size
        if left:
            open_rows[left].append(row)
            occupied |= 1 << left
    return rows
