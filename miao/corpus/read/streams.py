"""The bytes of a user's file -> its text, decoded in chunks or lines."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

from miao.corpus.read.encoding import chinese_encoding, encoding_of
from miao.corpus.read.opened import (
    CHUNK,
    DamagedFile,
    Source,
    open_binary,
    read_bytes,
    readable,
)
from miao.errors import MiaoError

OnRepair = Callable[[Source, str], object]
"""Called with a file, and how it was read although something was wrong with it."""


def read_bytes_of_text(
    path: Source,
    size: int = CHUNK,
    on_repair: OnRepair | None = None,
    encoding: str | None = None,
) -> Iterator[bytes]:
    """The decompressed file without its byte-order mark; UTF-16, UTF-32, Big5 and a given
    `encoding` become UTF-8."""
    chunks = read_bytes(path, size)
    beginning = b""
    for chunk in chunks:
        beginning += chunk
        if len(beginning) >= 4096:
            break
    told, mark = encoding_of(beginning)
    # A byte-order mark is surer than what a user says of many files at once.
    encoding = told if mark or not encoding else encoding
    chunks = chain([beginning[mark:]], chunks)
    if encoding == "utf-8":
        yield from (chunk for chunk in chunks if chunk)
        return
    if on_repair:
        on_repair(path, f"read as {_short(encoding)}")
    decoder = codecs.getincrementaldecoder(encoding)()
    for chunk in chain(chunks, [b""]):
        try:
            yield decoder.decode(chunk, final=not chunk).encode()
        except UnicodeError as error:
            raise DamagedFile(
                f"not valid {_short(encoding)}: {getattr(error, 'reason', error)}",
                where=str(path),
                fix="the file was cut or damaged: download or export it again, as UTF-8",
            ) from error


def _short(encoding: str) -> str:
    """UTF-16 for both of its byte orders, Big5 with its characters of Hong Kong."""
    if encoding == "big5hkscs":
        return "Big5"
    return encoding.upper().removesuffix("-LE").removesuffix("-BE")


def read_text(
    path: Source,
    size: int = CHUNK,
    on_repair: OnRepair | None = None,
    encoding: str | None = None,
) -> Iterator[str]:
    """The decoded file in chunks of `size` bytes, without the byte-order mark if there is one.

    GBK/GB18030, Big5, UTF-16 and UTF-32 are recognised and decoded; `on_repair` hears of it.

    Raises:
        DamagedFile: a byte that is not text, or NUL; with its line and offset.
    """
    decoder: codecs.IncrementalDecoder = codecs.getincrementaldecoder("utf-8")()
    offset, line = 0, 1  # of what the next chunk is decoded with
    plain = True  # ASCII so far, which is the same in either encoding
    for chunk in chain(read_bytes_of_text(path, size, on_repair, encoding), [b""]):
        data = decoder.getstate()[0] + chunk  # a character may have been cut by the last chunk
        if b"\0" in chunk:
            raise _not_text(path, data, data.index(b"\0"), offset, line, "a NUL byte")
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            cut = error.reason == "unexpected end of data"
            foreign = next(at for at, byte in enumerate(data) if byte > 0x7F)
            chinese = chinese_encoding(data[foreign:][:4096]) if plain and not cut else None
            if chinese is None:
                reason = f"not UTF-8, {error.reason}"
                raise _not_text(path, data, error.start, offset, line, reason) from error
            decoder, chunk = codecs.getincrementaldecoder(chinese)(), data
            if on_repair:
                on_repair(path, f"read as {_short(chinese)}")
            try:
                text = decoder.decode(chunk)
            except UnicodeDecodeError as wrong:
                reason = f"neither UTF-8 nor {_short(chinese)}, {wrong.reason}"
                raise _not_text(path, data, wrong.start, offset, line, reason) from wrong
        plain = plain and text.isascii()
        offset += len(data) - len(decoder.getstate()[0])
        line += text.count("\n")
        yield text


def read_lines(
    path: Source, on_repair: OnRepair | None = None, encoding: str | None = None
) -> Iterator[tuple[int, str]]:
    r"""Line numbers and lines, without their "\n" (the only character that ends a line here)."""
    return _lines(read_text(path, on_repair=on_repair, encoding=encoding), "\n")


def read_raw_lines(
    path: Source, on_repair: OnRepair | None = None, encoding: str | None = None
) -> Iterator[tuple[int, bytes]]:
    r"""`read_lines`, not decoded: one bad line need not spoil the others."""
    return _lines(read_bytes_of_text(path, on_repair=on_repair, encoding=encoding), b"\n")


def raw_lines_between(path: Source, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """The lines of a plain file that begin in these bytes, numbered from 1."""
    number = 0
    with readable(path), open_binary(path) as file:
        at = seek_line(file, start)
        while at < stop and (line := file.readline()):
            number += 1
            at += len(line)
            yield number, line.removesuffix(b"\n")


def seek_line(file: Any, start: int) -> int:
    """Goes to the first line that begins at `start` or later; where that is."""
    file.seek(max(start - 1, 0))
    if start:
        file.readline()  # the rest of a line that began earlier; or the "\n" just before us
    return int(file.tell())


def _lines(chunks: Iterator[Any], newline: Any) -> Iterator[tuple[int, Any]]:
    number, begun = 1, [newline[:0]]
    for chunk in chunks:
        head, *rest = chunk.split(newline)
        begun.append(head)
        for following in rest:
            yield number, newline[:0].join(begun)
            number, begun = number + 1, [following]
    if last := newline[:0].join(begun):
        yield number, last


def decode_line(line: bytes) -> tuple[str, str | None]:
    """One line of a file of lines, and how it was mended (None: nothing was wrong).

    Raises:
        MiaoError: bytes that are not text; without a place.
    """
    mended = None
    if b"\0" in line:
        line = line.strip(b"\0")
        if b"\0" in line or not line:
            raise MiaoError(
                "NUL bytes in the line",
                fix="a crash or a full disk left them: export the file again, or drop the line",
            )
        mended = "NUL bytes around lines removed"
    try:
        return line.decode(), mended
    except UnicodeDecodeError as error:
        wrong = error
    chinese = chinese_encoding(line) if wrong.reason != "unexpected end of data" else None
    if chinese:
        with suppress(UnicodeDecodeError):
            return line.decode(chinese), f"lines read as {_short(chinese)}"
    fix = "convert the file to UTF-8 (`iconv`), or drop the line"
    if wrong.reason == "unexpected end of data":
        fix = "the line was cut inside a character: export the file again, or drop the line"
    at = f"0x{line[wrong.start]:02x} at byte {wrong.start + 1}"
    raise MiaoError(f"not UTF-8, {wrong.reason} ({at})", fix=fix)


def _not_text(
    path: Source, data: bytes, at: int, offset: int, line: int, reason: str
) -> DamagedFile:
    """Says where a file stops being text, and how to convert it.

    `data[at]` is the wrong byte; `data` begins at byte `offset` of the file, on `line`.
    """
    if data[at] == 0:
        fix = "it is no text file, or it is damaged: export or download it again"
    elif reason.endswith("unexpected end of data"):
        fix = "the file was cut inside a character: download or export it again"
    elif chinese := chinese_encoding(data[at:][:4096]):
        name = _short(chinese)
        fix = (
            f"one part of it is UTF-8 and another {'GBK/' * (name == 'GB18030')}{name}: convert "
            f"that part with `iconv -f {name} -t UTF-8`"
        )
    else:
        fix = (
            "find out its encoding (`file -i` guesses) and name it (--encoding, corpus.encoding), "
            "or convert it with `iconv -t UTF-8`"
        )
    return DamagedFile(
        f"{reason} (0x{data[at]:02x} at byte offset {offset + at})",
        where=f"{path}:{line + data[:at].count(10)}",
        fix=fix,
    )
