"""A file of the user's -> its text, decompressed and decoded in chunks."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import shlex
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import IO, Any

from miao.corpus.read.encoding import encoding_of, looks_like_gb18030
from miao.corpus.read.meter import metered
from miao.errors import MiaoError, install_hint
from miao.hubs.remote import RemoteFile

FORMATS = (
    *(".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow"),
    *(".txt", ".md", ".html", ".htm"),
)
COMPRESSIONS = (".gz", ".xz", ".bz2", ".zst", ".zip")
MAGIC = {
    ".gz": b"\x1f\x8b",
    ".xz": b"\xfd7zXZ\x00",
    ".bz2": b"BZh",
    ".zst": b"\x28\xb5\x2f\xfd",
    ".zip": b"PK",
}
"""What a compressed file begins with."""
SUPPORTED = f"{' '.join(FORMATS)}, plain or with {' '.join(COMPRESSIONS)} after it"
CHUNK = 1 << 20
"""Bytes read at a time."""

Source = Path | RemoteFile
OnRepair = Callable[[Source, str], object]
"""Called with a file, and how it was read although something was wrong with it."""


def format_of(path: Source) -> tuple[str, str] | None:
    """The extension and the compression ("" if plain) in a file name; None if not supported."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
    return (suffixes[-1], compression) if suffixes and suffixes[-1] in FORMATS else None


def unknown_format(path: Source) -> MiaoError:
    if path.suffix in (".yaml", ".yml"):
        command = f"miao corpus {shlex.quote(str(path))}"
        return MiaoError("this is a recipe, not text", where=str(path), fix=command)
    return MiaoError(
        f"files that end in '{path.suffix}' cannot be read" if path.suffix else "no extension",
        where=str(path),
        fix=f"convert or rename it; supported are {SUPPORTED}",
    )


def missing_library(name: str, path: Source) -> MiaoError:
    return MiaoError(f"reading this needs {name}", where=str(path), fix=install_hint("data"))


class DamagedFile(MiaoError):
    """The rest of a file cannot be read: truncated, damaged, or not text."""


@contextmanager
def open_binary(path: Source) -> Iterator[IO[bytes]]:
    """Opens a file for reading, decompressed. Use it inside `readable`."""
    known = format_of(path)
    if known is None:
        raise unknown_format(path)
    with ExitStack() as stack:
        raw: Any = metered(stack.enter_context(path.open("rb")), CHUNK)
        if known[1] or known[0] in (".parquet", ".arrow"):
            _check_beginning(path, known[1], raw)
        match known[1]:
            case ".gz":
                raw = stack.enter_context(gzip.open(raw, "rb"))
            case ".xz":
                raw = stack.enter_context(lzma.open(raw, "rb"))
            case ".bz2":
                raw = stack.enter_context(bz2.open(raw, "rb"))
            case ".zst":
                raw = stack.enter_context(io.BufferedReader(_ZstdStream(path, raw), CHUNK))
            case ".zip":
                raw = stack.enter_context(_zip_member(path, raw))
        yield raw


def _check_beginning(path: Source, compression: str, raw: IO[bytes]) -> None:
    """An empty file, or one whose name says another compression than its content, is told here:
    the libraries' own words on that help nobody."""
    beginning = raw.read(8)
    raw.seek(0)
    if not beginning:
        raise DamagedFile(
            "the file is empty (0 bytes)", where=str(path), fix="download or copy it again"
        )
    if not compression or beginning.startswith(MAGIC[compression]):
        return
    if compression == ".zst" and 0x50 <= beginning[0] <= 0x5F and beginning[1:4] == b"\x2a\x4d\x18":
        return  # a frame that is to be skipped
    is_really = [name for name, magic in MAGIC.items() if beginning.startswith(magic)]
    raise DamagedFile(
        f"the name says {compression}, the content does not"
        + (f" (it is {is_really[0]})" if is_really else ""),
        where=str(path),
        fix=f"rename it to end in {is_really[0]}"
        if is_really
        else f"if it is not compressed, take {compression} off its name; else download it again",
    )


def _zip_member(path: Source, raw: IO[bytes]) -> IO[bytes]:
    archive = zipfile.ZipFile(raw)
    members = [entry for entry in archive.infolist() if not entry.is_dir()]
    members = [entry for entry in members if not entry.filename.startswith("__MACOSX/")]
    if len(members) != 1:
        raise DamagedFile(
            f"an archive of {len(members)} files", where=str(path), fix="unpack it into a folder"
        )
    if members[0].flag_bits & 1:
        raise DamagedFile("the archive has a password", where=str(path), fix="unpack it first")
    return archive.open(members[0])


@contextmanager
def readable(path: Source) -> Iterator[None]:
    """Turns what can go wrong in reading bytes into a `DamagedFile` that names the file."""
    again = "download or copy the file again"
    try:
        yield
    except EOFError as error:
        what = "the compressed file is truncated"
        raise DamagedFile(what, where=str(path), fix=again) from error
    except (OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError) as error:
        if isinstance(path, RemoteFile) and isinstance(error, ConnectionError):
            what, again = f"the connection was lost: {error}", "run the same command again"
            raise DamagedFile(what, where=str(path), fix=again) from error
        if isinstance(error, OSError) and error.errno is not None:
            raise DamagedFile(f"cannot be read: {error.strerror}", where=str(path)) from error
        raise DamagedFile(f"the file is damaged: {error}", where=str(path), fix=again) from error


def read_bytes(path: Source, size: int = CHUNK) -> Iterator[bytes]:
    """The decompressed file in chunks of exactly `size` bytes (the last may be shorter)."""
    with readable(path), open_binary(path) as file:
        while chunk := file.read(size):
            yield chunk


def read_bytes_of_text(
    path: Source, size: int = CHUNK, on_repair: OnRepair | None = None
) -> Iterator[bytes]:
    """The decompressed file without its byte-order mark; UTF-16 and UTF-32 become UTF-8."""
    chunks = read_bytes(path, size)
    beginning = b""
    for chunk in chunks:
        beginning += chunk
        if len(beginning) >= 4096:
            break
    encoding, mark = encoding_of(beginning)
    chunks = chain([beginning[mark:]], chunks)
    if encoding == "utf-8":
        yield from (chunk for chunk in chunks if chunk)
        return
    if on_repair:
        on_repair(path, f"read as {encoding[:6].upper()}")
    decoder = codecs.getincrementaldecoder(encoding)()
    for chunk in chain(chunks, [b""]):
        try:
            yield decoder.decode(chunk, final=not chunk).encode()
        except UnicodeError as error:
            raise DamagedFile(
                f"not valid {encoding[:6].upper()}: {getattr(error, 'reason', error)}",
                where=str(path),
                fix="the file was cut or damaged: download or export it again, as UTF-8",
            ) from error


def read_text(path: Source, size: int = CHUNK, on_repair: OnRepair | None = None) -> Iterator[str]:
    """The decoded file in chunks of `size` bytes, without the byte-order mark if there is one.

    GBK/GB18030, UTF-16 and UTF-32 are recognised and decoded; `on_repair` hears of it.

    Raises:
        DamagedFile: a byte that is not text, or NUL; with its line and offset.
    """
    decoder: codecs.IncrementalDecoder = codecs.getincrementaldecoder("utf-8")()
    offset, line = 0, 1  # of what the next chunk is decoded with
    plain = True  # ASCII so far, which is the same in either encoding
    for chunk in chain(read_bytes_of_text(path, size, on_repair), [b""]):
        data = decoder.getstate()[0] + chunk  # a character may have been cut by the last chunk
        if b"\0" in chunk:
            raise _not_text(path, data, data.index(b"\0"), offset, line, "a NUL byte")
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            cut = error.reason == "unexpected end of data"
            foreign = next(at for at, byte in enumerate(data) if byte > 0x7F)
            if cut or not (plain and looks_like_gb18030(data[foreign:][:4096])):
                reason = f"not UTF-8, {error.reason}"
                raise _not_text(path, data, error.start, offset, line, reason) from error
            decoder, chunk = codecs.getincrementaldecoder("gb18030")(), data
            if on_repair:
                on_repair(path, "read as GB18030")
            try:
                text = decoder.decode(chunk)
            except UnicodeDecodeError as wrong:
                reason = f"neither UTF-8 nor GB18030, {wrong.reason}"
                raise _not_text(path, data, wrong.start, offset, line, reason) from wrong
        plain = plain and text.isascii()
        offset += len(data) - len(decoder.getstate()[0])
        line += text.count("\n")
        yield text


def read_lines(path: Source, on_repair: OnRepair | None = None) -> Iterator[tuple[int, str]]:
    r"""Line numbers and lines, without their "\n" (the only character that ends a line here)."""
    return _lines(read_text(path, on_repair=on_repair), "\n")


def read_raw_lines(path: Source, on_repair: OnRepair | None = None) -> Iterator[tuple[int, bytes]]:
    r"""`read_lines`, not decoded: one bad line need not spoil the others."""
    return _lines(read_bytes_of_text(path, on_repair=on_repair), b"\n")


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
    if wrong.reason != "unexpected end of data" and looks_like_gb18030(line):
        with suppress(UnicodeDecodeError):
            return line.decode("gb18030"), "lines read as GB18030"
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
    elif looks_like_gb18030(data[at:][:4096]):
        fix = (
            "one part of it is UTF-8 and another GBK/GB18030: convert that part with "
            "`iconv -f GB18030 -t UTF-8`"
        )
    else:
        fix = "find out its encoding (`file -i` guesses) and convert it with `iconv -t UTF-8`"
    return DamagedFile(
        f"{reason} (0x{data[at]:02x} at byte offset {offset + at})",
        where=f"{path}:{line + data[:at].count(10)}",
        fix=fix,
    )


class _ZstdStream(io.RawIOBase):
    """The frames of a .zst file. Unlike zstandard's own reader it notices a missing end."""

    def __init__(self, path: Source, file: IO[bytes]):
        try:
            import zstandard
        except ImportError as error:
            raise missing_library("zstandard", path) from error
        # The window of `zstd --long=31`; only as much as a file asks for is allocated.
        self._new_frame = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj
        self._error = zstandard.ZstdError
        self._file = file
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
