"""A server over tiny random models, in this process, with the official client before it."""

from __future__ import annotations

import faulthandler
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

from miao.engine import Runner, SamplingOptions, Scheduler
from miao.model import Decoder
from miao.serve.app import Limits, create_app
from miao.serve.models import Served
from miao.tokenizer import Tokenizer

CONTEXT = 768
PATIENT = Limits(read_timeout=600, prepare_timeout=600)
"""No test fails because the machine has other things to do."""


class RunningServer:
    """A server in a thread. `url` ends in /v1."""

    def __init__(self, models: list[Served], **options: Any):
        limits = options.setdefault("limits", PATIENT)
        self.app = create_app(models, **options)
        # An answer may be given little time: what comes before it has as much as it needs.
        self.app.state.desk._seconds = limits.prepare_timeout
        self.models = models
        config = uvicorn.Config(self.app, log_level="error", timeout_graceful_shutdown=100)
        self.server = uvicorn.Server(config)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self._socket]})
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(300)
        if self.thread.is_alive():
            faulthandler.dump_traceback()
        assert not self.thread.is_alive()

    def open_requests(self) -> tuple[int, int]:
        return self.app.state.worker.counts(self.models[0].name)

    def wait_until_idle(self, seconds: float = 100) -> None:
        """Waits until no slot is taken; fails where one leaks."""
        end = time.monotonic() + seconds
        while self.open_requests() != (0, 0):
            assert time.monotonic() < end, f"still open: {self.open_requests()}"
            time.sleep(0.02)


@pytest.fixture(scope="session")
def serve(make_model: Callable[..., Decoder], tokenizer: Tokenizer) -> Callable[..., Any]:
    """Starts a server over tiny models of these names; sampling is greedy unless asked for."""

    @contextmanager
    def start(
        *names: str, rows: int = 4, context: int = CONTEXT, **options: Any
    ) -> Iterator[RunningServer]:
        models = []
        for seed, name in enumerate(names or ("tiny",)):
            shape = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": context}
            model = make_model(seed, **shape)
            scheduler = Scheduler(Runner(model, rows, context), frozenset(tokenizer.stop_ids))
            models.append(Served(name, tokenizer, scheduler, SamplingOptions()))
        server = RunningServer(models, **options)
        try:
            yield server
        finally:
            server.stop()

    return start


@pytest.fixture(scope="session")
def server(serve: Callable[..., Any]) -> Iterator[RunningServer]:
    with serve("tiny", "other") as running:
        yield running
