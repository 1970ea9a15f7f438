"""Talking to checkpoints, opinions that become records, votes, and what may be asked of whom."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi import FastAPI, Request

from miao.corpus.read.formats import RecordCounts, convert_file
from miao.files import read_jsonl, write_json, write_jsonl
from miao.model import load_model
from miao.recipe.reading import load_recipe
from miao.rundir import RunDir
from miao.serve.problems import Problem
from miao.studio.feedback import FILE, Opinion, lesson, note, opinions, records
from miao.studio.place import Place
from miao.studio.talk import score_of
from miao.studio.voices import Voices
from miao.tokenizer import Tokenizer
from tests.inspect.runs import grown_run

Enter = Callable[..., Any]
ASKED = [{"role": "user", "content": "你好"}]


@pytest.fixture
def run(place: Place) -> RunDir:
    run = RunDir(place.runs / "小苗")
    write_jsonl(run.metrics, [])
    for stage in ("pretrain", "sft"):
        write_json(run.model(stage) / "config.json", {})
        write_json(run.model(stage) / "tokenizer.json", {})
    (run.checkpoints("sft") / "step-00000120").mkdir(parents=True)
    (run.checkpoints("sft") / ".step-00000130.x.tmp").mkdir()
    return run


def opinion(kind: str, answer: str, other: str | None = None) -> Opinion:
    given = {"model": "小苗/sft", "kind": kind, "messages": ASKED, "answer": answer, "other": other}
    return Opinion.model_validate(given)


def test_every_stage_and_checkpoint_can_be_talked_to(
    enter: Enter, place: Place, run: RunDir
) -> None:
    names = [model["id"] for model in enter().get("/v1/models").json()["data"]]
    assert names == ["小苗/sft", "小苗/sft/step-00000120", "小苗/pretrain"]
    voices = Voices(place)
    assert voices.path_of(names[1]) == run.checkpoints("sft") / "step-00000120"
    for name in (
        "小苗",
        "小苗/..",
        "小苗/sft/../../x",
        "小苗/sft/step-1",
        "../x/sft",
        "/etc: x",
        "",
    ):
        with pytest.raises(Problem):
            voices.path_of(name)
        body = {"model": name, "messages": ASKED}
        assert enter().post("/v1/chat/completions", json=body).status_code == 404
    assert enter().post("/v1/chat/completions", json={"messages": []}).status_code == 400


def test_opinions_become_records_that_the_corpus_reads(run: RunDir, tmp_path: Path) -> None:
    for one in (
        opinion("up", "好"),
        opinion("down", "坏"),
        opinion("up", "坏"),  # thought better of it
        opinion("better", "好", "坏"),
        opinion("better", "同", "同"),
        opinion("corrected", "你好！", "坏"),
    ):
        note(run, one)
    with (run.path / "feedback.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"kind": "up"}\nno json\n')
    found = records(opinions(run.path / FILE))
    assert [(one["completion"][0]["content"], one["label"]) for one in found["labels"]] == [
        ("好", True), ("坏", True),
    ]  # fmt: skip
    chosen = [one["chosen"][0]["content"] for one in found["pairs"]]
    assert chosen == ["好", "你好！"] and len(found["turns"]) == 1
    for kind, name in (
        ("labels", "preference"),
        ("pairs", "preference"),
        ("turns", "conversation"),
    ):
        file_of = tmp_path / f"{kind}.jsonl"
        write_jsonl(file_of, found[kind])
        problems: list[Any] = []
        read = list(convert_file(file_of, name, "x", problems.append, RecordCounts()))  # type: ignore[arg-type]
        assert read and problems == [], kind


def test_halves_of_characters_are_no_lesson(run: RunDir) -> None:
    for one in (
        opinion("down", "\ufffd\ufffd好\ufffd"),
        opinion("down", "\ufffd \ufffd"),
        opinion("better", "我叫小禾。", "\ufffd"),
        opinion("corrected", "我叫小禾。", "\ufffd我\ufffd"),
    ):
        note(run, one)
    found = records(opinions(run.path / FILE))
    assert [one["completion"][0]["content"] for one in found["labels"]] == ["好"]
    assert [one["rejected"][0]["content"] for one in found["pairs"]] == ["我"]
    assert len(found["turns"]) == 1


def test_what_became_of_each_opinion_and_of_what_nobody_spoke_of(
    enter: Enter, place: Place, tokenizer: Tokenizer
) -> None:
    before = grown_run(place.runs / "tiny", tokenizer)
    kept = {"messages": [*ASKED, {"role": "assistant", "content": "你好呀。"}]}
    write_jsonl(before.corpus / "sft" / "heldout" / "conversations.jsonl", [kept])
    model = before.model("pretrain")
    for n in range(14):  # thumbs do not hide what was corrected
        note(before, opinion("up", "你好。" * (n + 1)))
    note(before, opinion("better", "我是小苗。", "不"))
    note(before, opinion("corrected", "我是小禾。"))
    name = "tiny-taught-1"
    words = lesson(before, model, place.home / "lessons" / name, name)
    taught = RunDir(place.runs / name)
    shutil.copytree(model, taught.model("dpo"))
    shutil.copy(words[1], taught.path / "recipe.yaml")
    said = [
        {"stage": "dpo", "tokens": n, "prompt": "你好", "answer": a} for n, a in enumerate("是不")
    ]
    write_jsonl(taught.samples, said)
    client = enter()
    found = client.get("/studio/effect", params={"run": name}).json()
    assert found["before"] == "tiny/models/pretrain" and found["after"] == f"{name}/models/dpo"
    first, second, *thumbs = found["opinions"]
    assert (first["kind"], first["wanted"]["text"], first["unwanted"]) == (
        "corrected",
        "我是小禾。",
        None,
    )
    assert second["unwanted"]["text"] == second["now"] == "不" and second["is_wanted"] is False
    assert len(thumbs) == 14 == found["of"] - 2 and first["is_wanted"] is None
    shares = [
        one[side] for one in found["opinions"] for side in ("wanted", "unwanted") if one[side]
    ]
    for one in (*shares, found["heldout"]):
        assert 0 < one["before"] == one["after"] < 1, "same weights"
    assert found["heldout"]["count"] == 1
    loaded = load_model(model)
    prompt = tokenizer.chat_template.encode_prompt(tokenizer, ASKED)
    ids = tokenizer.encode("你好。")
    logits_btv = loaded(torch.tensor([[*prompt, *ids]]))
    logprobs_tv = logits_btv[0].log_softmax(-1)[len(prompt) - 1 : -1]
    mean = logprobs_tv[torch.arange(len(ids)), torch.tensor(ids)].mean()
    assert thumbs[0]["wanted"]["before"] == pytest.approx(float(mean.detach().exp()), rel=1e-3)
    for other in ("tiny", "nobody"):
        assert client.get("/studio/effect", params={"run": other}).status_code in (400, 404)

    # Under other names it is the same lesson, and a new one of the old name is another.
    for old, new in (("tiny", "小禾"), (name, "taught")):
        assert client.post(f"/studio/runs/{old}/rename", json={"new": new}).status_code == 200
    again = client.get("/studio/effect", params={"run": "taught"}).json()
    assert again == found | {"before": "小禾/models/pretrain", "after": "taught/models/dpo"}
    assert client.get("/studio/grow").json()["before"] == {"taught": "小禾/models/pretrain"}
    assert client.get("/studio/effect", params={"run": name}).status_code == 404
    assert client.get("/studio/feedback", params={"model": "taught/dpo"}).json()["learned"]
    client.post("/studio/runs/taught/delete", json={"sure": "taught"})
    assert client.get("/studio/grow").json()["before"] == {}


@pytest.mark.parametrize("kinds", ["up", "better", "up better corrected", "corrected"])
def test_a_lesson_is_an_ordinary_recipe(run: RunDir, tmp_path: Path, kinds: str) -> None:
    with pytest.raises(Problem, match="nothing was said"):
        lesson(run, run.model("sft"), tmp_path / "a", "x")
    for kind in kinds.split():
        note(run, opinion(kind, f"好{kind}", "坏" if kind == "better" else None))
    earlier = [{"messages": [*ASKED, {"role": "assistant", "content": f"{n}"}]} for n in range(3)]
    write_jsonl(run.corpus / "sft" / "train" / "conversations.jsonl", earlier)
    words = lesson(run, run.model("sft"), tmp_path / "a", "小苗-taught-1")
    assert words[0] == "run" and words[-1] == str(run.path.parent)
    recipe = load_recipe(words[1], words[2:])
    assert recipe.model.path == str(run.model("sft")) and not recipe.pretrain.enabled
    assert recipe.dpo.loss == ("sigmoid" if kinds == "better" else "kto") and recipe.dpo.epochs > 5
    kept = read_jsonl(recipe.corpus.preferences[0])
    # Beside thumbs, a better answer and the worse one are one good and one bad each.
    assert len(kept) == (4 if " " in kinds else 1)
    again = read_jsonl(recipe.corpus.conversations[0])
    assert recipe.dpo.replay > 0.5 and recipe.dpo.sft_weight == 1 and again[-3:] == earlier
    assert len(again) == 3 + len(kinds.split()), "what was wanted is learned as SFT is, too"
    assert recipe.sample_prompts == ["你好"]


def test_feedback_goes_to_the_run_of_the_model(enter: Enter, run: RunDir) -> None:
    client = enter()
    told = opinion("up", "<script>alert(1)</script>").model_dump()
    counts = client.post("/studio/feedback", json=told).json()
    assert counts["labels"] == 1 and counts["questions"] == ["你好"]
    assert read_jsonl(run.path / "feedback.jsonl")[0]["answer"] == told["answer"]
    for wrong in ({"model": "../x"}, {"kind": "z"}, {"messages": []}, {"answer": 7}):
        assert client.post("/studio/feedback", json=told | wrong).status_code in (400, 404)


def test_the_score_counts_both_orders() -> None:
    votes = [
        {"first": "a", "second": "b", "better": "first"},
        {"first": "b", "second": "a", "better": "first"},
        {"first": "b", "second": "a", "better": "second"},
        {"first": "a", "second": "b", "better": "neither"},
        {"better": 3},
    ]
    assert score_of(votes)[0] == {"models": ["a", "b"], "first": 2, "second": 1, "neither": 1}


def test_another_server_stands_beside(enter: Enter, place: Place) -> None:
    from tests.serve.browsing import Running

    other = FastAPI()
    asked: list[Any] = []

    @other.get("/v1/models")
    def models() -> Any:
        return {"data": [{"id": "big"}]}

    @other.post("/v1/chat/completions")
    async def chat(request: Request) -> Any:
        asked.append((request.headers["authorization"], await request.json()))
        return {"choices": []}

    running = Running(other)
    try:
        client = enter()
        server = {"url": running.url, "key": "k"}
        (name,) = client.post("/studio/servers", json=server).json()["models"]
        assert name == running.url.removeprefix("http://") + ": big"
        body = {"model": name, "messages": ASKED}
        assert client.post("/v1/chat/completions", json=body).json() == {"choices": []}
        assert asked[0][0] == "Bearer k" and asked[0][1]["model"] == "big"
        assert "k" not in json.dumps([p.name for p in place.home.rglob("*")]).split('"')
        for url in ("file:///etc/passwd", "http://127.0.0.1:1", "ftp://x"):
            assert client.post("/studio/servers", json={"url": url}).status_code == 400
    finally:
        running.stop()
