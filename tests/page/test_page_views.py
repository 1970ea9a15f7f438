"""The glass box, widths and keys of a page, and a folder on a static host, in real Chromium."""

from __future__ import annotations

import functools
import http.server
import json
import math
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from miao.export.page import write_folder
from miao.page import html
from tests.page.pages import (  # noqa: F401
    DONE,
    GREEDY,
    answer_to,
    card_of,
    change_settings,
    file_fixture,
    greedy,
    model_fixture,
    open_file,
)
from tests.serve.browsing import (  # noqa: F401
    answers,
    ask,
    browser_fixture,
    open_page_fixture,
    shot,
    until,
)


def saved(page: Any, directory: Path) -> dict[str, Any]:
    """The inspection that is shown, as it is exported."""
    with page.expect_download() as download:
        page.click("#glass-save")
    download.value.save_as(directory / "inspection.json")
    found: dict[str, Any] = json.loads((directory / "inspection.json").read_text("utf-8"))
    return found


def test_the_glass_box_shows_the_numbers_of_the_inspection(
    file: Path, open_page: Any, tmp_path: Path
) -> None:
    page = open_file(open_page, file, locale="en-US")
    change_settings(page, **GREEDY)
    answer_to(page, "Why?")
    page.click("#open-glass")
    until(page, "!document.getElementById('glass-views').hidden")
    seen = saved(page, tmp_path)
    size = len(seen["tokens"])
    assert page.locator("#glass-tokens .token").count() == size + 1
    page.click(f"#glass-tokens .token >> nth={size - 1}")
    place = seen["places"][size - 2]
    assert f"rank {place['next']['rank']}" in page.inner_text("#glass-facts")
    shares = page.locator("#glass-likely .share").all_inner_texts()
    likeliest = [100 * math.exp(guess["logprob"]) for guess in place["likeliest"]]
    assert [float(share[:-2]) for share in shares] == pytest.approx(likeliest, rel=0.06)
    assert page.locator("#glass-likely .here").count() == 1, "greedy: the likeliest was said"
    assert page.locator("#glass-layers tr").count() == 1 + 2
    surprises = page.locator("#glass-tokens .token").evaluate_all(
        "(all) => all.map((n) => Number(n.style.getPropertyValue('--heat')))"
    )
    bits = [-p["next"]["logprob"] / math.log(2) for p in seen["places"][:-1]]
    wanted = [0, *(0.6 * min(1, bit / 12) for bit in bits), 0]
    assert surprises == pytest.approx(wanted, abs=1e-3)
    # Only by keys: to the token before, to a head, back to surprise.
    page.focus("#glass-tokens [tabindex='0']")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#glass-tokens [aria-pressed=true]").count() == 1
    page.keyboard.press("Tab")
    for _ in range(30):
        if page.evaluate("document.activeElement.classList.contains('head')"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    weights = seen["attention"][0][0][size - 3]
    heats = page.locator("#glass-tokens .token").evaluate_all(
        "(all) => all.map((n) => Number(n.style.getPropertyValue('--heat')))"
    )
    assert heats[: size - 2] == pytest.approx([0.6 * math.sqrt(w) for w in weights], abs=1e-3)
    assert "Layer 1, head 1 looks most at" in page.inner_text("#glass-most")
    shot(page, "glass")
    # That head switched off, and what changes: KL and colour, both readings' likeliest.
    page.click("#glass-off .chip >> text=layer 1, head 1")
    until(page, "!document.getElementById('glass-other').hidden")
    then = saved(page, tmp_path)
    assert then["other"]["kl"][size - 3] > 0 and then["places"] == seen["places"]
    assert f"{then['other']['kl'][size - 3]:.2g} nats" in page.inner_text("#glass-facts")
    changed = page.locator("#glass-other ol >> nth=1").locator(".share").all_inner_texts()
    likeliest = [guess["logprob"] for guess in then["other"]["places"][size - 3]["likeliest"]]
    truth = [100 * math.exp(logprob) for logprob in likeliest]
    assert [float(share[:-2]) for share in changed] == pytest.approx(truth, rel=0.06)
    # Drawn at temperature 2 and with top_p, as the sliders are moved.
    page.click("#open-sliders")
    until(page, "document.querySelectorAll('#glass-drawn li').length === 10")
    page.fill("[name=try-temperature]", "2")
    page.fill("[name=try-top_p]", "0.05")
    first = page.inner_text("#glass-drawn li >> nth=0")
    assert "→" in first and page.inner_text("#glass-drawn li >> nth=9").endswith("→ 0 %")
    shot(page, "glass-changes")
    page.click("#glass-off >> text=Everything on again")
    until(page, "document.getElementById('glass-other').hidden")
    # Every view says in two sentences what it shows, in both languages.
    for language in ("zh", "en"):
        page.evaluate(f"$words.speak('{language}')")
        hints = page.locator("#glass-views h3 + .hint").all_text_contents()
        assert len(hints) == 7
        for hint in hints:
            assert len(re.findall(r"[。.](?:\s|$)" if language == "en" else "。", hint)) == 2, hint
    page.keyboard.press("Escape")
    # Any text, without a conversation.
    page.click("#new-chat")
    page.click("#open-glass")
    page.fill("#glass-text", "the rain")
    page.click("#glass-ask")
    until(page, "document.querySelectorAll('#glass-tokens .token').length < 10")
    assert page.locator("#glass-tokens").text_content().endswith("the␣rainnext")


WIDTHS = (360, 390, 1440)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("locale", ["zh-CN", "en-US"])
def test_nothing_is_wider_than_the_window(
    file: Path, open_page: Any, locale: str, scheme: str
) -> None:
    page = open_file(open_page, file, locale=locale, color_scheme=scheme)
    change_settings(page, **GREEDY)
    fits = (
        "[document.documentElement, ...document.querySelectorAll('dialog[open], main, header')]"
        ".every((n) => n.scrollWidth <= n.clientWidth)"
    )
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 760})
        assert page.evaluate(fits), width
    answer_to(page, "你好" * 60 + "x" * 300)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 760})
        assert page.evaluate(fits), width
        shot(page, f"page-{width}-{locale}-{scheme}")
        for name in ("chats", "settings", "card", "glass"):
            page.click(f"#open-{name}")
            if name == "glass":
                until(page, "!document.getElementById('glass-views').hidden")
            assert page.evaluate(fits), (width, name)
            shot(page, f"page-{width}-{name}-{locale}-{scheme}")
            page.keyboard.press("Escape")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(250, 251, 248)" if scheme == "light" else "rgb(19, 23, 20)")


def test_a_conversation_by_keys_alone(file: Path, open_page: Any) -> None:
    page = open_file(open_page, file)
    change_settings(page, **GREEDY)
    page.focus("#open-card")
    page.keyboard.press("Tab")
    while page.evaluate("document.activeElement.id") != "input":
        page.keyboard.press("Tab")
    page.keyboard.type("你好")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("吗")
    page.keyboard.press("Enter")
    until(page, DONE)
    assert page.inner_text(".user .text") == "你好\n吗"
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.textContent") == "重新生成"
    page.keyboard.press("Enter")
    until(page, DONE)
    assert page.locator(".message").count() == 2


@pytest.fixture(name="host")
def host_fixture(tmp_path: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """A static host of tmp_path/site: its address, and what stops it."""
    (tmp_path / "site").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    handler = functools.partial(Quiet, directory=str(tmp_path / "site"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(30)

    yield f"http://127.0.0.1:{server.server_port}", stop
    stop()


def test_a_folder_below_a_sub_path_talks_on_when_its_server_is_gone(
    model: Path,
    host: tuple[str, Callable[[], None]],
    open_page: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(html, "MOST_BYTES", 10_000)
    folder = tmp_path / "site" / "my" / "seedling"
    folder.mkdir(parents=True)
    write_folder(model, folder, card_of(model), "int8")
    parts = sorted(folder.glob("*.bin"))
    assert len(parts) > 3 and all(part.stat().st_size <= 10_000 for part in parts)
    url, stop = host
    page = open_page(f"{url}/my/seedling/")
    until(page, "!document.getElementById('send').disabled")
    change_settings(page, **GREEDY)
    truth = greedy(model, [{"role": "user", "content": "你好"}], 24)
    assert answer_to(page, "你好") == truth
    asked = [u for u in page.requested if not u.startswith(("blob:", "data:"))]
    assert all(u.startswith(f"{url}/my/seedling/") for u in asked), "nothing from elsewhere"
    until(page, "navigator.serviceWorker.controller !== null")
    stop()
    page.reload()
    until(page, "!document.getElementById('send').disabled")
    page.click("#new-chat")
    assert answer_to(page, "你好") == truth


def test_a_folder_with_a_damaged_or_missing_part_says_so(
    model: Path, host: tuple[str, Callable[[], None]], open_page: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "site"
    write_folder(model, folder, card_of(model), "int8")
    (part,) = folder.glob("*.bin")
    whole = part.read_bytes()
    part.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    page = open_page(host[0])
    until(page, "/文件已损坏/.test(document.getElementById('notice').textContent)")
    part.unlink()
    page.reload()
    until(page, f"document.getElementById('notice').textContent.includes('{part.name}')")
    part.write_bytes(whole)
    page.reload()
    until(page, "!document.getElementById('send').disabled")
    page = open_page((folder / "index.html").as_uri())
    assert "miao export --to page" in page.inner_text("#notice")
