"""Which bytes are which text: encodings told apart, and the strings of records mended."""

from __future__ import annotations

import codecs
import re

from miao.corpus.read.frequent import frequent_share, gb2312_share
from miao.corpus.read.mojibake import LOST, turned_back
from miao.errors import MiaoError

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}

LEAST_FREQUENT = 0.4
"""The share of the 600 commonest characters that Chinese text has at least, of its letters; wrongly
decoded text has hardly any."""

_USUAL = re.compile("[\t\n\r -~\u00a0-\u04ff\u2010-\u206f\u3000-\u30ff\u4e00-\u9fff\uff00-\uffef]")
_LOST = re.compile("\ufffd|锟斤拷|锟斤|斤拷")


def encoding_of(beginning: bytes) -> tuple[str, int]:
    """The Unicode encoding that a file begins in, and the length of its byte-order mark.

    UTF-16 without a mark has zero bytes, and is usual text in one of the two orders.
    """
    for mark, name in BYTE_ORDER_MARKS.items():
        if beginning.startswith(mark):
            return name, len(mark)
    sample = beginning[: len(beginning) // 2 * 2][:4096]
    if b"\0" in sample:
        shares = {name: _usual(sample, name) for name in ("utf-16-le", "utf-16-be")}
        best = max(shares, key=lambda name: shares[name])
        if shares[best] > 0.95:
            return best, 0
    return "utf-8", 0


def _usual(sample: bytes, encoding: str) -> float:
    """The share of usual characters, where those that are not ASCII are few or common ones."""
    text = codecs.getincrementaldecoder(encoding)("replace").decode(sample)
    foreign = sum(not character.isascii() for character in text)
    if len(text) < 4 or (foreign > 0.3 * len(text) and gb2312_share(text) < 0.8):
        return 0.0
    return len(_USUAL.findall(text)) / len(text)


def chinese_encoding(sample: bytes) -> str | None:
    """ "gb18030" or "big5hkscs", where it decodes so and mostly to common characters (Latin-1
    decodes to rare ones)."""
    shares = {}
    for encoding in ("gb18030", "big5hkscs"):
        try:
            text = codecs.getincrementaldecoder(encoding)().decode(sample)
        except UnicodeDecodeError:
            continue
        if sum(not character.isascii() for character in text) < 2:
            continue
        if encoding == "gb18030" and gb2312_share(text) > 0.8:
            return encoding
        shares[encoding] = frequent_share(text)
    best = max(shares, key=lambda encoding: shares[encoding], default=None)
    return best if best and shares[best] > LEAST_FREQUENT else None


def mend_text(text: str, where: str = "the text") -> tuple[str, list[str]]:
    """The text without NUL characters and mojibake, and what was mended in it.

    Mojibake is UTF-8 that some program took for Latin-1 ("ä½\xa0å¥½" for 你好) or for GBK
    ("浣犲ソ"), perhaps one after the other (`miao.corpus.read.mojibake`).

    Raises:
        MiaoError: a text whose bytes are lost (U+FFFD, 锟斤拷), which nothing can bring back.
    """
    mended: list[str] = []
    if text.isascii() and "\0" not in text:
        return text, mended
    if "\0" in text:
        text = text.replace("\0", "")
        mended.append("NUL characters removed")
    text, undone = turned_back(text, where)
    for how in dict.fromkeys(undone):
        times = f", {undone.count(how)} times over" if undone.count(how) > 1 else ""
        mended.append(f"mojibake turned back: {how}{times}")
    lost = 0
    if "\ufffd" in text or "斤" in text:
        lost = sum(len(match[0]) for match in _LOST.finditer(text))
    if lost > max(2.0, LOST * len(text)):
        raise MiaoError(
            f"{where} has lost characters ({lost} of {len(text)} are U+FFFD or 锟斤拷)",
            fix="they cannot be brought back: export the source again, as UTF-8",
        )
    if lost:
        mended.append("kept, with single lost characters (U+FFFD)")
    return text, mended
