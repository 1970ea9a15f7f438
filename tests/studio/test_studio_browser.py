"""The studio's main road in a real Chromium: text in, start, stop, go on, talk; hostile names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from miao.files import write_json, write_jsonl
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
