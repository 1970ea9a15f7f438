"""`miao grow`: what it finds, plans and writes; nothing is trained here but in the last test."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miao import rules
from miao.cli import main
from miao.errors import MiaoError
from miao.files import read_json, read_jsonl, write_json, write_jsonl
from miao.grow import machine
from miao.grow.found import CUT, Found, Source, cut, look, take_texts
from miao.grow.given import look_at
from miao.grow.machine import Speed
from miao.grow.outcome import Earlier, earlier
from miao.grow.plan import make_plan, ranked
from miao.grow.writing import recipe_text
from miao.model import flops_per_token
from miao.recipe.reading import load_recipe
from miao.rundir import RunDir
from tests.train.pair import run_two

SPEED = Speed("cpu", "float32", ((1e6, 1.1e-4), (1e9, 1.01e-2)), 2**34, 2, "here")
SENTENCE = "清晨的露水落在小小的苗上，太阳慢慢升起来了，第{}天它又长高了一点。"


TINY = (
    "--model.hidden_size 64 --model.num_hidden_layers 1 --pretrain.minutes 0.02 --sft.minutes 0.02"
)
TINY = [*TINY.split(), "--corpus.seedbed.conversations", "60", "--evaluate.question_items", "4"]
TINY += ["--evaluate.own_items", "4"]


def talk(number: int) -> dict[str, Any]:
    turns = [("user", f"第{number}课讲什么？"), ("assistant", f"讲第{number}个故事。")]
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A novel in one file, and conversations beside it."""
    texts = tmp_path / "texts"
    texts.mkdir()
    novel = "\n".join(SENTENCE.format(n) for n in range(3000))
    (texts / "novel.txt").write_text(novel, encoding="utf-8")
    write_jsonl(texts / "chats.jsonl", map(talk, range(60)))
    return texts


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.setattr(machine, "measure", lambda *_: SPEED)

    def said(*words: str) -> str:
        with pytest.raises(MiaoError) as caught:
            from miao.commands.grow import main as grow

            grow([*words, "--out_dir", str(tmp_path / "runs")])
        assert not (tmp_path / "runs").exists(), "before any work"
        return str(caught.value)

    return said


def test_errors_come_before_any_work(
    folder: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    empty, little = tmp_path / "empty", tmp_path / "little.txt"
    empty.mkdir()
    little.write_text("苗" * 100, encoding="utf-8")
    assert "no time to grow" in refused(str(folder), "--hours", "0")
    assert "how long" in refused(str(folder))
    assert "is no time" in refused(str(folder), "--until", "soon")
    assert "nothing that can be read" in refused(str(empty), "--minutes", "5")
    assert "100 characters of text are too little" in refused(str(little), "--minutes", "5")
    unknown = refused(str(folder), "--minutes", "5", "--pretrain.learing_rate", "1")
    assert "learning_rate" in unknown
    assert "no name" in refused(str(folder), "--minutes", "5", "--name", "a/b")
    assert "no time" in refused(str(folder), "--until", "2020-01-01T07:30")
    assert "no time" in refused(str(folder), "--minutes", "nan")
    assert "wrong.txt" in refused(str(tmp_path / "wrong.txt"), "--minutes", "5")
    assert "wrong" in refused(str(folder), "--minutes", "5", "--from", str(tmp_path / "wrong"))
    chats = refused(str(folder), "--minutes", "5", "--chats", str(folder / "novel.txt"))
    assert "novel.txt" in chats
    with pytest.raises(SystemExit) as caught:
        refused(str(folder), "--minutes", "5", "--hours", "1")
    assert caught.value.code == 2, "contradictory"
    monkeypatch.setattr("miao.grow.plan.free_space", lambda path: 2**20)
    assert "of disk are free" in refused(str(folder), "--minutes", "5")


def test_what_was_brought_is_told_by_its_form_and_long_texts_are_cut(folder: Path) -> None:
    found = look([str(folder)], [], [])
    kinds = {source.kind: source for source in found.sources}
    assert kinds["document"].records == 1 and kinds["conversation"].records == 60
    assert found.chinese == 1.0 and found.is_cut
    (path,) = take_texts(found, 1e9, folder / "taken", 0)
    records = read_jsonl(path)
    text = (folder / "novel.txt").read_text(encoding="utf-8")
    assert "".join(r["text"] for r in records) == text.replace("\n", "") or len(records) > 30
    assert all(len(record["text"]) <= 2 * CUT for record in records)
    (some,) = take_texts(found, 20_000, folder / "some", 0)
    size = sum(len(record["text"]) for record in read_jsonl(some))
    assert 15_000 < size < 60_000 or len(found.files("document")) == 1
    assert list(cut("字" * 10)) == ["字" * 10]
    named = [{"text": SENTENCE.format(n), "source": "ab"[n % 2]} for n in range(400)]
    write_jsonl(folder / "more" / "mixed.jsonl", named)
    mixed = look([str(folder / "more")], [], [])
    for characters in (4000, 1e9):  # of a part as of the whole
        (path,) = take_texts(mixed, characters, folder / "mixed", 0)
        assert {record["source"] for record in read_jsonl(path)} == {"a", "b"}


def test_of_much_text_only_some_is_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from miao.grow import found as room

    text = "".join(SENTENCE.format(n) for n in range(300))
    for number in range(60):
        (tmp_path / f"{number}.txt").write_text(text, encoding="utf-8")
    read: list[Path] = []
    convert = room.convert_file
    monkeypatch.setattr(room, "READ", 50_000)
    monkeypatch.setattr(
        room, "convert_file", lambda path, *rest: read.append(path) or convert(path, *rest)
    )
    found = look([str(tmp_path)], [], [])
    size = len(text.encode())
    assert len(read) * size < 6 * 50_000 + 2 * size and len(read) > 3
    assert found.total("document", "bytes") == pytest.approx(60 * size, rel=0.01)
    assert found.total("document", "records") == 60 and not found.sources[0].whole
    (taken,) = take_texts(found, 30_000, tmp_path / "taken", 0)
    assert Path(taken).stat().st_size < 3 * (30_000 + len(text)) + 10_000


def test_a_plan_is_a_recipe_with_reasons(folder: Path, tmp_path: Path) -> None:
    found = look([str(folder)], [], [])
    plans = {m: make_plan(found, SPEED, m, 5.0, tmp_path) for m in (2, 8, 60)}
    for minutes, plan in plans.items():
        assert sum(plan.stages.values()) + plan.aside == pytest.approx(minutes)
        bits = [candidate.bits for candidate in plan.candidates]
        assert (
            plan.best.bits <= 1.005 * min(bits) and plan.best.low < plan.best.bits < plan.best.high
        )
        assert {"model.hidden_size", "tokenizer.vocab_size", "pretrain.minutes"} <= plan.why.keys()
        path = tmp_path / f"{minutes}.yaml"
        words = (["t.jsonl"], "小禾", "runs", "我们班", None, ["从前"])
        path.write_text(recipe_text(plan, found, *words), encoding="utf-8")
        recipe = load_recipe(path)
        assert recipe.minutes == minutes and recipe.pretrain.minutes == pytest.approx(
            plan.stages["pretrain"], abs=1e-3
        )
        assert recipe.corpus.seedbed.name_zh == "小禾" and recipe.corpus.own_share == "auto"
        assert recipe.dpo.enabled == ("dpo" in plan.stages) == (minutes > 10)
    ladder = [plan.best.bits for plan in plans.values()]
    assert ladder == sorted(ladder, reverse=True), "more time never promises less"
    assert plans[60].best.inner >= plans[2].best.inner
    assert any("twice the text" in note for note in plans[60].notes)


def test_the_speed_of_a_shape_is_that_of_its_neighbours() -> None:
    tried = [machine.shape_config(*shape) for shape in machine.TRIED]
    flops = [flops_per_token(config, machine.SEQ_LEN) for config in tried]
    took = (60e-6, 110e-6, 1000e-6)
    speed = replace(SPEED, points=tuple(zip(flops, took, strict=True)))
    for config, seconds in zip(tried, took, strict=True):
        assert speed.tokens_per_second(config) == pytest.approx(1 / seconds)
        assert speed.paced(0.5).tokens_per_second(config) == pytest.approx(0.5 / seconds)
    between = machine.shape_config(128, 4, 4096)
    slope = (took[2] - took[1]) / (flops[2] - flops[1])
    seconds = took[1] + slope * (flops_per_token(between, machine.SEQ_LEN) - flops[1])
    assert speed.tokens_per_second(between) == pytest.approx(1 / seconds)
    least = speed.tokens_per_second(machine.shape_config(64, 2, 1024))
    assert 1 / took[0] < least < 1.2 / took[0], "what is not arithmetic is not saved"


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    characters=st.floats(4, 10).map(lambda power: 10**power),
    chinese=st.floats(0, 1),
    slowness=st.floats(-2, 2).map(lambda power: 10**power),
    level=st.floats(0.5, 1.5),
    pairs=st.booleans(),
    minutes=st.lists(st.floats(2, 3000), min_size=2, max_size=4),
)
def test_more_time_never_promises_a_worse_model(
    characters: float, chinese: float, slowness: float, level: float, pairs: bool,
    minutes: list[float],
) -> None:  # fmt: skip
    texts = Source("t", "document", [], 500, characters, (1 + 2 * chinese) * characters, 0,
                   round(100 * chinese), 100)  # fmt: skip
    found = Found([texts, *[Source("p", "preference", [], 9)] * pairs], level=level)
    speed = SPEED.paced(1 / slowness)
    patch = pytest.MonkeyPatch()
    patch.setattr("miao.grow.plan.free_space", lambda path: 2**50)
    try:
        plans = [make_plan(found, speed, m, 5.0, Path("nowhere")) for m in sorted(minutes)]
    finally:
        patch.undo()
    promised = [min(candidate.bits for candidate in plan.candidates) for plan in plans]
    assert promised == sorted(promised, reverse=True)
    reading = [plan.stages["pretrain"] for plan in plans]
    assert reading == sorted(reading)
    assert all(
        plan.best.bits <= 1.0051 * least for plan, least in zip(plans, promised, strict=True)
    )


def test_earlier_runs_here_correct_the_level(folder: Path, tmp_path: Path) -> None:
    found = look([str(folder)], [], [])
    before = make_plan(found, SPEED, 8, 5.0, tmp_path / "runs")
    for number in range(3):
        record = {
            "machine": SPEED.to_json(),
            "found": found.to_json(),
            "outcome": {"level": 1.1, "pace": 1.0},
        }
        write_json(tmp_path / "runs" / f"r{number}" / "grow.json", record)
    after = make_plan(found, SPEED, 8, 5.0, tmp_path / "runs")
    assert after.level == pytest.approx(1.1 * before.level) and after.runs == 3
    assert after.best.bits == pytest.approx(1.1 * before.best.bits)
    width = [(plan.best.high - plan.best.low) / plan.best.bits for plan in (before, after)]
    assert width[1] < 0.6 * width[0]
    record |= {"outcome": {"level": 1.1, "pace": 1.5}}
    for source in record["found"]["sources"]:
        source["bytes"] += 1  # another text tells less of this one's level
    write_json(tmp_path / "others" / "r" / "grow.json", record)
    other = earlier(tmp_path / "others", SPEED.host, found)
    assert other.level == pytest.approx(1.1 ** (1 / 3)) and other.doubt > 0.04
    assert other.pace == pytest.approx(1.5**0.5), "and this machine's speed"
    assert earlier(tmp_path / "others", "elsewhere", found).pace == 1.0
    for name, pace in (("disturbed", 2.0), ("r2", 1.5)):
        record |= {"outcome": {"level": 1.1, "pace": pace}}
        write_json(tmp_path / "others" / name / "grow.json", record)
    assert earlier(tmp_path / "others", SPEED.host, found).pace == pytest.approx(1.5**0.75)


def test_a_hard_text_is_promised_more_bits_than_an_easy_one(tmp_path: Path) -> None:
    rng = random.Random(0)
    for name, words in (("easy", 40), ("hard", 4000)):
        known = ["".join(rng.choices("abcdefghijklmnop", k=6)) for _ in range(words)]
        text = "\n".join(" ".join(rng.choices(known, k=12)) for _ in range(1500))
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    easy, hard = (look([str(tmp_path / f"{n}.txt")], [], []) for n in ("easy", "hard"))
    assert easy.level < 0.8 * hard.level
    bits = [ranked(found, SPEED, 60, Earlier())[0].bits for found in (easy, hard)]
    assert bits[0] / bits[1] == pytest.approx(easy.level / hard.level, rel=0.1)


def test_a_forecast_narrows_and_ends_at_the_outcome() -> None:
    assert rules.forecast(0.02, 2e4, 4.0, 1e6) is None
    law = {share: rules.expected_bits(1e6, share * 1e6).value for share in (0.3, 0.8, 1.0)}
    fall = rules.table()["forecast"]["undecayed"]
    seen = {0.3: law[0.3] / (1 - fall), 0.8: 1.01 * law[0.8], 1.0: law[1.0]}
    early, late, end = (rules.forecast(s, s * 1e6, bits, 1e6, 0.5) for s, bits in seen.items())
    assert early and late and end
    assert end.value == pytest.approx(law[1.0]) == pytest.approx(early.value)
    assert early.high - early.low > late.high - late.low > end.high - end.low
    assert late.low < law[1.0] < late.high and early.low < seen[0.3]


def test_both_roads_are_compared_and_the_better_one_is_taken(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A model of someone else's form with random weights is no help; one that knows the text is."""
    from miao.model import Decoder, ModelConfig, save_model
    from miao.tokenizer.train import train_tokenizer

    there = tmp_path / "Qwen3-like"
    text = (folder / "novel.txt").read_text(encoding="utf-8")
    train_tokenizer([text], 320).save(there)
    config = ModelConfig(vocab_size=320, hidden_size=64, num_hidden_layers=1, num_attention_heads=2,
                         num_key_value_heads=1, head_dim=32, intermediate_size=128)  # fmt: skip
    model = Decoder(config)
    model.initialize(0)
    save_model(model, there)
    found = look([str(folder)], [], [])
    given = look_at(str(there), found, SPEED, 12.0)
    uniform = math.log2(320) / given.bytes_per_token
    assert given.now == pytest.approx(uniform, rel=0.05) and given.measured_bytes > 2000
    assert given.tried and given.tokens_per_second > 0 and given.talks
    plan = make_plan(found, SPEED, 8, 5.0, tmp_path, given)
    assert not plan.goes_on and "a new one is grown" in plan.why["model.path"]
    assert plan.going_on and plan.going_on[0] < given.now
    assert given.after(2_000, found, plan.level)[0] == given.now, "a step or two brings nothing"
    knows = replace(given, now=0.9 * plan.best.bits)
    plan = make_plan(found, SPEED, 8, 5.0, tmp_path, knows)
    assert plan.goes_on and plan.bits[0] <= knows.now and "it goes on" in plan.why["model.path"]
    path = tmp_path / "on.yaml"
    path.write_text(
        recipe_text(plan, found, ["t.jsonl"], "a", "runs", None, None, ["从前"]), "utf-8"
    )
    recipe = load_recipe(path)
    assert recipe.model.path == recipe.tokenizer.path == str(there)
    assert recipe.tokenizer.chat_template is None
    alone = load_recipe(_new_recipe(found, tmp_path))
    assert recipe.pretrain.learning_rate < 0.5 * alone.pretrain.learning_rate
    large = replace(given, against="training it takes 99 GiB, more than this machine has")
    refused = make_plan(found, SPEED, 8, 5.0, tmp_path, large)
    assert not refused.goes_on and "99 GiB" in refused.why["model.path"]
    monkeypatch.setattr(machine, "measure", lambda *_: SPEED)
    monkeypatch.setattr("miao.grow.given.LOOKING", 0.002)  # of eight minutes
    words = ["grow", str(folder), "--minutes", "8", "--plan", "--out_dir", str(tmp_path)]
    assert main([*words, "--from", str(there)]) == 0
    assert "from scratch" in " ".join(capsys.readouterr().out.split())
    assert main([*words, "--from", str(tmp_path / "nothing")]) == 2


def _new_recipe(found: Found, tmp_path: Path) -> Path:
    path, plan = tmp_path / "new.yaml", make_plan(found, SPEED, 8, 5.0, tmp_path)
    path.write_text(
        recipe_text(plan, found, ["t.jsonl"], "a", "runs", None, None, ["从前"]), "utf-8"
    )
    return path


def test_the_plan_as_json_is_what_the_studio_shows(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(machine, "measure", lambda *_: SPEED)
    words = ["grow", str(folder), "--minutes", "20", "--plan", "--json", "--out_dir", str(tmp_path)]
    assert main([*words, "--name", "mine"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert len(plan["bits_per_byte"]) == 3 and plan["minutes"]["pretrain"] > 5
    assert plan["options"]["model.hidden_size"] and plan["why"]["model.hidden_size"]
    assert not (tmp_path / "mine").exists()


def test_it_grows_and_keeps_its_books(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(machine, "measure", lambda *_: SPEED)
    words = ["grow", str(folder), "--minutes", "9", "--name", "小禾", "--maker", "我们班"]
    words += ["--out_dir", str(tmp_path)]
    tiny = TINY
    monkeypatch.setattr("miao.run.clock.RunClock.left", property(lambda clock: 4.0))
    assert main([*words, *tiny]) == 0
    run = tmp_path / "小禾"
    book = read_json(run / "grow.json")
    assert book["outcome"]["bits_per_byte"] > 0 and book["outcome"]["seconds"] > 0
    share, value, low, high = book["forecasts"][-1]
    assert 0 < share <= 1 and low < value < high, "forecast while it trained"
    assert (run / "model" / "config.json").exists() and (run / "grow.yaml").exists()
    said = capsys.readouterr().out
    assert "planned" in said and "outcome" in said and "miao chat" in said
    assert main([*words, *tiny]) == 0, "the same command again does nothing anew"
    assert "pretrain: done before" in capsys.readouterr().out
    with pytest.raises(MiaoError, match="begun with other words"):
        from miao.commands.grow import main as grow

        grow([*words[1:], *tiny, "--seed", "7"])


def test_a_run_of_the_recipe_does_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With budgets in tokens to the bit; of those in minutes the clock decides."""
    monkeypatch.setattr(machine, "measure", lambda *_: SPEED)
    words = ["--model.hidden_size", "64", "--model.num_hidden_layers", "1"]
    words += ["--corpus.seedbed.conversations", "60", "--corpus.seedbed.preferences", "20"]
    words += ["--corpus.text_talks", "20", "--tokenizer.vocab_size", "320"]
    words += ["--evaluate.enabled", "false", "--sample_texts", "[]", "--sample_prompts", "[]"]
    for stage in ("pretrain", "sft"):
        words += [f"--{stage}.minutes", "null", f"--{stage}.tokens", "2000"]
        words += [f"--{stage}.batch_tokens", "1024", f"--{stage}.eval_every", "0"]
    wish = [str(folder), "--minutes", "9", "--name", "a", "--out_dir", str(tmp_path)]
    wish += ["--seed", "7"]
    assert main(["grow", *wish, *words]) == 0
    assert main(["run", str(tmp_path / "a" / "grow.yaml"), "--name", "b", *words]) == 0
    first, second = (RunDir(tmp_path / name) for name in "ab")
    recipes = [run.read_recipe()[1] | {"name": ""} for run in (first, second)]
    assert recipes[0] == recipes[1] and recipes[0]["seed"] == 7
    assert recipes[0]["corpus"]["text_talks"] == 20
    for stage in ("pretrain", "sft"):
        weights = [run.model(stage) / "model.safetensors" for run in (first, second)]
        assert weights[0].read_bytes() == weights[1].read_bytes()


def grow_quickly(*words: str) -> int:
    """Within one of several processes."""
    patch = pytest.MonkeyPatch()
    patch.setattr("miao.run.clock.RunClock.left", property(lambda clock: 4.0))
    trial = SimpleNamespace(tokens_per_second=1000.0 * (1 + int(os.environ["RANK"])))
    patch.setattr(machine, "run_trial", lambda *_, **__: trial)
    try:
        return main(["grow", *words])
    finally:
        patch.undo()


def test_several_processes_grow_one_model(folder: Path, tmp_path: Path) -> None:
    """The first plans for all, with the speed of all; what it finds wrong is said once."""
    words = [str(folder), "--minutes", "9", "--device", "cpu", "--out_dir", str(tmp_path)]
    ends = run_two(grow_quickly, *words, *TINY, directory=tmp_path)
    assert [end.code for end in ends] == [0, 0], ends
    assert ends[0].said.count("2 processes, DDP") == 2
    # PyTorch itself may tell the second one that the first has ended before it.
    assert not any(word in ends[1].said for word in ("DDP", "planned", "pretrain", "text:"))
    book = read_json(tmp_path / "grown" / "grow.json")
    speed = Speed(**book["machine"])
    assert speed.processes == 2 and speed.host.endswith(" x2")
    small = machine.shape_config(*machine.TRIED[0])
    assert speed.tokens_per_second(small) == pytest.approx(1000 + 2000)
    assert book["outcome"]["bits_per_byte"] > 0
    assert read_json(tmp_path / "grown" / "manifest.json")["processes"] == 2
    words[0] = str(tmp_path / "little.txt")
    Path(words[0]).write_text("苗" * 100, encoding="utf-8")
    wrong = run_two(grow_quickly, *words, "--name", "b", directory=tmp_path)
    assert all(end.code for end in wrong), wrong
    assert [end.said.count("miao: ") for end in wrong] == [1, 0], wrong
