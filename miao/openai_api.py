"""Asking a server that speaks OpenAI's protocol; the standard library is enough for it."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any

from miao.errors import MiaoError

SAID = 300
"""Characters of a refusal that are repeated."""

LONGEST_WAIT = 60.0
"""Seconds before a server is asked again, however long it wants."""


class NoAnswer(Exception):
    """No whole answer came.

    Args:
        code: the HTTP status of a refusal; None: the connection could not be made, or it broke.
        wait: seconds after which the server wants to be asked again.
    """

    def __init__(self, reason: str, code: int | None = None, wait: float | None = None):
        super().__init__(reason)
        self.code, self.wait = code, wait

    @property
    def may_pass(self) -> bool:
        """Whether asking again may help: no capacity now, or a broken connection."""
        return self.code is None or self.code in (408, 409, 425, 429) or self.code >= 500

    def pause(self, attempt: int, first: float = 1.0) -> float:
        """Seconds before asking again: what the server wants, else `first`, doubled each time."""
        return min(LONGEST_WAIT, first * 2**attempt if self.wait is None else self.wait)


class Unreachable(NoAnswer):
    """No connection, or nothing of HTTP on it."""


def api_key(given: str | None) -> str | None:
    """The key that was given, or else that of the environment."""
    return given or os.environ.get("MIAO_API_KEY")


def base_url(url: str) -> str:
    """`http://host:port/v1`, typed with or without `http://` and `/v1`.

    Raises:
        MiaoError: another kind of address.
    """
    url = url if "://" in url else f"http://{url}"
    if not url.startswith(("http://", "https://")):
        raise MiaoError("the server's address is not http or https", where=url)
    return url.rstrip("/").removesuffix("/v1") + "/v1"


@contextmanager
def opened(
    url: str, body: Any = None, key: str | None = None, timeout: float = 300.0
) -> Iterator[Any]:
    """The answer to a GET, or to a POST of a body as JSON; to be read within.

    Raises:
        NoAnswer: a refusal, or a connection that cannot be made or breaks within.
    """
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(url, data, headers)
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        raise NoAnswer(_refusal(error), error.code, _wait(error)) from error
    except (OSError, ValueError, HTTPException) as error:
        raise Unreachable(f"the server cannot be reached: {_reason(error)}") from error
    with response:
        try:
            yield response
        except ValueError as error:
            raise NoAnswer(f"the server answers nonsense: {_reason(error)}") from error
        except (OSError, HTTPException) as error:
            raise NoAnswer(f"the server broke off: {_reason(error)}") from error


def ask(url: str, body: Any = None, key: str | None = None, timeout: float = 300.0) -> Any:
    """The JSON that is answered; see `opened`."""
    with opened(url, body, key, timeout) as response:
        return json.load(response)


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or str(error) or type(error).__name__)


def _refusal(error: urllib.error.HTTPError) -> str:
    try:
        said = error.read(100_000).decode(errors="replace")
    except (OSError, HTTPException):
        said = ""
    try:
        said = str(json.loads(said)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        said = "" if said.lstrip().startswith(("<", "{", "[")) else said  # a page, another protocol
    said = " ".join(said.split())[:SAID]
    return f"the server answers {error.code} {error.reason}" + (f": {said}" if said else "")


def _wait(error: urllib.error.HTTPError) -> float | None:
    try:
        return float(error.headers["Retry-After"])
    except (TypeError, ValueError):
        return None
