"""How much of the input has been read, in bytes of the files as they lie on disk."""

from __future__ import annotations

import io
from contextvars import ContextVar, Token
from types import TracebackType
from typing import IO, Any

_current: ContextVar[Meter | None] = ContextVar("meter", default=None)


class Meter:
    """While entered, counts the bytes that are read of files opened with `metered`."""

    def __init__(self) -> None:
        self.bytes = 0
        self._taken = 0
        self._token: Token[Meter | None] | None = None

    def __enter__(self) -> Meter:
        self._token = _current.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._token is not None
        _current.reset(self._token)

    def take(self) -> int:
        """The bytes read since the last call."""
        more, self._taken = self.bytes - self._taken, self.bytes
        return more


def metered(file: IO[bytes], buffer: int) -> IO[bytes]:
    """The file, its reading counted by the meter that is entered, if there is one."""
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
