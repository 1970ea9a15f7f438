"""`miao export` from end to end on tiny models: what it writes, what it refuses, what it keeps."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from miao.commands import export as command
from miao.commands.export import MARK, main
from miao.errors import MiaoError
from miao.export import card, huggingface, ollama
from miao.export.gguf import in_llama_cpp as parity_llama_cpp
from miao.export.parity import in_transformers as parity
from miao.model import Decoder, load_model, save_model
from miao.tokenizer import Tokenizer
from tests.export.adapters import ids_bt, make_adapter

SHAPE = {"vocab_size": 384, "max_position_embeddings": 128, "eos_token_id": 2}


@pytest.fixture
def run(make_model: Callable[..., Decoder], tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """A run directory with two stages."""
    run = tmp_path / "runs" / "sprout"
    for seed, stage in enumerate(("pretrain", "sft")):
        save_model(make_model(seed, **SHAPE), run / "models" / stage)
        tokenizer.save(run / "models" / stage)
    shutil.copytree(run / "models" / "sft", run / "model")
    (run / "stages.json").write_text("{}")
    (run / "recipe.yaml").write_text(yaml.safe_dump({"name": "sprout", "sft": {"seq_len": 64}}))
    return run


def metadata(directory: Path) -> dict[str, Any]:
    return yaml.safe_load((directory / "README.md").read_text().split("---\n")[1])


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def test_a_run_becomes_a_directory_that_chats_in_transformers(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run), "--to", "hf"]) == 0
    out = run / "export" / "hf"
    said = capsys.readouterr().out
    assert "5 of 5 equal" in said
    assert "DIFFERS" not in said
    assert {file.name for file in out.iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json", "README.md", MARK),
    }
    assert {value.dtype for value in weights(out).values()} == {torch.bfloat16}
    assert "all 6 conversations rendered alike" in (out / "README.md").read_text()
    mark = json.loads((out / MARK).read_text())
    assert (mark["model"], mark["stage"], mark["dtype"]) == ("sprout", "sft", "bfloat16")
    model, tokenizer = (kind.from_pretrained(out) for kind in (AutoModelForCausalLM, AutoTokenizer))
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "你好"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    answer = model.generate(**prompt, max_new_tokens=4)
    assert answer.shape[1] > prompt["input_ids"].shape[1]


def test_nobody_licenses_the_texts_of_others(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "corpus").mkdir()

    def license_of(recipe: dict[str, Any], **origin: str) -> tuple[str, int]:
        (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        (run / "corpus" / "manifest.json").write_text(json.dumps({"origin": origin}))
        main([str(run), "--to", "hf", "--no-check"])
        license = metadata(run / "export" / "hf")["license"]
        return license, capsys.readouterr().out.count("no licence given: --license NAME")

    assert license_of({}, pretrain="seedbed", sft="seedbed") == ("apache-2.0", 0)
    assert license_of({}, pretrain="files", sft="seedbed") == ("unknown", 1)
    assert license_of({"model": {"path": "x"}}, pretrain="seedbed", sft="seedbed")[0] == "unknown"


def test_a_second_export_takes_the_place_of_the_first(run: Path) -> None:
    main([str(run), "--to", "hf", "--no-check"])
    out = run / "export" / "hf"
    (out / "stale").write_text("")
    main([str(run), "--to", "hf", "--no-check", "--dtype", "float32", "--license", "mit"])
    assert not (out / "stale").exists()
    assert {value.dtype for value in weights(out).values()} == {torch.float32}
    assert metadata(out)["license"] == "mit"
    assert [path.name for path in out.parent.iterdir()] == ["hf"]


def test_a_stage_has_its_own_place(run: Path) -> None:
    main([str(run), "--to", "hf", "--stage", "pretrain", "--dtype", "float32", "--no-check"])
    written = weights(run / "export" / "hf-pretrain")
    truth = weights(run / "models" / "pretrain")
    assert all(torch.equal(written[name], value) for name, value in truth.items())
    with pytest.raises(MiaoError, match="no model of the stage dpo") as caught:
        main([str(run), "--to", "hf", "--stage", "dpo"])
    assert "pretrain, sft" in str(caught.value)


def test_a_model_directory_finds_its_run(run: Path) -> None:
    main([str(run / "models" / "pretrain"), "--to", "hf", "--no-check"])
    mark = json.loads((run / "export" / "hf" / MARK).read_text())
    assert (mark["model"], mark["stage"]) == ("sprout", "pretrain")
    shutil.copytree(run / "models" / "pretrain", run / "models" / "dpo")  # later, and not copied
    main([str(run / "model"), "--to", "hf", "--no-check"])
    mark = json.loads((run / "export" / "hf" / MARK).read_text())
    assert (mark["model"], mark["stage"]) == ("sprout", "sft")


def test_a_model_without_a_run_claims_nothing(run: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(run / "model", tmp_path / "bare"))
    main([str(bare), "--to", "hf", "--no-check"])
    out = tmp_path / "bare-hf"
    assert metadata(out)["license"] == "unknown"
    assert "Unknown: there is no record" in (out / "README.md").read_text()
    (bare / "README.md").write_text("---\nlicense: mit\nlanguage: zh\n---\n# Bare\n")
    main([str(bare), "--to", "hf", "--no-check"])
    assert (metadata(out)["license"], metadata(out)["language"]) == ("mit", ["zh"])


def test_a_model_from_a_hub_is_named_as_the_base(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("miao.rundir.download_model", lambda name: run / "model")
    main(["hf:owner/small@main", "--to", "hf", "--no-check"])
    assert metadata(tmp_path / "export" / "small" / "hf")["base_model"] == "owner/small"


def test_what_is_not_an_export_is_never_replaced(run: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(MiaoError, match="not an earlier export"):
        main([str(run), "--to", "hf", "--out", str(precious), "--no-check"])
    with pytest.raises(MiaoError, match="this is a file"):
        main([str(run), "--to", "hf", "--out", str(precious / "thesis.txt"), "--no-check"])
    for out in (run / "model", run, run / "model" / "hf"):
        with pytest.raises(MiaoError, match="overwrite the model"):
            main([str(run), "--to", "hf", "--out", str(out), "--no-check"])
    assert (precious / "thesis.txt").read_text() == "years of work"
    assert load_model(run / "model")


def test_a_failed_check_keeps_the_export_before_and_says_so(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(run), "--to", "hf", "--dtype", "float32"])
    save = huggingface.save_model

    def wrong(model: Decoder, *arguments: Any) -> None:
        damaged = Decoder(model.config)
        damaged.load_state_dict(model.state_dict())
        damaged.model.layers[1].mlp.up_proj.weight.data[0] += 1
        save(damaged, *arguments)

    monkeypatch.setattr(huggingface, "save_model", wrong)
    with pytest.raises(MiaoError, match=r"not the same: logits \(differ by") as caught:
        main([str(run), "--to", "hf"])
    assert "DIFFERS" in capsys.readouterr().out
    assert caught.value.where == str(run / "export" / "hf.failed")
    assert {path.name for path in (run / "export").iterdir()} == {"hf", "hf.failed"}
    assert {value.dtype for value in weights(run / "export" / "hf").values()} == {torch.float32}


def test_it_is_said_when_nothing_was_checked(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(run), "--to", "hf", "--no-check"])
    assert "not checked: --no-check" in capsys.readouterr().out
    monkeypatch.setattr(parity, "transformers_version", lambda: None)
    main([str(run), "--to", "hf"])
    assert "not checked: transformers is not installed" in capsys.readouterr().out
    assert "Checked at export" not in (run / "export" / "hf" / "README.md").read_text()
    monkeypatch.setattr(parity_llama_cpp, "has_llama_cpp", lambda: False)
    main([str(run), "--to", "gguf"])
    assert "pip install llama-cpp-python" in capsys.readouterr().out


def test_gguf_files_come_with_a_modelfile_and_a_card(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parity_llama_cpp, "has_llama_cpp", lambda: False)
    assert main([str(run), "--to", "gguf", "--quantize", "q8_0", "f32", "--license", "mit"]) == 0
    out = run / "export" / "gguf"
    assert {file.name for file in out.iterdir()} == {
        *("sprout-Q8_0.gguf", "sprout-F32.gguf", "Modelfile", "Modelfile.f32", "README.md", MARK),
    }
    assert "FROM ./sprout-Q8_0.gguf" in (out / "Modelfile").read_text()
    assert "FROM ./sprout-F32.gguf" in (out / "Modelfile.f32").read_text()
    fields = gguf.GGUFReader(out / "sprout-F32.gguf").fields
    assert fields["general.license"].contents() == "mit"
    assert fields["general.name"].contents() == "sprout"
    assert fields["general.languages"].contents() == ["zh", "en"]
    assert metadata(out)["library_name"] == "gguf"
    assert os.listdir(run / "export") == ["gguf"], "nothing temporary is left"
    assert f"ollama create sprout -f {out / 'Modelfile'}" in capsys.readouterr().out
    assert "ollama create sprout -f Modelfile && ollama run sprout" in (
        (out / "README.md").read_text(encoding="utf-8")
    )


def test_nothing_that_stands_beside_the_gguf_takes_it_away(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parity_llama_cpp, "has_llama_cpp", lambda: True)

    def broken(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(parity_llama_cpp, "check_with_llama_cpp", broken)
    monkeypatch.setattr(ollama, "_template", broken)
    monkeypatch.setattr(card, "card_text", broken)
    (run / "manifest.json").write_text("{")
    (run / "model" / "README.md").write_text("---\nlicense: [mit\n---\n")
    assert main([str(run), "--to", "gguf", "--quantize", "f16", "q8_0"]) == 0
    out = run / "export" / "gguf"
    assert {file.name for file in out.iterdir()} == {"sprout-F16.gguf", "sprout-Q8_0.gguf", MARK}
    said = capsys.readouterr().out
    for what in (
        "the model card",
        "the run's part of the model card",
        "Modelfile",
        "Modelfile.q8_0",
    ):
        assert f"! {what} could not be made" in said
    assert "the comparison of sprout-Q8_0.gguf in llama.cpp could not be made" in said


def test_a_type_that_cannot_be_written_takes_no_other_with_it(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "model" / "model.safetensors"
    tensors = weights(run / "model")
    name = next(name for name in tensors if name.endswith("q_proj.weight"))
    tensors[name][0, 0] = 1e6
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(MiaoError, match=r"could not be written: .*which f16 cannot") as caught:
        main([str(run), "--to", "gguf", "--quantize", "f16", "q8_0", "f32", "--no-check"])
    out = run / "export" / "gguf"
    assert caught.value.where == str(out)
    assert {file.name for file in out.glob("*.gguf")} == {"sprout-Q8_0.gguf", "sprout-F32.gguf"}
    assert "FROM ./sprout-Q8_0.gguf" in (out / "Modelfile").read_text()
    with pytest.raises(MiaoError, match="which f16 cannot"):
        main([str(run), "--to", "gguf", "--out", str(run / "other"), "--no-check"])
    assert not (run / "other").exists(), "where there is no product, nothing is left"


@pytest.mark.skipif(not parity_llama_cpp.has_llama_cpp(), reason="scripts/check_llama_cpp.sh")
def test_gguf_is_compared_in_llama_cpp(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(run), "--to", "gguf", "--quantize", "f32", "f16", "q8_0"])
    said = capsys.readouterr().out
    assert said.count("compared in llama.cpp") == 3
    assert "DIFFERS" not in said


def test_an_adapter_is_merged_before(run: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    truth = make_adapter(run / "model", adapter, {"target_modules": ["q_proj", "down_proj"]})
    arguments = ["--merge-lora", str(adapter), "--dtype", "float32"]
    assert main([str(run), "--to", "hf", *arguments]) == 0
    out = run / "export" / "hf-merged"
    theirs = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    with torch.no_grad():
        logits = theirs(ids_bt()).logits
    assert float((logits - truth).abs().max()) < 1e-5 * float(truth.abs().max())
    text = (out / "README.md").read_text()
    assert "The adapter adapter is merged" in text
    assert "merged adapter" in text
    assert os.listdir(run / "export") == ["hf-merged"], "nothing temporary is left"
    with pytest.raises(MiaoError, match="not a PEFT adapter"):
        main([str(run), "--to", "hf", "--merge-lora", str(run / "model")])


def test_an_adapter_is_merged_into_gguf_too(run: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    make_adapter(run / "model", adapter, {"target_modules": ["down_proj"]})
    arguments = ["--to", "gguf", "--quantize", "f32", "--no-check"]
    main([str(run), *arguments])
    main([str(run), *arguments, "--merge-lora", str(adapter)])
    plain, merged = (
        {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
        for path in sorted(run.glob("export/*/*.gguf"))
    )
    changed = {name for name in plain if not (plain[name] == merged[name]).all()}
    assert changed == {f"blk.{layer}.ffn_down.weight" for layer in (0, 1)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "hf", "--quantize", "q8_0"], "--quantize belongs to --to gguf"),
        (["--to", "gguf", "--dtype", "float16"], "--dtype belongs to --to hf"),
    ],
)
def test_options_that_do_not_belong_together(run: Path, words: list[str], message: str) -> None:
    with pytest.raises(MiaoError, match=message):
        main([str(run), *words])
    assert not (run / "export").exists()


def test_there_must_be_a_model(tmp_path: Path) -> None:
    with pytest.raises(MiaoError, match="neither a finished run nor a model directory"):
        main([str(tmp_path / "nothing"), "--to", "hf"])


def test_the_choices_are_those_that_exist() -> None:
    from typing import get_args

    from miao.export.gguf.file import FileType

    assert get_args(FileType) == command.FILE_TYPES
    assert tuple(huggingface.DTYPES) == command.DTYPES


def test_help_does_not_import_torch() -> None:
    code = """
import sys
from miao.commands.export import main
try:
    main(["--help"])
except SystemExit:
    print("torch" in sys.modules, "transformers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False False", done.stderr
