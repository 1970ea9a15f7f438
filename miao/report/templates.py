"""The reports' templates: everything escaped, both languages, nothing loaded from outside."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from miao.report.words import Text

FOLDER = Path(__file__).parent


def template(name: str) -> Template:
    """A template of this folder; a name that it uses and is not given is an error."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(t=bilingual, two=lambda zh, en: bilingual(Text(zh, en)))
    return environment.get_template(name)


def asset(name: str) -> Markup:
    """A style sheet or a script, as it is."""
    return Markup((FOLDER / name).read_text(encoding="utf-8"))


def page_assets() -> dict[str, Markup | str]:
    """The style and the one script of every page, and the hash by which its policy allows it."""
    script = asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"style": asset("page.css"), "script": script, "script_hash": f"sha256-{digest}"}


def bilingual(text: Text) -> Markup:
    """Both languages of a phrase, of which the style sheet shows one."""
    if text.zh == text.en:
        return Markup("{}").format(text.zh)
    return Markup(
        '<span class="zh" lang="zh-CN">{}</span><span class="en" lang="en">{}</span>'
    ).format(*text)
