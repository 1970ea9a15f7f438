"""A run killed at random moments ends as one never killed; the long version is the benchmark."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
def test_a_few_kills() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/torture.py", "--kills", "3", "--seed", "1"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"(\d+) kills survived, .*; (\d+) runs finished; 0 differences", done.stdout)
    assert found is not None, done.stdout
    assert int(found[1]) == 3 and int(found[2]) >= 1
