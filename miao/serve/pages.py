"""The web pages: a fixed set of files, under a policy that lets them load nothing from elsewhere.

Whatever a model wrote reaches a page as data and becomes text nodes there. Should a page ever
forget that, the policy still allows no inline script, no other origin, and no HTML from strings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import Response

WEB = Path(__file__).parent / "web"
CHAT_PAGE, BOARD_PAGE = {"/": "chat.html"}, {"/runs": "board.html"}
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-cache",  # asked for again each time; the tag answers 304
}


def paths_of(pages: Mapping[str, str]) -> frozenset[str]:
    """Where pages and what they load stand."""
    return frozenset({*pages, *_assets()})


def add_pages(app: FastAPI, pages: Mapping[str, str]) -> None:
    """Adds pages and what they load.

    Args:
        pages: path -> file of `web/`. What they load stands below /web/.
    """
    for url, name in {**_assets(), **pages}.items():
        _add_file(app, url, WEB / name)


def _assets() -> dict[str, str]:
    return {f"/web/{path.name}": path.name for path in WEB.iterdir() if path.suffix in TYPES}


def _add_file(app: FastAPI, url: str, path: Path) -> None:
    content = path.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**HEADERS, "ETag": tag}

    @app.api_route(url, methods=["GET", "HEAD"], include_in_schema=False)
    async def show(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=TYPES[path.suffix])
