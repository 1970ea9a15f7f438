"""What TAB offers in a shell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("argcomplete")


def offered(line: str, folder: Path) -> set[str]:
    """What the shell is answered when TAB is pressed at the end of a line."""
    answer = folder / "answer"
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line.encode()))}
    asked |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "_ARGCOMPLETE_IFS": "\n"}
    root = str(Path(__file__).parent.parent)
    environment = os.environ | asked | {"PYTHONPATH": root}
    code = "from miao.cli import main; main()"
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=folder, check=True)
    return {word.strip() for word in answer.read_text(encoding="utf-8").split("\n")}


@pytest.mark.parametrize(
    ("line", "wanted", "unwanted"),
    [
        ("miao e", {"export", "eval"}, {"run"}),
        ("miao run se", {"seedling"}, {"runs/mine"}),
        (
            "miao run seedling --pretrain.lear",
            {"--pretrain.learning_rate"},
            {"--sft.learning_rate"},
        ),
        ("miao run seedling --pretrain.schedule ", {"wsd", "cosine"}, {"seedling"}),
        ("miao chat ", {"runs/mine"}, {"run"}),
        ("miao export runs/mine --to g", {"gguf"}, {"hf"}),
        ("miao corpus check --li", {"--limit"}, {"--corpus.paths"}),
    ],
)
def test_tab_offers_verbs_recipes_keys_choices_and_runs(
    line: str, wanted: set[str], unwanted: set[str], tmp_path: Path
) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    found = offered(line, tmp_path)
    assert wanted <= found and not unwanted & found, found
