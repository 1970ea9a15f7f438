"""Foreign vocabularies: the ids are those of tiktoken and sentencepiece themselves."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miao.corpus.records import Conversation, Message
from miao.errors import MiaoError
from miao.tokenizer import StreamDecoder, Tokenizer
from miao.tokenizer.bulk import BulkEncoder
from miao.tokenizer.importing import import_sentencepiece, import_tiktoken, parse_special
from miao.tokenizer.train import PATTERNS

LINES = [
    "清晨的露水落在小小的苗上，太阳慢慢升起来了。",
    "今天天气很好，我们去公园散步，好吗？好的，我们走吧。",
    "I'm a small language model; you're reading what they've trained me on in 2024.",
    "Why does water freeze? Because the temperature falls below zero degrees.",
    "    def area(width, height):\n\t\treturn width * height  # 3 * 4 == 12\n",
] * 3
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁")) | st.lists(
    st.sampled_from([*LINES, " ", "\n", "  ", "12", "'LL", "Ⅳ", "𠮷", "é"]), max_size=4
).map("".join)

# Under NFKC, `tokenizers` treats combining marks and \r\n otherwise than sentencepiece.
COMMON_TEXT = st.lists(
    st.characters(max_codepoint=0x24F)
    | st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF)
    | st.characters(min_codepoint=0xFF01, max_codepoint=0xFF5E)
    | st.sampled_from([*LINES, "  ", "①", "½", "ﬁ", "　", "…"])
).map("".join)


@pytest.fixture(scope="module")
def ranks(tokenizer: Tokenizer) -> dict[bytes, int]:
    """A vocabulary by ranks: the bytes and merges of the test tokenizer."""
    return {tokenizer.token_bytes(id): id - 16 for id in range(16, tokenizer.vocab_size)}


@pytest.fixture(scope="module")
def tiktoken_file(ranks: dict[bytes, int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiktoken") / "small.tiktoken"
    lines = [f"{base64.b64encode(token).decode()} {rank}" for token, rank in ranks.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("pattern", ["qwen2", "llama3", "gpt2", "o200k"])
def test_ids_of_tiktoken(ranks: dict[bytes, int], tiktoken_file: Path, pattern: str) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    special = {"<|endoftext|>": 700, "<|x|>": 650}
    theirs = tiktoken.Encoding(
        "small", pat_str=PATTERNS[pattern], mergeable_ranks=ranks, special_tokens=special
    )
    ours = import_tiktoken(tiktoken_file, pattern, special, bare=True)

    @settings(max_examples=60)
    @given(text=TEXT)
    def check(text: str) -> None:
        assert ours.encode(text) == theirs.encode_ordinary(text)
        assert ours.decode(ours.encode(text)) == text

    check()
    text = "a<|endoftext|>b <|x|>"
    assert ours.encode(text, allow_special=True) == theirs.encode(text, allowed_special="all")
    assert ours.encode(text) == theirs.encode_ordinary(text)
    assert (ours.vocab_size, ours.document_boundary_id) == (701, 700)


def test_whole_words_come_before_merges(tmp_path: Path) -> None:
    """tiktoken takes a word that is a token whole, even where no merges lead to it."""
    tiktoken = pytest.importorskip("tiktoken")
    ranks = {bytes([byte]): byte for byte in range(256)}
    ranks |= {b"bc": 256, b"abcd": 257}
    path = tmp_path / "v.tiktoken"
    path.write_text("\n".join(f"{base64.b64encode(t).decode()} {r}" for t, r in ranks.items()))
    theirs = tiktoken.Encoding(
        "v", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={}
    )
    ours = import_tiktoken(path, "gpt2")
    for text in ("abcd", "abcde", "abc"):
        assert ours.encode(text) == theirs.encode_ordinary(text)


def test_an_imported_vocabulary_can_chat(tiktoken_file: Path, tmp_path: Path) -> None:
    ours = import_tiktoken(tiktoken_file, "qwen2")
    assert ours.vocab_size == 584 + 16
    conversation = Conversation([Message("user", "好<|im_end|>"), Message("assistant", "水")])
    ids, mask = ours.chat_template.encode(ours, conversation)
    assert ids.count(ours.control_ids["<|im_end|>"]) == 2 and any(mask)
    ours.save(tmp_path)
    loaded = Tokenizer.from_directory(tmp_path)
    assert loaded.encode(LINES[2]) == ours.encode(LINES[2])
    assert "<think>" in loaded.decode(loaded.encode("<think>", allow_special=True))
    assert loaded.vocab_size == ours.vocab_size


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("aGk= 0\nnot base64 1\n", r"bad\.tiktoken:2: not a line"),
        ("aGk= x\n", r"bad\.tiktoken:1: not a line"),
        ("aGk= 0\n", "256 of the 256 bytes are missing"),
        ("", "the file is empty"),
        ('{"model": {}}', r"needs no import: --tokenizer\.path"),
    ],
)
def test_damaged_ranks(tmp_path: Path, content: str, match: str) -> None:
    path = tmp_path / "bad.tiktoken"
    path.write_text(content)
    with pytest.raises(MiaoError, match=match):
        import_tiktoken(path, "gpt2")


def test_what_a_tiktoken_file_does_not_say(tiktoken_file: Path) -> None:
    with pytest.raises(MiaoError, match="how text is cut"):
        import_tiktoken(tiktoken_file)
    with pytest.raises(MiaoError, match="cannot be read: No such file"):
        import_tiktoken(tiktoken_file.with_name("none.tiktoken"))
    with pytest.raises(MiaoError, match="neither the name of a pattern nor a regular expression"):
        import_tiktoken(tiktoken_file, "(")
    with pytest.raises(MiaoError, match="id 5: it is taken"):
        import_tiktoken(tiktoken_file, "gpt2", {"<|x|>": 5})
    with pytest.raises(MiaoError, match="no token that ends a text"):
        import_tiktoken(tiktoken_file, "gpt2", bare=True)
    assert parse_special(["<|a|>=7", "<|b|>"]) == {"<|a|>": 7, "<|b|>": None}


def sentencepiece_model(tmp_path: Path, **options: Any) -> tuple[Any, Path]:
    sentencepiece = pytest.importorskip("sentencepiece")
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for line in "\n".join(LINES * 4).split("\n") if line),
        model_writer=written,
        vocab_size=420,
        minloglevel=2,
        num_threads=1,
        hard_vocab_limit=False,
        **{"byte_fallback": True, "character_coverage": 0.98} | options,
    )
    path = tmp_path / "m.model"
    path.write_bytes(written.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue()), path


@pytest.mark.parametrize(
    "options",
    [
        {"model_type": "bpe", "normalization_rule_name": "identity"},
        {"model_type": "bpe", "remove_extra_whitespaces": False},
        {"model_type": "bpe", "add_dummy_prefix": False, "normalization_rule_name": "identity"},
        {"model_type": "unigram"},
        {"model_type": "unigram", "remove_extra_whitespaces": False, "split_digits": True},
    ],
)
def test_ids_of_sentencepiece(tmp_path: Path, options: dict[str, Any]) -> None:
    theirs, path = sentencepiece_model(tmp_path, **options)
    ours = import_sentencepiece(path)
    assert ours.vocab_size == theirs.vocab_size() + 16

    normalises = "normalization_rule_name" not in options

    @settings(max_examples=80)
    @given(text=COMMON_TEXT if normalises else TEXT)
    def check(text: str) -> None:
        text = text.replace("\x00", "")  # ends a text for sentencepiece
        text = text.replace("\r", "") if normalises else text
        ids = ours.encode(text)
        assert ids == theirs.encode(text)
        assert ours.decode(ids) == theirs.decode(ids)
        stream = StreamDecoder(ours)
        assert "".join(stream.feed(id) for id in ids) + stream.flush() == ours.decode(ids)

    check()
    for text in LINES:
        assert ours.encode(text) == theirs.encode(text)
    if options.get("normalization_rule_name") == "identity":
        assert ours.decode(ours.encode("水 龘\ud7ff x")) == "水 龘\ud7ff x"
    assert not set(ours.encode("</s><s><|im_end|>")) & set(ours.control_ids.values())
    fast = BulkEncoder(ours)
    assert fast.encode_batch(LINES) == ours.encode_batch(LINES)  # fast or not, the same
    bare = import_sentencepiece(path, bare=True)
    assert bare.vocab_size == theirs.vocab_size()
    assert bare.document_boundary_id == theirs.eos_id()
    bare.save(tmp_path)
    assert Tokenizer.from_directory(tmp_path).encode(LINES[0]) == theirs.encode(LINES[0])


def test_sentencepiece_that_would_lose_text(tmp_path: Path) -> None:
    _, path = sentencepiece_model(tmp_path, model_type="bpe", byte_fallback=False)
    with pytest.raises(MiaoError, match="no byte pieces"):
        import_sentencepiece(path)
    _, path = sentencepiece_model(tmp_path, model_type="char")
    with pytest.raises(MiaoError, match="cannot be imported"):
        import_sentencepiece(path)


@settings(max_examples=150)
@given(data=st.binary(max_size=60))
def test_garbage_is_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("garbage") / "x.model"
    path.write_bytes(data)
    with pytest.raises(MiaoError):
        import_sentencepiece(path)


def test_a_truncated_model_is_refused(tmp_path: Path) -> None:
    _, path = sentencepiece_model(tmp_path, model_type="bpe")
    whole = path.read_bytes()
    for size in (1, 100, len(whole) // 2, len(whole) // 2 + 1):
        path.write_bytes(whole[:size])
        with pytest.raises(MiaoError):
            import_sentencepiece(path)
