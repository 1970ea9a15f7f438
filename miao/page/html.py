"""One HTML file out of the page's parts, or a folder for a static host: nothing is loaded from
elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from miao import __version__
from miao.page.contents import Contents
from miao.page.joining import joined, loaded
from miao.page.theme import themed

HERE = Path(__file__).parent
WEB = HERE.parent / "serve" / "web"
"""Of the web chat, what the page has too: chats in the browser's storage, and elements."""
STYLES = ("page.css", "glass.css")
MOST_BYTES = 24_000_000
"""Of a part; hosts take 25 MB in a browser's upload."""


def engine_script() -> str:
    """The engine and what its thread does, as one classic script."""
    module = base64.b64encode((HERE / "engine.wasm").read_bytes()).decode()
    code = joined(loaded(["worker"], (HERE, HERE / "vendor")))
    return f'"use strict";\nconst MODULE = "{module}";\n{code}'


def page_html(
    contents: Contents,
    title: str,
    card: dict[str, Any],
    greeting: str = "",
    theme: Sequence[str] = (),
    parts: Sequence[dict[str, Any]] = (),
) -> str:
    """The whole file.

    Args:
        card: what is told about the model; JSON.
        greeting: what the page says first; empty: a word of its own.
        theme: see `themed`.
        parts: files that hold the weights, as `folder` lists them; none: the page holds them.
    """
    settings = _json(contents.settings | {"title": title, "card": card, "greeting": greeting})
    worker = _json(engine_script())
    weights = contents.weights
    expected: dict[str, Any] = {
        "settings": zlib.crc32(settings.encode()),
        "weights": {"bytes": len(weights), "crc": zlib.crc32(weights)},
        "worker": zlib.crc32(worker.encode()),
    }
    inside = ""
    if parts:
        expected["weights"]["parts"] = parts
    else:
        text = base64.b64encode(weights).decode()
        inside = f'<script id="weights" type="text/plain">{text}</script>'
    script = f'"use strict";\nconst EXPECTED = {_json(expected)};\n'
    script += joined(loaded(["page"], (HERE, WEB)))
    style = "".join((HERE / name).read_text(encoding="utf-8") for name in STYLES)
    style = themed(style, theme)
    template = (HERE / "page.html").read_text(encoding="utf-8")
    filled = {
        "POLICY": _policy(script, style, has_files=bool(parts)),
        "TITLE": escape(title),
        "VERSION": escape(__version__),
        "STYLE": style,
        "SCRIPT": script,
        "SETTINGS": settings,
        "WORKER": worker,
        "WEIGHTS": inside,
    }
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda match: filled[match[1]], template)


def folder(
    contents: Contents,
    title: str,
    card: dict[str, Any],
    greeting: str = "",
    theme: Sequence[str] = (),
) -> dict[str, bytes]:
    """Files of a static site that holds the page, by name: the page, its weights in parts that
    carry their checksum in their name, and what shows it without a network."""
    files: dict[str, bytes] = {}
    parts: list[dict[str, Any]] = []
    for begin in range(0, len(contents.weights), MOST_BYTES):
        part = contents.weights[begin : begin + MOST_BYTES]
        name = f"weights-{len(parts):03}-{zlib.crc32(part):08x}.bin"
        files[name] = part
        parts.append({"name": name, "bytes": len(part), "crc": zlib.crc32(part)})
    files["index.html"] = page_html(contents, title, card, greeting, theme, parts).encode()
    files["sw.js"] = (HERE / "sw.js").read_bytes()
    return files


def _policy(script: str, style: str, has_files: bool) -> str:
    """Only this script and this style, and WebAssembly; no HTML or script out of strings; no
    request to anywhere, but for the files that lie beside the page where there are any."""
    rules = (
        "default-src 'none'",
        f"script-src {_hash(script)} 'wasm-unsafe-eval'",
        f"style-src {_hash(style)}",
        "worker-src blob: 'self'" if has_files else "worker-src blob:",
        "img-src data:",
        "connect-src 'self'" if has_files else "connect-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types miao",
    )
    return "; ".join(rules)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(value: Any) -> str:
    """JSON that may stand in HTML: nothing in it ends a script."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
