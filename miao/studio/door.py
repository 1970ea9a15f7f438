"""Who may come in: the owner of the token, from the studio's own pages."""

from __future__ import annotations

import hmac
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from miao.serve.guard import bearer_of
from miao.serve.pages import HEADERS
from miao.serve.problems import Problem

YEAR = 365 * 24 * 3600
LOCKED = """<!doctype html><html lang="zh-CN"><meta charset="utf-8"><title>Miao 苗</title>
<h1>401</h1><p>请用 <code>miao studio</code> 打印的地址（带 token）打开。</p>
<p>Open the address that <code>miao studio</code> printed, with its token.</p></html>"""


class Door:
    """Lets a request in that bears the token: as the cookie that the first address
    (`/?token=...`) sets, or as a bearer. Refuses (403) whatever another web page sends, even of
    this machine: its `Origin` or `Sec-Fetch-Site` tells.
    """

    def __init__(self, app: ASGIApp, token: str):
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        _refuse_strangers(scope, headers)
        # A cookie belongs to a machine, whatever the port: two studios must not share one.
        cookie = f"miao-studio-{urlsplit('//' + headers.get('host', '')).port or 80}"
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token")
        if given is not None and scope["method"] == "GET" and self._is_token(given):
            rest = urlencode([(key, value) for key, value in query if key != "token"])
            answer: Response = RedirectResponse(scope["path"] + ("?" + rest if rest else ""), 303)
            answer.set_cookie(cookie, given, YEAR, httponly=True, samesite="strict")
            answer.headers.update({**HEADERS, "Cache-Control": "no-store"})
        elif self._is_token(_cookie_of(headers, cookie) or (bearer_of(headers) or "").strip()):
            await self._app(scope, receive, send)
            return
        elif "text/html" in headers.get("accept", ""):
            answer = Response(LOCKED, 401, HEADERS, "text/html; charset=utf-8")
        else:
            raise Problem(401, "the token is missing or wrong: use the address of `miao studio`")
        await answer(scope, receive, send)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())


def _refuse_strangers(scope: Scope, headers: Headers) -> None:
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        raise Problem(403, "this request comes from another web page")
    # A link that leads here shows a page, and tells nobody what stands on it.
    follows = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not follows:
        raise Problem(403, "this request comes from another web page")


def _cookie_of(headers: Headers, name: str) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return found.value if found else ""
