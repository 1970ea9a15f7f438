"""The table of `benchmarks/grow.py`: what was kept and what came true."""

from __future__ import annotations

from benchmarks.grow import plot, table


def test_the_table_counts_what_was_kept_and_what_came_true() -> None:
    expected = {"minutes": 2, "bits_per_byte": [2.0, 1.8, 2.2]}
    good = {"expected": expected, "outcome": {"seconds": 118.0, "bits_per_byte": 2.02}}
    late = {"expected": expected, "outcome": {"seconds": 130.0, "bits_per_byte": 2.5}}
    later = late | {"halfway": [2.45, 2.3, 2.6]}
    text = table([("a", good), ("b", late), ("c", later), ("d", {"expected": expected})])
    assert "| a | 2 | -1.7% | 2.000 | - | 2.020 | -1.0% |" in text
    assert "| c | 2 | +8.3% | 2.000 | 2.450 | 2.500 | -2.0% |" in text
    drawn = plot([("a", good), ("b", late), ("c", later), ("d", {"expected": expected})])
    assert drawn.count("<circle") == 4 and "c: 2.450, came 2.500" in drawn
    assert "More time, fewer bits: 1 of 1 steps." in table(
        [("z-1", late), ("z-2", {**good, "expected": {**expected, "minutes": 4}})]
    )
    assert "Time kept within 3 %: 1 of 3. Foretold within 3 %: 2." in text
