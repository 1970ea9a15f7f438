"""The studio in a real Chromium, by the real verbs: text in, plan, train, stop, go on, talk; by keys
alone; hostile names."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from miao.files import write_json, write_jsonl, write_text
from miao.studio.app import ROOMS, create_studio
from miao.studio.jobs import Jobs
from miao.studio.place import Place
from tests.serve.browsing import (  # noqa: F401
    Running,
    browser_fixture,
    open_page_fixture,
    shot,
    until,
)
from tests.studio.conftest import TOKEN

EVIL = "<img src=x onerror=window.hacked=1>"


@pytest.fixture(name="studio")
def studio_fixture(place: Place) -> Iterator[Running]:
    running = Running(create_studio(place, None, TOKEN))
    yield running
    running.stop()
    for job in Jobs(place).all():
        Jobs(place).stop(job.name, "stop")


CONTROLS = """() => [...document.querySelectorAll(
    "a[href], button, input, select, textarea, summary, [tabindex]")]
    .filter((one) => one.checkVisibility({ visibilityProperty: true }) && !one.disabled && one.tabIndex >= 0)"""


def not_reached_by_keys(page: Any) -> list[str]:
    """What of a page the Tab key does not come to, or comes to without showing it."""
    page.evaluate(f"window.left = new Set(({CONTROLS})()); document.activeElement.blur()")
    for _ in range(page.evaluate("window.left.size") + 8):  # a field for a time has several stops
        page.keyboard.press("Tab")
        page.evaluate(
            "(({ activeElement: one }) => getComputedStyle(one).outlineStyle !== 'none'"
            " && window.left.delete(one))(document)"
        )
    found: list[str] = page.evaluate("[...window.left].map((one) => one.id || one.outerHTML)")
    return found


def test_from_a_dropped_file_to_a_job_that_stops_and_goes_on(
    studio: Running, open_page: Any, place: Place, tmp_path: Any
) -> None:
    waits = tmp_path / "waits.yaml"
    os.mkfifo(waits)
    page = open_page(f"{studio.url}/?token={TOKEN}", viewport={"width": 360, "height": 700})
    assert TOKEN not in page.url
    text = f"从前有座山。{EVIL}"
    file = {"name": f"{EVIL}.txt", "mimeType": "text/plain", "buffer": text.encode()}
    page.set_input_files("#files", file)
    page.wait_for_selector("#checked .command")
    assert "1 条" in page.inner_text("#checked") and "miao corpus check" in page.inner_text(
        "#checked"
    )
    assert len(list(place.texts[0].rglob("*.txt"))) == 1
    page.fill("#name", "../x")
    page.click("#start")
    assert page.locator("#name:invalid").count() == 1 and not Jobs(place).all()

    Jobs(place).add("小禾", ["run", str(waits)])  # stands for a long training
    job = page.locator(".job", has_text="小禾")
    job.locator("text=暂停").focus()
    page.keyboard.press("Enter")  # by keys alone
    until(page, "document.querySelector('.job').innerText.includes('已暂停')")
    job.locator("text=继续").click()
    until(page, "document.querySelector('.job').innerText.includes('训练中')")
    studio.stop()  # the studio goes, the job stays
    assert Jobs(place).get("小禾").state == "running"
    again = Running(create_studio(place, None, TOKEN))
    try:
        page = open_page(f"{again.url}/?token={TOKEN}", locale="en-US")
        job = page.locator(".job", has_text="小禾")
        job.locator("text=training").wait_for()
        job.get_by_role("button", name="Stop").click()
        job.locator("text=stopped").wait_for()
        assert "miao run" in job.inner_text() and page.evaluate("window.hacked") is None
    finally:
        again.stop()


LONGEST = 900
"""Seconds after which a job hangs."""


def ended(place: Place, name: str) -> str:
    """How a job ends."""
    end = time.monotonic() + LONGEST
    while not (found := [job for job in Jobs(place).all() if job.name == name]) or (
        (job := found[0]).state in ("queued", "running", "stopping")
    ):
        assert time.monotonic() < end, found and found[0].tail
        time.sleep(0.2)
    assert job.state != "failed", job.tail
    return job.state


def card(page: Any, name: str) -> Any:
    return page.locator(".job", has=page.get_by_text(name, exact=True))


def edit(page: Any, **values: str) -> None:
    for key, value in values.items():
        page.fill(f"#planned input[name='{key.replace('__', '.')}']", value)


SMALL = """name: small
corpus: {seedbed: {characters: 20K, conversations: 80, preferences: 20}}
tokenizer: {vocab_size: 512}
model: {hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1,
  max_position_embeddings: 256}
pretrain: {tokens: 50M, batch_tokens: 1024, seq_len: 128, log_every: 2, compile: 'off'}
sft: {epochs: 0.5, batch_tokens: 1024, seq_len: 128, compile: 'off'}
dpo: {enabled: false}
evaluate: {enabled: false}
"""


def test_the_plan_of_grow_is_a_table_and_what_is_changed_in_it_counts(
    studio: Running, open_page: Any, place: Place
) -> None:
    page = open_page(f"{studio.url}/?token={TOKEN}", locale="zh-CN")
    lines = "\n\n".join(
        f"第{n}天，小禾在田里数稻子，数到了{n * 7}棵，就回家吃饭。" * 3 for n in range(400)
    )
    page.set_input_files(
        "#files", {"name": "田.txt", "mimeType": "text/plain", "buffer": lines.encode()}
    )
    page.wait_for_selector("#checked .command")
    page.fill("#name", "小禾")
    page.fill("#minutes", "10")
    page.fill("#maker", "--三班")
    page.press("#name", "Tab")
    page.click("#plan")
    page.wait_for_selector("#planned table")
    assert "预计" in page.inner_text("#planned .times")
    assert "每字节" in page.inner_text("#planned .times")
    reasons = page.locator("#planned td.faint").all_inner_texts()
    assert any("形" in one or "文本" in one for one in reasons), reasons  # in the page's language
    edit(page, model__hidden_size="200")
    page.click("#start")
    page.wait_for_selector(".job.running")
    command = card(page, "小禾").inner_text()
    assert "--model.hidden_size 200" in command and "--maker=--三班" in command
    assert "miao grow" in command and "--minutes 10" in command
    card(page, "小禾").get_by_text("停止", exact=True).click()
    assert ended(place, "小禾") == "stopped"


def test_the_whole_road_by_the_real_verbs(studio: Running, open_page: Any, place: Place) -> None:
    """A run that is cloned for a text of one's own, paused, a studio that goes and comes back, going
    on, stop; a clone that is changed; both over each other; the grown model beside a checkpoint of
    the other."""
    write_text(place.runs / "small" / "recipe.yaml", SMALL)
    page = open_page(f"{studio.url}/?token={TOKEN}", locale="en-US")
    page.click("#paste")
    page.fill("#pasted", "\n\n".join(f"On day {n} the miller had {n} sacks." for n in range(300)))
    page.click("#keep-pasted")
    page.wait_for_selector("#checked .command")
    card(page, "small").get_by_text("Once more").click()
    page.wait_for_selector("#planned table")
    page.fill("#name", "long")
    page.click("#start")
    page.wait_for_selector(".job.running")
    long = place.runs / "long"
    until_there(lambda: '"loss"' in text_of(long / "metrics.jsonl"))
    card(page, "long").get_by_text("Pause").click()
    assert ended(place, "long") == "paused"

    studio.stop()
    again = Running(create_studio(place, None, TOKEN))
    try:
        page = open_page(f"{again.url}/?token={TOKEN}", locale="en-US")
        card(page, "long").get_by_text("Go on").click()
        until_there(lambda: (long / "breaks.jsonl").exists())
        page.wait_for_selector(".job.running")
        card(page, "long").get_by_text("Stop").click()
        assert ended(place, "long") == "stopped"

        card(page, "long").get_by_text("Once more").click()
        page.wait_for_selector("#planned table")
        assert page.input_value("#name") == "long-2"
        edit(page, pretrain__tokens="20K")
        page.click("#start")
        assert ended(place, "long-2") == "done"

        page.goto(f"{again.url}/runs?run=long")
        page.locator(".run", has_text="long-2").locator("input").check()
        until(page, "document.querySelectorAll('.chart-box:first-child .value').length === 2")
        page.select_option("#stage", "pretrain")
        events = page.evaluate("fetch('/runs/data/long').then((answer) => answer.json())")["events"]
        assert {one["kind"] for one in events["pretrain"]} >= {"resumed", "checkpoint"}

        page.goto(f"{again.url}/chat?run=long-2&beside=long")
        page.wait_for_selector(".compare select")
        page.fill("#input", "Who are you?")
        page.press("#input", "Enter")
        page.wait_for_selector(".message.assistant .actions button", timeout=300_000)
        assert page.locator(".voice").count() == 2, "the grown model, and a checkpoint of the other"
    finally:
        again.stop()


def until_there(found: Any) -> None:
    end = time.monotonic() + LONGEST
    while not found():
        assert time.monotonic() < end, "it never comes"
        time.sleep(0.1)


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def test_every_room_fits_and_nothing_of_a_run_is_executed(
    studio: Running, open_page: Any, place: Place
) -> None:
    run = place.runs / EVIL.replace("/", "|")
    write_jsonl(run / "metrics.jsonl", [{"stage": "sft", "tokens": 9, "loss": 1.0, "event": EVIL}])
    sample = {"stage": "sft", "tokens": 9, "prompt": EVIL, "answer": EVIL}
    write_jsonl(run / "samples.jsonl", [sample])
    write_json(run / "models" / "sft" / "config.json", {})
    for room in ROOMS:
        for scheme, width in (("light", 360), ("dark", 1440)):
            url = f"{studio.url}{room.path}?token={TOKEN}"
            page = open_page(url, viewport={"width": width, "height": 700}, color_scheme=scheme)
            page.wait_for_selector(".rooms a[aria-current]")
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, room.path
            assert page.evaluate("window.hacked") is None and page.locator("main img").count() == 0
            page.click("#language")
            words = page.locator(".rooms a").all_inner_texts()
            assert all(words) and words[0] == "Grow", "every room has its name in both languages"
            assert not_reached_by_keys(page) == [], room.path
            shot(page, f"studio{room.path.replace('/', '-')}-{width}")


def test_answers_stand_beside_each_other(
    studio: Running, open_page: Any, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: Any, model: str, body: dict[str, Any]) -> tuple[int, str, Any]:
        said = (
            f'data: {{"choices": [{{"delta": {{"content": "我是 {model}"}}}}]}}\n\ndata: [DONE]\n\n'
        )
        return 200, "text/event-stream", iter([said.encode()])

    monkeypatch.setattr("miao.studio.voices.Voices.forward", forward)
    write_jsonl(place.runs / "a" / "metrics.jsonl", [])
    for stage in ("pretrain", "sft"):
        write_json(place.runs / "a" / "models" / stage / "config.json", {})
    page = open_page(f"{studio.url}/chat?token={TOKEN}&run=a")
    page.wait_for_selector("#model option", state="attached")
    page.click(".compare button >> nth=0")
    page.check(".compare .tick input")
    page.fill("#input", "你是谁？")
    page.press("#input", "Enter")
    until(
        page,
        "[...document.querySelectorAll('.voice .text')].filter((one) => one.innerText.includes('我是')).length === 2",
    )
    heads = page.locator(".voice-head b")
    assert sorted(heads.all_inner_texts()) == ["A", "B"], "no names until a choice is made"
    page.wait_for_selector(".message.assistant .actions button")
    page.locator(".voice-head button").first.click()
    until(page, "document.querySelector('.tally')?.innerText.includes('1')")
    assert sorted(heads.all_inner_texts()) == ["a/pretrain", "a/sft"]
    page.click(".message.assistant .actions >> text=👎")
    until(page, "document.querySelector('.compare').innerText.includes('1 👍👎')")
    kinds = (place.runs / "a" / "feedback.jsonl").read_text(encoding="utf-8")
    assert '"better"' in kinds and '"down"' in kinds and "你是谁" in kinds
    page.reload()
    until(page, "document.querySelectorAll('.voice').length === 2")
    assert page.locator(".message.assistant .actions >> text=👎").count() == 1, "all is there again"


def test_another_server_is_put_beside_by_keys_alone(
    studio: Running, open_page: Any, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = {"data": [{"id": name} for name in ("big", EVIL)]}
    monkeypatch.setattr("miao.studio.voices.ask", lambda url, **more: listed)
    write_json(place.runs / "a" / "models" / "sft" / "config.json", {})
    write_jsonl(place.runs / "a" / "metrics.jsonl", [])
    page = open_page(
        f"{studio.url}/chat?token={TOKEN}", viewport={"width": 360, "height": 700}, locale="en-US"
    )
    page.locator("#other-server").focus()
    page.keyboard.press("Enter")
    page.keyboard.type("nowhere")
    page.keyboard.press("Enter")
    assert page.locator("#server input:invalid").count() == 1
    page.keyboard.press("Control+A")
    page.keyboard.type("http://127.0.0.1:9/v1")
    page.keyboard.press("Enter")
    until(page, "document.activeElement.tagName === 'SELECT'")
    assert page.locator("#server option").all_inner_texts() == ["big", EVIL]
    shot(page, "studio-server")
    page.keyboard.press("ArrowDown")
    page.locator("#server .wide").press("Enter")
    until(page, "!document.querySelector('#server')")
    assert page.input_value(".compare select") == f"127.0.0.1:9: {EVIL}"
    assert page.evaluate("document.activeElement.id") == "other-server"
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    until(page, "!document.querySelector('#server')")
