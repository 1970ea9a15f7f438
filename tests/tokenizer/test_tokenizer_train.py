"""Training: the shape of the vocabulary, the split of text, determinism, and its refusals."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Regex, pre_tokenizers
from transformers import AutoTokenizer

from miao.errors import MiaoError
from miao.tokenizer import Tokenizer, sample, train_tokenizer
from miao.tokenizer.sample import TrainingMemory, fit_training
from miao.tokenizer.train import LONGEST_PIECE, QWEN2_PATTERN, bounded, untrained_backend

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


@pytest.mark.parametrize("run", ["苗", "é", "ก", "!?", "——", " \t", "\n"])
def test_what_is_learned_from_has_no_word_without_an_end(run: str) -> None:
    """A trainer's time grows with the square of a word's length; only what it learns from is cut."""
    text = "The rain, " + run * 3000 + "下雨了。" + run * 500
    pieces = list(bounded(text))
    assert "".join(pieces) == text
    spec = pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated")
    words = [word for piece in pieces for word, _ in spec.pre_tokenize_str(piece)]
    assert max(map(len, words)) < 2 * LONGEST_PIECE < len(text) / 10
    ordinary = "清晨的露水落在小小的苗上，太阳慢慢升起来了。 The seedling grew.\n" * 50
    assert list(bounded(ordinary)) == [ordinary]
    for piece in bounded("x" * 5000, known=False):  # of a pattern of the user's nothing is known
        assert len(piece) <= 8 * LONGEST_PIECE


def test_a_tokenizer_of_text_without_punctuation_cuts_text_as_ever(tmp_path: Path) -> None:
    text = "".join(chr(0x4E00 + (7 * n * n + n) % 97) for n in range(30_000))
    tokenizer = train_tokenizer([text], 400)
    rule = tokenizer.spec()["pre_tokenizer"]["pretokenizers"][0]
    assert rule["pattern"] == {"Regex": QWEN2_PATTERN}
    assert tokenizer.decode(tokenizer.encode(text)) == text
    long = text[:1000]
    whole = pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated").pre_tokenize_str(long)
    assert [word for word, _ in whole] == [long]
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.encode(long) == theirs.encode(long)


def test_the_sample_is_chosen_by_the_memory_that_is_free(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(3)
    letters = [chr(0x4E00 + n) for n in range(2000)]
    with open(tmp_path / "new.jsonl", "w", encoding="utf-8") as file:
        for _ in range(300):  # hardly a clause comes twice
            text = "，".join("".join(rng.choices(letters, k=12)) for _ in range(40))
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    with open(tmp_path / "old.jsonl", "w", encoding="utf-8") as file:
        file.write((json.dumps({"text": "The rain was kind to it. " * 20}) + "\n") * 300)
    files = {name: [(tmp_path / f"{name}.jsonl", "document")] for name in ("new", "old")}
    monkeypatch.setattr(sample, "PROBED", 50_000)
    grows = {name: TrainingMemory.of(given, 0) for name, given in files.items()}
    assert grows["new"].power > 0.95 and grows["old"].power < 0.3
    needed = grows["new"].needed(150_000, "tokenizers")
    assert 200 < needed / 150_000 < 500 and grows["old"].needed(150_000, "tokenizers") < needed / 99
    assert grows["new"].fitting(needed, "tokenizers") == pytest.approx(150_000)

    def fit(name: str, trainer: str, free: float) -> tuple[float, str]:
        return fit_training(files[name], 150_000, 0, trainer, free / sample.USED)

    assert fit("new", "auto", 0) == fit("new", "auto", 2 * needed) == (150_000, "tokenizers")
    assert fit("old", "auto", needed / 4) == (150_000, "tokenizers")
    assert capsys.readouterr().out == ""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert fit("new", "auto", 0.7 * needed) == (150_000, "rustbpe")
    assert "trained with rustbpe" in capsys.readouterr().out
    fewer, trainer = fit("new", "tokenizers", 0.5 * needed)
    assert (trainer, fewer) == ("tokenizers", pytest.approx(75_000, rel=0.02))
    assert "the tokenizer is trained" in "".join(capsys.readouterr()).replace("\n", " ")
