"""Ctrl-C and SIGTERM as a user sends them: to the process of `miao serve` and `miao board`."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from miao.files import read_json, write_json
from miao.model import Decoder, save_model
from miao.tokenizer import Tokenizer

NO_END = {str(id): -100 for id in range(3)}


@contextmanager
def started(*words: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process, and the port at which it listens."""
    command = [sys.executable, "-m", "miao", *words, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            found = re.search(r"http://127\.0\.0\.1:(\d+).*Ctrl-C", line)
            if found:
                yield process, int(found[1])
                return
        raise AssertionError("it did not start")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def directory(make_model: Callable[..., Decoder], tokenizer: Tokenizer) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        shape = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 4096}
        save_model(make_model(**shape), path)
        tokenizer.save(path)
        yield path


@pytest.mark.parametrize("is_hurried", [False, True])
def test_what_streams_is_finished_or_cut_off(directory: Path, is_hurried: bool) -> None:
    stop = signal.SIGINT if is_hurried else signal.SIGTERM
    with started("serve", str(directory), "--device", "cpu") as (process, port):
        assert process.stdout is not None
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        body = {"messages": [{"role": "user", "content": "a"}], "stream": True}
        # Long enough to be cut off, or short enough to be waited for.
        length = {"max_tokens": -1 if is_hurried else 1500, "logit_bias": NO_END}
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body | length), headers)
        response = connection.getresponse()
        first = response.readline()
        process.send_signal(stop)
        while "answers still to finish: 1" not in process.stdout.readline():
            assert process.poll() is None
        if is_hurried:
            process.send_signal(stop)
        events = (first + response.read()).decode().strip().split("\n\n")
        connection.close()
        said = process.stdout.read()
        assert process.wait(100) == 0
    if is_hurried:
        assert "was stopped before" in json.loads(events[-1][6:])["error"]["message"]
        assert "cut off" in said
    else:
        assert events[-1] == "data: [DONE]" and '"finish_reason": "length"' in events[-2]
        assert "all answers that had begun were finished" in said


def test_the_board_stops(tmp_path: Path) -> None:
    with started("board", str(tmp_path)) as (process, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        connection.request("GET", "/runs")
        assert connection.getresponse().status == 200
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None and process.stdout.read() == "stopped\n"
        assert process.wait(100) == 0


def test_a_prompt_that_is_never_made_does_not_hold_the_server(directory: Path) -> None:
    """A chat template that loops: its client is told, SIGTERM ends the server, no process is left."""
    looping = directory.with_name(directory.name + "-looping")
    shutil.copytree(directory, looping)
    config = looping / "tokenizer_config.json"
    many = "range(99999)"
    loop = f"{{% for a in {many} %}}{{% for b in {many} %}}{{% endfor %}}{{% endfor %}}"
    write_json(config, read_json(config) | {"chat_template": loop})
    try:
        with started("serve", str(looping), "--device", "cpu") as (process, port):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
            body = {"messages": [{"role": "user", "content": "a"}]}
            connection.request(
                "POST",
                "/v1/chat/completions",
                json.dumps(body),
                {"Content-Type": "application/json"},
            )
            while not (children := children_of(process.pid)):
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            response = connection.getresponse()
            assert response.status == 503 and b"stopped" in response.read()
            assert process.wait(100) == 0
            assert not any(Path(f"/proc/{child}").exists() for child in children)
    finally:
        shutil.rmtree(looping)


def children_of(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children")
    if not found.exists():
        pytest.skip("this system does not tell a process's children")
    return [int(child) for child in found.read_text(encoding="ascii").split()]
