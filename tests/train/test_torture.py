"""A run killed at random moments ends as one never killed; the long version is the benchmark."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SHORTER = """
import sys
sys.path.insert(0, "benchmarks")
import torture
for long, short in (("tokens: 20K", "tokens: 8K"), ("save_every: 0.04", "save_every: 0.1")):
    assert long in torture.RECIPE
    torture.RECIPE = torture.RECIPE.replace(long, short)
sys.exit(torture.main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
def test_a_few_kills() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHORTER, "--kills", "3", "--seed", "5"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    line = r"(\d+) kills survived, .*; (\d+) times resumed; (\d+) runs finished; 0 differences"
    found = re.search(line, done.stdout)
    assert found is not None, done.stdout
    assert int(found[1]) == 3 and int(found[2]) >= 1 and int(found[3]) >= 1, done.stdout
