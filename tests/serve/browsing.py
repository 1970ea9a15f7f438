"""A real headless Chromium, and a server that says what a test wants.

Skipped where the package `playwright` or the program `chromium` is not installed;
MIAO_BROWSER_TESTS=1 makes that a failure. MIAO_SCREENSHOTS=DIR keeps pictures to look at.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from miao.serve.pages import CHAT_PAGE, add_pages

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
if os.environ.get("MIAO_BROWSER_TESTS") == "1":
    assert CHROMIUM is not None, "chromium is not installed"
    import playwright.sync_api as playwright
else:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed", allow_module_level=True)
SHOTS = os.environ.get("MIAO_SCREENSHOTS")
LONGEST = 600
"""Seconds after which what is waited for never comes, however busy the machine is."""


class Script:
    """A server whose answers a test writes: pieces of deltas, and how fast they come."""

    def __init__(self) -> None:
        self.deltas: list[dict[str, Any]] = []
        self.wait = 0.0
        self.refusal: Response | None = None
        self.breaks = self.at_once = False
        self.models_wait = False  # the list of models does not come before this is taken back
        self.allowed: float = inf  # no more pieces than these come before it is raised
        self.context = 10**6  # in letters: here a letter is a token
        self.bodies: list[dict[str, Any]] = []
        self.hung_up = False
        self.app = FastAPI()
        add_pages(self.app, CHAT_PAGE)
        self.app.get("/v1/models")(self.models)
        self.app.get("/health")(self.models)
        self.app.post("/v1/chat/completions")(self.chat)

    def says(self, *texts: str, wait: float = 0.0) -> None:
        self.deltas, self.wait = [{"content": text} for text in texts], wait

    async def models(self) -> Response:
        while self.models_wait:
            await asyncio.sleep(0.01)
        names = ("seedling", "poet")
        return JSONResponse({"data": [{"id": n, "max_model_len": self.context} for n in names]})

    async def chat(self, request: Request) -> Response:
        self.bodies.append(await request.json())
        if self.refusal is not None:
            return self.refusal
        self.prompt = sum(len(str(m["content"])) for m in self.bodies[-1]["messages"])
        if self.prompt >= self.context:
            code = "context_length_exceeded"
            return JSONResponse({"error": {"message": "too many tokens", "code": code}}, 400)
        if self.at_once:
            whole = "".join([event async for event in self.events()])
            return Response(whole, media_type="text/event-stream")
        return StreamingResponse(self.events(), media_type="text/event-stream")

    async def events(self) -> AsyncIterator[str]:
        try:
            for number, delta in enumerate(self.deltas):
                await asyncio.sleep(self.wait)
                while number >= self.allowed:
                    await asyncio.sleep(0.01)
                yield f"data: {json.dumps({'choices': [{'delta': delta, 'finish_reason': None}]})}\n\n"
            if self.breaks:
                return
            end = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
            count = len(self.deltas)
            sizes = {"prompt_tokens": self.prompt, "total_tokens": self.prompt + count}
            usage = {"choices": [], "usage": {"completion_tokens": count} | sizes}
            yield f"data: {json.dumps(end)}\n\ndata: {json.dumps(usage)}\n\ndata: [DONE]\n\n"
        except asyncio.CancelledError:
            self.hung_up = True
            raise


class Running:
    """An application in a thread."""

    def __init__(self, app: FastAPI):
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listening]})
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)


@pytest.fixture(scope="module", name="browser")
def browser_fixture() -> Iterator[Any]:
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(name="open_page")
def open_page_fixture(browser: Any) -> Iterator[Callable[..., Any]]:
    contexts, pages = [], []

    def open_one(url: str, **options: Any) -> Any:
        context = browser.new_context(**{"locale": "zh-CN"} | options)
        context.set_default_timeout(1000 * LONGEST)
        contexts.append(context)
        page = context.new_page()
        pages.append(page)
        page.requested, page.broken = [], []
        page.on("pageerror", lambda error: page.broken.append(str(error)))
        page.on("request", lambda request: page.requested.append(request.url))
        page.says = []  # to what asks for a word
        page.on(
            "dialog",
            lambda one: one.accept(page.says.pop(0) if page.says and one.type == "prompt" else ""),
        )
        page.goto(url)
        return page

    yield open_one
    for page in pages:
        assert not page.broken, "an error in a script"
    for context in contexts:
        context.close()


@pytest.fixture(name="script")
def script_fixture() -> Iterator[Script]:
    script = Script()
    running = Running(script.app)
    script.url, script.stop = running.url, running.stop  # type: ignore[attr-defined]
    yield script
    running.stop()


def shot(page: Any, name: str) -> None:
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))


def ask(page: Any, text: str) -> None:
    page.fill("#input", text)
    page.press("#input", "Enter")


def until(page: Any, expression: str) -> None:
    """Waits until it is true. Not wait_for_function, which evals: the policy forbids that."""
    end = time.monotonic() + LONGEST
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)


def until_there(page: Any, found: Callable[[], Any]) -> Any:
    """Waits, while the page goes on, for what stands elsewhere; returns it."""
    end = time.monotonic() + LONGEST
    while not (there := found()):
        assert time.monotonic() < end, "it never comes"
        page.wait_for_timeout(100)
    return there


def drawn(page: Any) -> None:
    """Waits until the page shows what it was last told."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def click_until_it_says(page: Any, button: Any, text: str) -> None:
    """Clicks; and waits until the button says, or has said for a moment, a text."""
    button.evaluate("""(button) => {
        window.said = [];
        const listen = () => window.said.push(button.textContent);
        new MutationObserver(listen).observe(button, { childList: true });
    }""")
    button.click()
    until(page, f"window.said.includes({json.dumps(text)})")


def wait_for_answer(page: Any) -> None:
    page.wait_for_selector(".message.assistant:last-child .actions button")


def answers(page: Any) -> list[str]:
    return page.locator(".message.assistant .text").all_inner_texts()
