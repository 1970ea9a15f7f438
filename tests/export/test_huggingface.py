"""Exported Hugging Face directories: types, shards, settings, and merged adapters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from miao.errors import MiaoError
from miao.export.adapter import merge_adapter
from miao.export.huggingface import write_huggingface
from miao.model import Decoder, load_model, save_model
from miao.tokenizer import Tokenizer
from tests.export.adapters import ADAPTERS, ids_bt, make_adapter
from tests.model.shapes import LATENT, SIGMOID

SHAPE = {"vocab_size": 384, "max_position_embeddings": 128, "eos_token_id": 2}
Make = Callable[..., Path]


@pytest.fixture
def make_source(
    make_model: Callable[..., Decoder], tokenizer: Tokenizer, tmp_path: Path
) -> Callable[..., Path]:
    def make(name: str = "model", **changes: Any) -> Path:
        save_model(make_model(**SHAPE | changes), tmp_path / name)
        tokenizer.save(tmp_path / name)
        return tmp_path / name

    return make


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_have_the_type_and_everything_else_is_there(
    make_source: Make, tmp_path: Path, dtype: str
) -> None:
    source, target = make_source(), tmp_path / "hf"
    exported = write_huggingface(source, target, dtype)
    kind = getattr(torch, dtype)
    truth = {
        name: value.to(kind) for name, value in load_file(source / "model.safetensors").items()
    }
    written = load_file(target / "model.safetensors")
    assert written.keys() == truth.keys()
    assert all(torch.equal(written[name], value) for name, value in truth.items())
    assert (exported.rounding == 0) == (dtype == "float32")
    values = dict(exported.model.named_parameters())
    assert all(torch.equal(values[name], value.float()) for name, value in truth.items())
    config = json.loads((target / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == dtype
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10_000.0
    settings = json.loads((target / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert settings["model_max_length"] == 128


def test_a_large_model_is_cut_into_shards_that_transformers_reads(
    make_source: Make, tmp_path: Path
) -> None:
    exported = write_huggingface(make_source(), tmp_path / "hf", "float32", max_shard_bytes=30_000)
    shards = sorted((tmp_path / "hf").glob("*.safetensors"))
    assert len(shards) > 2
    assert shards[0].name == f"model-00001-of-{len(shards):05d}.safetensors"
    index = json.loads((tmp_path / "hf" / "model.safetensors.index.json").read_text())
    for shard in shards:
        with safe_open(shard, framework="pt") as file:
            names = set(file.keys())
        assert names == {n for n, where in index["weight_map"].items() if where == shard.name}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    ids_bt = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.allclose(model(ids_bt).logits, exported.model(ids_bt), atol=1e-5)


def test_generation_settings_name_every_stop_token(make_source: Make, tmp_path: Path) -> None:
    source = make_source()
    write_huggingface(source, tmp_path / "hf")
    settings = GenerationConfig.from_pretrained(tmp_path / "hf")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    ends = [tokenizer.convert_ids_to_tokens(id) for id in settings.eos_token_id]
    assert ends == ["<|im_end|>", "<|endoftext|>"]
    assert settings.pad_token_id == settings.bos_token_id == tokenizer.bos_token_id == 0
    assert settings.do_sample
    assert 0 < settings.temperature < 1


def test_settings_that_a_model_brings_are_kept(make_source: Make, tmp_path: Path) -> None:
    source = make_source()
    own = {"do_sample": True, "temperature": 0.6, "top_k": 20, "eos_token_id": 2}
    (source / "generation_config.json").write_text(json.dumps(own))
    write_huggingface(source, tmp_path / "hf")
    written = json.loads((tmp_path / "hf" / "generation_config.json").read_text())
    assert written.items() >= (own | {"eos_token_id": [2, 0]}).items()
    assert "top_p" not in written


def test_values_that_a_type_cannot_hold_are_refused(make_source: Make, tmp_path: Path) -> None:
    source = make_source()
    weights = load_file(source / "model.safetensors")
    weights["model.norm.weight"][0] = 70_000.0
    save_file(weights, source / "model.safetensors")
    with pytest.raises(MiaoError, match=r"model\.norm\.weight holds 70000, which float16 cannot"):
        write_huggingface(source, tmp_path / "hf", "float16")
    write_huggingface(source, tmp_path / "hf", "bfloat16")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, source / "model.safetensors")
    with pytest.raises(MiaoError, match="not finite"):
        write_huggingface(source, tmp_path / "hf")


def test_a_tokenizer_of_another_model_is_refused(make_source: Make, tmp_path: Path) -> None:
    with pytest.raises(MiaoError, match="360 tokens, the model only 200"):
        write_huggingface(make_source(vocab_size=200), tmp_path / "hf")


@pytest.mark.parametrize("kind", list(ADAPTERS))
def test_a_merged_adapter_equals_the_adapter_beside_the_model(
    make_source: Make, tmp_path: Path, kind: str
) -> None:
    base = make_source()
    truth = make_adapter(base, tmp_path / "adapter", ADAPTERS[kind])
    finding = merge_adapter(base, tmp_path / "adapter", tmp_path / "merged")
    exported = write_huggingface(tmp_path / "merged", tmp_path / "hf", "float32")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    with torch.no_grad():
        logits, plain = theirs(ids_bt()).logits, load_model(base)(ids_bt())
        ours = exported.model(ids_bt())
    assert finding.passed
    assert float((plain - truth).abs().max()) > 0.5, "the adapter does nothing"
    assert float((logits - truth).abs().max()) < 1e-5 * float(truth.abs().max())
    assert float((ours - truth).abs().max()) < 1e-5 * float(truth.abs().max())
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["model_type"] == "qwen3"


@pytest.mark.parametrize(
    "targets", [["q_a_proj", "kv_b_proj", "o_proj"], ["gate_proj", "up_proj", "down_proj"]]
)
def test_an_adapter_of_a_mixture_of_experts_is_merged(
    make_source: Make, tmp_path: Path, targets: list[str]
) -> None:
    base = make_source(**LATENT | SIGMOID)
    truth = make_adapter(base, tmp_path / "adapter", {"target_modules": targets})
    merge_adapter(base, tmp_path / "adapter", tmp_path / "merged")
    with torch.no_grad():
        logits, plain = (load_model(tmp_path / name)(ids_bt()) for name in ("merged", "model"))
    assert float((plain - truth).abs().max()) > 0.5, "the adapter does nothing"
    assert float((logits - truth).abs().max()) < 1e-5 * float(truth.abs().max())


def test_an_adapter_of_another_model_is_refused(make_source: Make, tmp_path: Path) -> None:
    settings = ADAPTERS["LoRA"]
    make_adapter(make_source("wide", hidden_size=48), tmp_path / "adapter", settings)
    with pytest.raises(MiaoError, match=r"q_proj: made for 48 inputs, not 32") as caught:
        merge_adapter(make_source(), tmp_path / "adapter", tmp_path / "merged")
    assert "wide" in str(caught.value), "it names the model that it was trained on"
    make_adapter(make_source("deep", num_hidden_layers=3), tmp_path / "adapter", settings)
    with pytest.raises(MiaoError, match=r"layers\.2\.\S+: not in this model"):
        merge_adapter(make_source(), tmp_path / "adapter", tmp_path / "merged")


def test_an_incomplete_adapter_is_refused(make_source: Make, tmp_path: Path) -> None:
    base = make_source()
    adapter = tmp_path / "adapter"
    make_adapter(base, adapter, ADAPTERS["LoRA"])
    weights = load_file(adapter / "adapter_model.safetensors")
    first = sorted(weights)[0]
    save_file(
        {k: v for k, v in weights.items() if k != first}, adapter / "adapter_model.safetensors"
    )
    with pytest.raises(MiaoError, match="do not fit"):
        merge_adapter(base, adapter, tmp_path / "merged")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(MiaoError, match="pickle"):
        merge_adapter(base, adapter, tmp_path / "merged")
    with pytest.raises(MiaoError, match=r"no adapter_config\.json and no adapter_model"):
        merge_adapter(base, tmp_path, tmp_path / "merged")


def test_an_adapter_of_another_kind_is_refused(make_source: Make, tmp_path: Path) -> None:
    base, adapter = make_source(), tmp_path / "adapter"
    make_adapter(base, adapter, ADAPTERS["LoRA"])
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "IA3"}))
    with pytest.raises(MiaoError, match="type IA3 cannot be merged"):
        merge_adapter(base, adapter, tmp_path / "merged")
