"""The room "Data": records, what rules change, pairs, and what stays out of reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from miao.files import write_json, write_jsonl, write_text
from miao.rundir import RunDir
from miao.serve.listening import LOCAL_NAMES
from miao.studio.app import create_studio
from miao.studio.place import Place
from tests.serve.browsing import (  # noqa: F401
    Running,
    browser_fixture,
    open_page_fixture,
    shot,
    until,
)

Enter = Callable[..., TestClient]
EVIL = "<img src=x onerror=boom()> 你好"
TOKEN = "the-token-of-this-test"


@pytest.fixture(name="run")
def run_fixture(place: Place) -> RunDir:
    """A run whose corpus was cleaned."""
    run = RunDir(place.runs / "mine")
    functions = place.runs.parent / "own.py"
    write_text(functions, f"open({str(place.runs.parent / 'executed')!r}, 'w')\nf = str\n")
    write_text(
        run.path / "recipe.yaml",
        f'name: mine\ncorpus: {{clean: {{html: true, edit_functions: ["{functions}:f"]}}}}\n',
    )
    records = [{"text": f"{EVIL} {n}" + "字" * n, "source": "web"} for n in range(50)]
    write_jsonl(run.corpus / "pretrain" / "train" / "web.jsonl", records)
    turns = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": EVIL}]
    write_jsonl(run.corpus / "sft" / "train" / "conversations.jsonl", [{"messages": turns}])
    counts = {"train": 50, "heldout": 0, "characters": 3000}
    accounts = {
        "read": 60,
        "rejected": {"symbols": 4},
        "edited": {"html": 3},
        "exact": 1,
        "near": 5,
    }
    write_json(
        run.corpus / "manifest.json",
        {"sources": {"pretrain": {"web": counts}}, "accounts": {"pretrain": accounts}},
    )
    pair = {"similarity": 0.91, "before": EVIL, "after": EVIL + "!"}
    edit = {"source": "web", "before": "<b>好</b>", "after": "好"}
    gone = {"source": "web", "why": "0.7 is above 0.4", "text": EVIL}
    examples = {"near-duplicate": [pair], "html": [edit], "symbols": [gone]}
    write_json(run.corpus / "examples.json", {"pretrain": examples})
    return run


def test_a_corpus_is_told_by_source_and_rule(run: RunDir, enter: Enter) -> None:
    told = enter().get("/studio/data/mine").json()["stages"]["pretrain"]
    assert told["sources"][0]["name"] == "web" and told["sources"][0]["tokens"] is None
    rules = {rule["rule"]: rule for rule in told["rules"]}
    assert rules["symbols"]["rejected"] == 4 and rules["html"]["examples"][0]["after"] == "好"
    assert told["pairs"][0]["similarity"] == 0.91 and told["near"] == 5


def test_records_are_filtered_and_go_on(run: RunDir, enter: Enter) -> None:
    client = enter()

    def browse(**more: Any) -> Any:
        answer = client.post("/studio/records", json={"run": "mine"} | more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    first = browse()
    assert len(first["records"]) == 20 and first["next"] == 20
    last = browse(after=40)
    assert [r["number"] for r in last["records"]] == [*range(41, 51)] and last["next"] is None
    size = len(f"{EVIL} 30") + 30
    (one,) = browse(least=size, most=size)["records"]
    assert one["characters"] == size and one["origin"] == "web"
    assert len(browse(text=" 7字")["records"]) == 1
    assert browse(source="web")["records"] and browse(stage="sft")["records"]


def test_what_a_rule_would_change_in_my_file(run: RunDir, enter: Enter, place: Place) -> None:
    client, file = enter(), place.texts[0] / "mine.jsonl"
    write_jsonl(
        file, [{"text": "干净的一句话。"}, {"text": "ＡＢＣ 好的"}, {"text": "\u0007。。。！！"}]
    )
    ask = {"path": str(file)}
    told = client.post("/studio/records", json=ask).json()["records"]
    assert [[edit["rule"] for edit in one["edits"]] for one in told] == [
        [],
        ["halfwidth"],
        ["controls"],
    ]
    assert told[1]["edits"][0] == {
        "rule": "halfwidth",
        "before": "ＡＢＣ 好的",
        "after": "ABC 好的",
    }
    assert told[2]["rejected"]["rule"] == "empty"
    for rule, count in (("halfwidth", 1), ("empty", 1), ("html", 0)):
        assert (
            len(client.post("/studio/records", json=ask | {"rule": rule}).json()["records"])
            == count
        )
    tried = client.post("/studio/rules", json={"text": "<b>好</b>的话", "run": "mine"}).json()
    assert tried["text"] == "好的话" and tried["edits"][0]["rule"] == "html"
    assert client.post("/studio/rules", json={"text": "<b>好</b>的话"}).json()["edits"] == []
    assert not (place.runs.parent / "executed").exists(), "a stranger's functions are not run"


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({}, 400),
        ({"run": "mine", "path": "x"}, 400),
        ({"run": "nobody"}, 404),
        ({"path": "/etc/passwd"}, 403),
        ({"path": "/nowhere"}, 403),
        ({"run": "mine", "stage": "../.."}, 400),
        ({"run": "mine", "source": "../../../secret"}, 400),
        ({"run": "mine", "split": "heldout"}, 400),
        ({"run": "mine", "least": -1}, 400),
    ],
)
def test_what_is_out_of_reach(
    run: RunDir, enter: Enter, asked: dict[str, Any], status: int, place: Place
) -> None:
    write_text(place.runs.parent / "secret.jsonl", '{"text": "secret"}\n')
    answer = enter().post("/studio/records", json=asked)
    assert answer.status_code == status and "records" not in answer.json()
    link = place.texts[0] / "link.txt"
    link.symlink_to("/etc/passwd")
    assert enter().post("/studio/records", json={"path": str(link)}).status_code == 403
    told = enter().post("/studio/records", json={"path": str(place.texts[0])})
    assert told.status_code == 403


@pytest.fixture(name="studio")
def studio_fixture(run: RunDir, place: Place) -> Iterator[str]:
    running = Running(create_studio(place, LOCAL_NAMES, TOKEN))
    yield running.url
    running.stop()


def test_the_page_shows_strangers_texts_as_texts(studio: str, open_page: Any) -> None:
    page = open_page(f"{studio}/?token={TOKEN}", locale="en-US")
    page.goto(f"{studio}/data")
    until(page, "document.querySelectorAll('#of-run .pair').length === 2")
    page.click("#of-run summary >> text=symbols")
    assert "0.7 is above 0.4" in page.inner_text("#of-run")
    assert "91 %" in page.inner_text("#of-run") and "rejected 4" in page.inner_text("#of-run")
    page.fill("#least", "60")
    page.click("#ask-data button")
    until(page, "document.querySelectorAll('#records article').length === 20")
    page.evaluate("window.first = document.querySelector('#records article')")
    page.click("#more")
    until(page, "document.querySelectorAll('#records article').length > 20")
    assert page.evaluate("window.first.isConnected"), "what was there stays"
    assert EVIL in page.inner_text("#records article >> nth=0")
    page.fill("#tried", f"<b>{EVIL}</b>")
    page.click("#try button")
    until(page, "document.querySelector('#result mark') !== null")
    assert page.locator("main img").count() == 0 and not page.evaluate("'boom' in window")
    page.click("#language")
    assert "近似重复" in page.inner_text("#of-run")
    for width in (1440, 360):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        shot(page, f"data-{width}")
