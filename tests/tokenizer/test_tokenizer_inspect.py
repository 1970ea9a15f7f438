"""Inspection: readable pieces, counts that add up, and what is printed."""

from __future__ import annotations

import pytest
from rich.console import Console, RenderableType

from miao.corpus.records import Conversation, Message
from miao.tokenizer import Tokenizer
from miao.tokenizer.inspect import (
    inspect_conversation,
    inspect_text,
    inspect_vocabulary,
    is_chinese,
    readable,
    render_inspection,
    render_vocabulary,
)


def printed(renderable: RenderableType, colour: bool = False) -> str:
    console = Console(
        width=200, force_terminal=colour, color_system="truecolor" if colour else None
    )
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("天气".encode(), "天气"),
        (b" the", "·the"),
        (b"\n\t\r", "↵→␍"),
        (b"\xe4\xb8", "<E4 B8>"),
        ("，".encode() + b"\xe4", "，<E4>"),
        (b"\xad" + "好".encode() + b"\xff", "<AD>好<FF>"),
        (b"\x07", "<07>"),
        ("\u200b".encode(), "<E2 80 8B>"),
        (b"", ""),
    ],
)
def test_readable(raw: bytes, shown: str) -> None:
    assert readable(raw) == shown


def test_pieces_of_a_text(tokenizer: Tokenizer) -> None:
    inspection = inspect_text(tokenizer, "喜欢 the 龘")
    assert [piece.shown for piece in inspection.pieces] == [
        *("喜欢", "·the", "·", "<E9>", "<BE>", "<98=龘>")
    ]
    assert [piece.id for piece in inspection.pieces] == tokenizer.encode("喜欢 the 龘")
    assert (inspection.tokens, inspection.characters, inspection.bytes) == (6, 8, 14)
    assert inspection.characters_per_token == pytest.approx(8 / 6)
    assert inspection.bytes_per_token == pytest.approx(14 / 6)
    assert inspection.learnt_tokens == 6


def test_an_empty_text(tokenizer: Tokenizer) -> None:
    inspection = inspect_text(tokenizer, "")
    assert (inspection.tokens, inspection.characters_per_token) == (0, 0)
    assert "0 tokens" in printed(render_inspection(inspection, ids=True))


def test_a_conversation_shows_what_is_learnt(tokenizer: Tokenizer) -> None:
    conversation = Conversation([Message("user", "<think>"), Message("assistant", "喜欢")])
    inspection = inspect_conversation(tokenizer, conversation)
    learnt = [piece.shown for piece in inspection.pieces if piece.is_learnt]
    assert learnt == ["喜欢", "<|im_end|>"]
    control = [piece.shown for piece in inspection.pieces if piece.is_control]
    assert control == ["<|im_start|>", "<|im_end|>", "<|im_start|>", "<|im_end|>"]
    text = tokenizer.chat_template.render(conversation.messages)
    assert (inspection.characters, inspection.bytes) == (len(text), len(text.encode()))


def test_printed_inspection(tokenizer: Tokenizer) -> None:
    conversation = Conversation([Message("user", "水"), Message("assistant", "喜欢[red]水")])
    inspection = inspect_conversation(tokenizer, conversation)
    plain = printed(render_inspection(inspection))
    assert "<|im_end|>│↵\n<|im_start|>│" in plain
    assert "喜欢│[" in plain  # brackets are text, not styles
    assert f"{inspection.tokens} tokens ({inspection.learnt_tokens} learnt)" in plain
    coloured = printed(render_inspection(inspection), colour=True)
    context, learnt = (
        coloured[: coloured.index(word)].rsplit("\x1b[", 1)[1] for word in ("水", "喜欢")
    )
    assert context != learnt
    table = printed(render_inspection(inspection, ids=True))
    row = next(line for line in table.splitlines() if "喜欢" in line and "yes" in line)
    assert str(tokenizer.encode("喜欢")[0]) in row


def test_the_vocabulary_adds_up(tokenizer: Tokenizer) -> None:
    overview = inspect_vocabulary(tokenizer, longest=5)
    assert overview.controls == 16
    kinds = (overview.controls, overview.with_chinese, overview.partial, overview.other)
    assert sum(kinds) == overview.vocab_size == 600
    assert overview.partial >= 128  # at least the bytes that are no ASCII
    pieces = [tokenizer.token_bytes(id) for id in range(16, 600)]
    chinese = [piece for piece in pieces if any(map(is_chinese, piece.decode(errors="replace")))]
    assert 0 < overview.with_chinese <= len(chinese)
    assert overview.chinese_share == overview.with_chinese / 600
    assert len(overview.longest_chinese) == len(overview.longest_latin) == 5
    lengths = [len(word) for word in overview.longest_latin]
    assert lengths[0] > 4 and all(word.isalpha() for word in overview.longest_latin)
    text = printed(render_vocabulary(overview))
    assert "600 tokens" in text and overview.longest_chinese[0] in text


def test_chinese_characters() -> None:
    assert all(map(is_chinese, "苗一龥㐀𠮷"))
    assert not any(map(is_chinese, "a1。，あ한é"))
