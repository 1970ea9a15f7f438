"""One HTML file out of the page's parts: nothing in it is loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from html import escape
from pathlib import Path
from typing import Any

from miao import __version__
from miao.page.contents import Contents

HERE = Path(__file__).parent
ENGINE = (
    *("weights.js", "decoder.js", "wasm.js", "tokenizer.js", "template.js", "sampling.js"),
    "answer.js",
)
"""In this order: each imports only what stands before it."""
_IMPORT = re.compile(r"^import .*\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=const|function|class|async)", re.MULTILINE)


def engine_script() -> str:
    """The engine as one classic script; `Model` is what it offers."""
    jinja = (HERE / "vendor" / "jinja.js").read_text(encoding="utf-8")
    body = jinja[: jinja.rindex("export {")]
    wrapped = f"const {{ Template }} = (() => {{\n{body}\nreturn {{ Template }};\n}})();\n"
    module = base64.b64encode((HERE / "engine.wasm").read_bytes()).decode()
    first = f'"use strict";\nconst MODULE = "{module}";\n{wrapped}'
    return first + "".join(map(_part, ENGINE))


def page_html(contents: Contents, title: str, card: dict[str, Any], greeting: str = "") -> str:
    """The whole file.

    Args:
        card: what is told about the model; JSON.
        greeting: what the page says first; empty: a word of its own.
    """
    settings = _json(contents.settings | {"title": title, "card": card, "greeting": greeting})
    worker = _json(engine_script() + _part("worker.js"))
    weights = contents.weights
    expected = {
        "settings": zlib.crc32(settings.encode()),
        "weights": {"bytes": len(weights), "crc": zlib.crc32(weights)},
        "worker": zlib.crc32(worker.encode()),
    }
    check = "".join(_part("weights.js"))
    page = _part("words.js") + _part("page.js")
    script = f'"use strict";\nconst EXPECTED = {_json(expected)};\n{check}{page}'
    style = (HERE / "page.css").read_text(encoding="utf-8")
    template = (HERE / "page.html").read_text(encoding="utf-8")
    parts = {
        "POLICY": _policy(script, style),
        "TITLE": escape(title),
        "VERSION": escape(__version__),
        "STYLE": style,
        "SCRIPT": script,
        "SETTINGS": settings,
        "WORKER": worker,
        "WEIGHTS": base64.b64encode(weights).decode(),
    }
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda match: parts[match[1]], template)


def _policy(script: str, style: str) -> str:
    """Only this script and this style, and WebAssembly; no request to anywhere, no HTML or script
    out of strings."""
    rules = (
        "default-src 'none'",
        f"script-src {_hash(script)} 'wasm-unsafe-eval'",
        f"style-src {_hash(style)}",
        "worker-src blob:",
        "img-src data:",
        "connect-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types miao",
    )
    return "; ".join(rules)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _part(name: str) -> str:
    text = (HERE / name).read_text(encoding="utf-8")
    return _EXPORT.sub("", _IMPORT.sub("", text))


def _json(value: Any) -> str:
    """JSON that may stand in HTML: nothing in it ends a script."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
