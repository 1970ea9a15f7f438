"""Encodings told apart; mojibake of both kinds turned back, and nothing else touched."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miao.corpus.encoding import encoding_of, looks_like_gb18030, mend_text
from miao.errors import MiaoError

POEM = "床前明月光，疑是地上霜。举头望明月，低头思故乡。"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ("utf-8", 0)),
        (b"\xef\xbb\xbfa", ("utf-8", 3)),
        (POEM.encode("utf-16"), ("utf-16-le", 2)),
        (b"\xfe\xff" + POEM.encode("utf-16-be"), ("utf-16-be", 2)),
        (POEM.encode("utf-32"), ("utf-32-le", 4)),
        (("a " + POEM).encode("utf-16-le"), ("utf-16-le", 0)),
        (b"ok\n\nab\0c", ("utf-8", 0)),  # one stray NUL is not UTF-16
        (b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0>\0", ("utf-8", 0)),
        (POEM.encode(), ("utf-8", 0)),
    ],
)
def test_encoding_of_a_beginning(content: bytes, expected: tuple[str, int]) -> None:
    assert encoding_of(content) == expected


def test_gb18030_is_not_seen_in_other_encodings() -> None:
    assert looks_like_gb18030(POEM.encode("gbk"))
    for text, encoding in (("déjà vu à la fin", "latin-1"), (POEM, "utf-8"), ("Größe", "cp1252")):
        assert not looks_like_gb18030(text.encode(encoding))


@pytest.mark.parametrize(
    ("text", "how"),
    [
        (POEM, "Latin-1"),
        (f"Title: {POEM} end", "Latin-1"),
        ("a fiancé, 23 × 16 – good", "Latin-1"),
        ("你好世界", "GBK"),
        ("人工智能改变世界", "GBK"),
    ],
)
def test_mojibake_is_turned_back(text: str, how: str) -> None:
    if how == "GBK":
        wrong = text.encode().decode("gb18030")
    else:  # cp1252 where it has a character, else the byte's own number
        wrong = "".join(
            bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in text.encode()
        )
    assert wrong != text
    mended, done = mend_text(wrong)
    assert mended == text and len(done) == 1 and how in done[0]


@pytest.mark.parametrize(
    "text",
    [
        POEM,
        "繁體中文也是一樣的，臺灣與香港。",
        "「日本語」のテキスト——“引用”……",
        "café naïve déjà-vu Ærø ÅÄÖ “quotes” – dash … €5 £3",
        "Ça va? À bientôt; né(e) à Zürich: ½ × ¼ = ⅛",
        "Привет, мир. ñandú ¡Olé!",
        "emoji 🦊👨‍👩‍👧 and ∑∫≈",
        "a",
        "",
    ],
)
def test_sound_text_is_left_alone(text: str) -> None:
    assert mend_text(text) == (text, [])


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5), max_size=60))
def test_chinese_of_any_characters_is_left_alone(text: str) -> None:
    assert mend_text(text) == (text, [])


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_mended_or_refused(text: str) -> None:
    try:
        mended, done = mend_text(text)
    except MiaoError as error:
        assert error.fix
        return
    assert (mended == text) or done
    assert "\0" not in mended


def test_lost_characters_are_kept_while_they_are_few() -> None:
    text = POEM * 10 + "\ufffd"
    assert mend_text(text) == (text, ["kept, with single lost characters (U+FFFD)"])
    for lost in ("锟斤拷锟斤拷", "a\ufffd\ufffd\ufffdb"):
        with pytest.raises(MiaoError, match="lost characters"):
            mend_text(lost)
    assert mend_text("a\0b") == ("ab", ["NUL characters removed"])
