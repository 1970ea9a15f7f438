"""`miao model list` and `show`: what is printed is what the counts say, for any source."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from miao.commands.model import list_command, plan_of, show_command
from miao.errors import MiaoError
from miao.model import Decoder, count_parameters, save_model
from miao.model.presets import PRESETS
from miao.tokenizer import Tokenizer

Make = Callable[..., Decoder]
RECIPES = Path(__file__).parent.parent / "miao" / "recipes"


def json_of(capsys: pytest.CaptureFixture[str], command: Callable[..., None], *words: Any) -> Any:
    command(*words, as_json=True)
    return json.loads(capsys.readouterr().out)


def test_the_list_names_every_preset_in_eighty_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    list_command()
    printed = capsys.readouterr().out
    for name in PRESETS:
        assert printed.count(f"│ {name} ") == 2
    for number in ("596.05M", "803.55M", "407.19M", "960 B", "112.0 KiB"):
        assert number in printed
    assert "estimate" in printed and "…" not in printed
    assert max(len(line) for line in printed.splitlines()) <= 90


def test_the_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    listed = json_of(capsys, list_command)
    assert [entry["name"] for entry in listed] == [*PRESETS]
    by_name = {entry["name"]: entry for entry in listed}
    moe = by_name["buddy-0.7b-moe"]
    assert moe["parameters"] == {
        "total": 803_546_880,
        "active": 407_185_152,
        "embedding": 151_669 * 1536,
    }
    assert moe["kv_bytes_per_token"] == 24 * (16 + 24) * 2
    assert by_name["bitbrain-0.6b"]["kv_bytes_per_token"] == 28 * 2 * 8 * 128 * 2
    assert moe["training"][0]["gpu"] == "RTX 3060 12 GB"
    assert moe["training"][0]["micro_batch"] is None
    assert moe["config"]["model_type"] == moe["model_type"] == "deepseek_v3"


def test_show_a_preset(capsys: pytest.CaptureFixture[str]) -> None:
    show_command("moe-145m")
    printed = capsys.readouterr().out
    for words in ("dots1", "145,031,040", "91,946,880", "4 experts of 1728", "5,120 bytes"):
        assert words in printed
    assert "not measured" in printed and "minimind2-moe" in printed


def test_a_small_model_costs_something(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "my.yaml"
    recipe.write_text("model: {hidden_size: 32, num_hidden_layers: 1}\npretrain: {tokens: 100K}\n")
    flops = json_of(capsys, show_command, str(recipe))["flops_per_token"]
    show_command(str(recipe))
    printed = capsys.readouterr().out
    assert f"{flops / 3e6:.1f}M" in printed and "0.00G" not in printed
    assert "< 1 min" in printed


@pytest.mark.parametrize("kind", ["directory", "run", "config.json"])
def test_show_something_on_disk(
    kind: str, make_model: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model()
    directory = tmp_path / "model" if kind == "run" else tmp_path
    save_model(model, directory)
    source = tmp_path / "config.json" if kind == "config.json" else tmp_path
    shown = json_of(capsys, show_command, str(source))
    counted = count_parameters(model.config)
    assert shown["parameters"]["total"] == counted.total
    assert shown["assumptions"]["tokens"] == 20 * (counted.total - counted.embedding)
    assert shown["assumptions"]["seq_len"] == model.config.max_position_embeddings
    show_command(str(source))
    assert f"{counted.total:,}" in capsys.readouterr().out


def test_show_a_recipe(make_model: Make, tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Its shape with the vocabulary it will have, and the budget that it names."""
    plan = plan_of(str(RECIPES / "recall.yaml"))
    assert count_parameters(plan.config).total == 1_968_320
    assert (plan.tokens, plan.seq_len, plan.batch_tokens) == (2_000_000, 256, 2048)
    assert plan_of(str(RECIPES / "recall.yaml"), tokens=5e6).tokens == 5_000_000
    tokenizer.save(tmp_path / "tokenizer")
    taken = tmp_path / "taken.yaml"
    taken.write_text(f"tokenizer: {{path: {tmp_path}/tokenizer}}", encoding="utf-8")
    assert plan_of(str(taken)).config.vocab_size == tokenizer.vocab_size
    model = make_model()
    save_model(model, tmp_path / "model")
    begins = tmp_path / "begins.yml"
    begins.write_text(f"model: {{path: {tmp_path}/model}}\npretrain: {{enabled: false}}")
    plan = plan_of(str(begins))
    assert plan.config.hidden_size == model.config.hidden_size and str(tmp_path) in plan.note
    assert plan.tokens == plan_of(str(tmp_path / "model")).tokens
    begins.write_text("model: {path: /nowhere}")
    with pytest.raises(MiaoError, match="/nowhere: neither a finished run nor a model"):
        plan_of(str(begins))
    begins.write_text("model: {hidden_sise: 3}")
    with pytest.raises(MiaoError, match=r"did you mean 'model\.hidden_size'"):
        plan_of(str(begins))


def test_a_plan_of_one_s_own() -> None:
    usual = plan_of("64m")
    mine = plan_of("64m", tokens=3e9, seq_len=1024, batch_tokens=65536)
    assert (mine.tokens, mine.seq_len, mine.batch_tokens) == (3_000_000_000, 1024, 65536)
    assert (usual.tokens, usual.seq_len, usual.batch_tokens) == (1_200_000_000, 512, 131072)
    with pytest.raises(MiaoError, match="longer than the model's context"):
        plan_of("64m", seq_len=2048)
    with pytest.raises(MiaoError, match="at least one token"):
        plan_of("64m", seq_len=0)


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(MiaoError, match="did you mean '104m'"):
        plan_of("140m")
    with pytest.raises(MiaoError, match="presets: 26m"):
        plan_of("gpt-5-nano")
    with pytest.raises(MiaoError, match="neither a finished run nor a model"):
        plan_of(str(tmp_path))
    broken = tmp_path / "config.json"
    broken.write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(MiaoError, match="'bert' is not supported"):
        plan_of(str(broken))
