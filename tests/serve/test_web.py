"""The web pages as the server gives them; what happens in a browser is in test_web_browser.py."""

from __future__ import annotations

import json
import os
import re
import shutil
import urllib.error
import urllib.request
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from miao.commands.board import main
from miao.errors import MiaoError
from miao.files import write_json, write_jsonl
from miao.report.curves import training_curves
from miao.report.data import read_run
from miao.rundir import RunDir
from miao.serve.board import MOMENTS, Runs, create_board
from miao.serve.curves import POINTS, Grown, thinned
from miao.serve.pages import BOARD_PAGE, CHAT_PAGE, TYPES, WEB, add_pages, loads_of

SCRIPTS = sorted(WEB.glob("*.js"))
PAGES = sorted(WEB.glob("*.html"))
FRAMED = sorted(CHAT_PAGE | BOARD_PAGE)
LOADED = {
    url: file
    for page in (CHAT_PAGE | BOARD_PAGE).values()
    for url, file in loads_of(page, (WEB,)).items()
}
EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>"


class Tags(HTMLParser):
    """All tags of a page, with their attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    add_pages(app, CHAT_PAGE | BOARD_PAGE)
    return TestClient(app)


@pytest.mark.parametrize("url", sorted({*FRAMED, *LOADED}))
def test_whatever_pages_load_is_served_under_the_policy(client: TestClient, url: str) -> None:
    answer = client.get(url)
    assert answer.status_code == 200 and answer.content == LOADED.get(url, answer.content)
    assert answer.headers["content-type"] == TYPES[Path(url).suffix or ".html"]
    policy = dict(p.split(" ", 1) for p in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = client.get(url, headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304 and not again.content
    assert client.head(url).status_code == 200
    # Asked for once and for all, since its address changes with it; a page each time.
    assert ("immutable" in answer.headers["cache-control"]) == (url in LOADED)


@pytest.mark.parametrize(
    "path", ["/web/", "/web/../pages.py", "/web/%2e%2e/pages.py", "/web/..%2fpages.py", "/web/x.js"]
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("url", FRAMED)
def test_pages_load_only_what_is_there(client: TestClient, url: str) -> None:
    ids = set()
    page = (CHAT_PAGE | BOARD_PAGE)[url]
    for tag, attributes in Tags(client.get(url).text).tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes), attributes
        assert tag != "style" and (tag != "script" or attributes["src"] in LOADED)
        for name in ("src", "href"):
            value = attributes.get(name)
            if value and not value.startswith("data:"):
                assert value in ("/", "/runs", *LOADED)
        if "id" in attributes:
            assert attributes["id"] not in ids
            ids.add(attributes["id"])
    scripts = [f"{name}.js" for name in page.scripts] + ["notice.js"]
    text = "".join((WEB / name).read_text(encoding="utf-8") for name in scripts)
    assert set(re.findall(r'\bat\("([\w-]+)"\)', text)) <= ids


def test_a_page_comes_with_its_words_and_its_theme(client: TestClient) -> None:
    asked: list[tuple[str, str, str, str]] = [
        ("zh-TW,zh;q=0.9", "", '<html lang="zh-CN">', "看全部"),
        ("en-US", "", '<html lang="en">', "Show all"),
        (
            "",
            "miao-language=zh; miao-theme=dark",
            '<html lang="zh-CN" data-theme="dark">',
            "看全部",
        ),
        ("zh", "miao-language=en; miao-theme=<>", '<html lang="en">', "Show all"),
        ("zh", "miao-language=fr", '<html lang="zh-CN">', "看全部"),
    ]
    for languages, cookie, begins, says in asked:
        answer = client.get("/runs", headers={"Accept-Language": languages, "Cookie": cookie})
        assert begins in answer.text and f'data-say="whole" hidden>{says}</button>' in answer.text
        assert answer.headers["vary"] == "Accept-Language, Cookie"
        for name, attributes in Tags(answer.text).tags:
            wanted = attributes.get("data-label") or attributes.get("data-placeholder")
            assert not wanted or attributes["aria-label"], (name, attributes)


def test_what_is_loaded_late_is_another_file_when_it_has_changed() -> None:
    scripts = b"".join(file for url, file in LOADED.items() if not url.startswith("/web/temml"))
    late = re.findall(rb'\bimport\("\./(.+?)"\)', scripts)
    assert {name.partition(b"-")[0] for name in late} == {b"temml", b"uplot"}
    assert {f"/web/{name.decode()}" for name in late} <= LOADED.keys()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_make_no_html_from_texts(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|DOMParser|createContextualFragment|setHTML"
    assert not re.search(sinks, source)
    addresses = set(re.findall(r"https?://[\w.]+", source))
    assert addresses <= {"http://www.w3.org"}, "the name of SVG is no address that is loaded"
    for name in re.findall(r'from "\./([\w.]+)"', source):
        assert (WEB / name).is_file()


def test_both_languages_say_the_same_things() -> None:
    source = (WEB / "words.js").read_text(encoding="utf-8")
    zh, en = source.split("\n  en: {")[0], source.split("\n  en: {")[1].split("\n};")[0]
    keys = [re.findall(r'\b(\w+): "((?:[^"\\]|\\.)*)"', part) for part in (zh, en)]
    first, second = (dict(found) for found in keys)
    assert first.keys() == second.keys() and len(first) > 80
    assert all(("{0}" in first[key]) == ("{0}" in second[key]) for key in first)
    used = set()
    for path in [*PAGES, *SCRIPTS]:
        text = path.read_text(encoding="utf-8")
        used |= set(re.findall(r'data-(?:say|label|placeholder)="(\w+)"', text))
        used |= set(re.findall(r'\b(?:say|worded|notify)\("(\w+)"', text))
    assert used <= first.keys()


def test_the_server_gives_the_chat_page_without_a_key(serve: Any) -> None:
    with serve(api_key="secret") as running:
        base = running.url.removesuffix("/v1")
        with urllib.request.urlopen(base + "/") as answer:
            assert b"/web/chat-" in answer.read()
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        for path in ("/runs", "/runs/data"):
            with pytest.raises(urllib.error.HTTPError, match=r"40[14]"):  # the key comes first
                urllib.request.urlopen(base + path)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in ("old", EVIL.replace("/", "|")):
        run = tmp_path / name
        rows: list[dict[str, Any]] = [
            {"stage": "pretrain", "step": n, "tokens": 100 * n, "loss": 9 / n, "lr": float("nan")}
            for n in range(1, 1001)
        ]
        write_jsonl(run / "metrics.jsonl", [*rows, {"stage": "sft", "tokens": 5, "loss": 2.5}])
        sample = {"stage": "sft", "tokens": 5, "prompt": "你好", "answer": EVIL}
        write_jsonl(run / "samples.jsonl", [sample, {"stage": "sft", "answer": 3}])
        score = {"task": "questions", "category": EVIL, "count": 4, "value": 0.5, "stderr": None}
        write_jsonl(
            run / "eval_results.jsonl",
            [{"stage": "sft", "scores": [score, {"value": float("inf")}, 7]}, {"stage": "dpo"}],
        )
    (tmp_path / "no run").mkdir()
    return tmp_path


def test_the_board_shows_runs(runs: Path) -> None:
    client = TestClient(create_board(runs))
    body = client.get("/runs/data").json()
    assert {run["name"] for run in body["runs"]} == {"old", EVIL.replace("/", "|")}
    assert body["runs"][0]["stage"] == "sft" and body["runs"][0]["loss"] == 2.5
    details = client.get("/runs/data/old").json()
    assert details["stages"] == ["pretrain", "sft"]
    curve = details["curves"]["pretrain"]["loss"]
    assert 200 <= len(curve) <= POINTS
    assert curve[0] == [(100 + 200 + 300 + 400) / 4, (9 + 4.5 + 3 + 2.25) / 4]
    assert details["curves"]["pretrain"]["lr"] == [], "NaN is no number of JSON"
    assert [score["value"] for score in details["scores"]] == [0.5]
    assert [sample["answer"] for sample in details["samples"]] == [EVIL]
    assert client.get("/runs/data?first=old").json() == body | {"first": details}
    assert client.get("/runs/data?first=x").json()["first"]["name"] == body["runs"][0]["name"]
    assert client.get("/").text == client.get("/runs").text
    assert client.get("/v1/models").status_code == client.get("/docs").status_code == 404


def test_the_board_follows_a_run_and_survives_damage(runs: Path) -> None:
    client = TestClient(create_board(runs))
    path = runs / "old" / "metrics.jsonl"
    assert client.get("/runs/data/old").json()["curves"]["sft"]["loss"] == [[5.0, 2.5]]
    with path.open("a", encoding="utf-8") as file:
        file.write('{"stage": "sft", "tokens": 9, "loss": 2}\n{"stage": "sft", "tok')
    assert client.get("/runs/data/old").json()["curves"]["sft"]["loss"] == [[5.0, 2.5], [9.0, 2.0]]
    asked = {
        "stage": "sft",
        "tokens": 9,
        "scores": [{"task": "early", "value": 0.25}, {"value": 1}],
    }
    broken = [asked | {"scores": [{"value": "x"}]}, asked | {"scores": 7}, asked | {"tokens": None}]
    lines = [b"\n" + json.dumps(one).encode() for one in (asked, *broken)]
    path.write_bytes(path.read_bytes() + b"".join(lines) + b"\n")
    assert client.get("/runs/data/old").json()["curves"]["sft"]["tasks"] == [[9.0, 0.25]]
    path.write_bytes(b"\x00garbage\n[1, 2]\n\xff\n" + path.read_bytes())
    details = client.get("/runs/data/old").json()
    assert "metrics.jsonl:1: not a JSON line; " in details["problem"]
    assert details["curves"]["sft"]["loss"] == [[5.0, 2.5], [9.0, 2.0]], "the rest is shown"
    assert any(
        "not a JSON" in (r["problem"] or "") for r in client.get("/runs/data").json()["runs"]
    )
    path.unlink()
    assert client.get("/runs/data/old").status_code == 404


DAMAGE = {
    "surrogates": b'{"stage": "\\ud800", "tokens": 1, "loss": 1, "prompt": "\\udfff", "answer": "x"}\n',
    "large": b'{"stage": "sft", "tokens": 1, "loss": 1' + b"0" * 400 + b"}\n",
    "larger": b'{"stage": "sft", "tokens": 1' + b"0" * 9000 + b', "loss": 1}\n',
    "deep": b'{"stage": "sft", "tokens": 1, "loss": ' + b"[" * 99_999 + b"]" * 99_999 + b"}\n",
    "kinds": b'{"stage": {"a": 1}, "tokens": "x", "loss": [], "scores": {"a": 1}, "answer": 7}\n',
    "names": b'{"stage": "' + b"evaluate " * 9999 + b'", "tokens": 1, "loss": 1}\n',
}


@pytest.mark.parametrize("damage", [*DAMAGE, "name", "link", "folder"])
def test_one_damaged_run_hides_no_other(runs: Path, damage: str) -> None:
    bad = runs / "bad"
    if damage == "name":
        bad = runs / os.fsdecode(b"\xff\xfe")
    bad.mkdir()
    line = DAMAGE.get(damage, b'{"stage": "sft", "tokens": 1, "loss": 1}\n')
    for name in ("metrics.jsonl", "samples.jsonl", "eval_results.jsonl"):
        (bad / name).write_bytes(line + b'{"stage": "dpo", "tokens": 2, "loss": 3}\n{}\n')
    if damage in ("link", "folder"):
        (bad / "samples.jsonl").unlink()
    if damage == "link":
        (bad / "samples.jsonl").symlink_to("samples.jsonl")
    elif damage == "folder":
        (bad / "samples.jsonl").mkdir()
    client = TestClient(create_board(runs))
    listed = {run["name"]: run for run in client.get("/runs/data").json()["runs"]}
    assert len(listed) == 3 and listed["old"]["loss"] == 2.5
    name = "\\xff\\xfe" if damage == "name" else "bad"
    assert listed[name]["loss"] == 3.0
    details = client.get(f"/runs/data/{quote(name)}").json()
    assert details["curves"]["dpo"]["loss"] == [[2.0, 3.0]]
    is_told = damage in ("large", "larger", "deep")
    assert ("metrics.jsonl:1: " in str(details["problem"])) is is_told


def test_a_run_is_live_while_a_command_works_in_it(runs: Path, tmp_path: Path) -> None:
    def live() -> set[str]:
        found = TestClient(create_board(runs)).get("/runs/data").json()["runs"]
        return {run["name"] for run in found if run["live"]}

    assert live() == set(), "files that are new say nothing"
    with RunDir(runs / "old").alone():
        assert live() == {"old"}
        shutil.copytree(runs / "old", runs / "copy")
        assert live() == {"old"}
    assert live() == set()
    holder = RunDir(runs / "old")._holder(2**22 + 1)  # of a process that was killed
    (runs / "old" / ".lock").write_text(json.dumps(holder))
    assert live() == set()


def test_the_board_names_tasks_in_both_languages(runs: Path) -> None:
    words = TestClient(create_board(runs)).get("/runs/data/old").json()["words"]
    assert words["stages"]["pretrain"] == {"zh": "预训练", "en": "Pretraining"}
    (task,) = words["tasks"].values()
    assert task["zh"] and task["en"] and len(words["categories"]) == 1


@pytest.mark.parametrize("name", ["%2e%2e", "..%2f..", "no%20run", "old%2fmetrics.jsonl", "%00"])
def test_names_are_no_paths(runs: Path, name: str) -> None:
    answer = TestClient(create_board(runs / "old" / "..")).get(f"/runs/data/{name}")
    assert answer.status_code == 404 or "curves" not in answer.text


def test_the_board_may_want_a_key(runs: Path) -> None:
    client = TestClient(create_board(runs, "secret"))
    assert client.get("/runs").status_code == 200
    assert client.get("/runs/data").status_code == client.get("/runs/data/old").status_code == 401
    headers = {"Authorization": "Bearer secret"}
    assert client.get("/runs/data/old", headers=headers).status_code == 200


def test_one_run_is_a_board_too(runs: Path) -> None:
    body = TestClient(create_board(runs / "old")).get("/runs/data").json()
    assert [run["name"] for run in body["runs"]] == ["old"]


def test_thinning_keeps_means() -> None:
    assert thinned(np.array([1.0]), np.array([2.0]), POINTS) == [[1.0, 2.0]]
    assert thinned(np.array([]), np.array([]), POINTS) == []
    few = thinned(np.arange(10.0 * POINTS + 1), np.full(10 * POINTS + 1, 3.0), POINTS)
    assert len(few) <= POINTS and {y for _, y in few} == {3.0}
    assert few[0][0] == 5.0 and few[-1][0] > few[-2][0]


def test_a_log_is_read_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    grown = Grown(path)
    assert grown.look() == [] and grown.log.stages == {}

    def add(text: str, mode: str = "a") -> list[list[float]]:
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
        grown.look()
        return grown.log.stages["sft"].points("loss")

    line = '{{"stage": "sft", "tokens": {0}, "loss": {0}}}\n'.format
    assert add(line(1)) == [[1.0, 1.0]]
    assert add(line(2)[:20]) == [[1.0, 1.0]], "half a line is waited for"
    assert add(line(2)[20:] + line(3)) == [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]
    assert add("no\n" + line(4))[-1] == [4.0, 4.0] and "metrics.jsonl:4: " in grown.look()[0]
    anew = add(line(7) + line(8) * 9, "w")  # as a resumed run writes it
    assert anew[0] == [7.0, 7.0] and len(anew) == 10 and grown.look() == []
    assert grown.log.stages["sft"].points("loss", (7.5, 9)) == [[8.0, 8.0]] * 9
    path.unlink()
    assert grown.look() == [] and grown.log.stages == {}


def test_a_log_is_taken_by_columns_as_by_lines(tmp_path: Path) -> None:
    odd = ['"x"', "true", "null", "NaN", "1e999", "1" + "0" * 400, "[1]", "2", "2.5"]
    lines = [f'{{"stage": "sft", "tokens": {n + 1}, "loss": {odd[n % 9]}}}' for n in range(900)]
    lines += [f'{{"stage": {value}, "tokens": {value}, "loss": 1}}' for value in odd]
    lines += ['{"stage": "sft", "tokens": 7, "loss": 9, "event": "\\ud800"}', "no", "[]"]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(lines) + "\n")
    grown = Grown(path)
    problems = grown.look()
    x, y = grown.log.stages["sft"].curves["loss"]
    assert list(y) == [2.0, 2.5] * 100 and x[0] == 8.0 and x[-1] == 900.0
    assert [event["x"] for event in grown.log.stages["sft"].events] == [7.0]
    assert "\ud800" not in grown.log.stages["sft"].events[0]["kind"]
    assert list(grown.log.stages) == ["sft", "x", ""], "what is no name is none"
    assert len(problems) == 100 + 1 + 1, "numbers beyond all floats; the last line may be cut"


def test_of_a_long_log_some_lines_are_read_at_first_and_all_when_it_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    rows: list[dict[str, Any]] = [
        {"stage": "sft", "tokens": n, "loss": float(n)}
        | ({"heldout_bits_per_byte": 1.0} if n % 50 == 7 else {})
        | ({"event": "skipped"} if n == 333 else {})
        for n in range(1000)
    ]
    lines = [json.dumps(row) for row in rows]
    path.write_text("\n".join([*lines[:500], "damaged", *lines[500:]]) + "\n")
    for name, value in (("LONG", 1000), ("SOME", 40), ("PART", 700)):
        monkeypatch.setattr(f"miao.serve.curves.{name}", value)
    grown = Grown(path)
    assert grown.look() == []
    log = grown.log.stages["sft"]
    few = log.curves["loss"][0]
    assert 40 <= len(few) < 80 and few[0] == 0 and few[-1] == 999 and list(few) == sorted(few)
    assert len(log.curves["heldout"][0]) == 20 and [one["x"] for one in log.events] == [333]
    with path.open("a") as file:
        file.write('{"stage": "sft", "tokens": 1000, "loss": 1.0}\n')
    grown.look()
    assert len(log.curves["loss"][0]) == len(few) and log.curves["loss"][0][-1] == 1000
    assert grown.look(closely=True) == [f"{path}:501: not a JSON line"]
    whole = grown.log.stages["sft"]
    assert len(whole.curves["loss"][0]) == 1000 and len(whole.curves["heldout"][0]) == 20
    later = Grown(path)
    later.look()
    monkeypatch.setattr("miao.serve.curves.SOON", -1.0)
    assert later.look() and len(later.log.stages["sft"].curves["loss"][0]) == 1000


def test_where_a_training_stands(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "a")
    rows: list[dict[str, Any]] = [
        {"stage": "pretrain", "step": n, "tokens": 1000 * n, "loss": 3.0, "tokens_per_second": 50}
        | {"heldout_bits_per_byte": 1 + 100 * (1000 * n) ** -0.5}
        for n in range(1, 40)
    ]
    skipped = {"stage": "pretrain", "step": 9, "tokens": 9000, "event": "skipped", "loss": 99.0}
    write_jsonl(run.metrics, [skipped, *rows])
    (run.path / "recipe.yaml").write_text("pretrain: {tokens: 80K}\n")
    board = Runs(tmp_path)
    low, high, end = board.details("a")["forecast"]["pretrain"]
    assert end == 80_000 and low == pytest.approx(1 + 100 * 80_000**-0.5, abs=0.01) and high < 1.4
    (run.path / "recipe.yaml").write_text("pretrain: {tokens: 80K, schedule: wsd, decay: 0.4}\n")
    lower = board.details("a")["forecast"]["pretrain"][:2]
    assert lower[0] < low - 0.01, "the rate will fall: so will the loss"
    (fact,) = (
        value.en
        for label, value in training_curves(read_run(run))[0].facts
        if label.en.startswith("Bits per byte at the end")
    )
    assert f"({lower[0]:.3f} – {lower[1]:.3f})" in fact, "the report says the same"
    event = board.details("a")["events"]["pretrain"][0]
    assert event["kind"] == "skipped" and event["x"] == 9000 and "step 9" in event["more"]
    with run.alone():
        (entry,) = board.summary()
    assert entry["budget"] == 80_000 and entry["left"] == (80_000 - 39_000) / 50
    assert entry["memory"] is None or entry["memory"] > 2**20
    write_json(
        run.checkpoints("pretrain") / "step-00000020" / "state.json",
        {"tokens": 20_000, "budget": 40_000},
    )
    assert {"x": 20_000, "kind": "checkpoint", "more": "step-00000020"} in board.details("a")[
        "events"
    ]["pretrain"]
    assert board.details("a")["forecast"]["pretrain"][2] == 40_000, "the checkpoint knows better"
    by_the_clock = {"tokens": 20_000, "budget": 300.0, "clock": 100.0}
    write_json(run.checkpoints("pretrain") / "step-00000021" / "state.json", by_the_clock)
    assert board.details("a")["forecast"]["pretrain"][2] == 60_000, "of seconds: at this speed"
    write_json(run.checkpoints("pretrain") / "result.json", {})
    assert board.details("a")["forecast"] == {}, "it has ended"


def test_samples_go_from_the_first_to_the_last(tmp_path: Path) -> None:
    lines = [
        {"stage": "sft", "tokens": n, "prompt": p, "answer": str(n)}
        for n in range(100)
        for p in "ab"
    ]
    write_jsonl(tmp_path / "a" / "samples.jsonl", lines)
    write_jsonl(tmp_path / "a" / "metrics.jsonl", [])
    samples = Runs(tmp_path).details("a")["samples"]
    assert len(samples) == 2 * MOMENTS and samples[0]["answer"] == "0"
    assert samples[-1]["answer"] == "99"


def test_a_board_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MiaoError, match="no such directory"):
        main([str(tmp_path / "none")])
    assert json.loads(TestClient(create_board(tmp_path)).get("/runs/data").text)["runs"] == []
