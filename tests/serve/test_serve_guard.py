"""What stands before the routes, on the wire: names, keys, framing, slow and half-sent requests;
the number under which the log tells of a fault."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from miao.engine.text import TextStream
from miao.serve import running
from miao.serve.app import Limits
from miao.serve.board import create_board
from miao.serve.listening import names_of
from tests.serve.conftest import RunningServer
from tests.serve.test_app import HELLO, LONG, error_of, send

JSON = {"Content-Type": "application/json"}


def exchange(port: int, data: bytes) -> bytes:
    """What comes back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(data)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


def test_only_this_servers_names_are_answered(serve: Callable[..., Any]) -> None:
    """A page whose name was made to lead to 127.0.0.1 sends its own name."""
    with serve(hosts=names_of("127.0.0.1", ["miao.local"])) as server:
        for host in ("localhost", "LOCALHOST:80", "127.0.0.1", "[::1]:9", "miao.local"):
            assert send(server, "GET", "/v1/models", headers={"Host": host})[0] == 200, host
        for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil", "evil:80"):
            for path in ("/", "/health", "/v1/models", "/runs/data", "/nothing"):
                status, _, body = send(server, "GET", path, headers={"Host": host})
                assert status == 403 and "--allow-host" in error_of(body)
            status, _, _ = send(
                server, "POST", "/v1/chat/completions", {"messages": HELLO}, {"Host": host}
            )
            assert status == 403


def test_which_names_are_known() -> None:
    assert names_of("0.0.0.0", []) is None and names_of("192.0.2.7", []) is None
    assert names_of("127.0.0.1", []) == {"localhost", "127.0.0.1", "::1"}
    assert "a" in (names_of("0.0.0.0", ["A"]) or ())


def test_the_board_checks_names_and_keys_too(tmp_path: Path) -> None:
    from fastapi.testclient import TestClient

    app = create_board(tmp_path, "k", names_of("127.0.0.1", []))
    client = TestClient(app, base_url="http://127.0.0.1")
    assert client.get("/runs").status_code == 200 and client.get("/web/base.css").status_code < 500
    assert client.get("/runs/data").status_code == 401
    assert client.get("/runs/data", headers={"Authorization": "Bearer k"}).status_code == 200
    foreign = {"Authorization": "Bearer k", "Host": "evil.example"}
    assert client.get("/runs/data", headers=foreign).status_code == 403


def test_the_key_is_checked_before_the_body_is_read(serve: Callable[..., Any]) -> None:
    """Nothing of the body is sent, and the answer comes all the same."""
    with serve(api_key="k") as server:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        for framing in (b"Content-Length: 1000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"):
            answer = exchange(server.port, head + framing)
            assert answer.startswith(b"HTTP/1.1 401") and b"connection: close" in answer.lower()
        for wrong in (b"not JSON", b"{}", b"["):
            assert send(server, "POST", "/v1/completions", wrong)[0] == 401
        assert send(server, "POST", "/v1/nothing", {})[0] == 401
        key = {"x-api-key": "k"}
        assert send(server, "POST", "/v1/completions", {"prompt": "a"}, key)[0] == 200


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: -1",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: gzip",
        "Content-Length: 5x",
    ],
)
def test_ambiguous_framing_ends_the_connection(server: RunningServer, framing: str) -> None:
    """What follows is never taken for a request of its own."""
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{framing}"
    )
    smuggled = "0\r\n\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n"
    answer = exchange(server.port, f"{head}\r\n\r\n{smuggled}".encode())
    assert answer.split()[1] in (b"400", b"501") and answer.count(b"HTTP/1.1") == 1


def test_a_body_that_does_not_come_is_given_up(serve: Callable[..., Any]) -> None:
    with serve(limits=Limits(read_timeout=0.3)) as server:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        for begun in (b"Content-Length: 20\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{"):
            answer = exchange(server.port, head + begun)
            assert b" 408 " in answer.splitlines()[0] and b"0.3 seconds" in answer


@contextmanager
def connections(monkeypatch: pytest.MonkeyPatch, patience: float = 60) -> Iterator[int]:
    """A server of `miao serve`'s own connections, which answers with nothing; its port."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    monkeypatch.setattr(running, "HEAD_TIMEOUT", patience)
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=running.Connection, lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(60)


def test_a_head_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    begun = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
    with connections(monkeypatch, 0.3) as port:
        for part in (b"", b"GET / HT", begun):
            assert exchange(port, part).startswith(b"HTTP/1.1 408")
    with connections(monkeypatch, 2) as port:
        first, _, second = exchange(port, whole + begun).partition(b"\r\n\r\n")
        assert first.startswith(b"HTTP/1.1 204") and (not second or b" 408 " in second)
    with (
        connections(monkeypatch) as port,
        socket.create_connection(("127.0.0.1", port), timeout=60) as connection,
    ):
        for _ in range(3):  # a connection that is used goes on
            connection.sendall(whole)
            assert connection.recv(4096).startswith(b"HTTP/1.1 204")


def test_broken_framing_within_a_request_is_one_answer_and_no_fault(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The head and what is no body come together: the answer that was begun must not follow."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connections(monkeypatch) as port:
        answer = exchange(port, head + b"no chunk\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400") and answer.count(b"HTTP/1.1") == 1
    assert "Traceback" not in caplog.text


class _Fault:
    """Raises at the third token of the request that has the given seed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str):
        real = getattr(TextStream, name)

        def failing(stream: TextStream, *arguments: Any) -> Any:
            if stream._stop == ("VICTIM",):
                stream.seen = getattr(stream, "seen", 0) + 1
                if stream.seen > 2:
                    raise ZeroDivisionError
            return real(stream, *arguments)

        monkeypatch.setattr(TextStream, name, failing)


@pytest.mark.parametrize("place", ["feed", "take"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_fault_is_one_clients_and_leaves_a_trace(
    serve: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: str,
    stream: bool,
) -> None:
    """In a watcher, in the engine's step and where texts are handed over: the client gets a 500 with
    a number, the log has the traceback under it, a stream beside it stays what it was."""
    with serve() as server, monkeypatch.context() as patch:
        body = LONG | {"max_tokens": 120, "stream": True}
        usual = send(server, "POST", "/v1/chat/completions", body)[2]
        beside: list[bytes] = []
        other = threading.Thread(
            target=lambda: beside.append(send(server, "POST", "/v1/chat/completions", body)[2])
        )
        _Fault(patch, place)
        other.start()
        victim = LONG | {"max_tokens": 60, "stop": "VICTIM", "stream": stream}
        with caplog.at_level(logging.ERROR, "miao.serve"):
            status, headers, answer = send(server, "POST", "/v1/chat/completions", victim)
        other.join(100)
        assert status == (200 if stream else 500)
        number = headers["x-request-id"]
        error = json.loads(answer.split(b"data: ")[-1] if stream else answer)["error"]
        assert number in error["message"] and error["type"] == "server_error"
        (record,) = [one for one in caplog.records if number in one.getMessage()]
        assert record.exc_info is not None and record.exc_info[0] is ZeroDivisionError

        def said(data: bytes) -> list[Any]:
            lines = [json.loads(line[6:]) for line in data.split(b"\n\n")[:-2]]
            return [one["choices"][0]["delta"] for one in lines]

        assert said(beside[0]) == said(usual)
        server.wait_until_idle()


def test_a_fault_outside_the_engine_has_a_number_too(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with serve() as server:
        for name, path in (("chat_job", "/v1/chat/completions"), ("options", "/v1/completions")):
            monkeypatch.setattr(server.models[0], name, lambda *arguments: 1 / 0)
            body = {"messages": HELLO} if "chat" in path else {"prompt": "a"}
            with caplog.at_level(logging.ERROR, "miao.serve"):
                status, headers, answer = send(server, "POST", path, body)
            assert status == 500 and headers["x-request-id"] in error_of(answer)
            assert headers["x-request-id"] in caplog.text and "ZeroDivisionError" in caplog.text
        assert send(server, "GET", "/health")[1]["x-request-id"].startswith("req_")


EXTREMES: list[dict[str, Any]] = [
    {"top_p": 1e-300},
    {"top_p": 0},
    {"repetition_penalty": 1e-38},
    {"repetition_penalty": 0.01},
    {"temperature": 1e-300, "min_p": 1e-300},
    {"temperature": 5e-324, "top_p": 5e-324},
    {"logit_bias": {"5": 100, "6": -100}, "temperature": 2, "min_p": 1},
    {"presence_penalty": -2, "frequency_penalty": 5e-324, "top_k": 2**31 - 1},
    {"seed": 2**64 - 1, "top_k": 1},
    {"seed": -(2**63), "top_p": 1 - 1e-16},
]


@pytest.mark.parametrize("extreme", EXTREMES, ids=str)
def test_no_number_a_client_may_send_ends_an_answer(
    server: RunningServer, extreme: dict[str, Any]
) -> None:
    body = {"messages": HELLO, "max_tokens": 6, "temperature": 1.0} | extreme
    status, _, answer = send(server, "POST", "/v1/chat/completions", body)
    refused = extreme == {"repetition_penalty": 1e-38}
    assert status == (400 if refused else 200), answer
