"""A model's page in a real headless Chromium, opened from a file and from a static host."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from miao.export.page import write_page
from miao.model import load_model, save_model
from miao.page import html
from miao.tokenizer import Tokenizer
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

EVIL = (
    "</title></script><script>window.hacked=1</script><img src=x onerror=window.hacked=2>"
    "<svg onload=window.hacked=3> [a](javascript:window.hacked=4) {{SCRIPT}} {0} $& \u2028 <!--"
)


def test_a_chinese_and_an_english_conversation_from_a_file_without_a_request(
    model: Path, file: Path, open_page: Any
) -> None:
    for locale, questions in (
        ("zh-CN", ["你好，你是谁？", "再说一遍"]),
        ("en-US", ["Who are you?", "Say it again"]),
    ):
        page = open_file(open_page, file, locale=locale)
        change_settings(page, **GREEDY)
        said: list[dict[str, Any]] = []
        for question in questions:
            said.append({"role": "user", "content": question})
            content = greedy(model, said, 24)
            said.append({"role": "assistant", "content": content})
            answer_to(page, question)
            shown = page.locator(".message.assistant .text").last.evaluate("n => n.textContent")
            assert shown == content
        stats = page.inner_text(".message:last-child .stats")
        assert re.match(
            r"24 词元，每秒 \d+ 个" if locale == "zh-CN" else r"24 tokens, \d+ per", stats
        )
        shot(page, f"page-{locale}")
        elsewhere = [url for url in page.requested if not url.startswith(("blob:", "data:"))]
        assert elsewhere == [file.as_uri()], "nothing but the file itself"
        assert page.evaluate("fetch('https://example.com/').catch((e) => e.name)") == "TypeError"


def test_stop_regenerate_edit_and_what_is_kept(file: Path, open_page: Any, tmp_path: Path) -> None:
    page = open_file(open_page, file)
    change_settings(page, temperature="0", max_new_tokens="100000")
    ask(page, "数到一千")
    until(page, "document.querySelector('.assistant .text')?.textContent.length > 4")
    page.click("#stop")
    until(page, DONE)
    first = answers(page)[0]
    assert "已停止" in page.inner_text(".assistant .stats")
    page.reload()
    until(page, "!document.getElementById('send').disabled")
    assert answers(page)[0] == first, "what was said before the stop is kept"
    page.click("text=重新生成")
    until(page, "document.querySelector('.grows .text')?.textContent.length > 4")
    page.reload()
    until(page, "!document.getElementById('send').disabled")
    assert len(answers(page)[0]) > 4, "and before the page was left"

    change_settings(page, **GREEDY)
    page.click("text=重新生成")
    until(page, DONE)
    assert answers(page) != [first] and page.locator(".message").count() == 2
    page.click(".message.user >> text=编辑")
    page.fill(".editor", "数到三")
    page.click("text=发送修改")
    until(page, f"document.querySelectorAll('.message').length === 2 && {DONE}")
    assert page.inner_text(".message.user .text") == "数到三"
    edited = answers(page)
    page.click(".message.user >> text=编辑")
    page.press(".editor", "Escape")
    assert page.inner_text(".message.user .text") == "数到三"

    page.click("#new-chat")
    assert page.locator(".welcome").count() == 1
    answer_to(page, "第二个对话")
    page.click("#open-chats")
    assert page.locator(".chat-name").all_inner_texts() == ["第二个对话", "数到一千"]
    with page.expect_download() as download:
        page.click("#export")
    exported = tmp_path / "chats.jsonl"
    download.value.save_as(exported)
    lines = [json.loads(line) for line in exported.read_text("utf-8").splitlines()]
    assert [line["messages"][0] for line in lines] == [
        {"role": "user", "content": "第二个对话"},
        {"role": "user", "content": "数到三"},
    ]
    page.click(".chat-name >> nth=1")
    assert answers(page) == edited
    for _ in range(2):
        page.click("#open-chats")
        page.click("#chat-list >> text=删除 >> nth=0")
        page.click("#chats >> text=关闭")
    assert page.locator(".welcome").count() == 1
    page.set_input_files("#import-file", exported)
    until(page, "document.getElementById('notice').textContent === '导入了 2 个对话。'")
    page.reload()
    page.click("#open-chats")
    assert set(page.locator(".chat-name").all_inner_texts()) == {"第二个对话", "数到一千"}
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"messages": []}\nno chat\n')
    page.set_input_files("#import-file", bad)
    until(page, "document.getElementById('notice').textContent.startsWith('第 2 行不是对话')")


def damaged(text: str) -> Iterator[tuple[str, str]]:
    middle = text.index('id="weights"') + 4000
    yield (
        "a letter of the weights",
        text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :],
    )
    yield "not base64", text[:middle] + "%" + text[middle + 1 :]
    yield "cut in the weights", text[:middle]
    yield "cut before the weights", text[: text.index('id="worker"') + 500]
    yield "another setting", text.replace('"hidden_size":32', '"hidden_size":33')


def test_a_damaged_or_truncated_file_says_so(file: Path, open_page: Any, tmp_path: Path) -> None:
    for number, (what, text) in enumerate(damaged(file.read_text("utf-8"))):
        bad = tmp_path / f"{number}.html"
        bad.write_text(text, encoding="utf-8")
        page = open_page(bad.as_uri())
        until(page, "/文件已损坏/.test(document.getElementById('notice').textContent)")
        assert page.is_visible("#notice") and page.is_disabled("#send"), what
    script = file.read_text("utf-8").replace("const EXPECTED", "const  EXPECTED", 1)
    (tmp_path / "script.html").write_text(script, encoding="utf-8")
    page = open_page((tmp_path / "script.html").as_uri())
    assert "The page does not run: the file is damaged" in page.inner_text("#notice")


def test_no_text_can_inject_anything(
    model: Path, tokenizer: Tokenizer, open_page: Any, tmp_path: Path
) -> None:
    own = tmp_path / "model"
    save_model(load_model(model), own)
    letters = json.loads(json.dumps(tokenizer.spec()))
    word = letters["added_tokens"][-1] | {"content": EVIL, "special": False, "id": 360}
    letters["added_tokens"].append(word)
    tokenizer.with_spec(letters).save(own)
    file = tmp_path / "evil.html"
    write_page(own, file, card_of(own, EVIL), "int8", EVIL)
    page = open_file(open_page, file)
    assert page.title() == EVIL
    assert page.inner_text(".welcome h1").startswith("</title></script>")
    # What the model says, made to say it.
    page.evaluate("$talk.page.worker = { postMessage() {} }")
    ask(page, EVIL)
    said = json.dumps(f"<think>{EVIL}</think>{EVIL}")
    page.evaluate(
        f"$talk.addText({said}); $talk.finish({{reason: 'stop', count: 1, left: 0, ids: [360], first: 0, seconds: 1}})"
    )
    page.click("summary")
    page.click("#open-card")
    page.click("#close-card")
    page.click("#open-chats")
    page.click("#chats >> text=关闭")
    for _ in range(2):
        assert page.evaluate("window.hacked") is None
        assert page.locator("main :is(img, script, iframe, [onload], [onerror], a)").count() == 0
        assert "<img src=x onerror" in page.inner_text(".message.assistant .text")
        page.reload()
        until(page, "!document.getElementById('send').disabled")
    page.click("#open-glass")
    until(page, "!document.getElementById('glass-views').hidden")
    assert EVIL[:20] in page.locator("#glass-tokens").text_content().replace("␣", " ")
    assert page.evaluate("window.hacked") is None
    # Even a page that forgot itself could not make HTML, or a handler, of a text.
    for forgot in (
        "document.body.innerHTML = '<b>'",
        "document.body.setAttribute('onclick', 'window.hacked = 5')",
    ):
        assert (
            page.evaluate(f"() => {{ try {{ {forgot} }} catch (e) {{ return e.name }} }}")
            == "TypeError"
        )
    assert all(url.startswith(("file:", "blob:", "data:")) for url in page.requested)


def test_both_engines_answer_alike_and_the_compiled_one_is_what_runs(
    model: Path, file: Path, open_page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's policy lets WebAssembly be; where a browser refuses it, the plain twin answers."""
    plain = tmp_path / "plain.html"
    script = html.engine_script().replace('const MODULE = "', 'const MODULE = "AAAA', 1)
    monkeypatch.setattr(html, "engine_script", lambda: script)
    write_page(model, plain, card_of(model), "int8")
    expected = greedy(model, [{"role": "user", "content": "你好 why"}], 24)
    for each, engine in ((file, "wasm"), (plain, "js")):
        page = open_file(open_page, each)
        assert page.evaluate("document.body.dataset.engine") == engine
        change_settings(page, **GREEDY)
        answer_to(page, "你好 why")
        shown = page.locator(".message.assistant .text").last.evaluate("n => n.textContent")
        assert shown == expected
