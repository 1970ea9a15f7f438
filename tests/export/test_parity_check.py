"""The check after an export: it passes every architecture, and notices whatever differs.

`bash scripts/check_transformers4.sh` runs this file with transformers 4.57 as well. `-s` shows what
was measured.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from miao.errors import MiaoError
from miao.export.huggingface import Exported, write_huggingface
from miao.export.parity.__main__ import main
from miao.export.parity.compare import (
    Finding,
    compare_answers,
    compare_encodings,
    compare_logits,
    print_findings,
    require_passed,
)
from miao.export.parity.in_transformers import check_with_transformers, transformers_version
from miao.export.parity.reference import LONGEST, Answer, Reference, make_reference
from miao.model import Decoder, save_model
from miao.tokenizer import Tokenizer
from tests.model.shapes import EXPERTS, LATENT, SIGMOID

SHAPE = {"vocab_size": 384, "max_position_embeddings": 128}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"qk_norm": False},
    "qwen2": {"qk_norm": False, "attention_bias": True, "head_dim": 8},
    "qwen3": {},
    "qwen3_moe": EXPERTS,
    "dots1": SIGMOID,
    "deepseek_v3 dense": LATENT,
    "deepseek_v3 experts": LATENT | SIGMOID,
}
ROPES: dict[str, dict[str, Any]] = {
    "plain": {"rope_theta": 500_000.0},
    "linear": {"rope_scaling": {"rope_type": "linear", "factor": 3.0}},
    "dynamic": {
        "rope_scaling": {"rope_type": "dynamic", "factor": 4.0},
        "max_position_embeddings": 64,
    },
    "yarn": {
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    },
}
# All pairs take half a minute: the script does that, otherwise each kind and each rope counts.
ALL = "MIAO_ALL_PARITY" in os.environ
PAIRS = [
    (kind, rope)
    for kind in ARCHITECTURES
    for rope in ROPES
    if ALL or rope == "plain" or kind in ("qwen3", "deepseek_v3 experts")
]
Make = Callable[..., Decoder]


@pytest.fixture(scope="session")
def make_export(
    make_model: Make, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Path, Exported]]:
    """A random model, written as `miao export` does."""

    def make(dtype: str = "float32", **changes: Any) -> tuple[Path, Exported]:
        place = tmp_path_factory.mktemp("export")
        model = make_model(**SHAPE | {"eos_token_id": tokenizer.end_of_turn_id} | changes)
        save_model(model, place / "model")
        tokenizer.save(place / "model")
        (place / "hf").mkdir()
        return place / "hf", write_huggingface(place / "model", place / "hf", dtype)

    return make


@pytest.fixture(scope="session")
def exported(make_export: Callable[..., tuple[Path, Exported]]) -> tuple[Path, Reference]:
    directory, made = make_export("bfloat16")
    return directory, make_reference(made.model, made.tokenizer)


@pytest.mark.parametrize(("kind", "rope"), PAIRS)
def test_every_architecture_computes_the_same_in_transformers(
    make_export: Callable[..., tuple[Path, Exported]], kind: str, rope: str
) -> None:
    directory, made = make_export(**ARCHITECTURES[kind] | ROPES[rope])
    reference = make_reference(made.model, made.tokenizer)
    assert len(reference.ids) > 64, "scaled positions would not show"
    findings = {f.what: f for f in check_with_transformers(directory, reference)}
    difference = findings["logits"].measured if "logits" in findings else ""
    ids = findings["token ids"].measured
    print(f"\n  {transformers_version()} | {kind} | {rope} | {difference} | ids {ids}")
    assert [finding for finding in findings.values() if not finding.passed] == []
    assert len(findings) == 8
    assert float(reference.logits_tv.std()) > 0.3, "nearly constant logits compare nothing"


def test_a_tokenizer_that_normalises_passes(
    make_export: Callable[..., tuple[Path, Exported]],
) -> None:
    """As Qwen's own does."""
    directory, made = make_export()
    file = directory / "tokenizer.json"
    spec = json.loads(file.read_text(encoding="utf-8")) | {"normalizer": {"type": "NFC"}}
    file.write_text(json.dumps(spec), encoding="utf-8")
    reference = make_reference(made.model, Tokenizer.from_directory(directory))
    assert any(text != again for text, again in reference.decodings.items())
    assert differing(directory, reference) == []


def damaged(exported: tuple[Path, Reference], target: Path) -> Path:
    return Path(shutil.copytree(exported[0], target / "damaged"))


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def differing(directory: Path, reference: Reference) -> list[str]:
    return [f.what for f in check_with_transformers(directory, reference) if not f.passed]


def test_the_weights_of_the_right_type_pass(exported: tuple[Path, Reference]) -> None:
    directory, reference = exported
    assert differing(directory, reference) == []


def test_another_rope_base_is_noticed(exported: tuple[Path, Reference], tmp_path: Path) -> None:
    directory = damaged(exported, tmp_path)
    rope = {"rope_type": "default", "rope_theta": 30_000.0}
    edit(directory / "config.json", rope_theta=30_000.0, rope_parameters=rope)
    assert "logits" in differing(directory, exported[1])


def test_a_changed_weight_is_noticed(exported: tuple[Path, Reference], tmp_path: Path) -> None:
    directory = damaged(exported, tmp_path)
    weights = load_file(directory / "model.safetensors")
    weights["model.layers.1.self_attn.k_norm.weight"][3] += 0.5
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    assert "logits" in differing(directory, exported[1])


def test_a_missing_weight_is_noticed(exported: tuple[Path, Reference], tmp_path: Path) -> None:
    directory = damaged(exported, tmp_path)
    weights = load_file(directory / "model.safetensors")
    del weights["model.layers.1.self_attn.k_norm.weight"]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    (weights,) = [f for f in check_with_transformers(directory, exported[1]) if f.what == "weights"]
    assert not weights.passed
    assert "k_norm" in weights.measured


def test_a_forgotten_stop_token_is_noticed(
    exported: tuple[Path, Reference], tmp_path: Path
) -> None:
    directory = damaged(exported, tmp_path)
    edit(directory / "generation_config.json", eos_token_id=2)
    assert differing(directory, exported[1]) == ["stop tokens"]
    foreign = check_with_transformers(directory, exported[1], own=False)
    (found,) = (finding for finding in foreign if finding.what == "stop tokens")
    assert found.passed and "Miao also stops at [0]" in found.measured


def test_another_chat_template_is_noticed(exported: tuple[Path, Reference], tmp_path: Path) -> None:
    directory = damaged(exported, tmp_path)
    file = directory / "tokenizer_config.json"
    template = json.loads(file.read_text())["chat_template"]
    edit(file, chat_template=template.replace("assistant\\n", "assistant: "))
    assert differing(directory, exported[1]) == ["chat template"]


def test_another_tokenizer_is_noticed(exported: tuple[Path, Reference], tmp_path: Path) -> None:
    directory = damaged(exported, tmp_path)
    file = directory / "tokenizer.json"
    spec = json.loads(file.read_text())
    spec["model"]["merges"] = spec["model"]["merges"][:20]
    file.write_text(json.dumps(spec))
    assert "token ids" in differing(directory, exported[1])


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_what_cannot_be_loaded_is_a_finding(
    exported: tuple[Path, Reference], tmp_path: Path, file: str
) -> None:
    directory = damaged(exported, tmp_path)
    (directory / file).write_text("{")
    findings = check_with_transformers(directory, exported[1])
    with pytest.raises(MiaoError, match="cannot be loaded"):
        require_passed(findings, directory, "transformers")


def test_what_differs_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    findings = [Finding("logits", "differ by 3", False), Finding("token ids", "all", True)]
    print_findings("compared", findings)
    assert "DIFFERS" in capsys.readouterr().out
    with pytest.raises(MiaoError, match=r"logits \(differ by 3\)") as caught:
        require_passed(findings, Path("there"), "transformers 5")
    assert "token ids" not in str(caught.value)
    require_passed(findings[1:], Path("there"), "transformers 5")


def test_normalising_is_excused_only_where_it_is_known() -> None:
    reference = replace(reference_with([], []), encodings={"e\u0301": [1, 2], "x": [3]}, answers=[])

    def normalising(text: str) -> list[int]:
        return {"e\u0301": [9], "é": [9], "x": [3]}[text]

    known, _ = compare_encodings(reference, normalising, may_normalise=True)
    assert known.passed
    assert "1 normalised" in known.measured
    assert not next(compare_encodings(reference, normalising)).passed
    broken = {"e\u0301": [7], "é": [9], "x": [3]}
    assert not next(compare_encodings(reference, broken.__getitem__, may_normalise=True)).passed
    ours = replace(reference, encodings={"e\u0301": [9], "x": [3]})  # normalised here, not there
    assert next(compare_encodings(ours, broken.__getitem__, may_normalise=True)).passed


def reference_with(answer: list[int], gaps: list[float]) -> Reference:
    logits_tv = np.array([[1.0, -8.0], [0.5, 2.0]], dtype=np.float32)
    return Reference(
        [0, 1], logits_tv, {}, {}, {}, [Answer(None, "x", [0], answer, "", gaps)], stop_ids=[1]
    )


def test_logits_are_compared_in_proportion_to_the_largest() -> None:
    reference = reference_with([], [])
    close = reference.logits_tv + np.float32(7e-4)
    assert compare_logits(reference, close).passed  # 1e-4 of 8
    assert not compare_logits(reference, reference.logits_tv + np.float32(9e-4)).passed
    assert not compare_logits(reference, reference.logits_tv * np.float32(np.nan)).passed
    assert not compare_logits(reference, reference.logits_tv[:1]).passed


def test_answers_may_part_at_a_tie_only() -> None:
    reference = reference_with([5, 6, 7], [2.0, 1e-5, 2.0])
    verdicts = {
        "same": compare_answers(reference, lambda answer: [5, 6, 7]),
        "tie": compare_answers(reference, lambda answer: [5, 9, 9]),
        "other": compare_answers(reference, lambda answer: [5, 6, 9]),
        "shorter": compare_answers(reference, lambda answer: [5, 6]),
        "longer": compare_answers(reference, lambda answer: [5, 6, 7, 8]),
    }
    passed = {name for name, finding in verdicts.items() if finding.passed}
    assert passed == {"same", "tie"}
    assert "1 part at a tie" in verdicts["tie"].measured


def test_answers_include_the_token_that_ended_them(
    make_export: Callable[..., tuple[Path, Exported]],
) -> None:
    directory, made = make_export()
    start = make_reference(made.model, made.tokenizer).answers[0]
    tokenizer = replace_stops(made.tokenizer, start.ids[3])
    reference = make_reference(made.model, tokenizer)
    (answer, *_) = reference.answers
    assert answer.ids == start.ids[: start.ids.index(start.ids[3]) + 1]
    assert len(answer.gaps) == len(answer.ids)
    edit(directory / "generation_config.json", eos_token_id=list(tokenizer.stop_ids))
    assert differing(directory, reference) == []


def replace_stops(tokenizer: Tokenizer, stop: int) -> Tokenizer:
    backend, config, _ = tokenizer.__reduce__()[1]
    return Tokenizer(backend, config, stop_ids=[stop])


def test_a_reference_survives_its_file(exported: tuple[Path, Reference], tmp_path: Path) -> None:
    reference = exported[1]
    reference.save(tmp_path / "reference.json")
    loaded = Reference.load(tmp_path / "reference.json")
    assert np.array_equal(loaded.logits_tv, reference.logits_tv)
    assert replace(loaded, logits_tv=reference.logits_tv) == reference
    assert len(reference.ids) <= LONGEST
    (tmp_path / "other.json").write_text('{"ids": [1]}')
    with pytest.raises(MiaoError, match="not a reference"):
        Reference.load(tmp_path / "other.json")


def test_the_command_line_compares_with_a_written_reference(
    exported: tuple[Path, Reference], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "reference.json"
    assert main([str(exported[0]), "--write", str(file)]) == 0
    assert main([str(exported[0]), "--reference", str(file)]) == 0
    directory = damaged(exported, tmp_path)
    edit(directory / "generation_config.json", eos_token_id=1)
    assert main([str(directory), "--reference", str(file)]) == 2
    assert "stop tokens" in capsys.readouterr().err


def test_comparing_elsewhere_needs_nothing_that_computes_here() -> None:
    """`--reference` runs in the environment of another program."""
    code = (
        "import sys, miao.export.parity.__main__; "
        "print([m for m in ('torch', 'tokenizers', 'miao.model') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
