"""The server under load and abuse: refusals, limits, disconnections, shutdown."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miao.errors import MiaoError
from miao.serve.app import Limits
from miao.serve.client import ChatClient
from tests.serve.conftest import RunningServer

HELLO = [{"role": "user", "content": "hello"}]
NO_END = {str(id): -100 for id in range(3)}
"""Keeps a random model from ending its answer."""
LONG = {"messages": HELLO, "max_tokens": -1, "logit_bias": NO_END}


def send(
    server: RunningServer,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=200)
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | (headers or {})
    connection.request(method, path, data, headers)
    response = connection.getresponse()
    found = response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    connection.close()
    return found


def error_of(body: bytes) -> str:
    return json.loads(body)["error"]["message"]


def raw_post(server: RunningServer, body: dict[str, Any]) -> socket.socket:
    """A request on a socket of its own, to hang up on."""
    data = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(head.encode() + data)
    return connection


def test_health_metrics_and_unknown_paths(server: RunningServer) -> None:
    assert send(server, "GET", "/health")[0] == 200
    before = send(server, "POST", "/v1/completions", {"prompt": [1, 2], "max_tokens": 7})
    assert before[0] == 200
    status, _, text = send(server, "GET", "/metrics")
    assert status == 200 and b'miao_rows{model="tiny"} 4.0' in text
    assert b'miao_responses_total{path="/v1/completions",status="200"}' in text
    status, _, body = send(server, "GET", "/v1/nothing")
    assert status == 404 and error_of(body)
    assert send(server, "GET", "/v1/chat/completions")[0] == 405
    assert send(server, "GET", "/../../etc/passwd")[0] == 404


def test_a_key_is_asked_for(serve: Callable[..., Any]) -> None:
    with serve(api_key="schlüssel") as server:
        key = {"Authorization": "Bearer schlüssel".encode().decode("latin-1")}
        for path in ("/v1/models", "/metrics"):
            for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic schl"}):
                status, found, body = send(server, "GET", path, headers=headers)
                assert status == 401 and found["www-authenticate"] == "Bearer"
                assert "API key" in error_of(body)
            assert send(server, "GET", path, headers=key)[0] == 200
        assert send(server, "GET", "/health")[0] == 200
        assert send(server, "POST", "/v1/completions", {"prompt": "a"})[0] == 401


def test_bodies_that_are_too_large_or_no_json(serve: Callable[..., Any]) -> None:
    with serve(limits=Limits(max_body=2000)) as server:
        large = {"prompt": "a" * 3000}
        status, _, body = send(server, "POST", "/v1/completions", large)
        assert status == 413 and "2000 bytes" in error_of(body)
        # Without a Content-Length, in chunks.
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=200)
        parts = iter([b'{"prompt": "', b"a" * 1500, b"a" * 1500, b'"}'])
        kind = {"Content-Type": "application/json"}
        with contextlib.suppress(ConnectionError):  # refused and closed before all was sent
            connection.request("POST", "/v1/completions", parts, kind, encode_chunked=True)
            assert connection.getresponse().status == 413
        connection.close()
        for data in (b"", b"{", b"[1]", b'"a"', b"\xff\xfe", b'{"prompt": NaN}', b"[" * 1500):
            assert send(server, "POST", "/v1/completions", data)[0] == 400, data
        plain = {"Content-Type": "text/plain"}
        assert send(server, "POST", "/v1/completions", {"prompt": "a"}, plain)[0] == 415


@pytest.mark.parametrize(
    "prompt",
    ["[" + "1," * 400_000 + "1]", "[" + "[]," * 30_000 + "[]]", "[" + '"",' * 700_000 + "1]"],
    ids=["numbers", "lists", "texts"],
)
def test_a_body_of_too_many_values(server: RunningServer, prompt: str) -> None:
    body = f'{{"prompt": {prompt}}}'.encode()
    status, _, answer = send(server, "POST", "/v1/completions", body)
    assert status == 413 and "JSON values" in error_of(answer)


def test_what_stands_in_a_text_is_one_value(server: RunningServer) -> None:
    """However much JSON it quotes; a text that does not end is no way around the count."""
    quoted = {"prompt": '{"a": [],\\' * 50_000, "max_tokens": 1}
    status, _, answer = send(server, "POST", "/tokenize", {"prompt": quoted["prompt"]})
    assert status == 200 and json.loads(answer)["count"] > 50_000
    cut = b'{"prompt": "' + b'\\"' * 500_000
    assert send(server, "POST", "/v1/completions", cut)[0] == 400


def test_no_other_origin_is_let_in(serve: Callable[..., Any]) -> None:
    origin = {"Origin": "https://elsewhere.example"}
    with serve() as server:
        _, headers, _ = send(server, "GET", "/v1/models", headers=origin)
        assert "access-control-allow-origin" not in headers
    with serve(cors_origins=("https://elsewhere.example",)) as server:
        _, headers, _ = send(server, "GET", "/v1/models", headers=origin)
        assert headers["access-control-allow-origin"] == "https://elsewhere.example"


def test_a_full_queue_is_a_429(serve: Callable[..., Any]) -> None:
    with serve(rows=2, context=8192, limits=Limits(max_queue=1)) as server:
        held = [raw_post(server, LONG | {"stream": True}) for _ in range(3)]
        while sum(server.open_requests()) < 3:
            time.sleep(0.01)
        for stream in (False, True):
            status, headers, body = send(
                server, "POST", "/v1/chat/completions", LONG | {"stream": stream}
            )
            assert status == 429 and int(headers["retry-after"]) > 0 and "busy" in error_of(body)
        status, _, body = send(server, "POST", "/v1/chat/completions", LONG | {"n": 4})
        assert status == 400 and "at most 3 fit" in error_of(body)
        for connection in held:
            connection.close()
        server.wait_until_idle()
        assert send(server, "POST", "/v1/completions", {"prompt": "a"})[0] == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_frees_its_slots(serve: Callable[..., Any], stream: bool) -> None:
    with serve(rows=2, context=8192) as server:
        connection = raw_post(server, LONG | {"stream": stream, "n": 2})
        while server.open_requests() != (2, 0):
            time.sleep(0.01)
        if stream:
            assert connection.recv(100)
        connection.close()
        server.wait_until_idle()
        scheduler = server.models[0].scheduler
        assert not scheduler.running and not scheduler.waiting
        assert send(server, "POST", "/v1/completions", {"prompt": "a"})[0] == 200


def test_requests_that_take_too_long_are_given_up(serve: Callable[..., Any]) -> None:
    with serve(context=8192, limits=Limits(timeout=0.3)) as server:
        status, _, body = send(server, "POST", "/v1/chat/completions", LONG)
        assert status == 408 and "0.3 seconds" in error_of(body)
        status, _, body = send(server, "POST", "/v1/chat/completions", LONG | {"stream": True})
        assert status == 200 and b"0.3 seconds" in body and b"[DONE]" not in body
        server.wait_until_idle()


def test_a_stop_finishes_what_streams(serve: Callable[..., Any]) -> None:
    bodies: list[bytes] = []
    with serve(context=1024) as server:
        body = LONG | {"stream": True, "max_tokens": 600}

        def read() -> None:
            bodies.append(send(server, "POST", "/v1/chat/completions", body)[2])

        reader = threading.Thread(target=read)
        reader.start()
        while reader.is_alive() and server.open_requests() != (1, 0):
            time.sleep(0.005)
        server.stop()
        reader.join(100)
    assert bodies and bodies[0].rstrip().endswith(b"data: [DONE]")
    assert b'"finish_reason": "length"' in bodies[0]


def test_a_failing_engine_answers_and_goes_on(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as server:
        with monkeypatch.context() as patch:
            patch.setattr(server.models[0].scheduler, "step", lambda: 1 / 0)
            status, _, body = send(server, "POST", "/v1/completions", {"prompt": "a"})
            assert status == 500 and "ZeroDivisionError" in error_of(body)
        server.wait_until_idle()
        assert send(server, "POST", "/v1/completions", {"prompt": "a"})[0] == 200


def test_many_streaming_clients_with_random_disconnects(serve: Callable[..., Any]) -> None:
    with serve(rows=4, context=512, limits=Limits(max_queue=4)) as server:
        body = {"messages": HELLO, "max_tokens": 60, "stream": True, "logit_bias": NO_END}
        statuses: list[int] = []
        texts: set[bytes] = set()

        def client(number: int) -> None:
            for turn in range(3):
                if (number + turn) % 3 == 0:
                    connection = raw_post(server, body)
                    connection.recv(50 * number + 1)
                    connection.close()
                    continue
                status, _, data = send(server, "POST", "/v1/chat/completions", body)
                statuses.append(status)
                if status == 200:
                    lines = [line[6:] for line in data.split(b"\n\n")[:-2]]
                    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines]
                    texts.add("".join(d.get("content", "") for d in deltas).encode())

        clients = [threading.Thread(target=client, args=(number,)) for number in range(12)]
        for one in clients:
            one.start()
        for one in clients:
            one.join(200)
        assert set(statuses) <= {200, 429} and 200 in statuses
        assert len(texts) == 1, "greedy answers are the same in any company"
        server.wait_until_idle()


def test_the_chat_client(server: RunningServer, serve: Callable[..., Any]) -> None:
    client = ChatClient(server.url)
    assert client.model == "tiny"
    pieces = client.stream(HELLO, max_tokens=12, temperature=0)
    text = "".join(piece.reasoning + piece.content for piece in pieces)
    body = {"messages": HELLO, "max_tokens": 12, "temperature": 0}
    whole = json.loads(send(server, "POST", "/v1/chat/completions", body)[2])
    message = whole["choices"][0]["message"]
    assert text == message.get("reasoning_content", "") + message["content"] != ""
    assert ChatClient(f"127.0.0.1:{server.port}", model="other").model == "other"
    with pytest.raises(MiaoError, match="no model 'third'"):
        ChatClient(server.url, model="third")
    with pytest.raises(MiaoError, match=r"400 .*temperature"):
        list(client.stream(HELLO, temperature=9))
    with pytest.raises(MiaoError, match="cannot be reached"):
        ChatClient("http://127.0.0.1:9")
    with serve(api_key="k") as locked:
        with pytest.raises(MiaoError, match="401"):
            ChatClient(locked.url)
        assert ChatClient(locked.url, "k").model == "tiny"


NAMES = st.sampled_from(
    [
        "model",
        "messages",
        "prompt",
        "input",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "n",
        "seed",
        "stop",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "logprobs",
        "top_logprobs",
        "logit_bias",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "response_format",
        "tools",
        "tool_choice",
        "user",
        "echo",
        "best_of",
        "suffix",
        "dimensions",
        "encoding_format",
        "role",
        "content",
        "type",
        "json_schema",
        "schema",
        "function",
        "name",
        "chat_template_kwargs",
        "reasoning_effort",
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 400)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(["tiny", "user", "assistant", "text", "auto", "required", "json_object"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
VALID: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO, "max_tokens": 2},
    "/v1/completions": {"prompt": "a", "max_tokens": 2},
    "/v1/embeddings": {"input": "a"},
}


@settings(max_examples=80, suppress_health_check=list(HealthCheck), derandomize=True)
@given(path=st.sampled_from(sorted(VALID)), changes=st.dictionaries(NAMES, VALUES, max_size=3))
def test_no_body_breaks_the_server(
    server: RunningServer, path: str, changes: dict[str, Any]
) -> None:
    status, _, body = send(server, "POST", path, VALID[path] | changes)
    assert status in (200, 400, 404), body
    if status != 200:
        assert error_of(body)
