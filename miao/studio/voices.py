"""Models to talk to: every stage and checkpoint of every run, each behind a `miao serve` of its own
that is started when it is asked and stopped when nobody asks any more; and other servers."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from miao.openai_api import NoAnswer, ask, base_url
from miao.recipe import STAGES
from miao.rundir import RunDir, list_checkpoints
from miao.serve.board import Runs
from miao.serve.problems import Problem
from miao.studio.place import Place

MOST = 4
"""Models that are loaded at a time."""
IDLE = 600.0
"""Seconds after which one that nobody asks is stopped."""
START_SECONDS = 180.0
PIECE = 16 * 1024
ADDRESS = re.compile(r"serving .* at (http://\S+)")


@dataclass
class Voice:
    """A server that answers for one model."""

    process: subprocess.Popen[bytes]
    key: str
    log: Path
    url: str = ""
    used: float = 0.0

    def wait(self) -> None:
        """Until it answers.

        Raises:
            Problem: 500, with what it said when it could not begin.
        """
        end = time.monotonic() + START_SECONDS
        while not self.url:
            said = self.log.read_text(encoding="utf-8", errors="replace")
            if found := ADDRESS.search(said):
                self.url = found[1]
            elif self.process.poll() is not None:
                raise Problem(500, said.strip().removeprefix("miao: ")[-2000:] or "it ended")
            elif time.monotonic() > end:
                self.process.kill()
                raise Problem(500, f"the model was not loaded in {START_SECONDS:g} seconds")
            else:
                time.sleep(0.05)


class Voices:
    """All of them."""

    def __init__(self, place: Place):
        self._place = place
        self._known: dict[str, Voice] = {}
        self._others: dict[str, tuple[str, str | None, list[str]]] = {}
        self._one = threading.Lock()

    def models(self) -> list[str]:
        """Names: `run/stage` and `run/stage/step-00000120`, the newest run and stage first; then
        those of other servers, `server: model`."""
        own = (
            f"{name}/{part}"
            for name, run in Runs(self._place.runs).found().items()
            for part in _parts(run)
        )
        others = (
            f"{name}: {model}" for name, (_, _, given) in self._others.items() for model in given
        )
        return [*own, *others]

    def add_server(self, url: str, key: str | None) -> list[str]:
        """Also offers the models of another OpenAI-compatible server; returns their names. The key
        is kept in memory only.

        Raises:
            Problem: 400, there is none that answers.
        """
        address = base_url(url)
        try:
            listed = ask(address + "/models", key=key, timeout=20)
            names = [str(model["id"])[:200] for model in listed["data"]]
        except (NoAnswer, ValueError, KeyError, TypeError) as error:
            raise Problem(400, f"{address}: {error}", "url") from error
        server = address.split("://")[1].removesuffix("/v1")
        self._others[server] = (address, key, names)
        return [f"{server}: {name}" for name in names]

    def forward(self, model: str, body: dict[str, Any]) -> tuple[int, str, Iterator[bytes]]:
        """Asks the server of a model to chat; returns status, type and what comes, as it comes."""
        url, key, name = self._address(model)
        # The server knows its model by its own name.
        content = json.dumps(body | {"model": name}).encode()
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        try:
            request = urllib.request.Request(url + "/chat/completions", content, headers)
            response: Any = urllib.request.urlopen(request, timeout=600)
        except urllib.error.HTTPError as error:
            response = error
        except OSError as error:
            raise Problem(503, f"the model's server is gone: {error}", "model") from error
        kind = response.headers.get("Content-Type", "application/json")
        return response.status, kind, _pieces(response)

    def release(self) -> None:
        """Stops those that nobody asked for a while, and more than may be loaded."""
        with self._one:
            by_use = sorted(self._known.items(), key=lambda item: -item[1].used)
            for number, (name, voice) in enumerate(by_use):
                if number >= MOST or time.monotonic() - voice.used > IDLE:
                    _end(self._known.pop(name))

    def close(self) -> None:
        """Stops all."""
        with self._one:
            for voice in self._known.values():
                _end(voice)
            self._known.clear()

    def path_of(self, model: str) -> Path:
        """The directory of a model of a run.

        Raises:
            Problem: 404, there is none of that name.
        """
        name, _, part = model.partition("/")
        run = self._place.run(name)
        if part not in _parts(run):
            raise Problem(404, "there is no such model", "model")
        stage, _, step = part.partition("/")
        return run.checkpoints(stage) / step if step else run.model(stage)

    def _address(self, model: str) -> tuple[str, str | None, str]:
        server, colon, name = model.partition(": ")
        if colon and server in self._others:
            url, key, names = self._others[server]
            if name not in names:
                raise Problem(404, "there is no such model", "model")
            return url, key, name
        path = self.path_of(model)
        with self._one:
            voice = self._known.get(model)
            if voice is None or voice.process.poll() is not None:
                voice = self._known[model] = self._start(path)
            voice.used = time.monotonic()
        try:
            voice.wait()
        except Problem:
            with self._one:
                if known := self._known.pop(model, None):
                    _end(known)
            if not path.exists():
                raise Problem(
                    404, "this checkpoint has made room for newer ones: choose another", "model"
                ) from None
            raise
        self.release()
        return voice.url, voice.key, "studio"

    def _start(self, path: Path) -> Voice:
        key = secrets.token_urlsafe(24)
        folder = self._place.home / "voices"
        folder.mkdir(exist_ok=True)
        log = folder / f"{secrets.token_hex(8)}.log"
        words = ["serve", str(path), "--name", "studio", "--port", "0", "--max-concurrency", "4"]
        with open(log, "wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "miao.studio.voice", *words],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | {"MIAO_API_KEY": key},
            )
        return Voice(process, key, log, used=time.monotonic())


def _parts(run: RunDir) -> list[str]:
    """Stages and checkpoints of a run that can be talked to, the last first."""
    found = []
    for stage in reversed(STAGES):
        if (run.model(stage) / "config.json").is_file():
            found.append(stage)
        with suppress(OSError):
            steps = reversed(list_checkpoints(run.checkpoints(stage)))
            found += [f"{stage}/{path.name}" for path in steps]
    return found


def _pieces(response: IO[bytes]) -> Iterator[bytes]:
    with response:
        while piece := response.read1(PIECE):  # type: ignore[attr-defined]
            yield piece


def _end(voice: Voice) -> None:
    voice.process.terminate()
    voice.log.unlink(missing_ok=True)
