"""Training: the shape of the vocabulary, the split of text, determinism, and its refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from miao.errors import MiaoError
from miao.tokenizer import Tokenizer, train_tokenizer
from miao.tokenizer.train import untrained_backend

CONTROL_TOKENS_IN_ORDER = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    *(f"<|reserved_{number}|>" for number in range(7)),
]


def test_control_tokens_have_the_lowest_ids(tokenizer: Tokenizer) -> None:
    assert [tokenizer.id_to_token(id) for id in range(16)] == CONTROL_TOKENS_IN_ORDER
    assert tokenizer.special_ids == {0, 1, 2, *range(9, 16)}
    assert tokenizer.vocab_size == 600


def test_the_256_bytes_follow_and_merges_after_them(tokenizer: Tokenizer) -> None:
    pieces = [tokenizer.token_bytes(id) for id in range(16, 600)]
    assert sorted(pieces[:256]) == [bytes([byte]) for byte in range(256)]
    assert all(len(piece) > 1 for piece in pieces[256:])


def test_common_words_became_tokens(tokenizer: Tokenizer) -> None:
    for word in ("的", "喜欢", " the", " water"):
        assert len(tokenizer.encode(word)) == 1, word


def test_the_split_is_qwen2s() -> None:
    # Worked out by hand from the pattern: contractions, one leading mark or space with letters,
    # single digits, punctuation with its line ends, line ends with leading blanks, inner blanks.
    split = untrained_backend().pre_tokenizer.pre_tokenize_str
    text = "I'm OK，你好 2024!\n\n  x  \n\ty"
    assert [text[start:end] for _, (start, end) in split(text)] == [
        *("I", "'m", " OK", "，你好", " ", "2", "0", "2", "4", "!\n\n", " ", " x", "  \n", "\ty")
    ]


def test_no_token_holds_two_digits(tokenizer: Tokenizer) -> None:
    repetitive = train_tokenizer(["2024 2024 2024 年份年份", "2024年"] * 9, vocab_size=276)
    for trained in (tokenizer, repetitive):
        for id in range(16, trained.vocab_size):
            assert sum(chr(byte).isdigit() for byte in trained.token_bytes(id) if byte < 128) <= 1
    assert [tokenizer.decode([id]) for id in tokenizer.encode("1234")] == ["1", "2", "3", "4"]


def test_tokens_keep_to_the_longest_length() -> None:
    words = ["abcdefghijkl"] * 9  # ten merges make pieces of up to 8 bytes, the next one of 12
    assert train_tokenizer(words, 283, max_token_bytes=12).token_bytes(282) == b"abcdefghijkl"
    with pytest.raises(MiaoError, match="allows only 282 tokens"):
        train_tokenizer(words, 283, max_token_bytes=11)


def test_equal_texts_give_equal_tokenizers_in_every_process(tokenizer: Tokenizer) -> None:
    script = (
        "from miao.tokenizer import train_tokenizer\n"
        "from conftest import SENTENCES\n"
        "lines = [line.replace('\\\\n', '\\n') for line in SENTENCES] * 2\n"
        "print(train_tokenizer(lines, vocab_size=600).fingerprint())"
    )
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here.parents[1]), str(here)])
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONPATH": paths, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True
        )
        assert done.stdout.strip() == tokenizer.fingerprint(), done.stderr


def test_too_large_a_vocabulary_says_how_large_it_can_be() -> None:
    with pytest.raises(MiaoError, match=r"allows only (\d+) tokens, not 5,000") as caught:
        train_tokenizer(["春眠不觉晓"] * 3, vocab_size=5000)
    assert caught.value.where == "tokenizer.vocab_size"
    possible = int(str(caught.value.fix).split("vocab_size ")[1].split()[0])
    assert train_tokenizer(["春眠不觉晓"] * 3, vocab_size=possible).vocab_size == possible


def test_too_small_a_vocabulary() -> None:
    with pytest.raises(MiaoError, match="need 272"):
        train_tokenizer(["text"], vocab_size=271)
    smallest = train_tokenizer(["text"], vocab_size=272)
    assert [smallest.token_bytes(id) for id in smallest.encode("文")] == [b"\xe6", b"\x96", b"\x87"]


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_no_text(texts: list[str]) -> None:
    with pytest.raises(MiaoError, match="no text"):
        train_tokenizer(texts, vocab_size=300)


def test_half_a_surrogate_pair_is_named_with_its_text() -> None:
    with pytest.raises(MiaoError, match="surrogate") as caught:
        train_tokenizer(["good", "bad \ud800"], vocab_size=300)
    assert caught.value.where == "text 2"
