"""The studio in a real Chromium, by the real verbs: text in, plan, train, stop, go on, talk; by keys
alone; hostile names."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from miao.files import read_jsonl, write_json, write_jsonl, write_text
from miao.studio.app import ROOMS, create_studio
from miao.studio.jobs import Jobs
from miao.studio.place import Place
from tests.serve.browsing import (  # noqa: F401
    Running,
    browser_fixture,
    drawn,
    open_page_fixture,
    shot,
    until,
    until_there,
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
    page.evaluate(f"""() => {{
        window.left = new Set(({CONTROLS})());
        document.activeElement.blur();
        window.come = ({{ target: one }}) => getComputedStyle(one).outlineStyle !== "none" && left.delete(one);
        addEventListener("focusin", come);
    }}""")
    for _ in range(page.evaluate("window.left.size") + 8):  # a field for a time has several stops
        page.keyboard.press("Tab")
    found: list[str] = page.evaluate(
        "removeEventListener('focusin', come); [...left].map((one) => one.id || one.outerHTML)"
    )
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
    job.locator("summary").click()
    job.locator("summary").focus()
    log = place.home / "jobs" / "小禾" / "log"
    log.write_text("  pretrain 34% loss 3.1 | 9K tok/s MFU 3% ETA 4:05\n" * 99)
    until(page, "document.querySelector('.job').innerText.includes('预训练 · 34%')")
    kept = "document.activeElement.tagName === 'SUMMARY' && document.activeElement.parentNode.open"
    assert page.evaluate(kept), "drawn anew, and where it was"
    job.locator("text=暂停").focus()
    page.keyboard.press("Enter")  # by keys alone
    until(page, "document.querySelector('.job').innerText.includes('已暂停')")
    job.locator("text=继续").click()
    until(page, "document.querySelector('.job').innerText.includes('训练中')")
    page.context.set_offline(True)  # as a page does that was asleep
    until(page, "document.querySelector('#notice-text').innerText.includes('连不上')")
    log.write_text("  pretrain 35% loss 3.0 | 9K tok/s MFU 3% ETA 4:00\n")
    page.context.set_offline(False)
    until(page, "document.querySelector('.job').innerText.includes('预训练 · 35%')")
    assert page.locator("#notice").is_hidden(), "what has mended it takes it away"
    studio.stop()  # the studio goes, the job stays
    assert Jobs(place).get("小禾").state == "running"
    again = Running(create_studio(place, None, TOKEN))
    try:
        page = open_page(f"{again.url}/?token={TOKEN}", locale="en-US")
        job = page.locator(".job", has_text="小禾")
        job.locator(".state >> text=training").wait_for()
        job.get_by_role("button", name="Stop").click()
        job.locator(".state >> text=stopped").wait_for()
        assert "miao run" in job.inner_text() and page.evaluate("window.hacked") is None
        write_jsonl(place.runs / "old" / "metrics.jsonl", [{"stage": "sft", "tokens": 1}])
        page.says = ["older", "old", "older"]
        card(page, "old").get_by_text("Rename").click()
        for left in (1, 0):  # asked twice: another name deletes nothing
            card(page, "older").get_by_text("Delete").click()
            until_there(page, lambda left=left: len(page.says) == left)
            assert (place.runs / "older").exists() or not left
        card(page, "older").wait_for(state="detached")
        assert not (place.runs / "older").exists() and not (place.runs / "old").exists()
    finally:
        again.stop()


def test_a_folder_is_chosen_by_keys_and_no_link_leads_out_of_the_roots(
    studio: Running, open_page: Any, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = {"kinds": {}, "files": [], "rejected": 0, "skipped_files": []}
    checked: list[Any] = []
    monkeypatch.setattr(
        "miao.studio.texts.asked", lambda words, *more: checked.append(words) or dict(found)
    )
    root, evil = place.texts[0], EVIL.replace("/", "|")
    for name in ("书", evil):
        write_text(root / name / "a.txt", "从前有座山。")
    write_text(tmp_path / "secret" / "s.txt", "s")
    (root / "away").symlink_to(tmp_path / "secret")
    page = open_page(f"{studio.url}/?token={TOKEN}")

    def press(key: str, at: str) -> None:
        """A key, where one has come by Tab."""
        for _ in range(60):
            entry = page.evaluate("document.activeElement.closest('.entry')?.innerText ?? ''")
            if at in entry:
                return page.keyboard.press(key)
            page.keyboard.press("Tab")
        raise AssertionError(f"no Tab leads to {at}")

    page.focus("#browse")
    page.keyboard.press("Enter")
    page.wait_for_selector("#browser .entry")
    assert page.locator("#browser .entry").count() == len(place.texts)
    press("Enter", f"{root.name}/")
    page.wait_for_selector("#browser .entry >> text=书/")
    assert page.evaluate("document.activeElement.closest('#browser') !== null"), "the keys stay"
    press("Enter", "away/")  # it is seen, and leads nowhere
    page.wait_for_selector("#notice:visible")
    assert "--texts" in page.inner_text("#notice") and "s.txt" not in page.inner_text("body")
    press("Enter", "书/")
    page.wait_for_selector("#browser .entry >> text=a.txt")
    press("Enter", "↑")
    page.wait_for_selector(f"#browser .entry >> text={root.name}/")
    assert page.locator("#browser .entry").count() == len(place.texts), "no way above the roots"
    press("Enter", f"{root.name}/")
    page.wait_for_selector("#browser .entry >> text=书/")
    press("Tab", "书/")  # to the button that takes it
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#chosen')?.innerText.includes('书')")
    page.wait_for_selector("#checked .command")
    assert checked[0][:3] == ["corpus", "check", str(root / "书")]
    for path in (root / "away", root / "away" / "s.txt", root / ".." / "secret", tmp_path):
        refused = page.evaluate(
            "(path) => fetch('/studio/texts?path=' + encodeURIComponent(path)).then((a) => a.status)",
            str(path),
        )
        assert refused == 403
    assert page.evaluate("window.hacked") is None and page.locator("main img").count() == 0


def ended(page: Any, place: Place, name: str) -> str:
    """How a job ends."""

    def found() -> Any:
        jobs = (job for job in Jobs(place).all() if job.name == name)
        return next(
            (job for job in jobs if job.state not in ("queued", "running", "stopping")), None
        )

    job = until_there(page, found)
    assert job.state != "failed", job.tail
    return str(job.state)


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
    studio: Running, open_page: Any, place: Place, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = [{"stage": "pretrain", "tokens": 1, "loss": 1.0}]
    write_jsonl(place.runs / "苗" / "metrics.jsonl", began)
    os.mkfifo(tmp_path / "waits.yaml")
    Jobs(place).add("先", ["run", str(tmp_path / "waits.yaml")])
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
    page.focus("#plan")
    page.keyboard.press("Enter")
    page.wait_for_selector("#planned table")
    until(page, "document.activeElement.id === 'plan'")
    assert "预计" in page.inner_text("#planned .times")
    assert "每字节" in page.inner_text("#planned .times")
    reasons = page.locator("#planned td.faint").all_inner_texts()
    assert any("形" in one or "文本" in one for one in reasons), reasons  # in the page's language
    edit(page, model__hidden_size="200")
    for _ in range(2):
        page.click("#language")  # what is written is kept
        assert page.input_value("#planned input[name='model.hidden_size']") == "200"
    page.click("#start")
    page.wait_for_selector(".job.queued")
    command = card(page, "小禾").inner_text()
    assert "--model.hidden_size 200" in command and "--maker=--三班" in command
    assert "miao grow" in command and "--minutes 10" in command
    card(page, "小禾").get_by_text("停止", exact=True).click()
    assert ended(page, place, "小禾") == "stopped"

    # Going on with a model: which one is no field of the table.
    plan = {"options": {"model.path": EVIL}, "why": {"model.path": EVIL}, "notes": [EVIL]}
    monkeypatch.setattr("miao.studio.grow.asked", lambda words, seconds: plan)
    page.fill("#name", "小苗")
    page.select_option("#origin", "苗")
    assert page.locator("#planned table").count() == 0, "the plan was of another beginning"
    page.click("#plan")
    page.wait_for_selector("#planned table")
    assert page.locator("#planned td.path").inner_text() == EVIL
    assert f"--from={place.runs / '苗'}" in page.inner_text("#planned .command")
    assert page.locator("#planned input").count() == 0 and page.evaluate("window.hacked") is None


def test_the_whole_road_by_the_real_verbs(studio: Running, open_page: Any, place: Place) -> None:
    """A run that is cloned for a text of one's own, paused, a studio that goes and comes back, going
    on, stop; a clone that is changed; both over each other, and what happened on the curve; a chat
    with the grown model, whose answer is corrected; a lesson of that, and its effect."""
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
    until_there(page, lambda: '"loss"' in text_of(long / "metrics.jsonl"))
    card(page, "long").get_by_text("Pause").click()
    assert ended(page, place, "long") == "paused"

    studio.stop()
    again = Running(create_studio(place, None, TOKEN))
    try:
        page = open_page(f"{again.url}/?token={TOKEN}", locale="en-US")
        card(page, "long").get_by_text("Go on").click()
        until_there(page, (long / "breaks.jsonl").exists)
        page.wait_for_selector(".job.running")
        run = until_there(page, lambda: Jobs(place).get("long").pid)
        os.killpg(run, signal.SIGSTOP)  # the laptop sleeps, and wakes
        before = reached(long)
        assert Jobs(place).get("long").state == "running"
        os.killpg(run, signal.SIGCONT)
        until_there(page, lambda: reached(long) > before)
        card(page, "long").get_by_text("Stop").click()
        assert ended(page, place, "long") == "stopped"

        card(page, "long").get_by_text("Once more").click()
        page.wait_for_selector("#planned table")
        assert page.input_value("#name") == "long-2"
        edit(page, pretrain__tokens="20K")
        page.click("#start")
        assert ended(page, place, "long-2") == "done"
        assert "--pretrain.tokens 20K" in Jobs(place).get("long-2").command

        page.goto(f"{again.url}/runs?run=long")
        box = page.locator("#charts .u-over").first.bounding_box()
        page.mouse.click(box["x"] + box["width"] - 2, box["y"] + 50)
        until(page, "/checkpoint|went on/.test(document.querySelector('#event').innerText)")
        page.locator(".run", has_text="long-2").locator("input").check()
        until(page, "document.querySelectorAll('.chart-box:first-child .value').length === 2")
        page.select_option("#stage", "pretrain")
        events = page.evaluate("fetch('/runs/data/long').then((answer) => answer.json())")["events"]
        assert {one["kind"] for one in events["pretrain"]} >= {"resumed", "checkpoint"}

        likeliest = {"temperature": 0, "max_tokens": 16}
        page.evaluate(f"localStorage.setItem('miao-settings', '{json.dumps(likeliest)}')")
        page.goto(f"{again.url}/chat?run=long-2")
        page.fill("#input", "Who are you?")
        page.press("#input", "Enter")
        page.locator(".message.assistant .actions").get_by_text("Correct", exact=True).click()
        page.fill(".editor", "I am the miller.")
        page.click("text=Keep the correction")
        page.click("text=Learn from it")
        page.wait_for_url("**/")
        assert ended(page, place, "long-2-taught-1") == "done"
        card(page, "long-2-taught-1").get_by_text("Talk").click()
        page.click("text=What has it learned?")
        page.wait_for_selector(".effect table")
        shot(page, "studio-effect")
        assert "I am the miller." in page.inner_text(".effect table")
        effect = page.evaluate("fetch('/studio/effect?run=long-2-taught-1').then((a) => a.json())")
        (told,) = effect["opinions"]
        assert told["wanted"]["after"] > 2 * told["wanted"]["before"], "it has learned that"
    finally:
        again.stop()


def reached(run: Path) -> int:
    """Tokens that a run has learned from by now."""
    rows = read_jsonl(run / "metrics.jsonl", lambda problem: None)
    return max((row["tokens"] for row in rows if "loss" in row), default=0)


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
        page = open_page(f"{studio.url}{room.path}?token={TOKEN}", color_scheme="light")
        page.wait_for_selector(".rooms a[aria-current]")
        if room.path != "/data":  # which knows of texts alone
            until(page, "document.documentElement.outerHTML.includes('onerror=window.hacked')")
        drawn(page)
        for scheme, width in (("light", 360), ("dark", 1440)):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 700})
            for language in ("Chinese", "English"):
                drawn(page)
                fits = page.evaluate("document.documentElement.scrollWidth") <= width
                assert fits, (room.path, width, language)
                assert page.evaluate("window.hacked") is None
                assert page.locator("main img").count() == 0
                words = page.locator(".rooms a").all_inner_texts()
                named = all(words) and (words[0] == "Grow") == (language == "English")
                assert named, "every room has its name in both languages"
                if language == "English":
                    assert not_reached_by_keys(page) == [], room.path
                    shot(page, f"studio{room.path.replace('/', '-')}-{width}")
                page.click("#language")


def test_answers_stand_beside_each_other(
    studio: Running, open_page: Any, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = threading.Event()

    def forward(self: Any, model: str, body: dict[str, Any]) -> tuple[int, str, Any]:
        def pieces() -> Iterator[bytes]:
            for text in (f"我是 {model}", "。"):
                delta = json.dumps({"choices": [{"delta": {"content": text}}]})
                yield f"data: {delta}\n\n".encode()
                if model == "a/pretrain" and len(body["messages"]) > 1:
                    ends.wait(100)  # the second time it is the slower one
            yield b"data: [DONE]\n\n"

        return 200, "text/event-stream", pieces()

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
    until(
        page,
        "[...document.querySelectorAll('.voice-head b')].some((one) => one.innerText === 'a/sft')",
    )
    assert sorted(heads.all_inner_texts()) == ["a/pretrain", "a/sft"]
    page.focus(".message.assistant .actions >> text=👎")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('.told')?.innerText === '👎'")
    until(page, "document.querySelector('.compare').innerText.includes('1 👍👎')")
    assert page.evaluate("document.activeElement.className.includes('told')"), "the keys stay"
    kinds = (place.runs / "a" / "feedback.jsonl").read_text(encoding="utf-8")
    assert '"better"' in kinds and '"down"' in kinds and "你是谁" in kinds
    page.reload()
    until(page, "document.querySelectorAll('.voice').length === 2")
    assert page.locator(".message.assistant .told >> text=👎").count() == 1, "all is there again"

    page.wait_for_selector(".compare button:enabled")
    page.click(".compare button >> nth=0")
    page.select_option("#model", "a/sft")
    page.select_option(".compare select", "a/pretrain")
    page.fill("#input", "真的？")
    page.press("#input", "Enter")
    page.click(".message:last-child .actions >> text=改正")
    page.fill(".editor", "我是小禾。")
    for _ in range(2):
        page.click("#language")
    assert page.input_value(".editor") == "我是小禾。"
    ends.set()  # what stands beside ends while the other is being corrected
    until(page, "Object.values({...localStorage}).some((one) => one.includes('a/pretrain。'))")
    page.click("text=记下改正")
    until(page, "document.querySelector('.message:last-child .text')?.innerText === '我是小禾。'")
    until(page, "document.activeElement.innerText === '改正'")


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
