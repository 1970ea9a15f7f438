"""What is wrong with a request's fields, in the words of its sender: names as they were sent, and
no word of how the server checks them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from miao.errors import MiaoError
from miao.serve.problems import Problem, error_body

HALF_A_PAIR = "holds half a surrogate pair, which no encoding has"
PHRASES = {
    "missing": "is missing",
    "extra_forbidden": "this server does not know the field",
    "json_invalid": "is not JSON ({error})",
    "literal_error": "must be {expected}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "finite_number": "must be a finite number",
    "too_short": "must have at least {min_length}",
    "too_long": "must have at most {max_length}",
    "string_unicode": HALF_A_PAIR,
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
}
KINDS = {
    "string": "must be a text",
    "list": "must be a list",
    "dict": "must be an object",
    "model": "must be an object",
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
}
ALTERNATIVE = re.compile(r"[A-Z]\w*|str|int|float|bool|.*[\[({-].*")
"""How pydantic calls the alternatives of a field, which stand between the names of fields."""

Location = tuple[str | int, ...]


def what_is_wrong(errors: Sequence[Any]) -> list[str]:
    """One phrase for every field at fault. Of a field that may be this or that, only what is wrong
    with the alternative that was meant: the one that fits furthest.

    Args:
        errors: of a `ValidationError`, as pydantic lists them.
    """
    found: dict[Location, list[str]] = {}
    for error in _meant(errors):
        where = _named(error)
        found.setdefault(where, []).append(_phrase(error))
    phrases = []
    for where, said in found.items():
        name = ".".join(map(str, where))
        what = " or ".join(dict.fromkeys(said)).replace(" or must be ", " or ")
        phrases.append(f"{name}: {what}" if name else f"the body {what}")
    return phrases


def _meant(errors: Sequence[Any]) -> list[Any]:
    """The errors, but for those of alternatives that were not meant."""
    kept: list[Any] = []
    for field, group in groupby(errors, key=_before_alternatives):
        rivals: dict[str, list[Any]] = {}
        for error in group:
            inner = error["loc"][len(field) :]
            rivals.setdefault(str(inner[0]) if inner else "", []).append(error)
        fits = {name: _how_far(several, len(field)) for name, several in rivals.items()}
        best = max(fits.values())
        kept += [e for name, several in rivals.items() if fits[name] == best for e in several]
    return kept


def _before_alternatives(error: Any) -> Location:
    """The location up to the first field with alternatives; all of it where there is none."""
    where: Location = error["loc"]
    ends = [n for n, part in enumerate(where) if _is_alternative(error, n)]
    return where[: ends[0]] if ends else where


def _is_alternative(error: Any, place: int) -> bool:
    where = error["loc"]
    is_sent = error["type"] == "extra_forbidden" and place == len(where) - 1
    part = where[place]
    return isinstance(part, str) and not is_sent and ALTERNATIVE.fullmatch(part) is not None


def _how_far(errors: Sequence[Any], start: int) -> tuple[bool, int, int, bool, int]:
    """How well an alternative fits: whether it is a text, if a broken one; depth and index of its
    first error, whether the value there is of the right kind at least, then how few there are."""
    inner = errors[0]["loc"][start + 1 :]
    index = next((part for part in inner if isinstance(part, int)), -1)
    is_kind = bool(inner) and not errors[0]["type"].endswith(("_type", "_parsing"))
    is_text = errors[0]["type"] == "string_unicode"
    return is_text, min(len(inner), 1), index, is_kind, -len(errors) if inner else 0


def _named(error: Any) -> Location:
    where = error["loc"]
    return tuple(
        part
        for place, part in enumerate(where)
        if not _is_alternative(error, place) and not (place == 0 and part == "body")
    )


def _phrase(error: Any) -> str:
    kind, facts = error["type"], error.get("ctx", {})
    if kind in PHRASES:
        whole = {k: int(v) if isinstance(v, float) and v % 1 == 0 else v for k, v in facts.items()}
        return PHRASES[kind].format_map(whole)
    if (known := KINDS.get(kind.partition("_")[0])) is not None:
        return known
    said = str(error["msg"]).removeprefix("Value error, ")
    return said.replace("Input should be", "must be")


VALIDATION_CODES = {
    "extra_forbidden": "unknown_parameter",
    "missing": "missing_required_parameter",
    "json_invalid": "invalid_json",
}
"""Of a field that is wrong; see `CODES` for the others."""


def add_error_handlers(app: FastAPI) -> None:
    """Makes every refusal one of OpenAI's shape."""

    @app.exception_handler(Problem)
    async def refuse(request: Request, problem: Problem) -> Response:
        return problem.response()

    @app.exception_handler(MiaoError)
    async def explain(request: Request, error: MiaoError) -> Response:
        return JSONResponse(error_body(400, str(error)), 400)

    @app.exception_handler(RequestValidationError)
    @app.exception_handler(ValidationError)  # of a chat that another protocol's body becomes
    async def invalid(
        request: Request, error: RequestValidationError | ValidationError
    ) -> Response:
        problems = what_is_wrong(error.errors())
        first = error.errors()[0]
        param = next(
            (part for part in first["loc"] if isinstance(part, str) and part != "body"), None
        )
        code = VALIDATION_CODES.get(first["type"], "invalid_value")
        return JSONResponse(error_body(400, "; ".join(problems[:5]), param, code), 400)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        body = error_body(error.status_code, str(error.detail))
        return JSONResponse(body, error.status_code, dict(error.headers or {}))
