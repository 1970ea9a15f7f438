"""The chat and the board without a mouse, for a screen reader, on narrow screens, on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi.responses import JSONResponse

from miao.files import write_jsonl
from miao.serve.board import create_board
from tests.serve.browsing import (  # noqa: F401
    Running,
    answers,
    ask,
    browser_fixture,
    drawn,
    open_page_fixture,
    script_fixture,
    until,
    wait_for_answer,
)

PHONE = {"width": 320, "height": 640}
FOCUSED = "document.activeElement.id || document.activeElement.className"


def test_keys_alone(script: Any, open_page: Any) -> None:
    page = open_page(script.url)
    script.says("好")
    page.focus("#input")
    page.keyboard.type("第一行")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("第二行")
    # Enter within an input method takes the candidate and sends nothing.
    composing = "new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true})"
    page.evaluate(f"document.getElementById('input').dispatchEvent({composing})")
    assert not script.bodies
    page.keyboard.press("Enter")
    wait_for_answer(page)
    assert script.bodies[0]["messages"][0]["content"] == "第一行\n第二行"
    until(page, "document.getElementById('spoken').textContent === '好'")
    assert page.get_attribute("#messages", "aria-live") is None, "not every token is read aloud"

    page.locator(".message.user .actions button").nth(1).focus()
    page.keyboard.press("Enter")
    page.keyboard.type("不要")
    page.keyboard.press("Escape")
    assert page.inner_text(".message.user .body") == "第一行\n第二行"
    page.locator(".message.user .actions button").nth(1).focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Control+A")
    page.keyboard.type("改")
    page.keyboard.press("Control+Enter")
    until(page, "document.querySelector('.message.user .body').innerText === '改'")
    wait_for_answer(page)
    assert script.bodies[1]["messages"] == [{"role": "user", "content": "改"}]

    # All that can be reached has a name and shows that it is reached.
    seen = set()
    page.focus("#new-chat")
    for _ in range(40):
        page.keyboard.press("Tab")
        node, name, outline = page.evaluate(
            "(() => { const e = document.activeElement; return [e.id || e.className || e.tagName, "
            "(e.getAttribute('aria-label') || e.innerText || '').trim(), "
            "getComputedStyle(e).outlineStyle]; })()"
        )
        if node == "BODY":
            break
        seen.add(node)
        assert name and outline != "none", node
    assert {"chat-name", "export", "model", "theme", "open-settings", "input", "send"} <= seen


def test_the_list_of_chats_on_a_phone(script: Any, open_page: Any) -> None:
    page = open_page(script.url, viewport=PHONE, locale="en-US", has_touch=True)
    page.wait_for_selector("#model option[value=poet]", state="attached")
    script.says("| long |\n|---|\n| " + "wide " * 9 + "`no_break` |\n\nمرحبا\n\n- عنصر")
    ask(page, "Hello")
    wait_for_answer(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320, "nothing sticks out"
    bar = page.locator(".bar").evaluate("(bar) => bar.scrollWidth - bar.clientWidth")
    assert bar <= 0
    rtl = page.locator(".text > :is(p, ul)").evaluate_all(
        "(all) => all.map((one) => getComputedStyle(one).direction)"
    )
    assert rtl == ["rtl", "rtl"]
    for close in ("Escape", "beside"):
        page.click("#open-side")
        assert page.evaluate(FOCUSED) == "close-side" and page.evaluate("main.inert")
        if close == "Escape":
            page.keyboard.press("Escape")
        else:
            page.mouse.click(315, 300)
        assert page.evaluate(FOCUSED) == "open-side" and not page.evaluate("main.inert")
    page.click("#open-settings")
    page.fill("[name=temperature]", "0.1")
    page.click("#close-settings")
    ask(page, "Again")
    until(page, "document.querySelectorAll('.message').length === 4")
    wait_for_answer(page)
    assert "temperature" not in script.bodies[1], "cancelled"


def test_while_an_answer_is_waited_for(script: Any, open_page: Any) -> None:
    page = open_page(script.url)
    script.says("好")
    ask(page, "旧的")
    wait_for_answer(page)
    page.click("#new-chat")
    script.says(*["字"] * 400, wait=0.5)
    ask(page, "慢慢来")
    page.wait_for_selector(".text.grows", state="attached")
    page.click("#language")  # all is drawn anew, and the answer goes on
    until(page, "document.querySelector('.text.grows')?.innerText.includes('字')")
    page.locator(".chat-name").nth(1).click()
    assert page.inner_text(".message.assistant .actions"), "another chat is whole at once"
    assert page.locator("#stop").is_hidden() and page.locator(".grows").count() == 0
    page.click("#new-chat")
    script.refusal = JSONResponse({"error": {"message": "no"}}, 400)
    ask(page, "在吗")
    page.wait_for_selector("#notice:visible")
    page.click("#notice-close")
    script.refusal = None
    script.says("在")
    page.click(".message.user .actions button:last-child")  # no answer came: try again
    wait_for_answer(page)
    assert answers(page) == ["在"] and len(script.bodies[-1]["messages"]) == 1
    page.click("#open-settings")
    assert page.locator("#notice").is_hidden()


def test_news_does_not_hide_other_news(script: Any, open_page: Any) -> None:
    page = open_page(script.url)
    script.says("一半")
    script.breaks = True
    with page.expect_response("**/health"):
        ask(page, "说")
        page.wait_for_selector("#notice:visible")
        bad = {"name": "x.jsonl", "mimeType": "text/plain", "buffer": b"7\n"}
        page.set_input_files("#import-file", bad)
        until(page, "document.getElementById('notice').innerText.includes('第 1 行')")
    # After a later answer the server is known to be there again.
    page.evaluate("fetch('/health').then((answer) => answer.text())")
    drawn(page)
    assert "第 1 行" in page.inner_text("#notice")


def test_the_board_with_many_runs(open_page: Any, tmp_path: Path) -> None:
    rows = [{"stage": "sft", "tokens": 100 * n, "loss": 3 / n} for n in range(1, 30)]
    for number in range(10):
        write_jsonl(tmp_path / "runs" / f"run-{number}" / "metrics.jsonl", rows)
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "metrics.jsonl").write_text("{\nno\n", encoding="utf-8")
    (tmp_path / "none").mkdir()
    running, empty = (
        Running(create_board(tmp_path / "runs")),
        Running(create_board(tmp_path / "none")),
    )
    try:
        page = open_page(running.url, viewport=PHONE)
        page.wait_for_selector(".run")
        for number in range(10):
            box = page.locator(".run", has_text=f"run-{number}").locator("input")
            box.focus()
            if not box.is_checked():
                page.keyboard.press("Space")
                assert box.is_checked()
            assert box.evaluate("(box) => box === document.activeElement"), "the place is kept"
        label = "document.querySelector('.plot')?.getAttribute('aria-label')"
        until(page, f"{label}?.includes('run-9 0.1034')")
        assert page.locator(".plot .again").count() >= 2, "ten runs, eight hues"
        assert "broken" in page.inner_text("#runs") and str(tmp_path) not in page.inner_text(
            "#runs"
        )
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        page = open_page(empty.url, locale="en-US")
        page.wait_for_selector("text=no runs here yet")
        assert page.locator("h2:visible").count() == 0
    finally:
        running.stop()
        empty.stop()
