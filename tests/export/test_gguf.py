"""GGUF files against the models they came from, read by gguf's own reader. What llama.cpp makes of
them is in test_llama_cpp.py."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from miao.errors import MiaoError, install_hint
from miao.export.gguf import file as writer
from miao.export.gguf.file import count_parameters, write_gguf
from miao.tokenizer import Tokenizer
from tests.export.architectures import COMMON, KINDS, LINEAR, LLAMA3, YARN

Make = Callable[..., Path]


def stored(directory: Path) -> dict[str, Tensor]:
    return {
        name: values.float()
        for file in directory.glob("*.safetensors")
        for name, values in load_file(file).items()
    }


def contents(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, str]]:
    """Tensors in float32, settings and tensor types of a GGUF, by gguf's own reader."""
    reader = gguf.GGUFReader(path)
    tensors = {
        t.name: gguf.quants.dequantize(t.data, t.tensor_type).reshape(t.shape[::-1].tolist())
        for t in reader.tensors
    }
    settings = {name: field.contents() for name, field in reader.fields.items()}
    return tensors, settings, {t.name: t.tensor_type.name for t in reader.tensors}


def truth(directory: Path) -> dict[str, np.ndarray]:
    """What the GGUF of a directory should hold, said in another way than the writer says it."""
    config = json.loads((directory / "config.json").read_text())
    kind, layers = config["model_type"], config["num_hidden_layers"]
    arch = {"qwen3_moe": "QWEN3MOE", "deepseek_v3": "DEEPSEEK2"}.get(kind, kind.upper())
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch], layers)
    weights = stored(directory)
    heads = config["num_attention_heads"]

    def halves_to_pairs(rows: Tensor, count: int) -> Tensor:
        half = rows.shape[0] // count // 2
        order = [
            h * 2 * half + i + j * half for h in range(count) for i in range(half) for j in (0, 1)
        ]
        return rows[order]

    found: dict[str, Tensor] = {}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        for part in ("gate", "up", "down"):
            experts = f"{at}.mlp.experts"
            matrices = []
            while f"{experts}.{len(matrices)}.{part}_proj.weight" in weights:
                matrices.append(weights[f"{experts}.{len(matrices)}.{part}_proj.weight"])
            for number in range(len(matrices)):
                del weights[f"{experts}.{number}.{part}_proj.weight"]
            if matrices:
                weights[f"{experts}.{part}_proj.weight"] = torch.stack(matrices)
            shared = f"{at}.mlp.shared_experts.{part}_proj.weight"
            if shared in weights and not weights[shared].numel():  # for which llama.cpp has no word
                weights[shared] = torch.zeros_like(matrices[0])
        if kind == "dots1":
            for part in ("k", "v"):
                name = f"{at}.self_attn.{part}_proj.weight"
                per_head = weights[name].unflatten(0, (config["num_key_value_heads"], -1))
                copies = heads // config["num_key_value_heads"]
                weights[name] = per_head.repeat_interleave(copies, 0).flatten(0, 1)
        if kind == "llama":
            for part, count in (("q", heads), ("k", config["num_key_value_heads"])):
                for leaf in ("weight", "bias"):
                    if (name := f"{at}.self_attn.{part}_proj.{leaf}") in weights:
                        weights[name] = halves_to_pairs(weights[name], count)
        if kind == "deepseek_v3":
            plain, rotary = config["qk_nope_head_dim"], config["qk_rope_head_dim"]
            both = weights.pop(f"{at}.self_attn.kv_b_proj.weight")
            per_head = both.reshape(heads, -1, config["kv_lora_rank"])
            weights[f"{at}.self_attn.k_b_proj.weight"] = per_head[:, :plain].mT
            weights[f"{at}.self_attn.v_b_proj.weight"] = per_head[:, plain:]
            if not config["rope_interleave"]:
                queries = f"{at}.self_attn.{'q_b' if config['q_lora_rank'] else 'q'}_proj.weight"
                for name, count in (
                    (queries, heads),
                    (f"{at}.self_attn.kv_a_proj_with_mqa.weight", 1),
                ):
                    split = weights[name].reshape(count, -1, weights[name].shape[-1]).clone()
                    split[:, -rotary:] = torch.stack(
                        [halves_to_pairs(head[-rotary:], 1) for head in split]
                    )
                    weights[name] = split.reshape(weights[name].shape)
    if config["tie_word_embeddings"] and kind == "dots1":
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    for name, values in weights.items():
        base, _, leaf = name.replace("correction_bias", "correction.bias").rpartition(".")
        found[f"{names.get_name(base)}.{leaf}"] = values
    return {name: values.numpy() for name, values in found.items()}


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_tensor_of_an_f32_file_is_exact(
    make_directory: Make, tmp_path: Path, kind: str
) -> None:
    directory = make_directory(kind)
    done: list[int] = []
    facts = write_gguf(directory, tmp_path / "m.gguf", "f32", done.append)
    tensors, settings, types = contents(tmp_path / "m.gguf")
    expected = truth(directory)
    extra = {"rope_freqs.weight"} if "llama3" in kind else set()
    assert tensors.keys() == expected.keys() | extra
    for name, values in expected.items():
        assert np.array_equal(tensors[name], values), name
    assert set(types.values()) == {"F32"}
    assert settings["general.architecture"] == facts.architecture
    assert settings["general.file_type"] == gguf.LlamaFileType.ALL_F32
    assert facts.size_bytes == (tmp_path / "m.gguf").stat().st_size
    assert facts.parameters == sum(done) == sum(values.size for values in expected.values())
    if not facts.notes:  # nothing was written twice or filled in
        assert facts.parameters == count_parameters(directory)


def test_settings_say_what_config_json_says(make_directory: Make, tmp_path: Path) -> None:
    def settings(kind: str) -> dict[str, Any]:
        write_gguf(make_directory(kind), tmp_path / "m.gguf", "f32")
        found = contents(tmp_path / "m.gguf")[1]
        prefix = found["general.architecture"] + "."
        return {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}

    llama = settings("llama")
    assert llama["context_length"] == 256
    assert llama["attention.head_count"] == 4 and llama["attention.head_count_kv"] == 2
    assert llama["attention.key_length"] == llama["rope.dimension_count"] == 64
    assert llama["rope.freq_base"] == 10000.0 and "rope.scaling.type" not in llama
    assert settings("qwen2")["rope.freq_base"] == 1e6
    moe = settings("qwen3_moe")
    assert (moe["expert_count"], moe["expert_used_count"]) == (8, 2)
    assert moe["expert_feed_forward_length"] == 64
    deepseek = settings("deepseek_v3")
    assert deepseek["attention.head_count_kv"] == 1
    assert deepseek["attention.key_length"] == 64 + 32  # latent + rotary
    assert deepseek["attention.value_length"] == 64
    assert deepseek["attention.key_length_mla"] == 96
    assert deepseek["attention.value_length_mla"] == 64
    assert deepseek["leading_dense_block_count"] == 1
    assert deepseek["expert_gating_func"] == gguf.ExpertGatingFuncType.SIGMOID.value
    assert deepseek["expert_weights_scale"] == pytest.approx(1.7)
    assert deepseek["expert_weights_norm"] is True
    assert (deepseek["expert_group_count"], deepseek["expert_group_used_count"]) == (4, 2)
    dense = settings("deepseek_v3 dense")
    assert dense["leading_dense_block_count"] == 3 and "expert_count" not in dense
    assert dense["attention.q_lora_rank"] == 0
    yarn = settings("qwen3, yarn")
    assert (yarn["rope.scaling.type"], yarn["rope.scaling.factor"]) == ("yarn", 4.0)
    assert yarn["rope.scaling.original_context_length"] == 64
    assert yarn["rope.scaling.attn_factor"] == pytest.approx(1.0)
    # DeepSeek's usual mscale = mscale_all_dim = 1: the values of published files.
    mscale = settings("deepseek_v3, yarn with mscale")
    assert mscale["rope.scaling.yarn_log_multiplier"] == pytest.approx(0.1)
    assert mscale["rope.scaling.attn_factor"] == pytest.approx(1.0)


def test_llama3_frequency_factors_are_those_of_transformers(
    make_directory: Make, tmp_path: Path
) -> None:
    write_gguf(make_directory("llama, llama3 rope"), tmp_path / "m.gguf", "f32")
    factors = contents(tmp_path / "m.gguf")[0]["rope_freqs.weight"]
    config = transformers.LlamaConfig(**COMMON | {"head_dim": 64, "rope_parameters": LLAMA3})
    rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    plain = 10000.0 ** -(torch.arange(0, 64, 2) / 64)
    assert np.allclose(plain / rotary.inv_freq, factors, rtol=1e-5)
    assert factors.min() == 1 and factors.max() == 8 and len(set(factors.tolist())) > 2


@pytest.mark.parametrize("file_type", ["f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("kind", ["llama", "qwen3_moe", "deepseek_v3"])
def test_smaller_types_stay_within_their_step(
    make_directory: Make, tmp_path: Path, kind: str, file_type: Any
) -> None:
    directory = make_directory(kind)
    facts = write_gguf(directory, tmp_path / "m.gguf", file_type)
    tensors, _, types = contents(tmp_path / "m.gguf")
    for name, values in truth(directory).items():
        rounded, largest = tensors[name], np.abs(values).max()
        if values.ndim == 1 or "ffn_gate_inp" in name:
            assert types[name] == "F32" and np.array_equal(rounded, values), name
        elif file_type == "f16" or values.shape[-1] % 32:
            assert types[name] == "F16", name
            assert np.abs(rounded - values).max() <= largest * 2**-11, name
        else:
            embedding = name in ("token_embd.weight", "output.weight")
            assert types[name] == ("Q8_0" if embedding else file_type.upper()), name
            blocks, near = values.reshape(-1, 32), rounded.reshape(-1, 32)
            step = np.abs(blocks).max(axis=1) / (127 if types[name] == "Q8_0" else 8)
            # Half a step and the scale's own rounding; q4_0 reaches only 7/8 on one side.
            limit = step * (0.51 + 0.07 if types[name] == "Q8_0" else 1.01)
            assert (np.abs(blocks - near).max(axis=1) <= limit).all(), name
            assert np.abs(blocks - near).max() > 0, name
    odd = [f"blk.{n}.attn_q_b.weight" for n in range(3)] if kind == "deepseek_v3" else []
    assert facts.fallbacks == (odd if file_type != "f16" else [])
    assert sum(facts.types.values()) == len(tensors)


def test_shards_and_small_chunks_change_no_byte(
    make_directory: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_directory("deepseek_v3")
    write_gguf(directory, tmp_path / "one.gguf", "q8_0")
    sharded = tmp_path / directory.name
    shutil.copytree(directory, sharded)
    weights = load_file(sharded / "model.safetensors")
    (sharded / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: weights[name] for name in held}, sharded / file)
    index = {name: file for file, held in parts.items() for name in held}
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    monkeypatch.setattr(writer, "CHUNK", 5 * 128)
    write_gguf(sharded, tmp_path / "many.gguf", "q8_0")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "many.gguf").read_bytes()


def test_half_precision_weights_are_widened_exactly(make_directory: Make, tmp_path: Path) -> None:
    directory = make_directory("qwen3", dtype=torch.bfloat16)
    write_gguf(directory, tmp_path / "m.gguf", "f32")
    tensors = contents(tmp_path / "m.gguf")[0]
    assert all(np.array_equal(tensors[name], v) for name, v in truth(directory).items())


def test_the_tokenizer_is_described(
    make_directory: Make, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    directory = make_directory("qwen3")
    write_gguf(directory, tmp_path / "m.gguf", "f16")
    settings = contents(tmp_path / "m.gguf")[1]
    spec = json.loads((directory / "tokenizer.json").read_text())
    assert settings["tokenizer.ggml.model"] == "gpt2"
    assert settings["tokenizer.ggml.pre"] == "qwen2"
    tokens, types = settings["tokenizer.ggml.tokens"], settings["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == len(set(tokens)) == COMMON["vocab_size"]
    assert tokens[:360] == [tokenizer.id_to_token(id) for id in range(360)]
    merges = [m if isinstance(m, str) else " ".join(m) for m in spec["model"]["merges"]]
    assert settings["tokenizer.ggml.merges"] == merges and len(merges) == 360 - 256 - 16
    kinds = {token["id"]: 3 if token["special"] else 4 for token in spec["added_tokens"]}
    assert types == [kinds.get(id, 1) for id in range(360)] + [5] * 24
    assert types[tokenizer.control_ids["<think>"]] == 4  # shown to the user
    assert settings["tokenizer.ggml.bos_token_id"] == tokenizer.control_ids["<|endoftext|>"]
    assert settings["tokenizer.ggml.eos_token_id"] == tokenizer.control_ids["<|im_end|>"]
    assert settings["tokenizer.ggml.eot_token_id"] == tokenizer.control_ids["<|im_end|>"]
    assert settings["tokenizer.ggml.padding_token_id"] == tokenizer.control_ids["<|endoftext|>"]
    assert settings["tokenizer.ggml.add_bos_token"] is False
    assert "generation %}" not in settings["tokenizer.chat_template"]


def test_name_author_and_license_come_from_the_directory(
    make_directory: Make, tmp_path: Path
) -> None:
    directory = tmp_path / "seedling"
    shutil.copytree(make_directory("qwen3"), directory)
    write_gguf(directory, tmp_path / "m.gguf", "f16")
    settings = contents(tmp_path / "m.gguf")[1]
    assert settings["general.name"] == "seedling" and "general.license" not in settings
    (directory / "README.md").write_text(
        "---\nlicense: mit\nauthor: 苗\nlanguage: [zh, en]\n---\n# x\n"
    )
    write_gguf(directory, tmp_path / "m.gguf", "f16", name="苗 1")
    settings = contents(tmp_path / "m.gguf")[1]
    assert settings["general.name"] == "苗 1"
    assert settings["general.license"] == "mit" and settings["general.author"] == "苗"
    assert settings["general.languages"] == ["zh", "en"]
    assert settings["general.size_label"] == "394K"


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "dynamic rope": (
        "qwen3",
        {"rope_parameters": LINEAR | {"rope_type": "dynamic"}},
        "dynamic NTK",
    ),
    "llama3 rope in qwen3": ("qwen3", {"rope_parameters": LLAMA3}, "not qwen3"),
    "yarn's ramp": ("qwen3", {"rope_parameters": YARN | {"beta_fast": 16}}, "beta_fast"),
    "two ropes": ("qwen3", {"rope_scaling": YARN}, "disagree"),
    "activation": ("llama", {"hidden_act": "gelu"}, "'gelu'"),
    "biases": ("qwen3", {"attention_bias": True}, "attention_bias"),
    "wide heads": ("qwen2", {"head_dim": 64}, "hidden_size"),
    "sliding window": (
        "qwen2",
        {"layer_types": ["sliding_attention"] * 2, "sliding_window": 8},
        "sliding",
    ),
    "raw expert weights": ("qwen3_moe", {"norm_topk_prob": False}, "norm_topk_prob"),
    "dense among experts": ("qwen3_moe", {"mlp_only_layers": [0]}, "dense"),
    "lite": ("deepseek_v3", {"num_hidden_layers": 27}, "27 layers"),
    "uneven heads": ("llama", {"num_key_value_heads": 3}, "multiple"),
    "unknown model": ("llama", {"model_type": "mamba"}, "mamba"),
    "too few layers": ("llama", {"num_hidden_layers": 1}, "unknown: model.layers.1"),
    "too many layers": ("llama", {"num_hidden_layers": 3}, "missing: model.layers.2"),
    "narrow": ("llama", {"intermediate_size": 160}, "160"),
    "missing key": ("llama", {"hidden_size": None}, "hidden_size"),
    "small vocabulary": ("llama", {"vocab_size": 100}, "100"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_llama_cpp_cannot_do_is_refused(
    make_directory: Make, tmp_path: Path, case: str
) -> None:
    kind, changes, reason = REFUSED[case]
    directory = tmp_path / "model"
    shutil.copytree(make_directory(kind), directory)
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(MiaoError, match=reason):
        write_gguf(directory, tmp_path / "m.gguf", "f32")
    assert not list(tmp_path.glob("*.gguf*"))


@pytest.mark.parametrize("value, file_type", [(float("nan"), "q8_0"), (1e5, "f16")])
def test_values_that_do_not_fit_leave_the_old_file(
    make_directory: Make, tmp_path: Path, value: float, file_type: Any
) -> None:
    directory = tmp_path / "model"
    shutil.copytree(make_directory("llama"), directory)
    weights = load_file(directory / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 3] = value
    save_file(weights, directory / "model.safetensors")
    (tmp_path / "m.gguf").write_bytes(b"old")
    with pytest.raises(MiaoError, match="ffn_up"):
        write_gguf(directory, tmp_path / "m.gguf", file_type)
    assert (tmp_path / "m.gguf").read_bytes() == b"old"
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "model.safetensors.index.json"]
)
def test_damaged_files_are_named(make_directory: Make, tmp_path: Path, name: str) -> None:
    directory = tmp_path / "model"
    shutil.copytree(make_directory("llama"), directory)
    for content in ("[1]", "{"):
        (directory / name).write_text(content)
        with pytest.raises(MiaoError, match=name):
            write_gguf(directory, tmp_path / "m.gguf")


def test_unknown_splits_are_refused_and_known_ones_named(
    make_directory: Make, tmp_path: Path
) -> None:
    directory = tmp_path / "model"
    shutil.copytree(make_directory("llama"), directory)
    file = directory / "tokenizer.json"
    spec = json.loads(file.read_text())
    split = spec["pre_tokenizer"]["pretokenizers"][0]
    split["pattern"]["Regex"] = split["pattern"]["Regex"].replace(r"|\p{N}|", r"|\p{N}{1,3}|")
    spec["model"]["ignore_merges"] = True
    file.write_text(json.dumps(spec))
    write_gguf(directory, tmp_path / "m.gguf", "f32")
    assert contents(tmp_path / "m.gguf")[1]["tokenizer.ggml.pre"] == "llama-bpe"
    split["pattern"]["Regex"] = split["pattern"]["Regex"].replace("{1,3}", "{1,2}")
    file.write_text(json.dumps(spec))
    with pytest.raises(MiaoError, match=r"1,2.*\n.*qwen2"):
        write_gguf(directory, tmp_path / "m.gguf", "f32")


def test_a_missing_package_is_named(
    make_directory: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MiaoError, match=re.escape(install_hint("gguf"))):
        write_gguf(make_directory("llama"), tmp_path / "m.gguf")
