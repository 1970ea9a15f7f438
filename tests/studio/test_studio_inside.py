"""The room "Look inside": the numbers of POST /v1/inspect, what it refuses, and its page."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from miao.inspect.forward import Without
from miao.inspect.inspection import Show, inspect
from miao.inspect.models import load, recipe_of
from miao.inspect.rows import packed_row
from miao.inspect.text import ids_of
from miao.rundir import RunDir
from miao.serve.app import create_app
from miao.studio.inside import CODE
from miao.studio.place import Place
from miao.tokenizer import Tokenizer
from tests.inspect.runs import grown_run

Enter = Callable[..., TestClient]
TEXT = "你好 <img src=x onerror=boom()>"
MODEL = "tiny/models/pretrain"
STEP = "tiny/checkpoints/sft/step-00000007"


@pytest.fixture(name="run")
def run_fixture(place: Place, tokenizer: Tokenizer) -> RunDir:
    return grown_run(place.runs / "tiny", tokenizer)


def test_it_says_what_miao_inspect_says(run: RunDir, enter: Enter) -> None:
    client = enter()
    listed = client.get("/studio/inside").json()["models"]
    assert [model["name"] for model in listed] == [MODEL, STEP]
    model, tokenizer = load(run.model("pretrain"))
    ids, prompt = ids_of(tokenizer, TEXT)

    def asked(**more: Any) -> Any:
        answer = client.post("/v1/inspect", json={"model": MODEL, "text": TEXT} | more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert asked(whole=2) == json.loads(
        json.dumps(inspect(model, tokenizer, ids, prompt, Show(whole=2)))
    )
    off = {"tokens": [1], "heads": [[0, 1]]}
    told = asked(without=off, attention=False)["other"]["kl"]
    assert (
        told == inspect(model, tokenizer, ids, without=Without([1], heads=[(0, 1)]))["other"]["kl"]
    )
    other, _ = load(run.path / "checkpoints/sft/step-00000007")
    assert asked(against=STEP)["other"] == json.loads(
        json.dumps(inspect(model, tokenizer, ids, against=other)["other"])
    )
    turns = [{"role": "user", "content": "你好"}]
    told = client.post("/v1/inspect", json={"model": MODEL, "messages": turns, "answer": [40, 41]})
    assert [token["id"] for token in told.json()["tokens"][-2:]] == [40, 41]
    told = client.get(f"/studio/inside/row?model={STEP}&stage=sft&row=1").json()
    assert told == json.loads(json.dumps(packed_row(run, recipe_of(run), "sft", 1, model=other)))


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"model": "tiny/models/../../../secret"}, 404, "no such model"),
        ({"model": "tiny"}, 404, "no such model"),
        ({"model": "nobody/models/sft"}, 404, "no such run"),
        ({"against": "tiny/models/dpo"}, 404, "no such model"),
        ({"text": "a" * 30_000}, 400, "text"),
        ({"text": None}, 400, "either text or messages"),
        ({"whole": 900}, 400, "there is no place 900"),
        ({"without": {"layers": [7]}}, 400, "there are 2 layers"),
        ({"without": {"weights": [7]}}, 400, "weights"),
        ({"without": {}, "against": STEP}, 400, "one comparison at a time"),
        ({"answers": 3}, 400, "answers"),
    ],
)
def test_what_it_refuses(
    run: RunDir, enter: Enter, changes: dict[str, Any], status: int, says: str
) -> None:
    answer = enter().post("/v1/inspect", json={"model": MODEL, "text": "a"} | changes)
    assert answer.status_code == status
    assert says in answer.json()["error"]["message"] and str(run.path) not in answer.text


def test_nobody_else_has_it_and_only_the_code_of_views_is_shown(enter: Enter) -> None:
    assert enter(known=False).post("/v1/inspect", json={}).status_code == 401
    assert "/v1/inspect" not in {getattr(r, "path", "") for r in create_app([]).routes}
    client = enter()
    for name in CODE:
        assert client.get(f"/studio/about/{name}").headers["content-type"].startswith("text/plain")
    for name in ("files.py", "../pyproject.toml", "inspect/../files.py", "fr"):
        assert client.get(f"/studio/about/{name}").status_code == 404
    rows = client.get("/studio/inside/row?model=x/y&stage=../..&split=train")
    assert rows.status_code in (400, 404)
