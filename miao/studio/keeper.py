"""Keeps one job: a process of its own session that runs a verb and notes how it ended, whatever
becomes of the studio that started it. `python -m miao.studio.keeper DIRECTORY`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

from miao.files import lock, read_json, write_json

TRIES = 40
"""A studio that looks whether the job lives holds its lock for a moment."""


def main(directory: Path) -> int:
    """Runs the job of a directory; returns its exit code."""
    with open(directory / "lock", "ab") as mine:
        if not _locked(mine):
            return 1  # another keeper has it
        job = read_json(directory / "job.json")
        if job["wanted"] != "run" or (directory / "status.json").exists():
            return 1  # another had it, and is through; or it is to wait
        child: subprocess.Popen[bytes] | None = None
        asked = 0

        def pass_on(number: int, frame: Any) -> None:
            """As Ctrl-C, which every verb cleans up after."""
            nonlocal asked
            asked += 1
            if child is not None and child.poll() is None:
                child.send_signal(signal.SIGINT)

        # Not SIG_IGN, which the child would inherit.
        signal.signal(signal.SIGINT, lambda number, frame: None)
        signal.signal(signal.SIGTERM, pass_on)
        status: dict[str, Any] = {"pid": os.getpid(), "began": time.time()}
        write_json(directory / "status.json", status)
        with open(directory / "log", "ab") as log:
            command = [sys.executable, "-m", "miao", *job["words"]]
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
            # What came before there was a child:
            if asked or read_json(directory / "job.json")["wanted"] != "run":
                child.send_signal(signal.SIGINT)
            code = child.wait()
        write_json(directory / "status.json", status | {"code": code, "ended": time.time()})
    return code


def _locked(file: IO[bytes]) -> bool:
    for _ in range(TRIES):
        try:
            lock(file)
            return True
        except OSError:
            time.sleep(0.05)
    return False


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
