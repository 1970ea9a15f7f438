"""Encoding line by line gives what encoding the whole text gives."""

from __future__ import annotations

import json

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from miao.evaluate.tasks.pieces import LineEncoder, _words_end_with_lines
from miao.tokenizer import Tokenizer, train_tokenizer
from miao.tokenizer.train import PATTERNS

SAMPLE = [
    "以下是中国关于法学的单项选择题。\n\nA. 可以撤回\nB. 不可撤回\n答案： A\n",
    "Question: which?\nA. the rain\n\n  B. 12,345\r\n\tC. it's 'S\nAnswer: C",
    "x\n\u3000y\n/path/\n//z\n...\n\n!\n\u00a0\n\x1cq\u0301\n\u0301é\n" * 2,
]
PARTS = st.sampled_from(
    [*"ab中。，/.'!-=\u0301\u3000\u00a0\x1c\x85\u2028\u200b😀 \t\r", "\n", "\n\n", "\r\n", "12", "'s", " A",
     "<|im_end|>"]
)  # fmt: skip


@pytest.fixture(scope="module", params=["qwen2", "llama3", "gpt2"])
def trained(request: pytest.FixtureRequest) -> Tokenizer:
    return train_tokenizer(SAMPLE * 4, 330, pattern=request.param)


@given(texts=st.lists(st.lists(PARTS, max_size=30).map("".join), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_equal_to_whole_texts(trained: Tokenizer, texts: list[str]) -> None:
    for trusted in (False, True):
        encoder = LineEncoder(trained, trusted)
        assert encoder.by_line
        expected = [trained.encode(text, allow_special=trusted) for text in texts]
        assert encoder.encode_batch(texts) == expected
        assert encoder.encode_batch(texts) == expected, "from memory too"


def test_a_line_is_encoded_once(trained: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    given_texts: list[str] = []
    plain = Tokenizer.encode_batch

    def noted(self: Tokenizer, texts: list[str], *, allow_special: bool = False) -> list[list[int]]:
        given_texts.extend(texts)
        return plain(self, texts, allow_special=allow_special)

    monkeypatch.setattr(Tokenizer, "encode_batch", noted)
    encoder = LineEncoder(trained)
    encoder.encode_batch([SAMPLE[0], SAMPLE[0] + "B", SAMPLE[0] + "C"])
    lines = SAMPLE[0].splitlines(keepends=True)
    lines[:2] = ["".join(lines[:2])]  # an empty line belongs to what stands before it
    assert given_texts == [*lines, "B", "C"]


@pytest.mark.parametrize("change", ["pattern", "prefix space", "normalizer", "added", "dropout"])
def test_what_is_not_known_to_be_safe_is_read_whole(trained: Tokenizer, change: str) -> None:
    spec = trained.spec()
    if change == "pattern":
        spec["pre_tokenizer"] = json.loads(
            train_tokenizer(SAMPLE * 4, 330, pattern="o200k")._backend.to_str()
        )["pre_tokenizer"]
    elif change == "prefix space":
        spec["pre_tokenizer"] = {
            "type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True
        }  # fmt: skip
    elif change == "normalizer":
        spec["normalizer"] = {"type": "Prepend", "prepend": "_"}
    elif change == "dropout":
        spec["model"]["dropout"] = 0.5
    else:
        spec["added_tokens"][0]["lstrip"] = True
    other = trained.with_spec(spec)
    encoder = LineEncoder(other)
    assert not encoder.by_line
    if change != "dropout":
        assert encoder.encode_batch(SAMPLE) == other.encode_batch(SAMPLE)


def test_o200k_is_left_out_for_a_reason() -> None:
    """Its punctuation goes on over a line end, so that its lines do not begin words."""
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(PATTERNS["o200k"]), "isolated")
    assert split.pre_tokenize_str("a.\n/b")[1][0] == ".\n/"


def test_a_vocabulary_of_sentencepiece_is_read_whole() -> None:
    """It puts a space before every text that it is given."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(byte_fallback=True))
    spec = json.loads(backend.to_str()) | {"normalizer": {"type": "Prepend", "prepend": "▁"}}
    assert not _words_end_with_lines(spec)
