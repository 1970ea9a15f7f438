"""A run killed at random moments ends as one never killed; the long version is the benchmark."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.train.pair import run_processes

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
SHORTER = {
    "tokens: 20K": "tokens: 5K",
    "save_every: 0.04": "save_every: 0.1",
    "characters: 30K": "characters: 12K",
}


def shorter(*words: str) -> int:
    sys.path.insert(0, str(BENCHMARKS))
    import torture

    for long, short in SHORTER.items():
        assert long in torture.RECIPE
        torture.RECIPE = torture.RECIPE.replace(long, short)
    sys.argv = ["torture.py", *words]
    return torture.main()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
def test_a_few_kills(tmp_path: Path) -> None:
    words = ("--kills", "3", "--seed", "5")
    (done,) = run_processes(1, shorter, *words, directory=tmp_path)
    assert done.code == 0, done.said
    line = r"(\d+) kills survived, .*; (\d+) times resumed; (\d+) runs finished; 0 differences"
    found = re.search(line, done.said)
    assert found is not None, done.said
    assert int(found[1]) == 3 and int(found[2]) >= 1 and int(found[3]) >= 1, done.said
