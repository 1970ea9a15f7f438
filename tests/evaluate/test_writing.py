"""Generation ends with the stop text, and no row goes on for nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from miao.engine import Engine, SamplingOptions
from miao.evaluate.measure import writing
from miao.evaluate.measure.writing import write_texts
from miao.model import Decoder
from miao.tokenizer import Tokenizer

GREEDY = SamplingOptions(temperature=0.0, max_new_tokens=24)


@pytest.fixture
def model(make_model: Callable[..., Decoder], tokenizer: Tokenizer) -> Decoder:
    return make_model(vocab_size=tokenizer.vocab_size, max_position_embeddings=256)


@pytest.fixture
def prompts(tokenizer: Tokenizer) -> list[list[int]]:
    examples = "Q: 1+1?\nA: 2\n\n" * 4
    return [tokenizer.encode(f"{examples}Q: {n}+{n}?\nA:") for n in range(7)]


def plain(model: Decoder, tokenizer: Tokenizer, prompts: list[list[int]]) -> list[str]:
    engine = Engine(model, frozenset(tokenizer.stop_ids))
    return [tokenizer.decode(ids) for ids in engine.generate(prompts, GREEDY)]


def test_cut_before_the_first_stop(
    model: Decoder, tokenizer: Tokenizer, prompts: list[list[int]]
) -> None:
    whole = plain(model, tokenizer, prompts)
    assert write_texts(model, tokenizer, prompts, GREEDY) == whole
    stops = [whole[0][3:6], whole[1][5:6], "never written"]
    expected = [
        text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]
        for text in whole
    ]
    assert expected != whole
    assert write_texts(model, tokenizer, prompts, GREEDY, stops) == expected
    assert write_texts(model, tokenizer, prompts, GREEDY, ["", *stops], rows=2) == expected


def test_a_row_ends_with_its_stop(
    model: Decoder, tokenizer: Tokenizer, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    generated: list[list[int]] = []
    generate = Engine.generate

    def noted(self: Engine, *words: Any) -> list[list[int]]:
        generated.extend(generate(self, *words))
        return generated

    monkeypatch.setattr(Engine, "generate", noted)
    whole = plain(model, tokenizer, prompts[:1])[0]
    (everything,) = generated
    generated.clear()
    write_texts(model, tokenizer, prompts[:1], GREEDY, [whole[4:6]])
    (short,) = generated
    assert short == everything[: len(short)] and len(short) < len(everything)
    written = tokenizer.decode(short)
    assert whole[4:6] in written and whole[4:6] not in tokenizer.decode(short[:-1])


def test_long_prompts_get_fewer_rows(
    model: Decoder, tokenizer: Tokenizer, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = plain(model, tokenizer, prompts)
    made: list[Engine] = []
    monkeypatch.setattr(writing, "Engine", lambda *words, **more: made.append(Engine(*words, **more)) or made[-1])  # fmt: skip
    config = model.config
    per_token = config.num_hidden_layers * 2 * config.num_key_value_heads * config.head_dim * 4
    length = max(len(prompt) for prompt in prompts) + GREEDY.max_new_tokens
    for room, rows in ((3 * length * per_token, 3), (1, 1), (2**40, 64)):
        monkeypatch.setattr(writing, "CACHE_BYTES", room)
        assert write_texts(model, tokenizer, prompts, GREEDY) == whole
        assert (made[-1].rows, made[-1].length) == (rows, length)


def test_no_prompts_no_texts(model: Decoder, tokenizer: Tokenizer) -> None:
    assert write_texts(model, tokenizer, [], GREEDY) == []
