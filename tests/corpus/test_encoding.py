"""Encodings told apart; mojibake of both kinds turned back, and nothing else touched."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miao.corpus.clean.checks import garbled_share
from miao.corpus.ngrams import TextView
from miao.corpus.read.encoding import chinese_encoding, encoding_of, mend_text
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
    assert chinese_encoding(POEM.encode("gbk")) == "gb18030"
    for text, encoding in (("déjà vu à la fin", "latin-1"), (POEM, "utf-8"), ("Größe", "cp1252")):
        assert chinese_encoding(text.encode(encoding)) is None


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


SENTENCES = "人工智能正在改变世界，我们应该学习如何使用它。今天天气很好，我们去公园散步吧！" * 3


def misread(text: str, *codecs: str) -> str:
    """The text encoded as UTF-8 (or GBK) and decoded as something else, once for each codec."""
    for codec in codecs:
        if codec == "cp1252":  # where it has a character, else the byte's own number
            text = "".join(
                bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in text.encode()
            )
        elif codec == "gbk as latin-1":
            text = text.encode("gbk").decode("latin-1")
        else:
            text = text.encode().decode(codec, "replace")
    return text


@pytest.mark.parametrize(
    "codecs",
    [
        ("latin-1", "latin-1"),
        ("cp1252", "cp1252"),
        ("latin-1", "cp1252"),
        ("cp1252", "cp1252", "cp1252"),
        ("latin-1", "gb18030"),
        ("gbk as latin-1",),
        ("gbk as latin-1", "cp1252"),
    ],
)
def test_text_decoded_wrongly_twice_is_turned_back(codecs: tuple[str, ...]) -> None:
    mended, done = mend_text(misread(SENTENCES, *codecs))
    assert mended == SENTENCES and done
    if codecs[0] == codecs[-1] and len(codecs) > 1:
        assert f"{len(codecs)} times over" in done[0]
    in_english = f"Title – {misread(SENTENCES, *codecs)} (end of it)"
    assert SENTENCES in mend_text(in_english)[0]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_no_wrong_decoding_passes_unnoticed(depth: int) -> None:
    """Each is turned back, refused, or rejected by the rule on garbled text."""
    ways = ("latin-1", "cp1252", "gb18030", "gbk as latin-1")
    for codecs in product(ways, repeat=depth):
        if "gbk as latin-1" in codecs[1:]:
            continue
        try:
            mended, _ = mend_text(misread(SENTENCES, *codecs))
        except MiaoError as error:
            assert "as UTF-8" in (error.fix or "")
            continue
        lost = abs(len(mended) - len(SENTENCES)) + mended.count("\ufffd")
        garbled = garbled_share(TextView(mended)) > 0.2
        assert garbled or lost <= 0.02 * len(SENTENCES), codecs


def test_a_no_break_space_that_became_an_ordinary_one() -> None:
    wrong = misread("你好，世界。这里有很多你好和你。" * 4, "latin-1").replace("\xa0", " ")
    assert mend_text(wrong)[0] == "你好，世界。这里有很多你好和你。" * 4


@pytest.mark.parametrize(
    "text",
    [
        POEM,
        "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞß àáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ",
        "Tiếng Việt là ngôn ngữ có thanh điệu và được viết bằng chữ Quốc ngữ.",
        "한국어 문장입니다. ภาษาไทย ελληνικά עברית",
        "爱新觉罗·玄烨、孛儿只斤·铁木真、纳喇·性德",
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
