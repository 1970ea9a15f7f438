"""The glass box: what a page says of its own inside, against a plain forward pass of PyTorch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miao.inspect.forward import Without
from miao.inspect.inspection import Show, inspect
from miao.inspect.text import ids_of
from miao.model import Decoder, load_model, save_model
from miao.page.contents import read_contents, rounded
from miao.page.html import page_html
from miao.page.node import has_node, run_in_node
from miao.tokenizer import Tokenizer
from tests.inspect.truth import forward, in_transformers
from tests.model.shapes import KINDS

pytestmark = pytest.mark.skipif(not has_node(), reason="Node.js is not installed")
SHAPE = {"vocab_size": 384, "max_position_embeddings": 512, "eos_token_id": 2}
TEXT = "你好，Why does water freeze? 😀 37"
CARD: dict[str, Any] = {"facts": []}


@pytest.fixture
def look(
    make_model: Callable[..., Decoder], tokenizer: Tokenizer, tmp_path: Path
) -> Callable[..., tuple[dict[str, Any], Any]]:
    """An inspection, and the same weights in transformers."""

    def make(
        dtype: Any, request: dict[str, Any], truth: bool = True, **changes: Any
    ) -> tuple[dict[str, Any], Any]:
        save_model(make_model(**SHAPE | changes), tmp_path / "model")
        tokenizer.save(tmp_path / "model")
        page = tmp_path / "page.html"
        page.write_text(page_html(read_contents(tmp_path / "model", dtype), "苗", CARD), "utf-8")
        (found,) = run_in_node(page, inspections=[request])["inspections"]
        if not truth:
            return found, None
        save_model(rounded(load_model(tmp_path / "model"), dtype), tmp_path / "rounded")
        tokenizer.save(tmp_path / "rounded")
        return found, in_transformers(tmp_path / "rounded", tmp_path / "hf")

    return make


@pytest.mark.parametrize(
    ("changes", "dtype", "tolerance"),
    [
        ({}, "float16", 2e-5),
        ({}, "int8", 5e-3),
        ({"qk_norm": False, "attention_bias": True, "head_dim": 8}, "float16", 2e-5),
    ],
)
def test_an_inspection_is_what_a_forward_pass_computes(
    look: Callable[..., Any],
    tokenizer: Tokenizer,
    changes: dict[str, Any],
    dtype: Any,
    tolerance: float,
) -> None:
    found, model = look(dtype, {"text": TEXT}, **changes)
    ids = [*tokenizer.document_start, *tokenizer.encode(TEXT)]
    assert [token["id"] for token in found["tokens"]] == ids
    spelt = b"".join(bytes(token["bytes"]) for token in found["tokens"])
    assert spelt.decode().endswith(TEXT) and not found["cut"]
    count = tokenizer.vocab_size
    logprobs, sizes, attention = forward(model, ids, count)
    equal = {"rtol": tolerance, "atol": tolerance}
    for time, place in enumerate(found["places"]):
        final = logprobs[-1, time]
        likeliest = [guess["id"] for guess in place["likeliest"]]
        assert len(set(likeliest)) == 10
        given = [guess["logprob"] for guess in place["likeliest"]]
        np.testing.assert_allclose(given, final[likeliest], **equal)
        np.testing.assert_allclose(given, np.sort(final)[::-1][:10], **equal)
        np.testing.assert_allclose(place["entropy"], -(np.exp(final) * final).sum(), **equal)
        np.testing.assert_allclose(
            [layer["size"] for layer in place["layers"]], sizes[:, time], **equal
        )
        for layer, given in enumerate(place["layers"]):
            best = [guess["id"] for guess in given["likeliest"]]
            truth = np.sort(logprobs[layer, time])[::-1][:3]
            np.testing.assert_allclose([g["logprob"] for g in given["likeliest"]], truth, **equal)
            np.testing.assert_allclose(logprobs[layer, time, best], truth, **equal)
        if time + 1 == len(ids):
            assert place["next"] is None and place["layers"][-1]["next"] is None
            continue
        follows = ids[time + 1]
        np.testing.assert_allclose(place["next"]["logprob"], final[follows], **equal)
        np.testing.assert_allclose(
            [layer["next"] for layer in place["layers"]], logprobs[:, time, follows], **equal
        )
        rank = 1 + int((final > final[follows]).sum())
        assert place["next"]["rank"] == rank or dtype == "int8"
    for layer, heads in enumerate(found["attention"]):
        for head, rows in enumerate(heads):
            for time, weights in enumerate(rows):
                truth = attention[layer, head, time, : time + 1]
                np.testing.assert_allclose(weights, truth, **equal)


def test_of_a_conversation_the_answers_own_tokens_are_seen(
    look: Callable[..., Any], tokenizer: Tokenizer
) -> None:
    messages = [{"role": "user", "content": "你好"}]
    prompt = tokenizer.chat_template.encode_prompt(tokenizer, messages)
    found, _ = look("int8", {"messages": messages, "answer": [40, 41, 42]})
    assert [token["id"] for token in found["tokens"]] == [*prompt, 40, 41, 42]
    found, _ = look("int8", {"messages": messages, "answer": "好的"})
    assert [token["id"] for token in found["tokens"]] == [*prompt, *tokenizer.encode("好的")]


def test_a_long_text_is_cut_and_says_so(look: Callable[..., Any]) -> None:
    found, _ = look("int8", {"text": "苗" * 300})
    assert found["cut"] and len(found["tokens"]) == 256 == len(found["attention"][0][0])


def test_the_page_and_miao_inspect_say_the_same(
    look: Callable[..., Any], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """The one JSON form, of experts and latent attention, with parts switched off."""
    off = {"tokens": [2], "layers": [1], "heads": [[0, 1], [2, 3]]}
    request = {"text": "你好 why", "without": off, "whole": 3}
    found = look("float16", request, truth=False, **KINDS["latent experts"])[0]
    model = rounded(load_model(tmp_path / "model"), "float16")
    ids, prompt = ids_of(tokenizer, request["text"])
    without = Without(off["tokens"], off["layers"], [tuple(head) for head in off["heads"]])
    ours = inspect(model, tokenizer, ids, prompt, Show(whole=3), without=without)
    assert_same(found, json.loads(json.dumps(ours)))


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """JSON of one form, and numbers close to each other."""
    assert type(one) is type(other) or {type(one), type(other)} == {int, float}, where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{number}]")
    elif isinstance(one, float | int) and not isinstance(one, bool):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-4), where
    else:
        assert one == other, where
