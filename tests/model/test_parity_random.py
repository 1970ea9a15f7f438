"""Random shapes of every architecture against transformers: logits, and greedy decoding through
both caches."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, PreTrainedModel

from miao.engine import Engine, SamplingOptions
from miao.model import Decoder, ModelConfig, load_model, native_architecture, save_model
from tests.model.shapes import KINDS

CONTEXT = 32
LONGER = 48


@st.composite
def rope_scalings(draw: Any) -> dict[str, Any] | None:
    kind = draw(st.sampled_from([None, "linear", "dynamic", "yarn", "llama3"]))
    if kind is None:
        return None
    scaling: dict[str, Any] = {"rope_type": kind, "factor": draw(st.sampled_from([1.5, 2.0, 4.0]))}
    if kind in ("yarn", "llama3"):
        scaling["original_max_position_embeddings"] = draw(st.sampled_from([8, CONTEXT]))
    if kind == "llama3":
        scaling |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    return scaling


@st.composite
def configs(draw: Any) -> ModelConfig:
    kind = draw(st.sampled_from(["llama", "qwen2", "qwen3", "qwen3_moe", "dots1", "deepseek_v3"]))
    key_heads = draw(st.sampled_from([1, 2, 3]))
    heads = key_heads * draw(st.sampled_from([1, 2, 3]))
    head_dim = 2 * draw(st.integers(2, 6))
    # transformers' own limits: Qwen2's heads fill the width, Llama's divide it, and its grouped
    # experts want rows of whole 16 bytes.
    hidden = {"qwen2": heads * head_dim, "llama": 2 * heads * draw(st.integers(1, 4))}.get(
        kind, 4 * draw(st.integers(2, 10))
    )
    parts: dict[str, Any] = {"num_key_value_heads": key_heads, "head_dim": head_dim}
    layers = draw(st.integers(1, 3))
    if kind == "deepseek_v3":
        rotary = 2 * draw(st.integers(1, 5))
        parts = {
            "num_key_value_heads": heads,
            "head_dim": rotary,
            "kv_lora_rank": draw(st.integers(3, 20)),
            "q_lora_rank": draw(st.sampled_from([None, 7, 16])),
            "qk_nope_head_dim": draw(st.integers(2, 12)),
            "qk_rope_head_dim": rotary,
            "v_head_dim": draw(st.integers(3, 14)),
        }
    if kind == "qwen3_moe" or kind == "dots1" or (kind == "deepseek_v3" and draw(st.booleans())):
        groups = draw(st.sampled_from([1, 2])) if kind != "qwen3_moe" else 1
        parts |= {
            "num_experts": 2 * groups * draw(st.integers(1, 3)),
            "num_experts_per_tok": draw(st.integers(1, 2)),
            "moe_intermediate_size": draw(st.sampled_from([8, 12, 20])),
            "first_k_dense_replace": draw(st.integers(0, layers - 1)),
            "norm_topk_prob": draw(st.booleans()),
        }
        if kind != "qwen3_moe":
            parts |= {
                "scoring_func": "sigmoid",
                "n_shared_experts": draw(st.integers(1, 2)),
                "n_group": groups,
                "topk_group": 1,
                "routed_scaling_factor": draw(st.sampled_from([1.0, 2.5])),
            }
    scaling = draw(rope_scalings())
    rotary = parts.get("qk_rope_head_dim", head_dim)
    assume(scaling is None or scaling["rope_type"] != "dynamic" or rotary > 2)  # x / (rotary - 2)
    return ModelConfig(
        vocab_size=draw(st.integers(20, 90)),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=draw(st.integers(3, 40)),
        max_position_embeddings=CONTEXT,
        rope_theta=draw(st.sampled_from([1e4, 1e6])),
        rope_scaling=scaling,
        rms_norm_eps=draw(st.sampled_from([1e-5, 1e-6])),
        tie_word_embeddings=draw(st.booleans()),
        qk_norm=kind in ("qwen3", "qwen3_moe", "dots1"),
        attention_bias=kind == "qwen2",
        **parts,
    )


def random_model(config: ModelConfig) -> Decoder:
    model, generator = Decoder(config), torch.Generator().manual_seed(3)
    for name, values in model.state_dict().items():
        noise = torch.randn(values.shape, generator=generator)
        values.copy_(1 + 0.3 * noise if name.endswith("norm.weight") else 0.2 * noise)
    return model.eval()


def theirs(directory: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(config=configs())
def test_any_shape_gives_the_logits_of_transformers_and_comes_back(config: ModelConfig) -> None:
    model = random_model(config)
    # Beyond the context too: that is where dynamic scaling begins.
    ids = torch.randint(config.vocab_size, (2, LONGER), generator=torch.Generator().manual_seed(5))
    with tempfile.TemporaryDirectory() as name, torch.inference_mode():
        directory = Path(name)
        save_model(model, directory / "ours")
        other = theirs(directory / "ours")
        assert other.config.model_type == native_architecture(config)
        truth = other(ids).logits
        other.save_pretrained(directory / "theirs")
        back = load_model(directory / "theirs")
        # What their configuration does not keep: fields that mean nothing for the shape.
        changed = {k for k, v in asdict(back.config).items() if v != getattr(config, k)}
        assert changed <= {"extra", "router_aux_loss_coef"}
        tolerance = 2e-5 * max(1.0, float(truth.abs().max()))
        for ours in (model, back):
            assert float((ours(ids) - truth).abs().max()) < tolerance


@pytest.mark.parametrize("kind", list(KINDS))
def test_greedy_decoding_through_the_cache_equals_transformers(
    make_model: Any, tmp_path: Path, kind: str
) -> None:
    model = make_model(**KINDS[kind])
    save_model(model, tmp_path)
    prompt = torch.randint(97, (1, 9), generator=torch.Generator().manual_seed(2))
    other = theirs(tmp_path)
    expected = other.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=24, do_sample=False,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    engine = Engine(model, frozenset())
    others = [[3, 5, 7], prompt[0].tolist(), [1] * 20]  # it runs among others of other lengths
    answers = engine.generate(others, SamplingOptions(temperature=0.0, max_new_tokens=24))
    assert answers[1] == expected[0, 9:].tolist()
    assert len(set(answers[1])) > 3, "a model that repeats itself proves little"
