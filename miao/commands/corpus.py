"""`miao corpus VERB`: the verbs of the corpus, each in a file of its own."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module


def main(words: Sequence[str]) -> int:
    """Runs `miao corpus check | build | catalog | classifier | score | distill`."""
    code: int = import_module(f"miao.commands.corpus_{words[0]}").main(words[1:])
    return code
