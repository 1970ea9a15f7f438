"""A model's page in a real headless Chromium, opened from a file and from a static host."""

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

from miao.engine import Engine, SamplingOptions
from miao.engine.backend import pack
from miao.export.card import Card, Facts, Source, Trained
from miao.export.page import write_folder, write_page
from miao.model import Decoder, load_model, save_model
from miao.page import html
from miao.page.contents import rounded
from miao.tokenizer import Tokenizer
from tests.serve.browsing import (  # noqa: F401
    answers,
    ask,
    browser_fixture,
    open_page_fixture,
    shot,
    until,
)

SHAPE = {"vocab_size": 384, "max_position_embeddings": 8192, "eos_token_id": 2}
EVIL = (
    "</title></script><script>window.hacked=1</script><img src=x onerror=window.hacked=2>"
    "<svg onload=window.hacked=3> [a](javascript:window.hacked=4) {{SCRIPT}} {0} $& \u2028 <!--"
)
GREEDY = {"temperature": "0", "max_new_tokens": "24"}
DONE = "document.getElementById('stop').hidden && document.querySelector('.message:last-child.assistant .actions')"


@pytest.fixture(scope="module", name="model")
def model_fixture(
    make_model: Callable[..., Decoder],
    tokenizer: Tokenizer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    directory = tmp_path_factory.mktemp("model")
    save_model(make_model(**SHAPE), directory)
    tokenizer.save(directory)
    return directory


def card_of(model: Path, text: str = "小苗") -> Card:
    """A card whose every text is `text`."""
    facts = Facts(
        trained=[Trained(text, "1.4M", "660", "5 min", "1.23", "")],
        sources=[Source(text, text, text, "1", "1", "1", "1")],
        score_columns=[text],
        scores=[[text, "", "400", "85.5 % ± 1.8 %", "25.0 %"]],
        machine=text,
        recipe=f"name: {text}",
    )
    config = load_model(model).config
    return Card(text, config, "sft", facts, text, ["zh"], True, "int8")


@pytest.fixture(scope="module", name="file")
def file_fixture(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "小苗 page.html"
    write_page(model, file, card_of(model), "int8")
    return file


def open_file(open_page: Any, file: Path, **options: Any) -> Any:
    page = open_page(file.as_uri(), **options)
    until(page, "!document.getElementById('send').disabled")
    return page


def change_settings(page: Any, **values: str) -> None:
    page.click("#open-settings")
    for name, value in values.items():
        page.fill(f"[name={name}]", value)
    page.click("#save")


def answer_to(page: Any, text: str) -> str:
    ask(page, text)
    until(page, DONE)
    return answers(page)[-1]


def greedy(model: Path, messages: list[dict[str, Any]], count: int) -> str:
    """What Miao's own engine says, with the page's weights."""
    tokenizer = Tokenizer.from_directory(model)
    engine = Engine(pack(rounded(load_model(model)), "int8"), tokenizer.stop_ids, rows=1)
    prompt = tokenizer.chat_template.encode_prompt(tokenizer, messages)
    (ids,) = engine.generate([prompt], SamplingOptions(max_new_tokens=count))
    return tokenizer.decode([id for id in ids if id not in tokenizer.stop_ids])


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
    page.evaluate("page.worker = { postMessage() {} }")
    ask(page, EVIL)
    said = json.dumps(f"<think>{EVIL}</think>{EVIL}")
    page.evaluate(
        f"addText({said}); finish({{reason: 'stop', count: 1, left: 0, ids: [360], first: 0, seconds: 1}})"
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


def test_the_glass_box_shows_the_numbers_of_the_inspection(
    file: Path, open_page: Any, tmp_path: Path
) -> None:
    page = open_file(open_page, file, locale="en-US")
    change_settings(page, **GREEDY)
    answer_to(page, "Why?")
    page.click("#open-glass")
    until(page, "!document.getElementById('glass-views').hidden")
    with page.expect_download() as download:
        page.click("#glass-save")
    download.value.save_as(tmp_path / "inspection.json")
    seen = json.loads((tmp_path / "inspection.json").read_text("utf-8"))
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
    # Every view says in two sentences what it shows, in both languages.
    for language in ("zh", "en"):
        page.evaluate(f"speak('{language}')")
        hints = page.locator("#glass-views h3 + .hint").all_inner_texts()
        assert len(hints) == 4
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
