"""Prompts and forms are made beside the engine: bounded, timed, given up with their client."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from miao.files import read_json, write_json
from miao.serve import desk as desks
from miao.serve.app import Limits
from miao.serve.scribe import Job, ids_of
from miao.tokenizer import Tokenizer
from tests.serve.conftest import RunningServer
from tests.serve.test_app import HELLO, LONG, error_of, raw_post, send

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
FOREIGN = TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
MANY = "range(99999)"
LOOP = f"{{% for a in {MANY} %}}{{% for b in {MANY} %}}{{% endfor %}}{{% endfor %}}"
ONLY_IF = "{% if 'loop' in messages[-1].content %}TRAP{% endif %}" + FOREIGN
TRAPS = {
    "a loop": LOOP,
    "one operation": "{{ 9 ** (9 ** (9 ** 9)) }}",
    "memory": "{% set n = namespace(a='a') %}{% for i in range(99) %}{% set n.a = n.a ~ n.a %}{% endfor %}",
}


@pytest.fixture
def with_template(tokenizer: Tokenizer, tmp_path: Path) -> Callable[[str], Tokenizer]:
    def make(template: str) -> Tokenizer:
        tokenizer.save(tmp_path)
        config = tmp_path / "tokenizer_config.json"
        write_json(config, read_json(config) | {"chat_template": template})
        return Tokenizer.from_directory(tmp_path)

    return make


def scribes(server: RunningServer) -> list[Any]:
    return [one for one in server.app.state.desk._scribes if not one.has_ended]


def test_a_process_makes_the_same_ids(
    serve: Callable[..., Any], with_template: Callable[[str], Tokenizer]
) -> None:
    """Of conversations in every way, of texts; for small ones a thread does it, with Miao's own
    template."""
    with serve() as server:
        server.models[0].tokenizer = foreign = with_template(FOREIGN)
        said = [*HELLO, {"role": "assistant", "content": "你好 <|im_end|>"}]
        common: dict[str, Any] = {"tools": None, "thinking": None}
        jobs: list[Job] = [
            *({"messages": said, "way": way, **common} for way in ("open", "close", "continue")),
            {"text": "天气 <|im_start|>", "begins": True},
            {"text": "a" * 70_000, "begins": False},
            {"ids": [5, 6]},
        ]

        async def by_process() -> list[list[int]]:
            desk = desks.Desk(1, 100)
            try:
                return await desk.prompts(server.models[0], jobs)
            finally:
                await desk.close()

        assert asyncio.run(by_process()) == [ids_of(foreign, job) for job in jobs]
        body = {"messages": HELLO, "max_tokens": 2}
        status, _, answer = send(server, "POST", "/v1/chat/completions", body)
        assert status == 200, answer
        refused = {"messages": HELLO, "continue_final_message": True}
        assert send(server, "POST", "/v1/chat/completions", refused)[0] == 400


def test_miaos_own_template_needs_no_process(server: RunningServer) -> None:
    assert (
        send(server, "POST", "/v1/chat/completions", {"messages": HELLO, "max_tokens": 2})[0] == 200
    )
    assert send(server, "POST", "/v1/completions", {"prompt": "a", "max_tokens": 2})[0] == 200
    assert scribes(server) == []
    # What is long is made by one.
    status, _, answer = send(server, "POST", "/v1/completions", {"prompt": "天气" * 50_000})
    assert status == 400 and "too many" in error_of(answer) and len(scribes(server)) == 1


@pytest.mark.parametrize("trap", TRAPS, ids=str)
def test_a_template_that_does_not_end_harms_nobody(
    serve: Callable[..., Any], with_template: Callable[[str], Tokenizer], trap: str
) -> None:
    """Its client gets an error in time, its process is gone, streams beside it go on, and so do the
    next requests to the same model."""
    with serve() as server:
        own = server.models[0].tokenizer
        usual = send(server, "POST", "/v1/chat/completions", LONG | {"max_tokens": 60})[2]
        server.models[0].tokenizer = with_template(ONLY_IF.replace("TRAP", TRAPS[trap]))
        hello = {"messages": HELLO, "max_tokens": 2}
        assert send(server, "POST", "/v1/chat/completions", hello)[0] == 200
        (scribe,) = scribes(server)
        beside: list[int] = []
        text = {"prompt": "a", "max_tokens": 200, "logit_bias": LONG["logit_bias"]}
        other = threading.Thread(
            target=lambda: beside.append(send(server, "POST", "/v1/completions", text)[0])
        )
        other.start()
        caught = {"messages": [{"role": "user", "content": "loop"}]}
        desk, patience = server.app.state.desk, server.app.state.desk._seconds
        desk._seconds = patience if trap == "one operation" else 3.0
        status, _, answer = send(server, "POST", "/v1/chat/completions", caught)
        desk._seconds = patience  # another process has to start
        assert status in (
            (400, 408) if trap == "memory" else (408,) if trap == "a loop" else (400,)
        )
        assert any(word in error_of(answer) for word in ("prepar", "emory", "too large"))
        other.join(100)
        assert beside == [200]
        assert send(server, "POST", "/v1/chat/completions", hello)[0] == 200
        end = time.monotonic() + 300
        while status == 408 and scribe._process.returncode is None:
            assert time.monotonic() < end
            time.sleep(0.02)
        server.models[0].tokenizer = own
        again = send(server, "POST", "/v1/chat/completions", LONG | {"max_tokens": 60})[2]
        assert again.split(b'"choices"')[1][:200] == usual.split(b'"choices"')[1][:200]


def test_closing_does_not_wait_for_whoever_else_holds_a_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True); input()"

    monkeypatch.setattr(desks, "PIPES", 0.5)

    async def close() -> int | None:
        scribe = desks.Scribe(cast(Any, None))
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdin=pipe, stdout=pipe
        )
        scribe._process = process
        assert process.stdout is not None
        other = int(await process.stdout.readline())
        try:
            await asyncio.wait_for(scribe.close(), 100)
        finally:
            os.kill(other, signal.SIGKILL)
            await process.stdout.read()
            await asyncio.sleep(0.1)  # so that the loop closes what is its own
        return process.returncode

    assert asyncio.run(close()) == -signal.SIGKILL


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_ends_its_process(
    serve: Callable[..., Any], with_template: Callable[[str], Tokenizer], stream: bool
) -> None:
    with serve() as server:
        server.models[0].tokenizer = with_template(LOOP)
        connection = raw_post(server, {"messages": HELLO, "stream": stream})
        while not scribes(server):
            time.sleep(0.01)
        connection.close()
        while scribes(server):
            time.sleep(0.01)


def test_so_many_may_wait(
    serve: Callable[..., Any], with_template: Callable[[str], Tokenizer]
) -> None:
    with serve(limits=Limits(max_queue=1)) as server:
        own = server.models[0].tokenizer
        server.models[0].tokenizer = with_template(LOOP)
        held = [raw_post(server, {"messages": HELLO}) for _ in range(desks.AT_ONCE + 1)]
        lane = server.app.state.desk._lanes["heavy"]
        while lane._open < len(held):
            time.sleep(0.01)
        status, headers, answer = send(server, "POST", "/v1/chat/completions", {"messages": HELLO})
        assert status == 429 and int(headers["retry-after"]) > 0 and "busy" in error_of(answer)
        server.models[0].tokenizer = own  # others are not delayed
        assert send(server, "POST", "/v1/chat/completions", LONG | {"max_tokens": 2})[0] == 200
        for connection in held:
            connection.close()
        while lane._open:
            time.sleep(0.01)


def test_a_form_is_made_once_for_all_answers(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    grammars = server.models[0].grammars
    made: list[Any] = []
    real = grammars._compiled
    monkeypatch.setattr(grammars, "_compiled", lambda *a, **o: made.append(a) or real(*a, **o))
    names = {f"p{n}": {"type": "string"} for n in range(400)}
    schema = {"name": "s", "schema": {"type": "object", "properties": names}}
    form = {"type": "json_schema", "json_schema": schema}
    body = {"messages": HELLO, "max_tokens": 3, "n": 4, "response_format": form}
    for _ in range(2):
        assert send(server, "POST", "/v1/chat/completions", body)[0] == 200
    assert len(made) == 1
