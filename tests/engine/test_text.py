"""Streaming text: joined pieces are the decoded answer, cut before the first stop text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from miao.engine.text import TextStream
from miao.tokenizer import Tokenizer

ANSWER = "今天天气很好，we shall 🙂 walk in the park。"


def stream(tokenizer: Tokenizer, ids: list[int], stop: tuple[str, ...]) -> tuple[list[str], bool]:
    text = TextStream(tokenizer, stop)
    pieces = []
    for token in ids:
        stopped = text.feed(token)
        pieces.append(text.take())
        if stopped:
            break
    pieces.append(text.finish())
    return pieces, text.is_stopped


def test_no_character_is_ever_split(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(ANSWER)
    pieces, stopped = stream(tokenizer, ids, ())
    assert "".join(pieces) == ANSWER and not stopped
    assert "\ufffd" not in "".join(pieces) and "🙂" in pieces
    assert len([piece for piece in pieces if piece]) > 10


def test_half_a_character_at_the_end_becomes_a_replacement(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("好🙂")[:-1]
    pieces, _ = stream(tokenizer, ids, ())
    assert "".join(pieces) == tokenizer.decode(ids) and pieces[-1] == "\ufffd"


@given(
    stop=st.lists(
        st.sampled_from(["天气", "很好，we", "🙂", "park。", "a", "zzz", "l w", "。"]), max_size=3
    ),
    text=st.sampled_from([ANSWER, "天天天气气", "aab", "we shall we", "🙂🙂"]),
)
def test_stop_texts_over_token_borders(tokenizer: Tokenizer, stop: list[str], text: str) -> None:
    places = [text.find(one) for one in stop if one in text]
    expected = text[: min(places)] if places else text
    pieces, stopped = stream(tokenizer, tokenizer.encode(text), tuple(stop))
    assert "".join(pieces) == expected
    assert stopped == bool(places)


def test_what_may_become_a_stop_text_is_held_back(tokenizer: Tokenizer) -> None:
    text = TextStream(tokenizer, ("park and ride",))
    shown = ""
    for token in tokenizer.encode("the park and run"):
        assert not text.feed(token)
        shown += text.take()
        assert not any(shown.endswith(part) for part in (" p", "park", "park and"))
    assert shown + text.finish() == "the park and run"
