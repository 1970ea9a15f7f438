"""How much of the input has been read, in bytes of the files as they lie on disk."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import IO, Any

_current: ContextVar[Meter | None] = ContextVar("meter", default=None)


class Meter:
    """The bytes that are read of files opened with `metered`."""

    def __init__(self) -> None:
        self.bytes = 0
        self._taken = 0

    def take(self) -> int:
        """The bytes read since the last call."""
        more, self._taken = self.bytes - self._taken, self.bytes
        return more


@contextmanager
def metering() -> Iterator[Meter]:
    """A meter of what is read while entered."""
    meter = Meter()
    token = _current.set(meter)
    try:
        yield meter
    finally:
        _current.reset(token)


def metered(file: IO[bytes], buffer: int) -> IO[bytes]:
    """The file, its reading counted while `metering`, if there is one."""
    meter = _current.get()
    return file if meter is None else io.BufferedReader(_Counted(file, meter), buffer)


class _Counted(io.RawIOBase):
    def __init__(self, file: Any, meter: Meter):
        self._file, self._meter = file, meter

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        read = int(self._file.readinto(buffer))
        self._meter.bytes += read
        return read
