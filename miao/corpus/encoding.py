"""Which bytes are which text: encodings told apart, and text that was decoded wrongly mended."""

from __future__ import annotations

import codecs
import re

from miao.errors import MiaoError

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
LOST = 0.02
"""Text with a larger share of lost characters (U+FFFD) is refused."""

# What the bytes 80..9F become under cp1252; everything else of Latin-1 is its own code point.
_CP1252 = {bytes([byte]).decode("cp1252", "ignore"): byte for byte in range(0x80, 0xA0)}
_CP1252 = {character: byte for character, byte in _CP1252.items() if character}
_HIGH = "\u0080-\u00ff" + "".join(_CP1252)
_LATIN_RUN = re.compile(f"[{_HIGH}]{{2,}}")
_LATIN_SUSPECT = re.compile(f"[\u00c2-\u00f4][\u0080-\u00bf{''.join(_CP1252)}]")
_FOREIGN_RUN = re.compile("[^\x00-\x7f]{4,64}")
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
    if len(text) < 4 or (foreign > 0.3 * len(text) and _common(text) < 0.8):
        return 0.0
    return len(_USUAL.findall(text)) / len(text)


def looks_like_gb18030(sample: bytes) -> bool:
    """Whether it decodes, and mostly to the common characters: Latin-1 decodes to rare ones."""
    try:
        text = codecs.getincrementaldecoder("gb18030")().decode(sample)
    except UnicodeDecodeError:
        return False
    few = sum(not character.isascii() for character in text) < 2
    return not few and _common(text) > 0.8


def _common(text: str) -> float:
    """The share of the non-ASCII characters that GB 2312 has."""
    foreign = [character for character in text if not character.isascii()]
    common = sum(len(character.encode("gb2312", "ignore")) == 2 for character in foreign)
    return common / len(foreign) if foreign else 0.0


def mend_text(text: str, where: str = "the text") -> tuple[str, list[str]]:
    """The text without NUL characters and mojibake, and what was mended in it.

    Mojibake is UTF-8 that some program took for Latin-1/cp1252 ("ä½\xa0å¥½" for 你好) or for GBK
    ("浣犲ソ"). It is turned back only where every byte of it fits.

    Raises:
        MiaoError: a text whose bytes are lost (U+FFFD, 锟斤拷), which nothing can bring back.
    """
    mended: list[str] = []
    if text.isascii() and "\0" not in text:
        return text, mended
    if "\0" in text:
        text = text.replace("\0", "")
        mended.append("NUL characters removed")
    if _LATIN_SUSPECT.search(text):
        again = _LATIN_RUN.sub(_from_latin, text)
        if len(text) - len(again) >= 2:
            text = again
            mended.append("mojibake: UTF-8 that was read as Latin-1")
    if (run := _FOREIGN_RUN.search(text)) and _gbk_mojibake(run[0]):
        text = _from_gbk(text, where)
        mended.append("mojibake: UTF-8 that was read as GBK")
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


def _from_latin(run: re.Match[str]) -> str:
    try:
        return bytes(_CP1252.get(character, ord(character)) for character in run[0]).decode()
    except ValueError:  # also a character above 255, which is no byte
        return run[0]


def _gbk_mojibake(text: str) -> bool:
    """Whether its GBK bytes are, but for a few, UTF-8 of common characters."""
    raw = text.replace("\ufffd", "?").encode("gb18030", "replace")
    decoded = raw.decode("utf-8", "replace").rstrip("\ufffd")
    lost = decoded.count("\ufffd")
    kept = decoded.replace("\ufffd", "")
    return len(kept) >= 3 and lost < 0.2 * len(kept) and _common(kept) > 0.8 and _common(text) < 1


def _from_gbk(text: str, where: str) -> str:
    try:
        return text.encode("gb18030").decode()
    except UnicodeError as error:
        raise MiaoError(
            f"{where} is mojibake (UTF-8 that was read as GBK) with lost bytes",
            fix="it cannot be brought back whole: export the source again, as UTF-8",
        ) from error
