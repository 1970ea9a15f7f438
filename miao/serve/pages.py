"""The web pages: a fixed set of files, under a policy that lets them load nothing from elsewhere.

Whatever a model wrote reaches a page as data and becomes text nodes there. Should a page ever
forget that, the policy still allows no inline script, no other origin, and no HTML from strings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import Response

WEB = Path(__file__).parent / "web"
CHAT_PAGE, BOARD_PAGE = {"/": "chat.html"}, {"/runs": "board.html"}
ROOMS = {"/": "chat", "/runs": "board"}
"""Where a server's pages stand -> what the links between them say, as keys of `words.js`."""
LINKS = b"<!-- rooms -->"
"""Where those links go in a page."""
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
    return frozenset({*pages, *_assets((WEB,))})


def add_pages(
    app: FastAPI,
    pages: Mapping[str, str],
    rooms: Mapping[str, str] | None = None,
    folders: Sequence[Path] = (WEB,),
    parts: Mapping[str, str] | None = None,
) -> None:
    """Adds pages and what they load.

    Args:
        pages: path -> file of one of the folders. What they load stands below /web/.
        rooms: path -> key of the words of its link, if pages lead to each other.
        parts: path -> name of a script and a style that the page there has more than elsewhere.
    """
    assets = _assets(folders)
    files = {Path(url).name: path for url, path in assets.items()}
    for url, path in assets.items():
        add_content(app, url, path.read_bytes(), TYPES[path.suffix])
    for url, name in pages.items():
        part = (parts or {}).get(url)
        more = f'<script type="module" src="/web/{part}.js"></script>'.encode() if part else b""
        more += f'<link rel="stylesheet" href="/web/{part}.css">'.encode() if part else b""
        content = files[name].read_bytes().replace(LINKS, links_of(rooms or {}, url) + more)
        add_content(app, url, content, TYPES[".html"])


def links_of(rooms: Mapping[str, str], here: str) -> bytes:
    """The links between rooms, as HTML."""
    if len(rooms) < 2:
        return b""
    links = (
        f'<a href="{path}" data-say="{word}"{" aria-current=page" if path == here else ""}></a>'
        for path, word in rooms.items()
    )
    return f'<nav class="rooms" data-label="rooms">{"".join(links)}</nav>'.encode()


def _assets(folders: Sequence[Path]) -> dict[str, Path]:
    found = (path for folder in folders for path in folder.iterdir() if path.suffix in TYPES)
    return {f"/web/{path.name}": path for path in found}


def add_content(app: FastAPI, url: str, content: bytes, kind: str) -> None:
    """Adds a file that never changes while the server runs."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**HEADERS, "ETag": tag}

    @app.api_route(url, methods=["GET", "HEAD"], include_in_schema=False)
    async def show(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=kind)
