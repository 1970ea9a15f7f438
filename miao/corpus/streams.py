"""A file of the user's -> its text, decompressed and decoded in chunks, and the JSON in it."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from miao.errors import MiaoError

FORMATS = (".jsonl", ".ndjson", ".json", ".txt", ".md", ".csv", ".tsv", ".parquet")
COMPRESSIONS = (".gz", ".xz", ".bz2", ".zst")
SUPPORTED = f"{' '.join(FORMATS)}, plain or with {' '.join(COMPRESSIONS)} after it"
CHUNK = 1 << 20  # bytes read at a time

_TOKEN = 16  # characters: more than any JSON token has that is no string or plain number
_JSON_SPACE = re.compile(r"[ \t\r\n]*")


def format_of(path: Path) -> tuple[str, str] | None:
    """The extension and the compression ("" if plain) in a file name; None if not supported."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
    return (suffixes[-1], compression) if suffixes and suffixes[-1] in FORMATS else None


def unknown_format(path: Path) -> MiaoError:
    return MiaoError(
        f"files that end in '{path.suffix}' cannot be read" if path.suffix else "no extension",
        where=path,
        fix=f"convert or rename it; supported are {SUPPORTED}",
    )


def missing_library(name: str, path: Path) -> MiaoError:
    return MiaoError(f"reading this needs {name}", where=path, fix="pip install 'miaolm[data]'")


def open_binary(path: Path) -> io.BufferedIOBase:
    """Opens a file for reading, decompressed. Call and read it inside `readable`."""
    known = format_of(path)
    if known is None:
        raise unknown_format(path)
    if known[1] and path.stat().st_size == 0:  # gzip would take this for an empty text
        raise EOFError
    match known[1]:
        case ".gz":
            return gzip.open(path, "rb")
        case ".xz":
            return lzma.open(path, "rb")
        case ".bz2":
            return bz2.open(path, "rb")
        case ".zst":
            return io.BufferedReader(_ZstdStream(path), CHUNK)
        case _:
            return open(path, "rb")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what can go wrong in reading bytes into a `MiaoError` that names the file."""
    again = "download or copy the file again"
    try:
        yield
    except EOFError as error:
        raise MiaoError("the compressed file is truncated", where=path, fix=again) from error
    except (OSError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise MiaoError(f"cannot be read: {error.strerror}", where=path) from error
        raise MiaoError(f"the file is damaged: {error}", where=path, fix=again) from error


def read_bytes(path: Path, size: int = CHUNK) -> Iterator[bytes]:
    """The decompressed file in chunks of exactly `size` bytes (the last may be shorter)."""
    with readable(path), open_binary(path) as file:
        while chunk := file.read(size):
            yield chunk


def read_text(path: Path, size: int = CHUNK) -> Iterator[str]:
    """The decoded file in chunks of `size` bytes, without the byte-order mark if there is one.

    Raises:
        MiaoError: a byte that is not UTF-8, or NUL; with its line and offset.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, line, at_beginning = 0, 1, True  # of what the next chunk is decoded with
    for chunk in chain(read_bytes(path, size), [b""]):
        data = decoder.getstate()[0] + chunk  # a character may have been cut by the last chunk
        if b"\0" in chunk:
            raise _not_text(path, data, data.index(b"\0"), offset, line, "a NUL byte")
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            reason = f"not UTF-8, {error.reason}"
            raise _not_text(path, data, error.start, offset, line, reason) from error
        if text and at_beginning:
            text, at_beginning = text.removeprefix("\ufeff"), False
        offset += len(data) - len(decoder.getstate()[0])
        line += chunk.count(b"\n")
        yield text


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Line numbers and lines, without their "\n" (the only character that ends a line here)."""
    number, begun = 1, [""]
    for text in read_text(path):
        head, *rest = text.split("\n")
        begun.append(head)
        for following in rest:
            yield number, "".join(begun)
            number, begun = number + 1, [following]
    if last := "".join(begun):
        yield number, last


def _not_text(path: Path, data: bytes, at: int, offset: int, line: int, reason: str) -> MiaoError:
    """Says where a file stops being UTF-8, and how to convert it.

    `data[at]` is the wrong byte; `data` begins at byte `offset` of the file, on `line`.
    """
    first_of_line = data.rfind(b"\n", 0, at) + 1
    if offset == 0 and data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        fix = "looks like UTF-16: convert it with `iconv -f UTF-16 -t UTF-8`"
    elif data[at] == 0:
        fix = "it is no text file, or it is damaged: export or download it again"
    elif reason.endswith("unexpected end of data"):
        fix = "the file was cut inside a character: download or export it again"
    elif _looks_like_gb18030(data[first_of_line:][:4096]):
        fix = "looks like GBK/GB18030: convert it with `iconv -f GB18030 -t UTF-8`"
    else:
        fix = "find out its encoding (`file -i` guesses) and convert it with `iconv -t UTF-8`"
    return MiaoError(
        f"{reason} (0x{data[at]:02x} at byte offset {offset + at})",
        where=f"{path}:{line + data[:at].count(10)}",
        fix=fix,
    )


def _looks_like_gb18030(sample: bytes) -> bool:
    """Whether it decodes, and mostly to the common characters: Latin-1 decodes to rare ones."""
    try:
        text = codecs.getincrementaldecoder("gb18030")().decode(sample)
    except UnicodeDecodeError:
        return False
    foreign = [character for character in text if not character.isascii()]
    common = sum(len(character.encode("gb2312", "ignore")) == 2 for character in foreign)
    return common > 0.8 * len(foreign)


class _ZstdStream(io.RawIOBase):
    """The frames of a .zst file. Unlike zstandard's own reader it notices a missing end."""

    def __init__(self, path: Path):
        try:
            import zstandard
        except ImportError as error:
            raise missing_library("zstandard", path) from error
        # The window of `zstd --long=31`; only as much as a file asks for is allocated.
        self._new_frame = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj
        self._error = zstandard.ZstdError
        self._file = io.FileIO(path)
        self._frame = self._new_frame()
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            packed = self._frame.unused_data or self._file.read(1 << 16)
            if not packed and self._frame.eof:
                return 0
            if not packed:
                raise EOFError
            if self._frame.eof:
                self._frame = self._new_frame()
            try:
                self._ready = memoryview(self._frame.decompress(packed))
            except self._error as error:
                raise OSError(str(error)) from error
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class JsonStream:
    """Decodes one JSON value after another of a text that is too large to hold."""

    def __init__(self, path: Path):
        self.path = path
        self.chunks = read_text(path)
        self.decode = json.JSONDecoder().raw_decode
        self.buffer, self.at = "", 0
        self.line, self.column = 1, 1  # where the buffer begins

    def more(self) -> bool:
        """Drops what was decoded, at least doubles what is left; False at the end of the file."""
        left, chunks, size = len(self.buffer) - self.at, [], 0
        while size <= left and (chunk := next(self.chunks, None)) is not None:
            chunks.append(chunk)
            size += len(chunk)
        if size:
            self.line, self.column = self.position(self.at)
            self.buffer, self.at = "".join([self.buffer[self.at :], *chunks]), 0
        return size > 0

    def position(self, at: int) -> tuple[int, int]:
        """Line and column of a place in the buffer."""
        newlines = self.buffer.count("\n", 0, at)
        if newlines:
            return self.line + newlines, at - self.buffer.rfind("\n", 0, at)
        return self.line, self.column + at

    def error(self, reason: str, at: int) -> MiaoError:
        line, column = self.position(at)
        begin = max(at - 30, 0)
        return MiaoError(
            f"invalid JSON at column {column} ({reason}) near {self.buffer[begin : at + 30]!r}",
            where=f"{self.path}:{line}",
            fix="mend the file: a list of objects, one object, or one object per line",
        )

    def peek(self) -> str:
        """The next character that is not white space, "" at the end of the file."""
        while True:
            space = _JSON_SPACE.match(self.buffer, self.at)
            self.at = space.end() if space else self.at
            if self.at < len(self.buffer) or not self.more():
                return self.buffer[self.at : self.at + 1]

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = self.decode(self.buffer, self.at)
                if end > len(self.buffer) - _TOKEN and self.more():  # 1.5 may go on as 1.5e3
                    continue
                self.at = end
                return value
            except (ValueError, RecursionError) as error:
                at, reason = getattr(error, "pos", self.at), getattr(error, "msg", str(error))
                # Is it wrong, or merely not all there yet?
                cut_off = at > len(self.buffer) - _TOKEN or reason.startswith("Unterminated string")
                if not (cut_off and self.more()):
                    raise self.error(reason, at) from error

    def items(self) -> Iterator[Any]:
        """The items of the list that begins here."""
        self.at += 1
        if self.peek() == "]":
            self.at += 1
            return
        while True:
            yield self.value()
            following = self.peek()
            if following not in (",", "]"):
                raise self.error("expecting ',' or ']' after an item", self.at)
            self.at += 1
            if following == "]":
                return
