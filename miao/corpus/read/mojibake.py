"""Text that was decoded wrongly, once or several times, turned back.

UTF-8 that some program took for Latin-1 or cp1252 ("ä½\\xa0å¥½" for 你好), for GBK ("浣犲ソ"), for
one after the other ("盲陆聽氓楼陆"); GBK that was taken for Latin-1 ("ÄãºÃ").
"""

from __future__ import annotations

import re
from collections.abc import Callable

from miao.corpus.read.frequent import frequent_share, gb2312_share
from miao.errors import MiaoError

DEEPEST = 3
"""So many wrong decodings on top of each other are undone."""
LOST = 0.02
"""Text with a larger share of lost characters is refused."""
SAMPLE = 64

# What the bytes 80..9F become under cp1252; everything else of Latin-1 is its own code point.
_CP1252 = {bytes([byte]).decode("cp1252", "ignore"): byte for byte in range(0x80, 0xA0)}
_CP1252 = {character: byte for character, byte in _CP1252.items() if character}
_HIGH = "\u0080-\u00ff" + "".join(_CP1252)
_GOES_ON = f"[\u0080-\u00bf{''.join(_CP1252)}]"  # what a byte inside a character of UTF-8 became
_LATIN_RUN = re.compile(f"[{_HIGH}]{{2,}}")
_LATIN_SUSPECT = re.compile(f"[\u00c2-\u00f4]{_GOES_ON}")
_LATIN_RESIDUE = re.compile(f"[\u00c2-\u00f4]{_GOES_ON}{{1,3}}")
_SPACE_FOR_A0 = re.compile(
    f"(?<=[\u00e0-\u00ef]) (?={_GOES_ON})|(?<=[\u00e0-\u00ef]{_GOES_ON}) |(?<=[\u00c2\u00c3]) "
)
_LATIN_HALF = re.compile("[\u00a1-\u00fe]")
_GBK_AS_LATIN = re.compile("[\u00a1-\u00fe]{8}")
_FOREIGN_RUN = re.compile("[^\x00-\x7f][^\x00-\x7f]{2}")  # re looks fast for a single class

LATIN, GBK, GBK_AS_LATIN = (
    "UTF-8 that was read as Latin-1",
    "UTF-8 that was read as GBK",
    "GBK that was read as Latin-1",
)


def turned_back(text: str, where: str = "the text") -> tuple[str, list[str]]:
    """The text as it was meant, and what was undone, the last wrong decoding first; none: it was
    sound, or nothing that is known here.

    Raises:
        MiaoError: it is mojibake, and too many of its bytes are lost to bring it back.
    """
    half = _LATIN_HALF.search(text)
    steps = _steps_of(text, half.start() if half else len(text))
    if not half and not steps:
        return text, []
    lost = 0
    for step in steps:
        text, missing = _undone(text, step)
        lost += missing
    undone = list(steps)
    for _ in range(DEEPEST):  # in a Latin-1 text one word may be broken, and the others not
        if not _LATIN_SUSPECT.search(text):
            break
        again = _from_latin(text)
        if len(text) - len(again) < 2:
            break
        text = again
        undone.append(LATIN)
    lost += _latin_residue(text)
    if lost > max(8.0 if not steps else 2.0, LOST * len(text)):
        how = f" ({undone[0]})" if undone else f" ({LATIN})"
        raise MiaoError(
            f"{where} is mojibake{how} with lost bytes",
            fix="it cannot be brought back whole: export the source again, as UTF-8",
        )
    return text, undone


def _latin_residue(text: str) -> int:
    """How many characters still look like UTF-8 read as Latin-1."""
    if not _LATIN_SUSPECT.search(text):
        return 0
    return sum(len(found[0]) for found in _LATIN_RESIDUE.finditer(text))


def _steps_of(text: str, latin: int) -> tuple[str, ...]:
    """The wrong decodings that the first foreign words of a text have gone through: of those that
    explain them, the shortest row.

    Args:
        latin: before this are none of what GBK becomes as Latin-1.
    """
    run = _GBK_AS_LATIN.search(text, latin) or _FOREIGN_RUN.search(text)
    if run is None:
        return ()
    sample = text[run.start() : run.start() + SAMPLE]
    if frequent_share(sample) > 0.5:
        return ()
    rows: list[tuple[tuple[str, ...], str]] = [((), sample)]
    for _ in range(DEEPEST):
        longer = []
        for steps, before in rows:
            for step, undo in _SAMPLED.items():
                if (after := undo(before)) is None:
                    continue
                if _explains(before, after, step):
                    return (*steps, step)
                longer.append(((*steps, step), after))
        rows = longer
    return ()


def _explains(before: str, after: str, step: str) -> bool:
    """Whether a text is so much more usual after a step that the step was right."""
    han = sum("\u3400" <= character < "\ua000" for character in after)
    if step in (LATIN, GBK):  # that bytes happen to be UTF-8 is most unlikely
        usual = gb2312_share(after) > 0.8 or frequent_share(after) > 0.5
        few = len(before) < 8 and frequent_share(after) < 1
        return han >= 2 and usual and not few and gb2312_share(before) < 1
    return han >= 4 and frequent_share(after) > 0.4 + frequent_share(before)


def _latin_bytes(text: str) -> bytes:
    """Raises:
    ValueError: a character that is no byte.
    """
    return bytes(_CP1252.get(character, ord(character)) for character in text)


def _sample_of_utf8(raw: bytes) -> str | None:
    """Decoded, but for a few lost bytes and what was cut at the end."""
    text = raw.decode("utf-8", "replace").rstrip("\ufffd")
    kept = text.replace("\ufffd", "")
    share = 1.0 if frequent_share(kept) > 0.6 else 0.2
    return kept if len(kept) >= 2 and len(text) - len(kept) < share * len(kept) else None


def _sampled_latin(text: str) -> str | None:
    try:
        return _sample_of_utf8(_latin_bytes(text.replace("\ufffd", "?")))
    except ValueError:
        return None


def _sampled_gbk(text: str) -> str | None:
    return _sample_of_utf8(text.replace("\ufffd", "?").encode("gb18030", "replace"))


def _sampled_gbk_as_latin(text: str) -> str | None:
    for end in (len(text), len(text) - 1):  # the last pair of bytes may be cut
        try:
            return _latin_bytes(text[:end]).decode("gbk")
        except ValueError:
            continue
    return None


_SAMPLED: dict[str, Callable[[str], str | None]] = {
    GBK: _sampled_gbk,
    LATIN: _sampled_latin,
    GBK_AS_LATIN: _sampled_gbk_as_latin,
}


def _undone(text: str, step: str) -> tuple[str, int]:
    """The whole text after a step, and how many characters are lost."""
    if step == GBK:
        raw = text.replace("\ufffd", "?").encode("gb18030", "replace")
        text = raw.decode("utf-8", "replace")
        return text, text.count("\ufffd")
    return (_from_latin(text) if step == LATIN else _LATIN_RUN.sub(_gbk_run, text)), 0


def _gbk_run(run: re.Match[str]) -> str:
    try:
        return _latin_bytes(run[0]).decode("gbk")
    except ValueError:
        return run[0]


def _from_latin(text: str) -> str:
    """Runs of what the bytes of UTF-8 became, decoded where every byte fits; a no-break space that
    some program made an ordinary one counts as itself where there is much of them."""
    again = _LATIN_RUN.sub(_utf8_run, text)
    if _latin_residue(again) > 2:
        spaced = _LATIN_RUN.sub(_utf8_run, _SPACE_FOR_A0.sub("\u00a0", text))
        if _latin_residue(spaced) < _latin_residue(again):
            return spaced
    return again


def _utf8_run(run: re.Match[str]) -> str:
    try:
        return _latin_bytes(run[0]).decode()
    except ValueError:
        return run[0]
