"""The web pages: a fixed set of files, under a policy that lets them load nothing from elsewhere.

Whatever a model wrote reaches a page as data and becomes text nodes there. Should a page ever
forget that, the policy still allows no inline script, no other origin, and no HTML from strings.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import Response

WEB = Path(__file__).parent / "web"
IMPORT = re.compile(r'^import .*?"\./([\w-]+)\.js";$', re.M)
NOTICE = (
    '<div class="notice" id="notice" role="alert" hidden><span id="notice-text"></span>'
    '<button id="notice-retry" data-say="retry"></button>'
    '<button class="plain" id="notice-close" data-label="close">✕</button></div>'
)
BAR = (
    '<header class="bar"><h1>Miao 苗 · <span data-say="{word}"></span></h1>'
    '<span class="grow"></span><button class="plain" id="language" data-label="language"></button>'
    '<button class="plain" id="theme" data-label="theme"></button></header>' + NOTICE
)


@dataclass(frozen=True)
class Page:
    """A page, within the frame that all have (`frame.html`).

    Args:
        file: what is its own, with `<!-- bar -->` or `<!-- notice -->` where these go.
        word: key (`words.js`) of what it is called, in its bar and in what links to it.
        scripts, styles: their names below /web/, without the ending.
    """

    file: str
    word: str
    scripts: tuple[str, ...]
    styles: tuple[str, ...]


CHAT_PAGE = {"/": Page("chat.html", "chat", ("chat",), ("temml", "style"))}
BOARD_PAGE = {"/runs": Page("board.html", "board", ("board",), ("uplot", "style"))}
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


def paths_of(pages: Mapping[str, Page]) -> frozenset[str]:
    """Where pages and what they load stand."""
    return frozenset({*pages, *_assets((WEB,))})


def add_pages(app: FastAPI, pages: Mapping[str, Page], folders: Sequence[Path] = (WEB,)) -> None:
    """Adds pages, which link to each other, and what they load, below /web/.

    Args:
        folders: where their files are.
    """
    assets = _assets(folders)
    files = {Path(url).name: path for url, path in assets.items()}
    for url, path in assets.items():
        add_content(app, url, path.read_bytes(), TYPES[path.suffix])
    for url, page in pages.items():
        add_content(app, url, _framed(page, pages, files).encode(), TYPES[".html"])


def _framed(page: Page, pages: Mapping[str, Page], files: Mapping[str, Path]) -> str:
    """A page as HTML."""
    head = [
        *(f'<link rel="stylesheet" href="/web/{name}.css">' for name in page.styles),
        *(f'<script type="module" src="/web/{name}.js"></script>' for name in page.scripts),
        *(f'<link rel="modulepreload" href="/web/{name}.js">' for name in _imported(page, files)),
    ]
    slots = {
        "page": files[page.file].read_text(encoding="utf-8"),
        "head": "\n".join(head),
        "rooms": _links(page, pages),
        "bar": BAR.format(word=page.word),
        "notice": NOTICE,
    }
    text = files["frame.html"].read_text(encoding="utf-8")
    for name, content in slots.items():
        text = text.replace(f"<!-- {name} -->", content)
    return text


def _imported(page: Page, files: Mapping[str, Path]) -> list[str]:
    """The scripts that those of a page load: asked for with them, not when they have come."""
    found = list(page.scripts)
    for name in found:  # which grows; what is not of these folders is served elsewhere
        path = files.get(f"{name}.js")
        text = path.read_text(encoding="utf-8") if path else ""
        found += [other for other in IMPORT.findall(text) if other not in found]
    return found[len(page.scripts) :]


def _links(here: Page, pages: Mapping[str, Page]) -> str:
    """The links between pages, if there are several."""
    if len({page.word for page in pages.values()}) < 2:
        return ""
    links = (
        f'<a href="{path}" data-say="{page.word}"{" aria-current=page" * (page is here)}></a>'
        for path, page in pages.items()
    )
    return f'<nav class="rooms" data-label="rooms">{"".join(links)}</nav>'


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
