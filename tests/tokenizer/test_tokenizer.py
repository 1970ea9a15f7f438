"""Encoding, decoding, streaming, files: any text comes back as it was."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from miao.errors import MiaoError
from miao.tokenizer import StreamDecoder, Tokenizer, train_tokenizer

NASTY = [
    "",
    " ",
    "\n\n \t\r\n",
    "\x00\x01\x1f\x7f\x85",
    "e\u0301 é \u212b \ufb01",  # unnormalised forms stay apart
    "👩‍👩‍👧‍👦🏳️‍🌈🇨🇳",
    "𠮷野家，龘䶮",
    "\u200b\u200d\ufeff\ufdd0\U0010ffff",
    "עברית العربية हिन्दी ไทย",
    "    def f():\n\t\treturn 1\n",
    "　全角　空格",
    "ĠĊ ▁ <0xE4>",
]
TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(NASTY)


@given(text=TEXT)
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
    if not any(token in text for token in tokenizer.control_ids):
        assert tokenizer.encode(text, allow_special=True) == ids


@pytest.mark.parametrize("text", NASTY)
def test_nasty_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_control_tokens_in_text_are_ordinary_unless_allowed(tokenizer: Tokenizer) -> None:
    for token, id in tokenizer.control_ids.items():
        text = f"a{token}文 {token}"
        ordinary = tokenizer.encode(text)
        assert not set(ordinary) & set(tokenizer.control_ids.values()), token
        assert tokenizer.decode(ordinary) == text
        assert tokenizer.encode(token, allow_special=True) == [id]
        assert tokenizer.encode(text, allow_special=True).count(id) == 2


def test_decoding_hides_special_tokens_but_shows_reasoning_and_calls(tokenizer: Tokenizer) -> None:
    text = "<|im_start|><think>好</think><tool_call>{}</tool_call><|im_end|><|reserved_3|>"
    ids = tokenizer.encode(text, allow_special=True)
    assert tokenizer.decode(ids) == "<think>好</think><tool_call>{}</tool_call>"
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_named_ids(tokenizer: Tokenizer) -> None:
    assert (tokenizer.document_boundary_id, tokenizer.end_of_turn_id) == (0, 2)
    assert tokenizer.stop_ids == (2, 0)
    assert tokenizer.id_to_token(600) is None and tokenizer.token_to_id("苗苗") is None
    assert tokenizer.token_to_id("<|im_start|>") == 1


def test_batches_equal_single_texts(tokenizer: Tokenizer) -> None:
    texts = [*NASTY, "你好，世界", "<|im_end|>"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch([]) == []


def test_half_a_surrogate_pair(tokenizer: Tokenizer) -> None:
    for texts in (["bad \ud800"], ["fine", "bad \ud800"]):
        with pytest.raises(MiaoError, match="surrogate") as caught:
            tokenizer.encode_batch(texts)
        assert caught.value.where == r"'bad \ud800'"


def test_ids_outside_the_vocabulary(tokenizer: Tokenizer) -> None:
    for id in (-1, 600):
        with pytest.raises(MiaoError, match=f"{id} is outside the vocabulary"):
            tokenizer.decode([5, id])


@given(ids=st.lists(st.integers(0, 599), max_size=30))
def test_decoding_equals_the_librarys(tokenizer: Tokenizer, ids: list[int]) -> None:
    for skip in (True, False):
        assert tokenizer.decode(ids, skip) == tokenizer._backend.decode(ids, skip)


@given(text=TEXT, cuts=st.lists(st.integers(0, 40), max_size=8))
def test_streaming_never_shows_half_a_character(
    tokenizer: Tokenizer, text: str, cuts: list[int]
) -> None:
    ids = tokenizer.encode(text)
    borders = sorted({0, len(ids), *(cut for cut in cuts if cut < len(ids))})
    stream = StreamDecoder(tokenizer)
    shown = [stream.feed(ids[a:b]) for a, b in pairwise(borders)]
    assert "".join(shown) == text  # nothing is held back once the characters are whole
    assert stream.flush() == ""


@given(ids=st.lists(st.integers(0, 599), max_size=30), skip=st.booleans())
def test_streamed_pieces_join_to_what_decode_gives(
    tokenizer: Tokenizer, ids: list[int], skip: bool
) -> None:
    stream = StreamDecoder(tokenizer, skip_special_tokens=skip)
    pieces = [stream.feed(id) for id in ids]
    assert "".join(pieces) + stream.flush() == tokenizer.decode(ids, skip)


def test_a_stream_holds_a_cut_character_back(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("龘")
    assert len(ids) > 1
    stream = StreamDecoder(tokenizer)
    assert [stream.feed(id) for id in ids] == [""] * (len(ids) - 1) + ["龘"]
    stream.feed(ids[0])
    assert stream.flush() == "\ufffd"
    assert stream.feed(ids) == "龘"  # flushing starts afresh


def test_saved_and_loaded_is_the_same(
    tokenizer: Tokenizer, directory: Path, tmp_path: Path
) -> None:
    loaded = Tokenizer.from_directory(directory)
    assert sorted(file.name for file in directory.iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert loaded.fingerprint() == tokenizer.fingerprint()
    assert loaded.encode(NASTY[8]) == tokenizer.encode(NASTY[8])
    assert loaded.chat_template.source == tokenizer.chat_template.source
    assert (loaded.stop_ids, loaded.special_ids) == (tokenizer.stop_ids, tokenizer.special_ids)
    loaded.save(tmp_path, model_max_length=512)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["model_max_length"] == 512
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert (config["eos_token"], config["pad_token"]) == ("<|im_end|>", "<|endoftext|>")


def test_the_fingerprint_sees_the_vocabulary_and_the_template(tokenizer: Tokenizer) -> None:
    other = Tokenizer(tokenizer._backend, {**tokenizer._config, "chat_template": "{{ 1 }}"})
    smaller = train_tokenizer(["text text"], vocab_size=272)
    prints = {tokenizer.fingerprint(), other.fingerprint(), smaller.fingerprint()}
    assert len(prints) == 3


def test_transformers_reads_the_same(tokenizer: Tokenizer, directory: Path) -> None:
    theirs = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(directory)
    for text in [*NASTY, "你好，I'm 3 years old.\n"]:
        assert theirs.encode(text) == tokenizer.encode(text)
        assert theirs.decode(theirs.encode(text)) == text
    marked = "<|im_start|>a<think>b<|im_end|>"
    assert theirs.encode(marked) == tokenizer.encode(marked, allow_special=True)
    assert theirs.decode(theirs.encode(marked), skip_special_tokens=True) == "a<think>b"
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (0, 2, 0)


def test_a_pickled_copy_and_threads_agree(tokenizer: Tokenizer) -> None:
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.fingerprint() == tokenizer.fingerprint() and copy.stop_ids == tokenizer.stop_ids
    texts = [f"第{number}步，把水烧开" for number in range(200)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(copy.encode, texts)) == [tokenizer.encode(text) for text in texts]


def _encode_in_child(tokenizer: Tokenizer, texts: list[str], answers: Any) -> None:
    answers.put((tokenizer.encode_batch(texts), os.environ.get("TOKENIZERS_PARALLELISM")))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_encodes_quietly(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    texts = ["花园里有红色的花"] * 50
    expected = tokenizer.encode_batch(texts)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_encode_in_child, args=(tokenizer, texts, answers))
    child.start()
    assert answers.get(timeout=300) == (expected, "false")
    child.join()
    assert "TOKENIZERS_PARALLELISM" not in os.environ
    assert capfd.readouterr().err == ""


def _foreign(tokenizer: Tokenizer, path: Path, config: dict[str, Any]) -> Path:
    """A directory as other models have it: our vocabulary, their settings."""
    tokenizer.save(path)
    (path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return path


def test_ends_are_found_in_other_models_settings(tokenizer: Tokenizer, tmp_path: Path) -> None:
    template = [{"name": "default", "template": "{{ eos_token }}"}, {"name": "x", "template": "y"}]
    config = {"eos_token": {"content": "<|reserved_0|>"}, "chat_template": template}
    path = _foreign(tokenizer, tmp_path, config)
    (path / "generation_config.json").write_text('{"eos_token_id": [10, 11]}', encoding="utf-8")
    loaded = Tokenizer.from_directory(path)
    assert (loaded.end_of_turn_id, loaded.document_boundary_id) == (9, 0)
    assert loaded.stop_ids == (9, 0, 10, 11)
    assert loaded.chat_template.render([{"role": "user", "content": ""}]) == "<|reserved_0|>"
    assert pickle.loads(pickle.dumps(loaded)).stop_ids == loaded.stop_ids


def test_a_template_file_goes_before_the_settings(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = _foreign(tokenizer, tmp_path, {"eos_token": "<|endoftext|>", "chat_template": "old"})
    (path / "chat_template.jinja").write_text("<|im_start|><|im_end|>", encoding="utf-8")
    loaded = Tokenizer.from_directory(path)
    assert loaded.chat_template.source == "<|im_start|><|im_end|>"
    assert loaded.end_of_turn_id == 2  # what the template ends turns with, not the base's eos


def test_no_template(tokenizer: Tokenizer, tmp_path: Path) -> None:
    loaded = Tokenizer.from_directory(_foreign(tokenizer, tmp_path, {}))
    assert loaded.end_of_turn_id == loaded.document_boundary_id == 0
    with pytest.raises(MiaoError, match="no chat template"):
        _ = loaded.chat_template


def test_added_tokens_beyond_the_vocabulary_and_added_spaces(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    backend = tokenizers.Tokenizer.from_str(tokenizer._backend.to_str())
    backend.add_special_tokens([tokenizers.AddedToken("<｜更多｜>", normalized=False)])
    backend.add_tokens([tokenizers.AddedToken("        ", normalized=False)])
    extended = Tokenizer(backend, tokenizer._config)
    assert extended.vocab_size == 602
    assert extended.token_bytes(600) == "<｜更多｜>".encode()
    assert extended.encode("        x")[0] == 601  # spaces are text, whoever added them
    assert 600 not in extended.encode("<｜更多｜>")
    assert extended.decode(extended.encode("<｜更多｜>        。")) == "<｜更多｜>        。"


def test_what_cannot_be_loaded_says_why(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(MiaoError, match="no such directory"):
        Tokenizer.from_directory(tmp_path / "nowhere")
    with pytest.raises(MiaoError, match=r"no tokenizer\.json here"):
        Tokenizer.from_directory(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(MiaoError, match="cannot be read") as caught:
        Tokenizer.from_directory(tmp_path)
    assert caught.value.where == str(tmp_path / "tokenizer.json")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
    words.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(MiaoError, match="not a byte-level BPE") as caught:
        Tokenizer.from_directory(tmp_path)
    assert caught.value.where == str(tmp_path)
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(MiaoError, match="JSON object was expected"):
        Tokenizer.from_directory(tmp_path)


def test_a_tokenizer_needs_an_end() -> None:
    spec = json.loads(train_tokenizer(["text"], vocab_size=272)._backend.to_str())
    spec["added_tokens"] = []
    with pytest.raises(MiaoError, match="no token that ends a text"):
        Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(spec)), {})


def test_documents_begin_as_the_tokenizer_itself_begins_texts(
    tokenizer: Tokenizer, llama3_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """By transformers' own encoding; where a tokenizer adds nothing, with what ended the document
    before."""
    assert (tokenizer.own_start, tokenizer.document_start) == ((), (0,))
    llama3_tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("The rain was kind.", "今天天气很好。", "a"):
        own = [*llama3_tokenizer.document_start, *llama3_tokenizer.encode(text)]
        assert own == theirs.encode(text) and own[0] == theirs.bos_token_id
    spec = llama3_tokenizer.spec()  # two tokens, as GLM has ([gMASK]<sop>)
    rule = spec["post_processor"]
    rule["single"].insert(0, {"SpecialToken": {"id": "<|eot_id|>", "type_id": 0}})
    eot = llama3_tokenizer.token_to_id("<|eot_id|>")
    rule["special_tokens"]["<|eot_id|>"] = {
        "id": "<|eot_id|>",
        "ids": [eot],
        "tokens": ["<|eot_id|>"],
    }
    two = llama3_tokenizer.with_spec(spec)
    assert two.document_start == (eot, theirs.bos_token_id)
    rule["single"].append({"SpecialToken": {"id": "<|eot_id|>", "type_id": 0}})  # an end is none
    assert llama3_tokenizer.with_spec(spec).document_start == two.document_start
    says_so = {"bos_token": "<|im_start|>", "eos_token": "<|endoftext|>", "add_bos_token": True}
    bare = Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(tokenizer.spec())), says_so)
    assert bare.document_start == (tokenizer.token_to_id("<|im_start|>"),)
