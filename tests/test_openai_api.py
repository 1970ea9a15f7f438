"""Servers that refuse, break off or talk nonsense."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from threading import Event

import pytest

from miao.corpus.distill import Endpoint
from miao.errors import MiaoError
from miao.evaluate.judge import OpenAIJudge
from miao.openai_api import NoAnswer, Unreachable, ask, base_url, opened
from miao.serve.client import ChatClient

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BROKEN = {
    "cut off": OK + b'Content-Length: 100\r\n\r\n{"choices"',
    "cut within a chunk": OK + b'Transfer-Encoding: chunked\r\n\r\n40\r\n{"choi',
    "not of HTTP": b"220 mail.example.com ESMTP\r\n\r\n",
    "empty": b"",
    "not of JSON": OK + b"Content-Length: 5\r\n\r\nhello",
    "not of text": OK + b"Content-Length: 3\r\n\r\n\xff\xfe\x00",
}
Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Answers every connection with the same bytes, and closes or resets it."""
    listeners = []

    def start(answer: bytes, reset: Event | None = None) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def work() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    _receive(connection)
                    connection.sendall(answer)
                    if reset is not None:
                        reset.wait(300)
                        connection.setsockopt(
                            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                        )

        threading.Thread(target=work, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.close()


def _receive(connection: socket.socket) -> None:
    """A whole request: what is left unread when a connection is closed resets it."""
    request = connection.makefile("rb")
    length = 0
    while line := request.readline().strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    request.read(length)


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_half_an_answer_is_no_answer(serve: Serve, answer: bytes) -> None:
    url = serve(answer)
    with pytest.raises(NoAnswer) as caught:
        ask(url, {}, timeout=10)
    assert caught.value.may_pass and caught.value.code is None and str(caught.value)
    with pytest.raises(MiaoError, match="3 times"):
        Endpoint(url, {}, retries=2, first_wait=0.0).ask([], seed=0)
    with pytest.raises(MiaoError, match="the judge does not answer"):
        OpenAIJudge(url, "m", timeout=10)("x")
    with pytest.raises(MiaoError):
        ChatClient(url)


@pytest.mark.parametrize("reset", [None, Event()], ids=["closed", "reset"])
def test_a_stream_that_breaks_off_is_explained(serve: Serve, reset: Event | None) -> None:
    client = ChatClient.__new__(ChatClient)
    piece = b'data: {"choices": [{"delta": {"content": "he"}}]}\n\n'
    url = serve(OK + b"Content-Length: 999\r\n\r\n" + piece, reset)
    client.url, client.model, client._key = url, "m", None
    said = client.stream([])
    assert next(said).content == "he"
    if reset is not None:
        reset.set()
    with pytest.raises(MiaoError, match="the server broke off") as caught:
        next(said)
    assert "miao serve" not in str(caught.value)


def test_a_server_that_is_not_there_is_said_to_be_so() -> None:
    with socket.socket() as taken:  # nobody listens there, nor will another process
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unreachable) as caught:
            ask(url)
        assert caught.value.may_pass
        with pytest.raises(MiaoError, match="miao serve"):
            ChatClient(url)


def test_a_refusal_has_its_words(serve: Serve) -> None:
    head = b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: %d\r\n\r\n%s"
    for body, said in (
        (b'{"error": {"message": "too  many"}}', "429 Slow: too many"),
        (b"<html>", "429 Slow"),
        (b'{"detail": 1}', "429 Slow"),
        (b"come later", "429 Slow: come later"),
    ):
        with pytest.raises(NoAnswer) as caught, opened(serve(head % (len(body), body))):
            pass
        assert str(caught.value) == f"the server answers {said}"
        assert (caught.value.code, caught.value.wait, caught.value.may_pass) == (429, 7.0, True)
    with pytest.raises(NoAnswer) as caught:
        ask(serve(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
    assert not caught.value.may_pass


@pytest.mark.parametrize("typed", ["host:1", "http://host:1/", "host:1/v1", "http://host:1/v1/"])
def test_addresses(typed: str) -> None:
    assert base_url(typed) == "http://host:1/v1"


def test_other_kinds_of_address_are_refused() -> None:
    with pytest.raises(MiaoError, match="not http"):
        base_url("file:///etc/passwd")
