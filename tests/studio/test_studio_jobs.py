"""Jobs outlive the studio; what a page may start, and what of a stranger's run it may not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from miao.files import write_json, write_jsonl
from miao.serve.problems import Problem
from miao.studio.grow import Wish, words_of
from miao.studio.jobs import Job, Jobs
from miao.studio.place import Place

Enter = Callable[..., Any]


def until(jobs: Jobs, name: str, *states: str) -> Job:
    end = time.monotonic() + 120
    while (job := jobs.get(name)).state not in states:
        assert time.monotonic() < end, job
        time.sleep(0.05)
    return job


@pytest.fixture
def waits(tmp_path: Path) -> str:
    """A recipe that `miao run` waits for until it is stopped."""
    path = tmp_path / "waits.yaml"
    os.mkfifo(path)
    return str(path)


def test_a_job_outlives_the_studio_and_the_queue_goes_on(place: Place, waits: str) -> None:
    first = Jobs(place)
    assert first.add("long", ["run", waits]).state == "running"
    assert first.add("next", ["run", "none-of-that-name"]).state == "queued"
    with pytest.raises(Problem, match="already"):
        first.add("next", ["run", "x"])
    again = Jobs(place)  # the studio was restarted
    assert [job.state for job in again.all()] == ["queued", "running"]
    for refused in (again.resume, again.forget):
        with pytest.raises(Problem, match="it runs"):
            refused("long")
    assert again.stop("long", "pause").state in ("stopping", "paused")
    until(again, "long", "paused")
    again.tick()
    job = until(again, "next", "failed")
    assert "none-of-that-name" in job.as_json()["error"] and "->" in job.as_json()["error"]
    assert job.command == "miao run none-of-that-name"
    assert again.resume("long").state == "running"
    again.stop("long", "stop")
    assert until(again, "long", "stopped").code not in (0, None)
    again.forget("long")
    assert [job.name for job in again.all()] == ["next"]


def test_what_a_power_cut_leaves_can_go_on(place: Place) -> None:
    path = place.home / "jobs" / "cut"
    write_json(path / "job.json", {"words": ["run", "x"], "wanted": "run", "queued": 1.0})
    # The number is this test's own process by now: it is not taken for the job's, nor stopped.
    write_json(path / "status.json", {"pid": os.getpid(), "began": 1.0})
    (path / "log").write_text("  pretrain 34% loss 3.1 | 9K tok/s MFU 3% ETA 4:05\n")
    job = Jobs(place).get("cut")
    assert job.state == "broken" and job.as_json()["progress"] is None
    assert Jobs(place).stop("cut", "stop").state in ("broken", "stopped")


@pytest.mark.parametrize("late", ["after another", "after a pause"])
def test_a_keeper_that_comes_late_starts_nothing(place: Place, late: str) -> None:
    """Two studios may start a job at once: the second keeper gets the lock when the first is done."""
    path = place.home / "jobs" / "a"
    path.mkdir(parents=True)
    job = {"words": ["doctor"], "wanted": "run", "queued": 1.0}
    write_json(path / "job.json", job | ({"wanted": "pause"} if late == "after a pause" else {}))
    if late == "after another":
        write_json(path / "status.json", {"pid": 1, "code": 1})
    before = Jobs(place).get("a").state
    command = [sys.executable, "-m", "miao.studio.keeper", str(path)]
    assert subprocess.run(command, timeout=100).returncode == 1
    assert not (path / "log").exists() and Jobs(place).get("a").state == before


def test_progress_is_read_from_the_log(place: Place) -> None:
    line = "  pretrain 34% loss 3.1 | 9K tok/s MFU 3% ETA 4:05"
    log = place.home / "log"
    log.write_text(f"x\n{line}\n")
    job = Job("a", ("run",), "running", 0, 1, 0, None, None, log)
    expected = {"stage": "pretrain", "share": 0.34, "says": "loss 3.1 | 9K tok/s MFU 3%"}
    assert job.as_json()["progress"] == expected | {"left": "4:05"}


def test_a_wish_becomes_a_command(place: Place) -> None:
    text = place.texts[0] / "小说.txt"
    text.write_text("从前。")
    wish = Wish(
        name="小禾",
        recipe="smoke",
        texts=[str(text)],
        options={"pretrain.tokens": "60K", "seed": "7"},
    )
    words = words_of(wish, place)
    assert words[:2] == ["run", "smoke"] and words[words.index("--name") + 1] == "小禾"
    assert words[words.index("--corpus.paths") + 1] == str(text.resolve())
    assert words[-4:] == ["--pretrain.tokens", "60K", "--seed", "7"] or "--seed" in words


def test_a_model_is_gone_on_with(place: Place) -> None:
    write_jsonl(place.runs / "苗" / "metrics.jsonl", [])
    text = place.texts[0] / "a.txt"
    text.write_text("a")
    asked = {"苗": str(place.runs / "苗"), "hf:some/model": "hf:some/model"}
    asked[str(place.texts[0] / "model")] = str(place.texts[0] / "model")
    for origin, path in asked.items():
        words = words_of(Wish(name="b", minutes=2, texts=[str(text)], origin=origin), place)
        assert words[0] == "grow" and f"--from={path}" in words


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "../x"},
        {"name": "--help"},
        {"recipe": "/etc/passwd"},
        {"recipe": "../../x.yaml"},
        {"texts": ["/etc/passwd"]},
        {"options": {"out_dir": "elsewhere"}},
        {"options": {"trackers": "wandb"}},
        {"options": {"tokenizer.path": "/etc"}},
        {"options": {"seed": "1 --out_dir x"}},
        {"options": {"--x": "1"}},
        {"clone_of": "none"},
        {"origin": "/etc", "recipe": None, "minutes": 2},
        {"origin": "../other", "recipe": None, "minutes": 2},
    ],
    ids=str,
)
def test_no_wish_leaves_the_place(enter: Enter, place: Place, wrong: dict[str, Any]) -> None:
    (place.texts[0] / "a.txt").write_text("a")
    own = {"texts": [str(place.texts[0] / "a.txt")]}
    answer = enter().post("/studio/start", json={"name": "a", "recipe": "smoke"} | own | wrong)
    assert answer.status_code in (400, 403, 404) and answer.json()["error"]["message"]
    assert not list(place.home.glob("jobs/*")) and not list(place.runs.iterdir())


STRANGE = {
    "program": "grpo: {enabled: true, rewards: {'evil.py:f': 1.0}}",
    "environment": "grpo: {enabled: true, environment: 'evil:Class'}",
    "file": "corpus: {paths: ['/etc/passwd']}",
    "model": "model: {path: /etc}",
    "yaml": "a: !!python/object/apply:os.system ['touch hacked']",
    "no mapping": "- 1",
}


@pytest.mark.parametrize("what", STRANGE)
def test_a_strangers_run_is_only_read(enter: Enter, place: Place, what: str) -> None:
    run = place.runs / "strange"
    write_jsonl(run / "metrics.jsonl", [{"stage": "sft", "tokens": 1, "loss": 1.0}])
    (run / "recipe.yaml").write_text(STRANGE[what] + "\n")
    evil = {"words": ["run", "smoke"], "wanted": "run", "queued": 0.0, "pid": os.getpid()}
    for name in ("job.json", "studio.json", "status.json"):
        write_json(run / name, evil)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    client = enter()
    assert client.get("/studio/grow").json()["jobs"] == [], "no command of a run is taken for a job"
    assert client.get("/runs/data/strange").status_code == 200
    client.get("/studio/runs/strange/wish")
    answer = client.post("/studio/start", json={"name": "mine", "clone_of": "strange"})
    assert answer.status_code in (400, 403), answer.text
    assert client.post("/studio/jobs/strange/resume", json={}).status_code == 404
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    assert not (Path.cwd() / "hacked").exists()


def test_a_run_is_deleted_when_its_name_was_said_twice(enter: Enter, place: Place) -> None:
    for name in ("one", "two"):
        write_jsonl(place.runs / name / "metrics.jsonl", [{"stage": "sft", "tokens": 1}])
    elsewhere = place.runs.parent / "elsewhere"
    write_jsonl(elsewhere / "metrics.jsonl", [])
    (place.runs / "link").symlink_to(elsewhere)
    client = enter()
    for path, body in (
        ("/studio/runs/one/delete", {"sure": ""}),
        ("/studio/runs/link/delete", {"sure": "link"}),
        ("/studio/runs/one/rename", {"new": "two"}),
        ("/studio/runs/one/rename", {"new": "../x"}),
        ("/studio/runs/..%2felsewhere/delete", {"sure": "../elsewhere"}),
    ):
        assert client.post(path, json=body).status_code in (400, 403, 404, 409), path
    assert (place.runs / "one").is_dir() and (elsewhere / "metrics.jsonl").exists()
    assert client.post("/studio/runs/one/rename", json={"new": "三"}).status_code == 200
    assert client.post("/studio/runs/三/delete", json={"sure": "三"}).status_code == 200
    assert [path.name for path in place.runs.iterdir() if path.name != "link"] == ["two"]


def test_a_dropped_file_keeps_a_harmless_name(enter: Enter, place: Place) -> None:
    client = enter()
    headers = {"Content-Type": "application/octet-stream"}
    for name in ("../../evil.txt", "C:\\x\\evil.txt", "evil.txt", "<img onerror=1>.md", "..", "\n"):
        query = {"folder": "mine", "name": name}
        answer = client.post("/studio/upload", params=query, content=b"abc", headers=headers)
        assert answer.status_code == 200 and answer.json()["bytes"] == 3
    kept = sorted(path.name for path in (place.texts[0] / "mine").iterdir())
    assert {"_img onerror_1_.md", "evil-2.txt", "evil-3.txt", "evil.txt"} < set(kept)
    for folder in ("..", "a/b", ""):
        query = {"folder": folder, "name": "a.txt"}
        answer = client.post("/studio/upload", params=query, content=b"a", headers=headers)
        assert answer.status_code == 400
    assert client.post("/studio/upload?folder=a&name=b", content=b"a").status_code == 415
    assert not list(place.texts[0].parent.glob("evil*"))


def test_a_file_that_is_too_large_leaves_nothing(
    enter: Enter, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("miao.studio.texts.LARGEST", 10)
    headers = {"Content-Type": "application/octet-stream"}

    def pieces() -> Any:
        yield b"12345678"
        yield b"12345678"

    for content in (b"x" * 11, pieces()):
        answer = enter().post(
            "/studio/upload?folder=a&name=b.txt", content=content, headers=headers
        )
        assert answer.status_code == 413
    assert list((place.texts[0] / "a").iterdir()) == []


def test_what_is_recognised_with_file_and_line(enter: Enter, place: Place) -> None:
    file = place.texts[0] / "chats.jsonl"
    good = {
        "messages": [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "好"}]
    }
    file.write_text(json.dumps(good) + "\n{broken\n", encoding="utf-8")
    found = enter().post("/studio/check", json={"paths": [str(file)]}).json()
    assert found["kinds"]["conversation"]["records"] == 1
    assert found["problems"][0]["line"] == 2 and found["problems"][0]["path"] == str(file)
    assert found["command"] == f"miao corpus check {file}"
    assert enter().post("/studio/check", json={"paths": ["/etc/passwd"]}).status_code == 403
