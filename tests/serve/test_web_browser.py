"""The web pages in a real headless Chromium, before a server that says what a test wants."""

from __future__ import annotations

import json
import re
import time
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
    click_until_it_says,
    drawn,
    open_page_fixture,
    script_fixture,
    shot,
    until,
    wait_for_answer,
)

EVIL = (
    "<img src=x onerror=window.hacked=1><script>window.hacked=2</script>"
    '[a](javascript:window.hacked=3) ![b](https://evil.example/x.png) [c](" onclick="hacked=4) '
    "`<b>`\n\n```html\n</code></pre><script>window.hacked=5</script>\n```\n\n"
    "| <svg onload=hacked=6> |\n|---|\n| <iframe src=javascript:hacked=7> |\n"
)
MARKDOWN = (
    "## 标题\n\n有**粗体**、*斜体*、***两者***和`代码`，见[链接](https://example.com/a_(b))。\n\n"
    "1. 一\n2. 二\n   - 内\n3. 三\n   ```\n   def f():\n       return 1\n   ```\n\n- [x] 已办\n\n> 引用\n\n| 甲 | 乙 |\n|---|--:|\n| 1 | `a\\|b` |\n\n"
    "```python\nprint('<b>')\n```\n\nsnake_case_name 2*3*4"
)


def test_a_conversation_in_chinese(script: Any, open_page: Any) -> None:
    page = open_page(script.url)
    page.wait_for_selector("#model option[value=poet]", state="attached")
    script.says("你好", "，我是", "苗。")
    ask(page, "你好，你是谁？")
    wait_for_answer(page)
    assert answers(page) == ["你好，我是苗。"]
    stats = page.inner_text(".message.assistant .stats")
    assert re.search(r"3 词元 · .*词元/秒 · 首词元 \d+ ms|3 词元 · 首词元 \d+ ms", stats), stats
    assert script.bodies[0]["messages"] == [{"role": "user", "content": "你好，你是谁？"}]
    assert script.bodies[0]["model"] == "seedling" and script.bodies[0]["stream"]

    script.says(MARKDOWN)
    page.select_option("#model", "poet")
    ask(page, "写一段")
    wait_for_answer(page)
    assert [m["role"] for m in script.bodies[1]["messages"]] == ["user", "assistant", "user"]
    assert script.bodies[1]["model"] == "poet"
    text = page.locator(".message.assistant .text").nth(1)
    assert text.locator("strong").all_inner_texts() == ["粗体", "两者"]
    assert text.locator("em").all_inner_texts() == ["斜体", "两者"]
    assert text.locator("ol > li").count() == 3 and text.locator("ol ul li").inner_text() == "内"
    assert text.locator("td").all_inner_texts() == ["1", "a|b"]
    codes = text.locator("pre code").all_inner_texts()
    assert codes == ["def f():\n    return 1", "print('<b>')"]
    assert text.locator("li.task").inner_text() == "☑ 已办"
    assert text.locator("a").get_attribute("href") == "https://example.com/a_(b)"
    assert text.locator("p").last.inner_text() == "snake_case_name 2*3*4"
    shot(page, "chat")

    page.reload()
    assert answers(page)[0] == "你好，我是苗。" and page.locator(".message").count() == 4
    until(page, "document.getElementById('model').value === 'poet'")
    assert all(url.startswith((script.url, "data:")) for url in page.requested)


def test_stop_regenerate_and_edit(script: Any, open_page: Any) -> None:
    page = open_page(script.url)
    script.says(*["字"] * 4000, wait=0.02)
    ask(page, "数到一千")
    until(page, "document.querySelector('.text')?.innerText.length > 4")
    page.click("#stop")
    wait_for_answer(page)
    assert 4 < len(answers(page)[0]) < 4000 and "已停止" in page.inner_text(".stats >> nth=1")
    end = time.monotonic() + 120
    while not script.hung_up:
        assert time.monotonic() < end, "the server still writes"
        time.sleep(0.02)
    page.reload()
    assert set(answers(page)[0]) == {"字"}, "what was said before the stop is kept"

    script.says("新的回答")
    page.click("text=重新生成")
    wait_for_answer(page)
    assert answers(page) == ["新的回答"]
    assert len(script.bodies[1]["messages"]) == 1
    page.click(".message.user >> text=编辑")
    page.fill(".editor", "数到三")
    page.click("text=发送修改")
    wait_for_answer(page)
    assert script.bodies[2]["messages"] == [{"role": "user", "content": "数到三"}]
    assert page.inner_text(".message.user .body") == "数到三"


def test_a_model_can_inject_nothing(script: Any, open_page: Any) -> None:
    page = open_page(script.url)
    call = {"id": "1", "function": {"name": EVIL, "arguments": EVIL}}
    script.deltas = [{"reasoning_content": EVIL}, {"content": EVIL}, {"tool_calls": [call]}]
    ask(page, EVIL)
    wait_for_answer(page)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    drawn(page)
    shot(page, "injection")
    for _ in range(2):
        assert page.evaluate("window.hacked") is None
        bad = page.locator("main :is(img, script, iframe, svg, [onclick], [onerror], [onload])")
        assert bad.count() == 0
        links = page.locator(".text a").evaluate_all("(all) => all.map((a) => a.href)")
        assert links == ["https://evil.example/x.png"], "an image is a link, javascript: is none"
        assert "<img src=x onerror" in page.inner_text(".message.assistant .text")
        assert not [url for url in page.requested if "evil" in url]
        page.reload()
        page.wait_for_selector(".text a", state="attached")
    # Even a page that forgot itself could not make HTML of a text.
    forgot = "() => { try { document.body.innerHTML = '<b>'; return 'made' } catch (e) { return e.name } }"
    assert page.evaluate(forgot) == "TypeError"


def test_copying(script: Any, open_page: Any) -> None:
    page = open_page(script.url, permissions=["clipboard-read", "clipboard-write"])
    clipboard = "navigator.clipboard.readText()"
    script.says("看：\n\n```js\n1 < 2\n```")
    page.click(".idea >> nth=0")
    wait_for_answer(page)
    assert script.bodies[0]["messages"][0]["content"] == "你好，你是谁？"
    button = page.locator(".message.assistant .actions button").first
    for _ in range(2):  # twice in a row leaves the button as it was
        click_until_it_says(page, button, "已复制")
        assert page.evaluate(clipboard) == "看：\n\n```js\n1 < 2\n```"
    until(page, "window.said.at(-1) === '复制'")
    click_until_it_says(page, page.locator(".copy-code"), "已复制")
    assert page.evaluate(clipboard) == "1 < 2"
    # Without https there is no navigator.clipboard.
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.hover(".message.user")
    mine = page.locator(".message.user .actions button").first
    assert mine.inner_text() == "复制"
    click_until_it_says(page, mine, "已复制")
    page.evaluate("document.execCommand = () => false")
    click_until_it_says(page, button, "复制失败")


def test_thinking_tools_and_settings(script: Any, open_page: Any) -> None:
    page = open_page(script.url)
    page.click("#open-settings")
    page.fill("[name=system]", "用古文回答")
    page.fill("[name=temperature]", "9")
    page.click("#save-settings")
    assert page.locator("#settings").get_attribute("open") is not None, "9 is too hot"
    page.fill("[name=temperature]", "0.5")
    page.select_option("[name=thinking]", "on")
    tools = [{"type": "function", "function": {"name": "weather"}}]
    page.fill("[name=tools]", json.dumps(tools))
    shot(page, "settings")
    page.click("#save-settings")
    call = {
        "index": 0,
        "id": "c1",
        "function": {"name": "weather", "arguments": '{"city": "成都"}'},
    }
    script.deltas = [{"reasoning_content": "要查天气"}, {"tool_calls": [call]}]
    ask(page, "成都天气？")
    page.wait_for_selector(".results")
    body = script.bodies[0]
    assert body["messages"][0] == {"role": "system", "content": "用古文回答"}
    assert body["temperature"] == 0.5 and body["enable_thinking"] is True
    assert body["tools"] == tools and "top_p" not in body
    assert page.locator(".thought").is_hidden(), "folded until it is asked for"
    page.click("text=思考过程")
    assert page.inner_text(".thought") == "要查天气"
    assert page.locator(".calls pre").is_hidden()
    page.click("text=调用工具: weather")
    assert json.loads(page.inner_text(".calls pre")) == {"city": "成都"}
    shot(page, "tools")
    script.says("晴。")
    page.fill(".results textarea", "晴，25 度")
    page.click(".message.user .actions >> text=编辑")
    page.fill(".editor", "重庆")
    for wanted in ("Send the change", "发送修改"):  # what is being written stays
        page.click("#language")
        assert page.inner_text(".message.user .actions button >> nth=0") == wanted
        assert page.input_value(".editor") == "重庆"
        assert page.input_value(".results textarea") == "晴，25 度"
    page.click(".message.user .actions >> text=取消")
    page.click("text=交回结果")
    until(page, "[...document.querySelectorAll('.text')].at(-1).innerText === '晴。'")
    tool = script.bodies[1]["messages"][-1]
    assert tool == {"role": "tool", "content": "晴，25 度", "tool_call_id": "c1"}


def test_a_busy_and_a_missing_server(script: Any, open_page: Any) -> None:
    page = open_page(script.url)
    error = {"error": {"message": "busy"}}
    script.refusal = JSONResponse(error, 429, {"Retry-After": "7"})
    ask(page, "在吗？")
    page.wait_for_selector("#notice:visible")
    assert "正忙" in page.inner_text("#notice") and "7" in page.inner_text("#notice")
    script.refusal = None
    script.says("在。")
    page.click("#notice-retry")
    wait_for_answer(page)
    assert answers(page) == ["在。"] and page.locator("#notice").is_hidden()
    script.says("说到一半")
    script.breaks = script.models_wait = True  # the news that it is back does not come in between
    ask(page, "再说")
    page.wait_for_selector("#notice:visible")
    assert "中断" in page.inner_text("#notice") and answers(page)[1] == "说到一半"
    script.models_wait = False
    script.stop()
    ask(page, "还在吗？")
    until(page, "document.getElementById('notice').innerText.includes('连不上')")
    shot(page, "gone")
    assert page.locator(".message.user").count() == 3, "the question is kept"


def test_a_notice_outlives_a_late_list_of_models(script: Any, open_page: Any) -> None:
    script.models_wait = True
    page = open_page(script.url)
    script.refusal = JSONResponse({"error": {"message": "busy"}}, 429, {"Retry-After": "7"})
    ask(page, "在吗？")
    page.wait_for_selector("#notice:visible")
    script.models_wait = False
    page.wait_for_selector("#model option[value=poet]", state="attached")
    assert "正忙" in page.inner_text("#notice")


def test_a_phone_in_the_dark_in_english(script: Any, open_page: Any) -> None:
    size = {"width": 360, "height": 700}
    page = open_page(script.url, viewport=size, color_scheme="dark", locale="en-US", has_touch=True)
    script.says("```\n" + "long " * 60 + "\n```\n\n" + "verylongword" * 30 + "\n\nend" * 20)
    for _ in range(2):
        ask(page, "Hello")
        wait_for_answer(page)
    page.evaluate("document.querySelector('.message.assistant').scrollIntoView()")
    assert page.evaluate("scrollY") == 0, "the bar stays in sight"
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360, "nothing sticks out"
    assert page.inner_text("#send") == "Send"
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    page.click("#theme")
    shot(page, "phone")
    page.click("#open-side")
    until(page, "document.querySelector('.side').getAnimations().length === 0")
    shot(page, "phone-chats")
    page.click("#new-chat")
    page.wait_for_selector(".welcome")
    page.click("#language")
    assert page.inner_text("#send") == "发送"


def test_export_and_import(script: Any, open_page: Any, tmp_path: Path) -> None:
    page = open_page(script.url)
    script.says("<b>你好</b>")
    ask(page, "你好")
    wait_for_answer(page)
    with page.expect_download() as download:
        page.click("#export")
    path = tmp_path / "chats.jsonl"
    download.value.save_as(path)
    from miao.corpus.read.formats import read_records

    assert len(list(read_records([path], "conversation"))) == 1, (
        "chats are a corpus of conversations"
    )
    page.click("#delete-all")
    page.wait_for_selector(".welcome")
    page.set_input_files("#import-file", str(path))
    page.click(".chat-name")
    assert answers(page) == ["<b>你好</b>"]
    path.write_text(path.read_text(encoding="utf-8") + '{"messages": 7}\n', encoding="utf-8")
    page.set_input_files("#import-file", str(path))
    until(page, "document.getElementById('notice').innerText.includes('第 2 行')")
    assert page.locator(".chat-row").count() == 1


def test_a_real_server_answers_and_frees_its_row(serve: Any, open_page: Any) -> None:
    with serve(context=8192) as server:
        page = open_page(server.url.removesuffix("/v1"))
        ask(page, "从前有一座山")
        until(page, "document.querySelector('.text')?.innerText.length > 8")
        page.evaluate("document.getElementById('stop').click()")  # it may just have ended
        wait_for_answer(page)
        server.wait_until_idle()
        assert len(answers(page)[0]) > 8


def test_the_board(open_page: Any, tmp_path: Path) -> None:
    for number, name in enumerate(("first", "<script>hacked=1")):
        rows = [
            {"stage": "pretrain", "tokens": 1000 * n, "loss": 3 + (4 + number) / n}
            | {"tokens_per_second": 5000 - 9 * n, "grad_norm": 1 / n, "lr": 1e-3}
            for n in range(1, 200)
        ]
        held = [
            {"stage": "pretrain", "tokens": 50_000 * n, "heldout_bits_per_byte": 3 - n / 2}
            for n in (1, 2, 3)
        ]
        write_jsonl(tmp_path / name / "metrics.jsonl", [*rows, *held])
        samples = [
            {"stage": "pretrain", "tokens": tokens, "prompt": EVIL, "answer": f"{name} {EVIL}"}
            for tokens in (4000, 9000)
        ]
        write_jsonl(tmp_path / name / "samples.jsonl", samples)
        score = {
            "task": "questions",
            "category": "all",
            "value": 0.5,
            "stderr": 0.1,
            "chance": 0.25,
            "unit": "accuracy",
        }
        write_jsonl(
            tmp_path / name / "eval_results.jsonl", [{"stage": "pretrain", "scores": [score]}]
        )
    running = Running(create_board(tmp_path))
    try:
        page = open_page(running.url)
        page.wait_for_selector(".plot")
        page.locator(".run input").nth(1).check()
        until(page, "document.querySelector('.plot').querySelectorAll('.value').length === 2")
        assert page.locator(".plot").count() == 5
        assert "50.0 ± 10.0 %" in page.inner_text("#scores")
        assert page.evaluate("window.hacked") is None and page.locator("#samples img").count() == 0
        strips = page.locator(".sample > .answers")
        assert page.locator(".sample").count() == 1 and strips.count() == 2, "one for each run"
        said = strips.first.locator(".answer").all_inner_texts()
        assert "4K" in said[0] and "9K" in said[1], "through time"
        shot(page, "board")
        page.focus(".answers")
        page.evaluate("window.kept = document.querySelector('#stage option')")
        with (tmp_path / "first" / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write('{"stage": "pretrain", "tokens": 400000, "loss": 1.2345}\n')
        until(page, "document.querySelector('.reading').innerText.includes('1.234')")
        kept = "window.kept.isConnected && document.activeElement.className === 'answers'"
        assert page.evaluate(kept), "what was drawn anew leaves keys and lists as they were"
    finally:
        running.stop()


FORMULAS = (
    "能量 $E = mc^2$，根 \\(\\sqrt{2}\\)：\n\n$$x = \\frac{-b}{2a}$$\n\n\\[\na_1\n+ a_2\n\\]\n\n"
    "苹果 $5，梨 $10；$3和$x 坏的 $\\frac{$ 与 $\\href{javascript:window.hacked=1}{x}$ \\$y\\$ `$z$`\n\n"
    '```python\n# 注\ndef f(n): return "好" + 1\n```\n\n```nonsense\ndef f\n```'
)


def test_formulas_and_colours_of_code(script: Any, open_page: Any) -> None:
    page = open_page(script.url)
    script.says(FORMULAS)
    ask(page, "公式")
    wait_for_answer(page)
    until(page, "document.querySelectorAll('math').length === 4")
    text = page.locator(".message.assistant .text")
    assert text.locator("math mfrac").count() == 1 and text.locator("math msqrt").count() == 1
    assert text.locator(".formula.block").count() == 2, "two stand on lines of their own"
    written = text.inner_text()
    assert "苹果 $5，梨 $10；$3和$x 坏的 $\\frac{$ 与 $\\href" in written and "$y$ $z$" in written
    assert (
        text.locator("math a, math [href]").count() == 0 and page.evaluate("window.hacked") is None
    )
    coloured = {
        css: text.locator(f".code .{css}").all_inner_texts() for css in ("keyword", "string")
    }
    assert coloured == {"keyword": ["def", "return"], "string": ['"好"']}
    assert text.locator(".code .comment").inner_text() == "# 注"
    assert all(url.startswith((script.url, "data:")) for url in page.requested)


def test_a_full_context_leaves_out_the_oldest_turns_and_says_so(
    script: Any, open_page: Any
) -> None:
    script.context = 100
    page = open_page(script.url)
    page.wait_for_selector("#model option", state="attached")
    for number in range(6):
        script.says("好" * 20)
        ask(page, f"{number}" * 10)
        until(
            page,
            f"document.querySelectorAll('.message.assistant .actions button').length >= {2 * number + 2}",
        )
    sent = script.bodies[-1]["messages"]
    assert sent[0]["role"] == "user" and sent[-1]["content"] == "5" * 10
    assert 1 < len(sent) < 11, "the oldest turns are not sent"
    assert "不再发给模型" in page.inner_text(".left-out")
    assert page.locator(".message").count() == 12, "and are still there"
    assert re.search(r"上下文已用 \d+%", page.locator(".stats").last.inner_text())
    page.click("#language")
    assert "not sent to the model" in page.inner_text(".left-out")
    page.click("#language")
    ask(page, "长" * 200)
    page.wait_for_selector("#notice:not([hidden])")
    assert "100" in page.inner_text("#notice-text") and "新对话" in page.inner_text("#notice-retry")
    page.click("#notice-retry")
    assert page.locator(".message").count() == 0

    page.click("#open-settings")
    page.select_option("[name=overflow]", "stop")
    page.click("#save-settings")
    for number in range(6):
        before = len(script.bodies)
        ask(page, f"{number}" * 10)
        until(page, "document.querySelector('#stop').hidden")
        assert len(script.bodies) == before + 1, "nothing is asked again"
        if page.locator("#notice").is_visible():
            break
    assert number > 1 and page.locator(".left-out").count() == 0


def test_what_arrives_at_once_has_no_speed(script: Any, open_page: Any) -> None:
    page = open_page(script.url)
    script.says(*["字"] * 300)
    script.at_once = True
    ask(page, "快")
    wait_for_answer(page)
    assert "词元/秒" not in page.inner_text(".message.assistant .stats")
    script.says(*["字"] * 5)
    script.at_once, script.allowed = False, 0
    ask(page, "慢")
    for script.allowed in range(1, 6):  # each is painted, which takes its time, before the next
        shown = (
            f"[...document.querySelectorAll('.text')].at(-1).innerText.length === {script.allowed}"
        )
        until(page, shown)
    until(page, "document.querySelectorAll('.message.assistant .actions button').length >= 4")
    assert "词元/秒" in page.locator(".stats").last.inner_text()
