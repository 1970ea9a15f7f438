"""The glass box in Python: every number against transformers, and against plain forward passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from miao.engine.sampling import Draw, SamplingOptions, distribution, next_tokens
from miao.errors import MiaoError
from miao.inspect import inspection
from miao.inspect.forward import Without, watch
from miao.inspect.inspection import Show, inspect
from miao.inspect.text import ids_of, require_same_tokens
from miao.model import Decoder, save_model
from miao.tokenizer import Tokenizer
from tests.inspect.truth import forward, in_transformers
from tests.model.shapes import KINDS

TEXT = "你好，Why does water freeze? 😀"
SHAPE = {"vocab_size": 384, "max_position_embeddings": 512, "eos_token_id": 2}
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


@pytest.fixture(params=KINDS, name="model")
def model_fixture(
    request: Any, make_model: Callable[..., Decoder], tokenizer: Tokenizer
) -> Decoder:
    changes = SHAPE | KINDS[request.param] | {"num_tokens": tokenizer.vocab_size}
    return make_model(**changes).eval()


@pytest.fixture
def plain(make_model: Callable[..., Decoder], tokenizer: Tokenizer) -> Decoder:
    return make_model(**SHAPE, num_tokens=tokenizer.vocab_size).eval()


def read(tokenizer: Tokenizer) -> list[int]:
    return ids_of(tokenizer, TEXT)[0]


def test_every_number_is_what_transformers_computes(
    model: Decoder, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_model(model, tmp_path / "model")
    tokenizer.save(tmp_path / "model")
    ids, count = read(tokenizer), tokenizer.vocab_size
    theirs = in_transformers(tmp_path / "model", tmp_path / "hf")
    routed: list[Any] = []
    gates = [m.mlp.gate for m in theirs.model.layers if hasattr(m.mlp, "gate")]
    for gate in gates:
        gate.register_forward_hook(lambda _, __, out: routed.append(out))
    logprobs, sizes, attention = forward(theirs, ids, count)
    found = inspect(model, tokenizer, ids, show=Show(whole=3))
    assert [token["id"] for token in found["tokens"]] == ids and not found["cut"]
    spelt = b"".join(bytes(token["bytes"]) for token in found["tokens"])
    assert spelt.decode().endswith(TEXT)
    np.testing.assert_allclose(found["whole"]["logprobs"], logprobs[-1, 3], **CLOSE)
    for time, place in enumerate(found["places"]):
        final = logprobs[-1, time]
        given = [guess["logprob"] for guess in place["likeliest"]]
        np.testing.assert_allclose(given, np.sort(final)[::-1][:10], **CLOSE)
        np.testing.assert_allclose(given, final[[g["id"] for g in place["likeliest"]]], **CLOSE)
        np.testing.assert_allclose(place["entropy"], -(np.exp(final) * final).sum(), **CLOSE)
        for layer, told in enumerate(place["layers"]):
            np.testing.assert_allclose(told["size"], sizes[layer, time], **CLOSE)
            best = np.sort(logprobs[layer, time])[::-1][:3]
            np.testing.assert_allclose([g["logprob"] for g in told["likeliest"]], best, **CLOSE)
        if time + 1 == len(ids):
            assert place["next"] is None and place["layers"][-1]["next"] is None
            continue
        follows = ids[time + 1]
        np.testing.assert_allclose(place["next"]["logprob"], final[follows], **CLOSE)
        assert place["next"]["rank"] == 1 + int((final > final[follows]).sum())
        after = [layer["next"] for layer in place["layers"]]
        np.testing.assert_allclose(after, logprobs[:, time, follows], **CLOSE)
    for layer, heads in enumerate(found["attention"]):
        for head, rows in enumerate(heads):
            for time, weights in enumerate(rows):
                truth = attention[layer, head, time, : time + 1]
                np.testing.assert_allclose(weights, truth, **CLOSE)
    sparse = [i for i, layer in enumerate(found["places"][0]["layers"]) if layer["experts"]]
    assert len(sparse) == len(gates) == len(routed)
    for layer, out in zip(sparse, routed, strict=True):
        numbers, weights = _chosen(out, theirs.config.num_experts_per_tok)
        for time, place in enumerate(found["places"]):
            told = dict(map(tuple, place["layers"][layer]["experts"]))
            truth = dict(zip(numbers[time].tolist(), weights[time].tolist(), strict=True))
            assert told.keys() == truth.keys()
            np.testing.assert_allclose([told[e] for e in truth], [*truth.values()], **CLOSE)


def _chosen(out: Any, k: int) -> tuple[Any, Any]:
    """Numbers and weights [t, k] of what a router of transformers gives."""
    parts = [part for part in out if part.shape[-1] == k]
    numbers = next(part for part in parts if not part.is_floating_point())
    return numbers, next(part for part in parts if part.is_floating_point())


def test_a_watched_pass_ends_where_a_plain_one_does(model: Decoder, tokenizer: Tokenizer) -> None:
    ids = read(tokenizer)
    with torch.no_grad():
        hidden = model(torch.tensor([ids]), output="hidden")[0]
        own = model.model.norm(watch(model, ids).stream_ltd[-1][None])[0]
    torch.testing.assert_close(own, hidden, rtol=1e-5, atol=1e-5)


def test_a_head_a_layer_or_a_token_that_is_off_is_as_if_its_weights_were_not_there(
    plain: Decoder, make_model: Callable[..., Decoder], tokenizer: Tokenizer
) -> None:
    ids, size = read(tokenizer), plain.config.head_dim
    cut = make_model(**SHAPE, num_tokens=tokenizer.vocab_size).eval()
    with torch.no_grad():
        cut.model.layers[1].self_attn.o_proj.weight[:, 2 * size : 3 * size] = 0
    found = inspect(plain, tokenizer, ids, without=Without(heads=[(1, 2)]))
    truth = inspect(cut, tokenizer, ids)
    assert found["other"]["places"] == truth["places"] != found["places"]
    with torch.no_grad():
        cut.model.layers[1].self_attn.o_proj.weight.zero_()
        cut.model.layers[1].mlp.down_proj.weight.zero_()
    found = inspect(plain, tokenizer, ids, without=Without(layers=[1]))
    assert found["other"]["places"] == inspect(cut, tokenizer, ids)["places"]
    # What nobody sees may be anything.
    found = inspect(plain, tokenizer, ids, without=Without(tokens=[4]))["other"]["places"]
    another = [*ids[:4], ids[4] + 1, *ids[5:]]
    other = inspect(plain, tokenizer, another, without=Without(tokens=[4]))["other"]["places"]
    assert found[5:] == other[5:] and found[:3] == other[:3] and found[4] != other[4]
    assert found[5:] != inspect(plain, tokenizer, ids)["places"][5:]


def test_the_divergence_of_two_models_is_that_of_their_distributions(
    plain: Decoder, make_model: Callable[..., Decoder], tokenizer: Tokenizer
) -> None:
    other = make_model(seed=1, **SHAPE, num_tokens=tokenizer.vocab_size).eval()
    ids = read(tokenizer)
    found = inspect(plain, tokenizer, ids, against=other)
    with torch.no_grad():
        first, second = (m.token_logits(m(torch.tensor([ids]), output="hidden"))[0].log_softmax(-1)
                         for m in (plain, other))  # fmt: skip
    truth = torch.nn.functional.kl_div(second, first, log_target=True, reduction="none").sum(-1)
    np.testing.assert_allclose(found["other"]["kl"], truth, rtol=1e-4, atol=1e-5)
    assert found["other"]["places"] == inspect(other, tokenizer, ids)["places"]
    assert max(inspect(plain, tokenizer, ids, against=plain)["other"]["kl"]) == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ids": []}, "no text"),
        ({"ids": [1, 10**6]}, "token ids must be from 0"),
        ({"without": Without(heads=[(0, 99)])}, "there are 4 heads: no number 100 from 1"),
        ({"without": Without(layers=[-1])}, "layers: no number 0 from 1"),
        ({"without": Without(tokens=[500])}, "there are 3 tokens: no number 501"),
        ({"show": Show(whole=77)}, "no place 77"),
    ],
)
def test_what_is_not_there_is_refused_by_name(
    plain: Decoder, tokenizer: Tokenizer, changes: dict[str, Any], says: str
) -> None:
    given = {"ids": [1, 2, 3]} | changes
    with pytest.raises(MiaoError, match=says):
        inspect(plain, tokenizer, **given)


def test_models_that_cannot_be_compared_or_compute_nothing_are_refused(
    plain: Decoder,
    make_model: Callable[..., Decoder],
    tokenizer: Tokenizer,
    llama3_tokenizer: Tokenizer,
    tmp_path: Path,
) -> None:
    with pytest.raises(MiaoError, match="one comparison at a time"):
        inspect(plain, tokenizer, [1, 2], against=plain, without=Without(layers=[0]))
    with pytest.raises(MiaoError, match="cannot be compared"):
        inspect(plain, tokenizer, [1, 2], against=make_model(vocab_size=320))
    with pytest.raises(MiaoError, match="other tokens"):
        require_same_tokens(tokenizer, llama3_tokenizer, tmp_path)
    require_same_tokens(tokenizer, tokenizer.with_template("{{ messages }}"), tmp_path)
    with torch.no_grad():
        plain.model.layers[0].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(MiaoError, match="no numbers"):
        inspect(plain, tokenizer, [1, 2])


def test_an_inspection_is_bounded_and_says_what_it_cut(
    plain: Decoder, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = ids_of(tokenizer, "苗" * 300)[0]
    found = inspect(plain, tokenizer, ids)
    assert found["cut"] and len(found["tokens"]) == 256 == len(found["attention"][0][0])
    monkeypatch.setattr(inspection, "MOST_WEIGHTS", 1000)
    found = inspect(plain, tokenizer, ids)
    numbers = [w for heads in found["attention"] for rows in heads for row in rows for w in row]
    assert found["cut"] and 800 < len(numbers) <= 1000
    found = inspect(plain, tokenizer, ids, show=Show(likeliest=10**9, attention=False))
    assert found["attention"] is None and len(found["tokens"]) == 256
    assert len(found["places"][0]["likeliest"]) == inspection.MOST_GUESSES
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_of_a_conversation_the_answer_is_seen_and_the_oldest_turns_are_left_out(
    tokenizer: Tokenizer,
) -> None:
    turns = [{"role": role, "content": "你好"} for role in ("user", "assistant", "user")]
    ids, prompt = ids_of(tokenizer, messages=turns, answer=[40, 41])
    assert ids[prompt:] == [40, 41]
    assert ids[:prompt] == tokenizer.chat_template.encode_prompt(tokenizer, turns)
    short, _ = ids_of(tokenizer, messages=turns, answer="好的", most=prompt)
    last = tokenizer.chat_template.encode_prompt(tokenizer, turns[2:])
    assert short == [*last, *tokenizer.encode("好的")]
    for given in ({}, {"text": "a", "messages": turns}):
        with pytest.raises(MiaoError, match="either text or messages"):
            ids_of(tokenizer, **given)


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 0.7},
        {"temperature": 1.3, "top_p": 0.8},
        {"temperature": 1.0, "top_k": 5, "min_p": 0.05},
        {"temperature": 0.9, "repetition_penalty": 1.3, "frequency_penalty": 0.4},
        {"temperature": 0.0},
    ],
)
def test_the_distribution_is_what_tokens_are_drawn_from(changes: dict[str, Any]) -> None:
    torch.manual_seed(3)
    logits_v, count = 2 * torch.randn(60), 2000
    draws = [Draw(replace(SamplingOptions(seed=n), **changes), [1, 2], 60, logits_v.device)
             for n in range(count)]  # fmt: skip
    for draw in draws:
        draw.note(7)
    ids, shares = distribution(logits_v, draws[0])
    assert float(shares.sum()) == pytest.approx(1) and bool((shares.diff() <= 0).all())
    drawn = next_tokens(logits_v.expand(count, -1), draws).bincount(minlength=60) / count
    left = torch.zeros(60)
    left[ids] = shares
    assert not drawn[left == 0].any()
    assert float((drawn - left).abs().max()) < 0.05
