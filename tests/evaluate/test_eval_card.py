"""The card: what `miao eval` has left, on one page, and what is no score called so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from miao.cli import main
from miao.evaluate.results.card import BELOW, CHANCE, markdown, read_card, tables
from miao.evaluate.results.ensemble import Ensemble, Part
from miao.export.card import read_facts
from miao.files import read_json, write_json, write_jsonl
from miao.model import Decoder, save_model
from miao.rundir import RunDir
from miao.tokenizer import Tokenizer


def score(task: str, category: str, value: float, **more: Any) -> dict[str, Any]:
    found = {"task": task, "category": category, "count": 100, "value": value, "stderr": 0.03}
    return found | {"chance": None, "unit": "accuracy"} | more


def lines(path: Path) -> Path:
    parts = (
        Part("grammar", "zh", 100, 0.9, 0.03, 0.5),
        Part("facts", "zh", 100, 0.27, 0.04, 0.25),
        Part("sums", "en", 100, 0.6, 0.05, 0.25),
        Part("copying", "en", 100, 0.1, 0.03, 0.25),
        Part("brackets", "zh", 100, 0.4, 0.03, 0.25, "probability", 0.35),
    )
    mine = {"model_stage": "model"}
    ceval = mine | {"stage": "benchmark ceval", "task": "ceval", "scoring": "letter", "shots": 5}
    writes = [
        score("writing", "answers: end properly", 0.2),
        score("writing", "answers: in circles", 0.1),
        score("writing", "prompts followed, strict", 0.4, chance=0.15),
    ]
    records = [
        {"stage": "pretrain", "scores": [score("bits per byte", "wiki", 1.5, unit="bits")]},
        mine | {"stage": "score early of model", "task": "early", "limit": None, "scores": [],
                "ensemble": Ensemble("early", parts).to_json()},
        ceval | {"scores": [score("ceval", "all", 0.255, chance=0.25)], "at_chance": True,
                 "p_value_against_chance": 0.7},
        ceval | {"stage": "b", "task": "piqa", "scores": [score("piqa", "all", 0.65, chance=0.5)],
                 "at_chance": False, "p_value_against_chance": 1e-6},
        mine | {"stage": "writing of model", "task": "writing", "data": None, "scores": writes},
        ceval | {"stage": "c", "task": "cmmlu", "model_stage": "sft",
                 "scores": [score("cmmlu", "all", 0.9, chance=0.25)], "at_chance": False},
    ]  # fmt: skip
    path.mkdir(parents=True, exist_ok=True)
    write_jsonl(path / "eval_results.jsonl", records)
    return path / "eval_results.jsonl"


def test_what_cannot_be_told_from_guessing_is_no_score(tmp_path: Path) -> None:
    card = read_card("m", lines(tmp_path), "model")
    verdicts = {
        row["name"]: row["verdict"] for s in ("knows", "can", "benchmarks") for row in card[s]
    }
    assert verdicts == {
        "grammar": None, "facts": CHANCE, "sums": None, "copying": BELOW, "brackets": None, "ceval": CHANCE,
        "piqa": None,
    }  # fmt: skip
    assert card["fails"][0] == f"{CHANCE}: facts zh, ceval (letter, 5-shot)"
    assert card["fails"][1] == f"{BELOW}: copying en"
    assert "do not end properly 回答没有好好结束: 80.0 % ± 3.0" in card["fails"][2]
    assert len(card["fails"]) == 3
    page = markdown([card])
    assert "| ceval (letter, 5-shot) | at chance 瞎猜 | 25 % |" in page and "25.5" not in page
    assert "| piqa (letter, 5-shot) | 65.0 % ± 3.0 | 50 % |" in page and "cmmlu" not in page
    assert "| bits per byte wiki | 1.500 ± 0.030 | – |" in page
    assert "early both | 23.8 (" in page


def test_models_stand_in_columns_without_numbers_on_others_own_data(tmp_path: Path) -> None:
    one = read_card("one", lines(tmp_path / "a"), "model")
    other = read_card("other", lines(tmp_path / "b"), "model", own=False)
    assert other["bits"] == []
    found = {row[0]: row[1:] for _, rows in tables([one, other]) for row in rows}
    assert found["bits per byte wiki"] == ["1.500 ± 0.030", "–", "–"]
    assert found["sums en"] == ["60.0 % ± 5.0", "60.0 % ± 5.0", "25 %"]
    assert found["facts zh"][0] == CHANCE
    assert found["brackets zh"][0] == "40.0 % ± 3.0 (right 答对 35 %)"
    nothing = read_card("none", tmp_path / "none.jsonl", "model")
    assert tables([nothing]) == [] and "Nothing that was measured" in markdown([nothing])


def test_the_command_asks_what_is_missing_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_model: Callable[..., Decoder],
    tokenizer: Tokenizer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        model = make_model(0, vocab_size=tokenizer.vocab_size, max_position_embeddings=512)
        save_model(model, Path(name))
        tokenizer.save(Path(name))
    words = ["eval", "card", "one", "--beside", "two", "--limit", "2", "--max-new-tokens", "4"]
    assert main(["eval", "card", "one", "--only-known"]) == 2
    assert "nothing is known of this model" in capsys.readouterr().err
    assert main(words) == 0
    cards = read_json(Path("eval_results/one/card.json"))["cards"]
    assert [card["model"] for card in cards] == ["one", "two"]
    assert cards[0]["score"] == cards[1]["score"] and len(cards[0]["knows"]) == 5
    assert cards[0]["can"] == [], "skills are noise at this size"
    assert cards[0]["parameters"] > 1000 and cards[0]["writes"]
    page = Path("eval_results/one/card.md").read_text(encoding="utf-8")
    assert page.startswith("# one\n") and "How it writes" in page
    capsys.readouterr()
    assert main(words) == 0
    assert "Early signal" not in capsys.readouterr().out, "nothing is asked twice"


def test_the_model_card_of_an_export_holds_it(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for stage in ("pretrain", "sft"):
        write_json(run.model(stage) / "config.json", {})
    card = read_card("m", lines(tmp_path), "model")
    (run.path / "card.json").write_text(json.dumps({"cards": [card]}), encoding="utf-8")
    assert "at chance" in read_facts(run, "sft").evaluated
    assert read_facts(run, "pretrain").evaluated == "", "it is the card of another stage"
