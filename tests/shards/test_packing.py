"""Best-fit packing: nothing lost, nothing overfull, as few rows as the algorithm promises."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from miao.shards.packing import best_fit_rows

CAPACITY = 24
SIZES = st.lists(st.integers(1, CAPACITY), max_size=60)


def naive_best_fit(sizes: list[int], capacity: int) -> list[int]:
    """How full the rows are when each piece, largest first, tries all rows."""
    rows: list[int] = []
    for size in sorted(sizes, reverse=True):
        fitting = [i for i, used in enumerate(rows) if used + size <= capacity]
        if fitting:
            rows[max(fitting, key=lambda i: rows[i])] += size
        else:
            rows.append(size)
    return sorted(rows)


def first_fit(sizes: list[int], capacity: int) -> list[int]:
    """How full the rows are when each piece, as they come, goes to the first row that takes it."""
    rows: list[int] = []
    for size in sizes:
        place = next((i for i, used in enumerate(rows) if used + size <= capacity), None)
        if place is None:
            rows.append(size)
        else:
            rows[place] += size
    return rows


@given(SIZES)
def test_every_piece_exactly_once_and_no_row_overfull(sizes: list[int]) -> None:
    rows = best_fit_rows(sizes, CAPACITY)
    assert sorted(i for row in rows for i in row) == list(range(len(sizes)))
    assert all(sum(sizes[i] for i in row) <= CAPACITY for row in rows)
    assert all(rows)


@given(SIZES)
def test_rows_are_as_full_as_trying_all_of_them_makes_them(sizes: list[int]) -> None:
    rows = best_fit_rows(sizes, CAPACITY)
    assert sorted(sum(sizes[i] for i in row) for row in rows) == naive_best_fit(sizes, CAPACITY)


@given(SIZES)
def test_not_more_rows_than_first_fit_but_for_the_proven_bound(sizes: list[int]) -> None:
    """Best-fit decreasing needs at most 11/9 of the optimum and 6/9 of a row: at most one row
    more than first-fit wherever first-fit needs five or fewer."""
    needed = len(first_fit(sizes, CAPACITY))
    assert len(best_fit_rows(sizes, CAPACITY)) <= 11 / 9 * needed + 6 / 9


def test_golden() -> None:
    assert best_fit_rows([], 10) == []
    assert best_fit_rows([10, 10], 10) == [[0], [1]]
    # Largest first: 7 and 6 open rows, 4 fills the second, 3 the first.
    assert best_fit_rows([3, 7, 4, 6], 10) == [[1, 0], [3, 2]]
    # 2 goes to the fuller row (8 of 10), not to the first with room (7 of 10).
    assert best_fit_rows([8, 7, 2, 2], 10) == [[0, 2], [1, 3]]
