"""`python -m miao.studio.voice VERB ...`: a verb that ends with the studio that started it, even
with one that was killed: then its standard input ends. Training goes before it."""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def main() -> None:
    """Runs `miao` with this command line."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(5)
    sys.argv[0] = "miao"
    runpy.run_module("miao", run_name="__main__")


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    main()
