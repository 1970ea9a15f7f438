"""What the server answers when it refuses, in the shape that OpenAI's clients understand."""

from __future__ import annotations

import logging
import secrets
from contextvars import ContextVar
from typing import Any

from starlette.responses import JSONResponse

from miao.language import translated

log = logging.getLogger("miao.serve")
_request: ContextVar[str] = ContextVar("request", default="-")
_reader: ContextVar[str] = ContextVar("reader", default="en")

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
LONGEST = 4000
"""Characters of a message that is translated: a client's text may stand in it."""
CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
"""OpenAI's codes where the status alone says which."""


class Problem(Exception):
    """A refusal: HTTP status, what is wrong, and the field at fault.

    Args:
        code: OpenAI's word for it, which programs look at.
        retry_after: seconds after which it may work.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        retry_after: int | None = None,
        code: str | None = None,
    ):
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after = retry_after
        super().__init__(message)

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return error_body(self.status, self.message, self.param, self.code)

    def response(self, closes: bool = False) -> JSONResponse:
        """The answer that says so.

        Args:
            closes: end the connection, since the rest of the request will not be read.
        """
        headers = self.headers() | ({"Connection": "close"} if closes else {})
        return JSONResponse(self.body(), self.status, headers)

    def headers(self) -> dict[str, str]:
        found = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return found | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


def error_body(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """OpenAI's error object; Anthropic's as well, which has a type around it."""
    kind = KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    # What a client sent may stand in the message, half surrogate pairs too.
    message = for_reader(message.encode("utf-8", "replace").decode())
    param = None if param is None else param.encode("utf-8", "replace").decode()
    error = {"message": message, "type": kind, "param": param, "code": code or CODES.get(status)}
    return {"type": "error", "error": error}


def begin_request(languages: str = "") -> str:
    """A number for the request that this task answers; it stands in the response's headers and, if
    something goes wrong, in the message and the log.

    Args:
        languages: the request's Accept-Language, for messages: Chinese if it begins so.
    """
    number = f"req_{secrets.token_hex(12)}"
    _request.set(number)
    _reader.set("zh" if languages.lower().startswith("zh") else "en")
    return number


def for_reader(text: str) -> str:
    """A message in the language of whoever sent the request that this task answers."""
    return text if len(text) > LONGEST else translated(text, _reader.get())


def failure(what: str, error: BaseException) -> Problem:
    """A 500 that names the request; the log gets its traceback under the same number."""
    number = _request.get()
    log.error("%s failed in request %s", what, number, exc_info=error)
    return Problem(
        500, f"{what} failed: {type(error).__name__}; the server's log says more under {number}"
    )
