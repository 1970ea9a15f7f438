"""The model card: facts of a run as they stand in its files, and what is unknown called so."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from miao.export.card import Card, card_metadata, card_text, read_facts
from miao.export.parity.compare import Finding
from miao.model import Decoder, ModelConfig, count_parameters, save_model
from miao.rundir import RunDir
from tests.model.shapes import LATENT, SIGMOID

RECIPE: dict[str, Any] = {
    "name": "sprout",
    "out_dir": "/home/someone/runs",
    "corpus": {"paths": ["/home/someone/texts", "C:\\texts\\mine.txt", "more/*.txt"]},
    "model": {"path": None},
    "pretrain": {"seq_len": 32, "learning_rate": 0.003, "batch_tokens": "4K"},
    "sft": {"seq_len": 48, "learning_rate": 0.001, "replay": 0.2},
    "dpo": {"seq_len": 48, "beta": 0.2},
}
COUNTS = {"train": 1234, "heldout": 56, "heldout_duplicates": 0, "characters": 78_900}


def score(task: str, category: str, value: float, stderr: float | None, **more: Any) -> Any:
    record = {"task": task, "category": category, "count": 400, "value": value, "stderr": stderr}
    return record | {"chance": None, "unit": "accuracy"} | more


@pytest.fixture
def run(tmp_path: Path, make_model: Callable[..., Decoder]) -> RunDir:
    """A finished run as far as a card reads it."""
    run = RunDir(tmp_path / "sprout")
    write(run.path / "recipe.yaml", yaml.safe_dump(RECIPE))
    write(
        run.path / "manifest.json", {"miao": "0.1.0", "commit": "abc", "packages": {"torch": "2"}}
    )
    sources = {
        "pretrain": {"my|stories": COUNTS},
        "sft": {"chats": COUNTS},
        "dpo": {"pairs": COUNTS},
    }
    origin = {"pretrain": "files", "sft": "seedbed", "dpo": "seedbed"}
    write(run.corpus / "manifest.json", {"origin": origin, "sources": sources})
    for stage in ("pretrain", "sft", "dpo"):
        result = {"tokens": 1_500_000, "steps": 300, "seconds": 65.0, "loss": 1.2345}
        write(run.checkpoints(stage) / "result.json", result)
        save_model(make_model(), run.model(stage))
    shards = {"shards": [{"tokens": 2000}, {"tokens": 1000}]}
    write(run.shards("sft", "train") / "chats" / "manifest.json", shards)
    choice = score("multiple choice", "all", 0.5, 0.025, chance=0.25)
    bits = score("bits per byte", "my|stories", 1.5, 0.02, unit="bits")
    reward = score("preference (reward)", "all", 0.875, None, chance=0.5)
    new = score("a new measure", "all", 0.125, None)
    lines = [
        {"stage": "pretrain", "scores": [choice, bits]},
        {"stage": "sft", "scores": [choice | {"value": 0.625}, new]},
        {"stage": "dpo", "scores": [reward]},
    ]
    write(run.eval_results, "\n".join(map(json.dumps, lines)))
    return run


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def config(make_model: Callable[..., Decoder], **changes: Any) -> ModelConfig:
    return make_model(**changes).config


def card(config: ModelConfig, **changes: Any) -> Card:
    fields: dict[str, Any] = {
        "name": "sprout",
        "config": config,
        "stage": "dpo",
        "facts": None,
        "license": "apache-2.0",
        "languages": ["zh", "en"],
        "has_template": True,
        "dtype": "bfloat16",
    }
    return Card(**fields | changes)


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without the lines that make it a table."""
    section = text.split(f"## {heading}")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return [[cell.strip() for cell in row] for row in cells if not set("".join(row)) <= set("-: ")]


def test_the_metadata_is_what_hubs_read(make_model: Callable[..., Decoder], tmp_path: Path) -> None:
    text = card_text(card(config(make_model), license="mit", base_hub="owner/base"))
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert metadata == {
        "license": "mit",
        "language": ["zh", "en"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "model_name": "sprout",
        "tags": ["miao", "qwen3", "conversational"],
        "base_model": "owner/base",
    }
    (tmp_path / "README.md").write_text(text)
    assert card_metadata(tmp_path) == metadata
    assert card_metadata(tmp_path / "nowhere") == {}


def test_the_data_stands_in_the_card(run: RunDir, make_model: Callable[..., Decoder]) -> None:
    text = card_text(card(config(make_model), facts=read_facts(run, "dpo")))
    _, documents, chats, _ = rows(text, "Data")
    assert documents[1:] == ["my\\|stories", documents[2], "1,234", "56", "78.9K", "–"]
    assert "author's files" in documents[2]
    assert "built-in generator" in chats[2]
    assert chats[-1] == "3.0K"


def test_the_training_stands_in_the_card(run: RunDir, make_model: Callable[..., Decoder]) -> None:
    text = card_text(card(config(make_model), facts=read_facts(run, "dpo")))
    _, pretrain, sft, dpo = rows(text, "Training")
    assert pretrain[1:5] == ["1.5M", "300", "1:05", "1.234"]
    assert pretrain[5] == "seq_len 32, batch_tokens 4K, learning_rate 0.003"
    assert sft[5].endswith("replay 0.2")
    assert dpo[5].endswith("beta 0.2")
    assert "torch 2" in text
    assert "at most 48 tokens; longer contexts, up to 64, are untested" in text
    assert "4.5M tokens read" in text


def test_the_scores_stand_beside_their_error_and_chance(
    run: RunDir, make_model: Callable[..., Decoder]
) -> None:
    text = card_text(card(config(make_model), facts=read_facts(run, "dpo")))
    head, bits, choice, reward, new = rows(text, "Scores")
    assert len(head) == 7
    assert bits[1:] == ["my\\|stories", "400", "1.500 ± 0.020", "–", "–", "–"]
    assert choice[1:] == ["all", "400", "50.0 % ± 2.5 %", "62.5 % ± 2.5 %", "–", "25.0 %"]
    assert reward[1:] == ["all", "400", "–", "–", "87.5 %", "50.0 %"]
    assert new[0] == "a new measure"


def test_an_earlier_stage_knows_nothing_of_later_ones(
    run: RunDir, make_model: Callable[..., Decoder]
) -> None:
    facts = read_facts(run, "sft")
    text = card_text(card(config(make_model), facts=facts, stage="sft"))
    assert len(rows(text, "Training")) == 3
    assert len(rows(text, "Data")) == 3
    assert len(rows(text, "Scores")[0]) == 6
    assert "pairs" not in text
    assert "after SFT" in text


def test_a_generated_corpus_is_called_a_limit(
    run: RunDir, make_model: Callable[..., Decoder]
) -> None:
    mine = card_text(card(config(make_model), facts=read_facts(run, "dpo")))
    manifest = json.loads((run.corpus / "manifest.json").read_text())
    manifest["origin"]["pretrain"] = "seedbed"
    write(run.corpus / "manifest.json", manifest)
    generated = card_text(card(config(make_model), facts=read_facts(run, "dpo")))
    assert "not been measured on public benchmarks" in generated
    assert "not been measured on public benchmarks" not in mine


def test_folders_of_the_machine_stay_private(
    run: RunDir, make_model: Callable[..., Decoder]
) -> None:
    text = card_text(card(config(make_model), facts=read_facts(run, "dpo")))
    assert "someone" not in text
    assert "C:\\" not in text
    recipe = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert recipe["corpus"]["paths"] == ["texts", "mine.txt", "more/*.txt"]
    assert recipe["sft"] == RECIPE["sft"]


@pytest.mark.parametrize("base", ["hf:owner/base", "/home/someone/base"])
def test_a_base_model_is_named(run: RunDir, make_model: Callable[..., Decoder], base: str) -> None:
    write(run.path / "recipe.yaml", yaml.safe_dump(RECIPE | {"model": {"path": base}}))
    facts = read_facts(run, "dpo")
    text = card_text(card(config(make_model), facts=facts))
    shown = base.removeprefix("/home/someone/")
    assert f"from {shown}" in text
    assert "random weights" not in text
    assert f"What {shown} had read before is not counted" in text


def test_without_a_run_what_is_unknown_is_called_so(make_model: Callable[..., Decoder]) -> None:
    text = card_text(card(config(make_model), stage=None, languages=[], license="unknown"))
    assert text.count("Unknown: there is no record of it.") == 2
    assert "None are known." in text
    assert "grown with" not in text
    assert "random weights" not in text
    assert "language" not in yaml.safe_load(text.split("---\n")[1])


def test_a_run_of_which_little_is_left_still_has_a_card(
    tmp_path: Path, make_model: Callable[..., Decoder]
) -> None:
    save_model(make_model(), tmp_path / "models" / "sft")
    text = card_text(card(config(make_model), facts=read_facts(RunDir(tmp_path), "sft")))
    assert "None are known." in text
    assert rows(text, "Training")[1][1:] == ["–", "–", "–", "–", "–"]


def test_the_architecture_is_counted(make_model: Callable[..., Decoder]) -> None:
    mixture = config(make_model, **LATENT | SIGMOID)
    text = card_text(card(mixture))
    counted = count_parameters(mixture)
    assert f"({counted.total:,})" in text
    assert "of them active for each token" in text
    table = dict(row for row in rows(text, "Architecture") if row[0])
    assert table["experts 专家"] == "2 of 6 + 2 shared"
    assert "latent attention of rank 20" in table["attention heads 注意力头"]


def test_gguf_files_and_checks_are_listed(make_model: Callable[..., Decoder]) -> None:
    findings = [Finding("logits", "differ by at most 1e-6", True)]
    made = card(config(make_model), files=["s-F16.gguf", "s-Q8_0.gguf"], findings=findings)
    text = card_text(made)
    assert yaml.safe_load(text.split("---\n")[1])["library_name"] == "gguf"
    assert "ollama create sprout -f Modelfile" in text
    assert "- `s-Q8_0.gguf`" in text
    assert ["logits", "differ by at most 1e-6"] in rows(text, "Checked")
    assert "from_pretrained" not in text


@pytest.mark.parametrize("files", [[], ["s.gguf"]])
@pytest.mark.parametrize("has_template", [True, False])
def test_the_markdown_is_well_formed(
    run: RunDir, make_model: Callable[..., Decoder], files: list[str], has_template: bool
) -> None:
    changes: dict[str, Any] = {"files": files, "has_template": has_template, "adapter": "mine"}
    for facts in (None, read_facts(run, "dpo")):
        text = card_text(card(config(make_model), facts=facts, **changes))
        assert text.count("```") % 2 == 0
        assert "\n\n\n" not in text
        assert "{{" not in text
        assert "{%" not in text
        for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            widths = {len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()}
            assert len(widths) == 1, table
        assert "mine is merged" in text
