"""Asking an OpenAI-compatible server: a stand-in that answers, stumbles, refuses and breaks off."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from miao.cli import main
from miao.corpus.distill import Endpoint, distill, questions, read_prompts
from miao.corpus.read.convert import to_conversation
from miao.errors import MiaoError
from miao.files import read_jsonl
from tests.json_server import JsonServer, Reply

Answer = Callable[[dict[str, Any], int], Reply]


class StandIn:
    """Answers with what `answer(request body, how often it was asked this)` says."""

    def __init__(self) -> None:
        self.answer: Answer = lambda body, _: (200, reply("echo: " + said(body)))
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.server = JsonServer(self.hear)
        self.url = self.server.url

    def hear(self, path: str, headers: Mapping[str, str], body: Any) -> Reply:
        before = sum(said(other) == said(body) for other in self.asked)
        self.asked.append(body)
        self.headers.append(dict(headers))
        self.times.append(time.monotonic())
        return self.answer(body, before)

    def endpoint(self, **options: Any) -> Endpoint:
        return Endpoint(self.url, {"model": "m"}, first_wait=0.01, **options)


def said(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def reply(text: Any, finish: str = "stop", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, **more}
    return {"choices": [{"message": message, "finish_reason": finish}]}


@pytest.fixture
def server() -> Iterator[StandIn]:
    stand_in = StandIn()
    yield stand_in
    stand_in.server.stop()


def of(*texts: str, samples: int = 1) -> Any:
    prompts = ([{"role": "user", "content": text}] for text in texts)
    return questions(prompts, {"model": "m"}, None, samples)


def test_the_verb_asks_once_goes_on_and_writes_conversations(
    server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIAO_API_KEY", "secret")
    prompts, more = tmp_path / "prompts.txt", tmp_path / "more.jsonl"
    prompts.write_text("你好\nhello\n\nhello\n", encoding="utf-8")
    turns = [("user", "one"), ("assistant", "1"), ("user", "two"), ("assistant", "2")]
    records = [
        {"messages": [{"role": role, "content": content} for role, content in turns]},
        {"instruction": "Translate", "input": "苗"},
    ]
    more.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    output = tmp_path / "out.jsonl"
    words = ["corpus", "distill", str(prompts), "--url", server.url + "/v1/", "--model", "big"]
    words += ["--output", str(output), "--system", "Be kind.", "--temperature", "0.3"]
    assert main(words) == 0
    assert sorted(map(said, server.asked)) == ["hello", "你好"]
    assert main([*words[:3], str(more), *words[3:]]) == 0
    assert sorted(map(said, server.asked)) == ["Translate\n苗", "hello", "two", "你好"]
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer secret"}
    assert {(body["model"], body["temperature"]) for body in server.asked} == {("big", 0.3)}
    found = [to_conversation(record) for record in read_jsonl(output)]
    assert len(found) == 4
    for conversation in found:
        assert conversation.messages[0].content == "Be kind."
        assert conversation.messages[-1].content == "echo: " + conversation.messages[-2].content


def test_busy_servers_are_asked_again_and_refusals_are_counted(
    server: StandIn, tmp_path: Path
) -> None:
    def answer(body: dict[str, Any], before: int) -> tuple[int, Any]:
        text = said(body)
        if text == "busy" and before < 2:
            return (429, 503)[before], {}
        if text == "half" and before == 0:
            return 200, b'{"choices": [{"mess'
        special = {
            "long": reply("aaa", "length"), "empty": reply(" "), "odd": {"choices": []},
            "thought": reply("yes", reasoning_content="why"), "tool": reply(None),
        }  # fmt: skip
        return (400, {}) if text == "bad" else (200, special.get(text, reply("fine")))

    server.answer = answer
    texts = ("busy", "half", "long", "empty", "odd", "thought", "tool", "bad")
    counts = distill(of(*texts), server.endpoint(), tmp_path / "out.jsonl", concurrency=3)
    assert counts["written"] == 3 and counts.total() == len(texts)
    assert counts["the answer is empty"] == 2
    assert counts["the server answers 400 Bad Request"] == 1
    written = {
        r["messages"][0]["content"]: r["messages"][1] for r in read_jsonl(tmp_path / "out.jsonl")
    }
    assert set(written) == {"busy", "half", "thought"}
    assert written["thought"]["reasoning"] == "why"


def test_what_was_cut_short_is_asked_again_and_nothing_else(
    server: StandIn, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    assert distill(of("a", "b", "c"), server.endpoint(), output)["written"] == 3
    content = output.read_bytes()
    output.write_bytes(content[:-9])
    server.asked.clear()
    counts = distill(of("a", "b", "c", "a"), server.endpoint(), output)
    assert len(server.asked) == 1
    assert counts["written"] == 1 and counts.total() == 4
    assert sorted(output.read_bytes().splitlines()) == sorted(content.splitlines())


def test_equal_answers_to_a_prompt_are_kept_once(server: StandIn, tmp_path: Path) -> None:
    counts = distill(of("a", samples=3), server.endpoint(), tmp_path / "out.jsonl")
    assert counts == {"written": 1, "repeated answer": 2}
    assert len({body["seed"] for body in server.asked}) == 3


def test_a_server_that_stays_away_or_a_wrong_key_stops_with_what_there_is(
    server: StandIn, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    server.answer = lambda body, _: (500, {}) if said(body) == "b" else (200, reply("fine"))
    with pytest.raises(MiaoError, match=r"500 .* 3 times"):
        distill(of("a", "b"), server.endpoint(retries=2), output, concurrency=1)
    assert [record["messages"][0]["content"] for record in read_jsonl(output)] == ["a"]
    server.answer = lambda *_: (401, {})
    with pytest.raises(MiaoError, match="401"):
        distill(of("c"), server.endpoint(), output)
    nowhere = Endpoint("http://127.0.0.1:9", {}, retries=0)
    with pytest.raises(MiaoError, match="cannot be reached"):
        distill(of("d"), nowhere, output)


def test_the_rate_is_kept_over_all_threads(server: StandIn, tmp_path: Path) -> None:
    endpoint = server.endpoint(per_minute=1200)  # one in 50 ms
    distill(of(*"abcdef"), endpoint, tmp_path / "out.jsonl", concurrency=6)
    assert max(server.times) - min(server.times) > 0.1  # at once without it; arrivals jitter


@pytest.mark.parametrize(
    "line", ["{", "3", '"messages"', "{}", '{"messages": []}', '{"prompt": 4}',
             '{"messages": [{"role": "user", "content": null}]}',
             '{"messages": [{"role": "assistant", "content": "x"}]}'],
)  # fmt: skip
def test_a_line_without_a_prompt_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "ok"}\n' + line, encoding="utf-8")
    with pytest.raises(MiaoError) as error:
        list(read_prompts(path))
    assert f"{path}:2" in str(error.value)


def test_questions_of_any_record(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    turns = [{"from": "human", "value": "你好"}, {"from": "gpt", "value": "您好"}]
    records = [
        {"conversations": turns},
        {"messages": [{"role": "user", "content": "a"}], "system": "short"},
        {"指令": "翻译", "输入": "猫", "输出": "cat"},
        {"query": "c", "response": "d", "history": [["a", "b"]]},
        {"text": "alone"},
    ]
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    asked = [[(turn["role"], turn["content"]) for turn in turns] for turns in read_prompts(path)]
    assert asked == [
        [("user", "你好")],
        [("system", "short"), ("user", "a")],
        [("user", "翻译\n猫")],
        [("user", "a"), ("assistant", "b"), ("user", "c")],
        [("user", "alone")],
    ]


def test_questions_of_a_table_and_of_text(tmp_path: Path) -> None:
    table, text = tmp_path / "asked.csv", tmp_path / "asked.txt"
    table.write_text("问题,回答\n一加一？,二\n", encoding="gbk")
    text.write_text("你好\n\n再见\n", encoding="gbk")
    asked = [turns[0]["content"] for path in (table, text) for turns in read_prompts(path)]
    assert asked == ["一加一？", "你好", "再见"]
    with pytest.raises(MiaoError, match="o such file"):
        list(read_prompts(tmp_path / "none.txt"))


def test_refusals_that_differ_in_a_number_are_counted_together(
    server: StandIn, tmp_path: Path
) -> None:
    def too_long(body: dict[str, Any], _: int) -> tuple[int, Any]:
        return 400, {"error": {"message": f"{len(said(body))} tokens are too many"}}

    server.answer = too_long
    counts = distill(of("a", "bb", "ccc"), server.endpoint(), tmp_path / "out.jsonl", concurrency=1)
    assert list(counts.values()) == [3]
    assert "1 tokens are too many" in next(iter(counts))
