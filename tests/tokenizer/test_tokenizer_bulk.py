"""Bulk encoding, samples, comparison, use and coverage of vocabularies."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from miao.errors import MiaoError
from miao.files import write_jsonl
from miao.tokenizer import Tokenizer, train_tokenizer
from miao.tokenizer.bulk import DIFFICULT, BulkEncoder
from miao.tokenizer.compare import (
    compare_tokenizers,
    comparison_rows,
    load_any,
    samples,
)
from miao.tokenizer.sample import allotments, sample_texts
from miao.tokenizer.usage import count_tokens, coverage_of, render_usage, usage_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(texts=st.lists(TEXT | st.sampled_from(DIFFICULT), max_size=5))
def test_fast_ids_are_the_tokenizers(tokenizer: Tokenizer, texts: list[str]) -> None:
    pytest.importorskip("fastokens")
    encoder = BulkEncoder(tokenizer)
    assert encoder.is_fast, encoder.slow_because
    assert encoder.encode_batch(texts) == tokenizer.encode_batch(texts)


def test_flat_ids(tokenizer: Tokenizer) -> None:
    texts = ["今天天气很好", "", "<|im_end|> x"]
    for fast in (True, False):
        ids, offsets = BulkEncoder(tokenizer, fast).encode(texts)
        assert offsets.dtype == np.int64 and offsets[0] == 0 and len(offsets) == 4
        for number, text in enumerate(texts):
            piece = ids[offsets[number] : offsets[number + 1]]
            assert piece.tolist() == tokenizer.encode(text)


def test_half_a_surrogate_pair_is_named(tokenizer: Tokenizer) -> None:
    for fast in (True, False):
        with pytest.raises(MiaoError, match="surrogate"):
            BulkEncoder(tokenizer, fast).encode(["fine", "bad \ud800"])


def test_without_the_library_it_says_so(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fastokens", None)
    encoder = BulkEncoder(tokenizer)
    assert not encoder.is_fast and "not installed" in encoder.slow_because
    assert encoder.encode_batch(["水"]) == [tokenizer.encode("水")]


def test_a_vocabulary_that_the_library_gets_wrong_is_not_used(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastokens")
    spec = tokenizer.spec()
    spec["model"]["merges"] = spec["model"]["merges"][:-40]
    other = tokenizer.with_spec(spec)
    encoder = BulkEncoder(tokenizer)
    monkeypatch.setattr(type(tokenizer), "ordinary_json", lambda self: other._ordinary.to_str())
    wrong = BulkEncoder(tokenizer)
    assert encoder.is_fast and not wrong.is_fast
    assert "gives other ids" in wrong.slow_because


def test_rustbpe_trains_a_tokenizer_of_the_same_kind(tokenizer: Tokenizer) -> None:
    pytest.importorskip("rustbpe")
    lines = [
        "清晨的露水落在小小的苗上，太阳慢慢升起来了。",
        "The rain was kind; the rain 2024.",
    ] * 9
    ours = train_tokenizer(lines, 330, trainer="rustbpe", special_tokens=["<|note|>"])
    assert ours.vocab_size == 330
    assert [ours.id_to_token(id) for id in (0, 2, 16)] == [
        "<|endoftext|>",
        "<|im_end|>",
        "<|note|>",
    ]
    assert sorted(ours.token_bytes(id) for id in range(17, 273)) == [bytes([b]) for b in range(256)]
    for text in [*lines[:2], *DIFFICULT]:
        assert ours.decode(ours.encode(text)) == text
    assert all(len(ours.token_bytes(id)) <= 24 for id in range(17, 330))
    theirs = train_tokenizer(lines, 330, special_tokens=["<|note|>"])
    assert abs(len(ours.encode(lines[0])) - len(theirs.encode(lines[0]))) <= 2
    assert ours.fingerprint() == (
        train_tokenizer(lines, 330, trainer="rustbpe", special_tokens=["<|note|>"]).fingerprint()
    )
    assert "<think>" in ours.decode([3]) and ours.decode([16]) == ""
    with pytest.raises(MiaoError, match="allows only"):
        train_tokenizer(["ab"] * 9, 900, trainer="rustbpe")
    with pytest.raises(MiaoError, match="no text"):
        train_tokenizer([], 300, trainer="rustbpe")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"trainer": "rustbe"}, "no trainer 'rustbe'"),
        ({"pattern": "(unclosed"}, "neither the name of a pattern"),
        ({"special_tokens": ["note"]}, "no name for a control token"),
        ({"special_tokens": ["<think>"]}, "there twice"),
    ],
)
def test_impossible_training_options(options: dict[str, Any], match: str) -> None:
    with pytest.raises(MiaoError, match=match):
        train_tokenizer(["text"], 300, **options)


def test_patterns_cut_digits_as_they_say() -> None:
    lines = ["year 2024 2024 2024"] * 9
    single = train_tokenizer(lines, 275)
    several = train_tokenizer(lines, 275, pattern="llama3")
    assert (len(single.encode("2024")), len(several.encode("2024"))) == (4, 2)


@given(
    sizes=st.lists(st.integers(0, 10**6), min_size=1, max_size=8),
    total=st.integers(1, 10**6),
    balance=st.floats(0, 1),
)
def test_allotments_add_up(sizes: list[int], total: int, balance: float) -> None:
    given_out = allotments(sizes, total, balance)
    assert sum(given_out) == pytest.approx(min(total, sum(sizes)))
    assert all(-1e-6 <= a <= s + 1e-6 for a, s in zip(given_out, sizes, strict=True))


def test_balance() -> None:
    assert allotments([900, 100], 500, 0) == pytest.approx([450, 50])
    assert allotments([900, 400], 500, 1) == pytest.approx([250, 250])
    assert allotments([900, 100], 500, 1) == pytest.approx([400, 100])  # more there is not
    assert allotments([900, 100], 400, 0.5) == pytest.approx([300, 100])


def test_a_sample_comes_from_all_over_and_everything_when_it_fits(tmp_path: Path) -> None:
    big, small = tmp_path / "big.jsonl", tmp_path / "small.jsonl"
    write_jsonl(big, ({"text": f"{n:06d}" * 5} for n in range(5000)))
    write_jsonl(small, ({"text": "small" * 4} for _ in range(100)))
    files: Any = [(big, "document"), (small, "document")]
    everything = list(sample_texts(files, 1e9))
    assert len(everything) == 5100 and everything[0] == "000000" * 5
    sample = list(sample_texts(files, 20_000))
    assert 15_000 < sum(map(len, sample)) < 30_000
    numbers = [int(text[:6]) for text in sample if text[0] == "0"]
    assert numbers == sorted(numbers) and min(numbers) < 50 and max(numbers) > 4900
    assert max(b - a for a, b in pairwise(numbers)) < 200
    assert sample == list(sample_texts(files, 20_000))


def test_comparison(tokenizer: Tokenizer, directory: Path, tmp_path: Path) -> None:
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    words.save(str(tmp_path / "tokenizer.json"))
    backends = {"ours": load_any(directory), "<words>": load_any(tmp_path / "tokenizer.json")}
    texts = {"zh": "今天天气很好", "empty": ""}
    ours, other = compare_tokenizers(backends, texts)
    cut = ours.cuts["zh"]
    assert (cut.tokens, cut.characters, cut.bytes) == (len(tokenizer.encode(texts["zh"])), 6, 18)
    assert cut.characters_per_token == 6 / cut.tokens and cut.is_lossless
    assert not other.cuts["zh"].is_lossless
    columns, rows = comparison_rows([ours, other])
    assert columns == ["text", "ours", "<words>"] and rows[0] == ["tokens in all", "600", "2"]
    assert [row[0] for row in rows[1:]] == ["zh", "empty"]
    assert rows[1][2].endswith("*") and not rows[1][1].endswith("*")
    with pytest.raises(MiaoError, match="no such file"):
        load_any(tmp_path / "nowhere")
    with pytest.raises(MiaoError, match="cannot be read"):
        (tmp_path / "tokenizer.json").write_text("{")
        load_any(tmp_path)


def test_the_samples_are_of_every_kind(tokenizer: Tokenizer) -> None:
    assert set(samples()) == {"zh", "en", "code", "math", "classical"}
    for text in samples().values():
        assert 300 > len(text) > 150 or len(text) >= 300
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_usage_adds_up(tokenizer: Tokenizer) -> None:
    texts = ["今天天气很好，我们走吧。", "The rain", "龘"]
    counts = count_tokens(tokenizer, texts)
    encoded = [id for text in texts for id in tokenizer.encode(text)]
    assert counts.sum() == len(encoded)
    usage = usage_of(tokenizer, counts)
    assert usage.tokens == len(encoded) and usage.bytes == sum(len(t.encode()) for t in texts)
    assert usage.ordinary == 600 - 16 - 256 == usage.used + len(usage.unused)
    assert not set(usage.unused) & set(encoded)
    partial = [id for id in encoded if not _decodes(tokenizer.token_bytes(id))]
    assert usage.partial_share == pytest.approx(len(partial) / len(encoded)) and partial
    with_controls = counts.copy()
    with_controls[tokenizer.control_ids["<|im_end|>"]] = 1000
    assert usage_of(tokenizer, with_controls).tokens == usage.tokens
    console = Console(width=200)
    with console.capture() as capture:
        console.print(render_usage(tokenizer, usage, "here"))
    assert f"{usage.used} of {usage.ordinary} tokens occur" in capture.get()
    nothing = usage_of(tokenizer, np.zeros(600, dtype=np.int64))
    assert (nothing.tokens, nothing.used, nothing.half) == (0, 0, 0)


def test_coverage(tokenizer: Tokenizer) -> None:
    level1, level2, punctuation, ascii_ = coverage_of(tokenizer)
    assert (level1.characters, level2.characters, ascii_.characters) == (3755, 3008, 94)
    single = {tokenizer.token_bytes(id) for id in range(600)}
    assert ascii_.whole == 94 and ascii_.missing == ""
    assert 0 < level1.whole <= len(single) and "啊" in level1.missing
    assert "，".encode() in single and "，" not in punctuation.missing
    assert level2.whole <= level1.whole


def _decodes(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize("fast", [True, False])
def test_control_tokens_that_are_meant_are_tokens_and_all_spelt_ones_are_counted(
    tokenizer: Tokenizer, fast: bool
) -> None:
    """As the library cuts texts at added tokens; what is not meant stays letters."""
    texts = [
        "<|im_start|>user\n今天天气很好<|im_end|>\n<|im_start|>assistant\nThe rain<|im_end|>",
        "no token here, 1 < 2",
        "<|im_end|><|im_end|> <think>a</think>",
        "",
    ]
    meant = ["<|im_start|>", "<|im_end|>"]
    encoder = BulkEncoder(tokenizer, fast, meant)
    ids = encoder.encode_batch(texts)
    assert ids[:2] == [tokenizer.encode(text, allow_special=True) for text in texts[:2]]
    end = tokenizer.token_to_id("<|im_end|>")
    assert ids[2:] == [[end, end, *tokenizer.encode(" <think>a</think>")], []]
    assert encoder.spelt(texts) == {
        "meant <|im_start|>": 2, "meant <|im_end|>": 4, "spelt <think>": 1, "spelt </think>": 1,
    }  # fmt: skip
    plain = BulkEncoder(tokenizer, fast)
    assert plain.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
    with pytest.raises(MiaoError, match="no control token"):
        BulkEncoder(tokenizer, fast, ["<|im_strat|>"])
