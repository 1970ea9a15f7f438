"""The web pages: a fixed set of files, under a policy that lets them load nothing from elsewhere.

Whatever a model wrote reaches a page as data and becomes text nodes there. Should a page ever
forget that, the policy still allows no inline script, no other origin, and no HTML from strings.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import Response

from miao.page.joining import joined, loaded

WEB = Path(__file__).parent / "web"
PHRASES = re.compile(r'^  (zh|en): \{|\b(\w+): ("(?:[^"\\]|\\.)*")', re.MULTILINE)
"""A language that begins, or a key and what it says."""
LATE = re.compile(r'\bimport\("\./([\w-]+)\.js"\)')
SAYS = re.compile(r"<(\w+)([^>]* data-(?:say|label|placeholder)=[^>]*)>")
PREFERENCES = (
    '<button class="plain" id="language" data-label="language" data-say="otherLanguage"></button>'
    '<button class="plain" id="theme" data-label="theme">☾</button>'
)
NOTICE = (
    '<div class="notice" id="notice" role="alert" hidden><span id="notice-text"></span>'
    '<button id="notice-retry" data-say="retry"></button>'
    '<button class="plain" id="notice-close" data-label="close">✕</button></div>'
)
BAR = (
    '<header class="bar"><h1>Miao 苗 · <span data-say="{word}"></span></h1>'
    '<span class="grow"></span><!-- preferences --></header>' + NOTICE
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
}


def paths_of(pages: Mapping[str, Page]) -> frozenset[str]:
    """Where pages and what they load stand."""
    return frozenset({*pages, *(url for page in pages.values() for url in loads_of(page, (WEB,)))})


def add_pages(app: FastAPI, pages: Mapping[str, Page], folders: tuple[Path, ...] = (WEB,)) -> None:
    """Adds pages, which link to each other, and what they load, below /web/.

    Args:
        folders: where their files are; of two that have the same name the first one's is meant.
    """
    loads = {url: file for page in pages.values() for url, file in loads_of(page, folders).items()}
    for url, content in loads.items():
        _add(app, url, content, TYPES[Path(url).suffix], "private, max-age=31536000, immutable")
    for url, page in pages.items():
        _add(app, url, _framed(page, pages, folders), TYPES[".html"])


@cache
def _modules(page: Page, folders: tuple[Path, ...]) -> dict[str, str]:
    return loaded(page.scripts, folders)


@cache
def loads_of(page: Page, folders: tuple[Path, ...]) -> dict[str, bytes]:
    """The style and the script of a page, and what that loads when it is needed: address -> file.
    An address is another one when its file is."""
    style = "".join(_text(f"{name}.css", folders) for name in page.styles)
    script, found = joined(_modules(page, folders)), {}

    def add(name: str, text: str, kind: str) -> str:
        content = text.encode()
        address = f"{name}-{_digest(content)}.{kind}"
        found[f"/web/{address}"] = content
        return address

    def late(name: re.Match[str]) -> str:
        return f'import("./{add(name[1], _text(f"{name[1]}.js", folders), "js")}")'

    script = LATE.sub(late, script)
    add(page.word, style, "css")
    add(page.word, script, "js")
    return found


def _framed(
    page: Page, pages: Mapping[str, Page], folders: tuple[Path, ...]
) -> Callable[[Request], bytes]:
    """A page as HTML, in the language and the theme of whoever asks."""
    *_, style, script = loads_of(page, folders)
    slots = {
        "page": _text(page.file, folders),
        "head": f'<link rel="stylesheet" href="{style}">\n'
        f'<script type="module" src="{script}"></script>',
        "rooms": _links(page, pages),
        "bar": BAR.format(word=page.word),
        "notice": NOTICE,
        "preferences": PREFERENCES,
    }
    text = _text("frame.html", folders)
    for name, content in slots.items():
        text = text.replace(f"<!-- {name} -->", content)
    phrases = _phrases(_modules(page, folders))
    texts = {language: _said(text, said) for language, said in phrases.items()}

    def shown(request: Request) -> bytes:
        language = request.cookies.get("miao-language")
        if language not in texts:
            asked = request.headers.get("accept-language", "").lower()
            language = "zh" if asked.startswith("zh") else "en"
        theme = request.cookies.get("miao-theme")
        attributes = f' lang="{"zh-CN" if language == "zh" else language}"'
        attributes += f' data-theme="{theme}"' if theme in ("light", "dark") else ""
        return texts[language].replace("<html", f"<html{attributes}", 1).encode()

    return shown


def _phrases(modules: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """What the lists at the heads of a page's scripts of words say: language -> key -> phrase."""
    found: dict[str, dict[str, str]] = {"zh": {}, "en": {}}
    for name, source in modules.items():
        language = ""
        for begins, key, phrase in PHRASES.findall(source.split("\n}")[0]):
            language = begins or language
            if key and name.endswith("words"):
                found[language][key] = json.loads(phrase)
    return found


def _said(html: str, phrases: Mapping[str, str]) -> str:
    """HTML with its words in; as `speak` of `words.js` writes them."""

    def say(tag: re.Match[str]) -> str:
        name, attributes = tag.groups()
        said = {
            kind: escape(phrases[key].replace("{0}", ""))
            for kind, key in re.findall(r' data-(say|label|placeholder)="(\w+)"', attributes)
        }
        if "placeholder" in said:
            attributes += f' placeholder="{said["placeholder"]}"'
        if label := said.get("label") or said.get("placeholder"):
            attributes += f' aria-label="{label}"'
        if "label" in said and name == "button":
            attributes += f' title="{label}"'
        return f"<{name}{attributes}>{said.get('say', '')}"

    return SAYS.sub(say, html)


def _links(here: Page, pages: Mapping[str, Page]) -> str:
    """The links between pages, if there are several."""
    if len({page.word for page in pages.values()}) < 2:
        return ""
    links = (
        f'<a href="{path}" data-say="{page.word}"{" aria-current=page" * (page is here)}></a>'
        for path, page in pages.items()
    )
    return f'<nav class="rooms" data-label="rooms">{"".join(links)}</nav>'


def _text(name: str, folders: Sequence[Path]) -> str:
    path = next(path for folder in folders if (path := folder / name).is_file())
    return path.read_text(encoding="utf-8")


def _add(
    app: FastAPI,
    url: str,
    content: bytes | Callable[[Request], bytes],
    kind: str,
    caching: str = "no-cache",
) -> None:
    """Adds what never changes while the server runs, or what is made for a request from its
    language and cookies.

    Args:
        caching: how long browsers keep it; by default they ask each time, and the tag answers 304.
    """
    fixed = {**HEADERS, "Cache-Control": caching}
    if callable(content):
        fixed["Vary"] = "Accept-Language, Cookie"

    @app.api_route(url, methods=["GET", "HEAD"], include_in_schema=False)
    async def show(request: Request) -> Response:
        body = content(request) if callable(content) else content
        headers = {**fixed, "ETag": f'"{_digest(body)}"'}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type=kind)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
