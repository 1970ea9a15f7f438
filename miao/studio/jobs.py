"""The jobs of a studio: commands that wait, run, were stopped or are done.

A job is a directory below the studio's home: `job.json` (what was asked for), `status.json` (of its
keeper: process, begin, end, exit code), `log`, and `lock`, which the keeper holds while it lives.
So the list is the same after the studio was restarted, and a process number that the system gave
to another program is not taken for the job's.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from miao.errors import MiaoError
from miao.files import lock, read_json, write_json
from miao.serve.problems import Problem, for_reader
from miao.studio.place import Place, checked_name

State = Literal["queued", "running", "stopping", "paused", "stopped", "broken", "failed", "done"]
"""broken: its process is gone and could say nothing, as after a power cut; it can go on."""
TAIL = 4000
"""Bytes at the end of a log that are looked at."""
PROGRESS = re.compile(r"^  (\S[^%\n]*?) (\d+)% (.*?)(?: ETA (\S+))?$")
"""A line of `ProgressLine`."""
INTERRUPTED = {130, 143, -signal.SIGINT, -signal.SIGTERM}


@dataclass(frozen=True)
class Job:
    """One of them, as it stands."""

    name: str
    words: tuple[str, ...]
    state: State
    queued: float
    pid: int | None
    began: float | None
    ended: float | None
    code: int | None
    log: Path

    @cached_property
    def tail(self) -> tuple[str, ...]:
        """The last lines of its log."""
        return _tail(self.log)

    @property
    def command(self) -> str:
        """What does the same on a command line."""
        return f"miao {shlex.join(self.words)}"

    def as_json(self) -> dict[str, Any]:
        """For the page; `progress` is that of the stage which the log speaks of, `says` the last
        line of a log that knows of none."""
        lines = self.tail if self.state == "running" else ()
        found = [match for line in lines if (match := PROGRESS.match(line))]
        last = found[-1] if found else None
        progress = last and {
            "stage": last[1], "share": int(last[2]) / 100, "says": last[3], "left": last[4],
        }  # fmt: skip
        names = ("name", "state", "queued", "began", "ended", "code", "command")
        return {name: getattr(self, name) for name in names} | {
            "progress": progress,
            "says": lines[-1].strip("●! ") if lines else None,
            "error": for_reader(_error_of(self.tail) or "") if self.state in _ENDED_BADLY else None,
        }


class Jobs:
    """All jobs of a place; at most one runs at a time, the others wait in their order."""

    def __init__(self, place: Place):
        self._root = place.home / "jobs"
        self._started: list[subprocess.Popen[bytes]] = []
        self._turn = threading.Lock()

    def all(self) -> list[Job]:
        """Those that run or wait first, then the latest."""
        found = [self._read(path) for path in self._root.glob("*") if (path / "job.json").exists()]
        return sorted(found, key=lambda job: (job.state not in _OPEN, -job.queued))

    def get(self, name: str) -> Job:
        """Raises:
        Problem: 404, there is none of that name.
        """
        path = self._root / checked_name(name)
        if not (path / "job.json").is_file():
            raise Problem(404, "there is no such job", "name")
        return self._read(path)

    def add(self, name: str, words: Sequence[str]) -> Job:
        """Queues a command of `miao`.

        Raises:
            Problem: 409, the name is taken.
        """
        path = self._root / checked_name(name)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise Problem(409, f"there is a job called {name!r} already", "name") from None
        self._ask(path, words=list(words), wanted="run", queued=time.time())
        return self.tick(name)

    def stop(self, name: str, wanted: Literal["pause", "stop"]) -> Job:
        """Lets the job write a checkpoint and end; one that waits does not begin."""
        self.get(name)
        self._ask(self._root / name, wanted=wanted)
        job = self.get(name)  # a keeper that has not noted its number yet will see what is wanted
        if job.state in ("running", "stopping") and job.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(job.pid, signal.SIGTERM)
        return self.get(name)

    def resume(self, name: str) -> Job:
        """Queues the same command again, before all others: it goes on from its checkpoint.

        Raises:
            Problem: 409, it runs.
        """
        job = self.get(name)
        if job.state in ("running", "stopping"):
            raise Problem(409, "it runs", "name")
        (self._root / name / "status.json").unlink(missing_ok=True)
        self._ask(self._root / name, wanted="run", queued=time.time())
        return self.tick(name)

    def rename(self, name: str, new: str, words: Sequence[str]) -> None:
        """Gives a job that does not run another name and command."""
        self._require_rest(name)
        if (self._root / checked_name(new)).exists():
            raise Problem(409, f"there is a job called {new!r} already", "new")
        os.replace(self._root / name, self._root / new)
        self._ask(self._root / new, words=list(words))

    def forget(self, name: str) -> None:
        """Removes a job that does not run from the list."""
        self._require_rest(name)
        shutil.rmtree(self._root / name)

    def tick(self, name: str = "") -> Any:
        """Starts the next job where none runs. Returns the job of that name, if one is given."""
        with self._turn:
            self._started = [one for one in self._started if one.poll() is None]
            jobs = self.all()
            waiting = [job for job in jobs if job.state == "queued"]
            if waiting and not any(job.state in ("running", "stopping") for job in jobs):
                self._start(self._root / min(waiting, key=lambda job: job.queued).name)
        return self.get(name) if name else None

    def log(self, name: str) -> str:
        """The end of what a job has printed."""
        return "\n".join(self.get(name).tail)

    def _start(self, path: Path) -> None:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "miao.studio.keeper", str(path.resolve())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._started.append(keeper)
        end = time.monotonic() + 30
        while not (path / "status.json").exists() and keeper.poll() is None:
            if time.monotonic() > end:
                break
            time.sleep(0.02)

    def _require_rest(self, name: str) -> None:
        if self.get(name).state in ("running", "stopping"):
            raise Problem(409, "it runs: stop it first", "name")

    def _ask(self, path: Path, **values: Any) -> None:
        file = path / "job.json"
        write_json(file, (read_json(file) if file.exists() else {}) | values)

    def _read(self, path: Path) -> Job:
        job = read_json(path / "job.json")
        status: dict[str, Any] = {}
        with suppress(MiaoError):  # none yet
            status = read_json(path / "status.json")
        code, wanted = status.get("code"), job["wanted"]
        state: State
        if code is None and _is_held(path / "lock"):
            state = "running" if wanted == "run" else "stopping"
        elif not status:
            state = {"run": "queued", "pause": "paused", "stop": "stopped"}[wanted]  # type: ignore[assignment]
        elif code == 0:
            state = "done"
        elif code is None or (wanted == "run" and code in INTERRUPTED):
            state = "broken"
        elif wanted != "run":
            state = "paused" if wanted == "pause" else "stopped"
        else:
            state = "failed"
        named = {key: status.get(key) for key in ("pid", "began", "ended")}
        words = tuple(job["words"])
        return Job(path.name, words, state, job["queued"], code=code, log=path / "log", **named)


_OPEN = ("running", "stopping", "queued")
_ENDED_BADLY = ("failed", "broken")


def _is_held(path: Path) -> bool:
    """Whether a living keeper has the lock."""
    try:
        with open(path, "ab") as file:
            lock(file)
    except OSError:
        return True
    return False


def _tail(path: Path) -> tuple[str, ...]:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ()
    return tuple(line.rstrip("\r") for line in text.split("\n") if line.strip())


def _error_of(tail: Sequence[str]) -> str | None:
    """The last message that a command ended with, with its remedy."""
    starts = [n for n, line in enumerate(tail) if line.startswith("miao: ")]
    return "\n".join(tail[starts[-1] :]) if starts else "\n".join(tail[-3:]) or None
