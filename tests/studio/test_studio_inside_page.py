"""The page of "Look inside" in real Chromium: its numbers, and that texts stay texts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from miao.inspect.inspection import inspect
from miao.inspect.models import load
from miao.inspect.text import ids_of
from miao.serve.listening import LOCAL_NAMES
from miao.studio.app import create_studio
from miao.studio.place import Place
from miao.tokenizer import Tokenizer
from tests.inspect.runs import grown_run
from tests.serve.browsing import (  # noqa: F401
    Running,
    browser_fixture,
    open_page_fixture,
    shot,
    until,
)

TOKEN = "the-token-of-this-test"
TEXT = "你好 <img src=x onerror=boom()>"
FITS = (
    "[document.documentElement, ...document.querySelectorAll('main, .room')]"
    ".every((n) => n.scrollWidth <= n.clientWidth)"
)


@pytest.fixture(name="studio")
def studio_fixture(place: Place, tokenizer: Tokenizer) -> Iterator[str]:
    grown_run(place.runs / "tiny", tokenizer)
    running = Running(create_studio(place, LOCAL_NAMES, TOKEN))
    yield running.url
    running.stop()


def test_the_page_shows_the_numbers_of_a_forward_pass(
    studio: str, open_page: Any, place: Place
) -> None:
    page = open_page(f"{studio}/?token={TOKEN}", locale="en-US")
    page.goto(f"{studio}/inside")
    until(page, "document.querySelectorAll('#model option').length === 2")
    page.select_option("#model", "tiny/models/pretrain")
    page.select_option("#against", "tiny/checkpoints/sft/step-00000007")
    page.fill("#text", TEXT)
    page.press("#text", "Tab")
    page.click("#look")
    until(page, "!document.getElementById('glass-views').hidden")
    run = place.run("tiny")
    model, tokenizer = load(run.model("pretrain"))
    other, _ = load(run.path / "checkpoints/sft/step-00000007")
    ids, prompt = ids_of(tokenizer, TEXT)
    truth = inspect(model, tokenizer, ids, prompt, against=other)
    assert page.locator("#glass-tokens .token").count() == len(ids) + 1
    page.click(f"#glass-tokens .token >> nth={len(ids) - 1}")
    place_before = truth["places"][-2]
    facts = page.inner_text("#glass-facts")
    assert f"rank {place_before['next']['rank']} " in facts
    assert f"{truth['other']['kl'][-2]:.2g}" in facts
    shares = page.locator("#glass-likely .share").all_inner_texts()
    wanted = [100 * math.exp(guess["logprob"]) for guess in place_before["likeliest"]]
    assert [float(share[:-2]) for share in shares] == pytest.approx(wanted, rel=0.06)
    assert page.locator("#glass-views img").count() == 0 == page.locator("#rows img").count()
    assert "/studio/about/inspect/forward.py" in page.inner_html("#glass-guess")
    page.focus("#glass-off .chip >> text=layer 1")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#glass-off .off') !== null")
    assert "layer 1" in page.inner_text("#glass-off :focus"), "the keys stay at what they pressed"
    page.select_option("#row-stage", "sft")
    page.click("#ask-row button")
    until(page, "document.querySelectorAll('.slot').length === 24")
    assert page.locator(".slot.masked").count() > 0
    page.click(".slot >> nth=4")
    assert "loss" in page.inner_text("#row-facts")
    for width in (360, 1440):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate(FITS), width
        shot(page, f"inside-{width}")
    page.click("#language")
    assert "词元与意外" in page.inner_text("#glass-views")
    assert page.locator(".slot").count() == 24 and page.input_value("#row-stage") == "sft"
    assert not page.evaluate("'boom' in window")
