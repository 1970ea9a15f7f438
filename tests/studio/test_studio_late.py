"""An answer that comes after the reader has asked for something else is not shown, in any room."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from miao.files import append_jsonl, write_json, write_jsonl
from miao.studio.app import create_studio
from miao.studio.place import Place
from miao.tokenizer import Tokenizer
from tests.inspect.runs import grown_run
from tests.serve.browsing import (  # noqa: F401
    Running,
    browser_fixture,
    open_page_fixture,
    until,
    until_there,
)
from tests.studio.conftest import TOKEN

A_WHILE = 150
"""Milliseconds in which a page that is wrong would show it; one that is right shows nothing."""


class Late(NamedTuple):
    """asked: what the address of the answer that is late holds. before: how the page gets there.
    first, then: what is asked, and what instead. shown: where, and says: what stands there then."""

    path: str
    asked: str
    before: Callable[[Any], None]
    first: Callable[[Any], None]
    then: Callable[[Any], None]
    shown: str
    says: str


def chosen(selector: str, value: str) -> Callable[[Any], None]:
    return lambda page: page.select_option(selector, value)


def planned(recipe: str) -> Callable[[Any], None]:
    def ask(page: Any) -> None:
        page.select_option("#recipe", recipe)
        page.click("#plan")

    return ask


def looked(text: str) -> Callable[[Any], None]:
    def ask(page: Any) -> None:
        page.fill("#text", text)
        page.click("#look")

    return ask


def zoomed(page: Any) -> None:
    box = page.locator("#charts .u-over").first.bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + 50, steps=4)
    page.mouse.up()


def ready(selector: str) -> Callable[[Any], None]:
    return lambda page: page.wait_for_selector(selector, state="attached")


def named(page: Any) -> None:
    page.wait_for_selector("#recipe option >> nth=3", state="attached")
    page.fill("#name", "x")


ROOMS = {
    "grow": Late("/", "/studio/plan", named, planned("smoke"), planned("seedling"),
                 "#planned .command", "miao run seedling"),
    "watch": Late("/runs", "?begin=", ready("#charts .u-over"), zoomed,
                  lambda page: page.click("#whole"), "#charts", "19"),
    "talk": Late("/chat", "feedback?model=a", ready("#model option"), chosen("#model", "a/pretrain"),
                 chosen("#model", "b/pretrain"), ".compare", "2 👍"),
    "inside": Late("/inside", "/v1/inspect", ready("#model option"), looked("one"), looked("two"),
                   "#glass-tokens", "t"),
    "data": Late("/data", "/studio/data/a", ready("#run option"), chosen("#run", "a"),
                 chosen("#run", "b"), "#of-run", "of b"),
}  # fmt: skip


@pytest.fixture(name="studio")
def studio_fixture(place: Place, tokenizer: Tokenizer) -> Iterator[str]:
    for name, thumbs in (("a", 1), ("b", 2)):
        run = grown_run(place.runs / name, tokenizer)
        rows = [{"stage": "sft", "tokens": n, "loss": float(n)} for n in range(20)]
        write_jsonl(run.metrics, rows)
        counts = {"train": 1, "heldout": 0, "characters": 3}
        write_json(run.corpus / "manifest.json", {"sources": {"sft": {f"of {name}": counts}}})
        for n in range(thumbs):
            asked = [{"role": "user", "content": f"{n}"}]
            said = {"model": name, "kind": "up", "messages": asked, "answer": "a"}
            append_jsonl(run.path / "feedback.jsonl", said)
    running = Running(create_studio(place, None, TOKEN))
    yield running.url
    running.stop()


@pytest.mark.parametrize("room", ROOMS)
def test_a_late_answer_is_not_shown(studio: str, open_page: Any, room: str) -> None:
    late = ROOMS[room]
    page = open_page(f"{studio}{late.path}?token={TOKEN}&run=b")
    held: list[Any] = []

    def hold(route: Any) -> None:
        if late.asked in route.request.url and not held:
            held.append(route)
        else:
            route.continue_()

    late.before(page)
    page.route("**/studio/estimate", lambda route: route.fulfill(json={"minutes": {"sft": 1}}))
    page.route("**/*", hold)
    late.first(page)
    until_there(page, lambda: held)
    late.then(page)
    until(page, f"document.querySelector({late.shown!r})?.innerText.includes({late.says!r})")
    page.wait_for_timeout(A_WHILE)
    before = page.inner_text(late.shown)
    with page.expect_response(held[0].request.url):
        held[0].continue_()
    page.wait_for_timeout(A_WHILE)
    assert page.inner_text(late.shown) == before
    assert page.locator("#notice").is_hidden()


def test_a_bar_that_is_drawn_anew_leaves_the_keys_where_they_are(
    studio: str, open_page: Any
) -> None:
    page = open_page(f"{studio}/chat?token={TOKEN}&run=b&beside=a")
    until(page, "document.querySelector('.compare')?.innerText.includes('2 👍')")
    held: list[Any] = []
    page.route("**/studio/votes", lambda route: held.append(route))
    for n, (control, model) in enumerate({"#other-server": "a", ".compare select": "b"}.items()):
        page.select_option("#model", f"{model}/pretrain")
        until_there(page, lambda n=n: len(held) > n)
        page.focus(control)
        page.evaluate("window.before = document.activeElement")
        held[n].continue_()
        until(page, "!window.before.isConnected")
        assert page.evaluate("(one) => document.activeElement.matches(one)", control)
