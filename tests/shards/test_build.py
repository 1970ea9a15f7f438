"""Records to shards: the ids, what is learned of them, and the counts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from miao.corpus.records import Conversation, Document, Kind, Message, Preference, Record
from miao.errors import MiaoError
from miao.shards import TokenDataset, build_dataset
from miao.shards.build import note_lines
from miao.tokenizer import ChatTemplate, Tokenizer


def build(
    tokenizer: Tokenizer, directory: Path, kind: Kind, records: Sequence[Record], **options: Any
) -> TokenDataset:
    build_dataset(records, kind, "source", tokenizer, directory / "data", **options)
    return TokenDataset(directory / "data", verify=True)


def learned_text(tokenizer: Tokenizer, data: TokenDataset, number: int) -> str:
    mask = data.mask(number)
    assert mask is not None
    ids = data.tokens(number)[mask]
    return tokenizer.decode(ids.tolist(), skip_special_tokens=False)


def test_documents_have_the_boundary_at_both_ends(tokenizer: Tokenizer, tmp_path: Path) -> None:
    texts = ["今天天气很好。", "", "The rain was kind to it.\n"]
    seen: list[int] = []
    data = build(tokenizer, tmp_path, "document", [Document(t) for t in texts], advance=seen.append)
    boundary = tokenizer.document_boundary_id
    for number, text in enumerate(texts):
        ids = data.tokens(number).tolist()
        assert ids == [boundary, *tokenizer.encode(text), boundary]
        assert tokenizer.decode(ids[1:-1]) == text
    assert data.mask(0) is None
    manifest = data.manifest
    assert (manifest.kind, manifest.source, manifest.dtype) == ("document", "source", "uint16")
    assert manifest.tokenizer == tokenizer.fingerprint()
    assert manifest.vocab_size == tokenizer.vocab_size
    assert manifest.bytes == sum(len(t.encode()) for t in texts)
    assert manifest.trained_tokens == sum(len(tokenizer.encode(t)) + 1 for t in texts)
    assert sum(seen) == 3


def test_of_a_conversation_the_assistant_is_learned(tokenizer: Tokenizer, tmp_path: Path) -> None:
    turns = [
        Message("system", "你是小苗。"),
        Message("user", "Why does water freeze?"),
        Message("assistant", "It is cold."),
        Message("user", "谢谢"),
        Message("assistant", "好的，我们走吧。"),
        Message("user", "a question without an answer"),
    ]
    data = build(tokenizer, tmp_path, "conversation", [Conversation(turns)])
    learned = "It is cold.<|im_end|>好的，我们走吧。<|im_end|>"
    assert learned_text(tokenizer, data, 0) == learned
    ids = data.tokens(0).tolist()
    whole, _ = tokenizer.chat_template.encode(tokenizer, Conversation(turns))
    assert ids == whole[: len(ids)]
    assert ids[-1] == tokenizer.end_of_turn_id  # nothing is learned from what would follow
    said = [tokenizer.encode(turns[n].content) for n in (2, 4)]
    assert data.manifest.trained_tokens == len(said[0]) + 1 + len(said[1]) + 1
    assert data.manifest.bytes == sum(len(turn.content.encode()) for turn in turns)


def test_only_the_last_turn_on_request(tokenizer: Tokenizer, tmp_path: Path) -> None:
    turns = [Message("user", "1"), Message("assistant", "one")] * 2
    turns[-1] = Message("assistant", "two")
    data = build(tokenizer, tmp_path, "conversation", [Conversation(turns)], last_turn_only=True)
    assert learned_text(tokenizer, data, 0) == "two<|im_end|>"


def test_a_turn_marked_as_not_learned_is_read_and_not_learned(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    turns = [
        *(Message("user", "1"), Message("assistant", "wrong", learned=False)),
        *(Message("user", "2"), Message("assistant", "right")),
    ]
    none = [turns[0], turns[1]]
    data = build(tokenizer, tmp_path, "conversation", [Conversation(turns), Conversation(none)])
    assert len(data) == 1
    assert learned_text(tokenizer, data, 0) == "right<|im_end|>"
    assert "wrong" in tokenizer.decode(data.tokens(0).tolist())
    assert data.manifest.notes == {"marked": 2, "unlearned": 1}
    assert note_lines(data.manifest.notes, "conversation") == [
        "1 conversations have no turn that is learned, and are left out",
        '2 turns are marked as not learned ("weight": 0 and the like)',
    ]
    with pytest.raises(MiaoError, match="of the 1 conversations of the source 'source' nothing"):
        build(tokenizer, tmp_path, "conversation", [Conversation(none)])
    last = [*turns[2:], *none]
    with pytest.raises(MiaoError, match="nothing is learned"):
        build(tokenizer, tmp_path, "conversation", [Conversation(last)], last_turn_only=True)


def test_a_side_of_a_pair_that_is_not_learned_is_none(tokenizer: Tokenizer, tmp_path: Path) -> None:
    prompt, good = [Message("user", "1")], [Message("assistant", "good")]
    bad = [Message("assistant", "bad", learned=False)]
    pairs = [Preference(prompt, good, bad), Preference(prompt, bad, bad)]
    data = build(tokenizer, tmp_path, "preference", pairs)
    assert len(data) == 2 and data.lengths[1] == 0 and data.manifest.notes == {"unlearned": 3}
    assert learned_text(tokenizer, data, 0) == "good<|im_end|>"


def test_what_the_chat_template_does_not_write_is_counted(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Of Qwen3's kind: reasoning is written after the user's last question only; no tools."""
    source = (
        "{%- set ns = namespace(last=0) %}{%- for m in messages %}"
        "{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
        "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' }}"
        "{%- if m.role == 'assistant' and m.reasoning_content and loop.index0 > ns.last %}"
        "{{- '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}{%- endif %}"
        "{{- m.content + '<|im_end|>\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
    )
    turns = [
        *(Message("user", "1"), Message("assistant", "one", "first thought")),
        *(Message("user", "2"), Message("assistant", "two", "next thought")),
    ]
    looks = [{"name": "look", "arguments": {}}]
    call = [Message("user", "3"), Message("assistant", "ok", tool_calls=looks)]
    tools = [{"type": "function", "function": {"name": "look"}}]
    talks = [Conversation(turns), Conversation(turns[:2]), Conversation(call, tools=tools)]
    other = copy.copy(tokenizer)
    other._template = ChatTemplate(source)
    data = build(other, tmp_path, "conversation", talks)
    assert data.manifest.notes == {"reasoning": 1, "tool calls": 1, "tools": 1}
    assert "1 turns lose their reasoning" in note_lines(data.manifest.notes, "conversation")[0]
    assert not build(tokenizer, tmp_path, "conversation", talks).manifest.notes


def test_of_a_preference_what_follows_the_prompt_is_learned(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    prompt = [Message("user", "1"), Message("assistant", "not this"), Message("user", "2")]
    pairs = [
        Preference(prompt, [Message("assistant", f"good {n}")], [Message("assistant", f"bad {n}")])
        for n in range(3)
    ]
    data = build(tokenizer, tmp_path, "preference", pairs)
    assert len(data) == 6 and data.group_size == 2
    for n in range(3):
        assert learned_text(tokenizer, data, 2 * n) == f"good {n}<|im_end|>"
        assert learned_text(tokenizer, data, 2 * n + 1) == f"bad {n}<|im_end|>"
    shared = len(tokenizer.chat_template.encode_prompt(tokenizer, prompt))
    assert data.tokens(0)[:shared].tolist() == data.tokens(1)[:shared].tolist()
    assert not data.mask(0)[:shared].any()  # type: ignore[index]


def test_many_records_keep_their_order(tokenizer: Tokenizer, tmp_path: Path) -> None:
    texts = [f"{n} and the rain" for n in range(2500)]
    data = build(tokenizer, tmp_path, "document", [Document(text) for text in texts])
    for number in (0, 1023, 1024, 2047, 2048, 2499):
        assert tokenizer.decode(data.tokens(number)[1:-1].tolist()) == texts[number]


@pytest.mark.parametrize("kind", ["document", "conversation", "preference"])
def test_no_records_are_an_error_that_names_the_source(
    tokenizer: Tokenizer, tmp_path: Path, kind: Kind
) -> None:
    with pytest.raises(MiaoError, match=f"'source' has no {kind}s"):
        build(tokenizer, tmp_path, kind, [])


def test_documents_of_a_model_with_a_bos_begin_with_it(
    llama3_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    llama3_tokenizer.save(tmp_path / "theirs")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "theirs")
    texts = ["今天天气很好。", "", "The rain was kind to it.\n"]
    data = build(llama3_tokenizer, tmp_path, "document", [Document(text) for text in texts])
    for number, text in enumerate(texts):
        assert data.tokens(number).tolist() == [*theirs.encode(text), theirs.eos_token_id]
