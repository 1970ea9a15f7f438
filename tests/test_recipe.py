"""Recipes: quantities, and everything that is wrong with one said at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from miao.errors import MiaoError
from miao.recipe import Recipe, of_budget, parse_quantity, to_dict
from miao.recipe.reading import SHIPPED, check_recipe, find_recipe, load_recipe


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (4_000_000, 4e6),
        (0.25, 0.25),
        (0, 0.0),
        ("4M", 4e6),
        ("1.5B", 1.5e9),
        ("10k", 1e4),
        ("40K", 4e4),
        (" 2 m ", 2e6),
        ("4_000_000", 4e6),
        ("1e6", 1e6),
        ("2.5e-1", 0.25),
        ("123", 123.0),
    ],
)
def test_quantities(value: Any, number: float) -> None:
    assert parse_quantity(value, "key") == pytest.approx(number)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "many",
        "4X",
        "M",
        "-1",
        -1,
        "1.2.3",
        "4 M M",
        True,
        float("nan"),
        float("inf"),
        "1e99",
        None,
    ],
)
def test_what_is_no_quantity(value: Any) -> None:
    with pytest.raises(MiaoError, match="is not a quantity") as caught:
        parse_quantity(value, "pretrain.tokens")
    assert str(caught.value).startswith("pretrain.tokens: ")


def test_fractions_of_a_budget() -> None:
    assert of_budget(0.25, 1000, "key") == 250
    assert of_budget("0.5", 1000, "key") == 500
    assert of_budget(0, 1000, "key") == 0
    assert of_budget(30, 1000, "key") == 30
    assert of_budget("2K", 1000, "key") == 2000


def test_the_default_recipe_holds_together() -> None:
    check_recipe(Recipe())


def test_a_recipe_from_file_and_words(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: 苗-1\npretrain: {tokens: 8M}\nmodel: {qk_norm: false}\n", encoding="utf-8"
    )
    words = ["--pretrain.tokens", "2M", "--corpus.paths", "a.txt", "b.jsonl", "--sft.epochs", "2"]
    recipe = load_recipe(path, words)
    assert recipe.pretrain.tokens == "2M"
    assert recipe.corpus.paths == ["a.txt", "b.jsonl"]
    assert (recipe.sft.epochs, recipe.dpo.epochs) == (2.0, 1.0)
    assert recipe.run_dir == Path("runs/苗-1")
    assert (recipe.model.qk_norm, recipe.model.hidden_size) == (False, 256)
    assert to_dict(recipe)["pretrain"]["tokens"] == "2M"


def test_a_resolved_recipe_loads_as_itself(tmp_path: Path) -> None:
    import yaml

    recipe = load_recipe(None, ["--seed", "7", "--corpus.weights", "{a b: 2}"])
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(to_dict(recipe), allow_unicode=True), encoding="utf-8")
    assert load_recipe(path) == recipe


def test_all_problems_are_said_at_once() -> None:
    words = {
        "name": "a/b",
        "corpus.heldout": "0.7",
        "corpus.seedbed.characters": "lots",
        "evaluate.heldout_tokens": "few",
        "model.num_key_value_heads": "3",
        "pretrain.tokens": "many",
        "pretrain.warmup": "slow",
        "pretrain.seq_len": "4096",
        "pretrain.log_every": "0",
        "sft.epochs": "0",
        "sft.adam_betas": "0.9",
        "dpo.batch_tokens": "10",
        "dpo.tokens": "5M",
    }
    with pytest.raises(MiaoError) as caught:
        load_recipe(None, [word for key, value in words.items() for word in (f"--{key}", value)])
    message = str(caught.value)
    for key in words:
        place = "dpo: give exactly one" if key == "dpo.tokens" else f"  - {key}: "
        assert place in message, key
    assert "pretrain.tokens: 'many' is not a quantity -> write 4000000, 4M" in message


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--name", ".."], "name: letters, digits"),
        (["--model.hidden_size", "0"], "model.hidden_size: must be positive"),
        (["--model.num_attention_heads", "3"], "not a multiple of num_attention_heads 3"),
        (["--model.head_dim", "31"], "model.head_dim: 31 is odd"),
        (["--model.hidden_size", "60"], "model.head_dim: 15 is odd"),
        (["--pretrain.tokens", "null"], "pretrain: give exactly one of tokens, epochs and"),
        (["--pretrain.epochs", "1"], "pretrain: give exactly one of tokens, epochs and"),
        (["--sft.seq_len", "4"], "sft.seq_len: at least 8"),
        (["--sft.seq_len", "513"], "above the model's max_position_embeddings 512"),
        (["--sft.micro_batch", "0"], "sft.micro_batch: positive"),
        (["--dpo.learning_rate", "-1"], "dpo.learning_rate: must not be negative"),
        (["--dpo.grad_clip", "-1"], "dpo.grad_clip: must not be negative"),
        (["--dpo.keep_last", "0"], "dpo.keep_last: must be positive"),
        (["--corpus.heldout_max", "-1"], "corpus.heldout_max: must not be negative"),
        (["--corpus.weights", "{a: -1}"], "corpus.weights: must not be negative"),
        (["--tokenizer.sample", "-1"], "tokenizer.sample: "),
        (["--sft.schedule", "cosin"], "must be wsd, cosine, linear or constant, not 'cosin'"),
        (["--pretrain.precision", "fp8"], "must be auto, fp32, bf16 or fp16, not 'fp8'"),
        (["--pretrain.lerning_rate", "1"], "did you mean 'pretrain.learning_rate'?"),
    ],
)
def test_single_problems(words: list[str], said: str) -> None:
    with pytest.raises(MiaoError) as caught:
        load_recipe(None, words)
    assert said in str(caught.value)


def test_a_stage_may_be_measured_in_epochs_or_in_tokens() -> None:
    recipe = load_recipe(None, ["--pretrain.tokens", "null", "--pretrain.epochs", "2"])
    assert (recipe.pretrain.tokens, recipe.pretrain.epochs) == (None, 2.0)
    recipe = load_recipe(None, ["--sft.tokens", "1M", "--sft.epochs", "null"])
    assert (recipe.sft.tokens, recipe.sft.epochs) == ("1M", None)


def test_every_option_has_its_line_of_documentation() -> None:
    """`miao run --help` shows them; a recipe of ours comments them."""
    from miao.options import make_parser

    text = make_parser(Recipe).format_help()
    for group in dataclasses.fields(Recipe):
        assert f"--{group.name}" in text or f".{group.name}" in text, group.name
    undocumented = [
        action.dest
        for action in make_parser(Recipe)._actions
        if action.option_strings and not (action.help or "").strip()
    ]
    assert [dest for dest in undocumented if not dest.endswith("help")] == []


def test_which_recipe_a_word_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the user's own before the one of that name that comes with Miao."""
    monkeypatch.chdir(tmp_path)
    shipped = SHIPPED / "seedling.yaml"
    assert find_recipe("seedling") == find_recipe("recipes/seedling.yaml") == shipped
    assert find_recipe("buddy-0.3b") == SHIPPED / "buddy-0.3b.yaml"
    Path("seedling").mkdir()
    assert find_recipe("seedling") == shipped
    for word in ("seedling.yaml", "elsewhere/seedling.yaml", str(tmp_path / "seedling.yaml")):
        with pytest.raises(MiaoError, match="did you mean 'seedling'"):
            load_recipe(word)
    Path("seedling.yaml").write_text("name: mine\n")
    assert load_recipe("seedling").name == load_recipe("seedling.yaml").name == "mine"
    Path("recipes").mkdir()
    Path("recipes/seedling.yaml").write_text("name: other\n")
    assert load_recipe("recipes/seedling.yaml").name == "other"


def test_a_missing_recipe_names_what_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(word: str) -> str:
        with pytest.raises(MiaoError, match="there is no such recipe") as caught:
            load_recipe(word)
        return str(caught.value)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "seedling-2.yaml").touch()
    assert "did you mean 'recipes/seedling-2.yaml'?" in said("recipes/seedlign-2.yaml")
    assert "did you mean 'seedling'?" in said("recipes/seedlign.yaml")
    (tmp_path / "mine.yaml").touch()
    assert "did you mean 'mine.yaml'?" in said("mein.yaml")
    assert "recipes here: mine.yaml; `miao recipe` lists those" in said("nothing")


def test_a_run_may_have_a_chinese_name() -> None:
    assert load_recipe("smoke", ["--name", "小苗-1"]).run_dir == Path("runs/小苗-1")
    with pytest.raises(MiaoError, match="of any script"):
        load_recipe("smoke", ["--name", "小/苗"])
