"""A signal at the very moment at which a working process starts."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
    import os, signal, sys
    from multiprocessing import util
    from miao.errors import Interrupted
    from miao.corpus.build.processes import stoppable, worker_pool

    start, number = util.spawnv_passfds, int(sys.argv[1])

    def start_and_interrupt(path, arguments, descriptors):
        child = start(path, arguments, descriptors)
        if any("spawn_main" in str(word) for word in arguments):  # not the tracker of resources
            if number == signal.SIGINT:
                os.kill(child, number)  # a terminal sends it to all
            os.kill(os.getpid(), number)
        return child

    if __name__ == "__main__":
        util.spawnv_passfds = start_and_interrupt
        try:
            with stoppable(), worker_pool(2, "corpus.workers", int) as pool:
                pool.submit(len, "")
                print("not interrupted")
        except (KeyboardInterrupt, Interrupted) as stop:
            print(type(stop).__name__)
"""


@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "Interrupted")]
)
def test_a_signal_while_a_process_starts(tmp_path: Path, number: signal.Signals, said: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    done = subprocess.run(
        [sys.executable, str(program), str(int(number))],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        timeout=600,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{said}\n", "")
