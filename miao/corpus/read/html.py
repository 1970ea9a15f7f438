"""The main text of a web page: its paragraphs, without menus, scripts, advertising and comments.

A block counts as text when it is long enough for its links (the rule of Kohlschütter et al.,
"Boilerplate Detection using Shallow Text Features", 2010: text density and link density).
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

DROPPED = {
    *("script", "style", "noscript", "template", "iframe", "object", "svg", "canvas", "math"),
    *("nav", "footer", "aside", "form", "button", "select", "textarea", "dialog"),
}
BLOCKS = {
    *("p", "div", "section", "article", "main", "header", "body", "html", "blockquote", "figure"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "dl", "dt", "dd", "hr", "figcaption"),
    *("table", "thead", "tbody", "tr", "td", "th", "pre", "address", "center", "fieldset"),
}
HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
BOILERPLATE = re.compile(
    r"(?:^|[\s_-])(?:nav|navbar|menu|sidebar|footer|breadcrumbs?|comments?|share|social|related|"
    r"recommend\w*|advert\w*|ads?|banner|cookie|copyright|pagination|pager|toolbar)(?:$|[\s_-])",
    re.IGNORECASE,
)
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"}
SHORT = 15
"""A block that is no heading and shorter than this needs a long neighbour. In Latin characters; a
Chinese one counts as two."""
LONG = 40
MOST_LINKED = 0.4
"""A block with a larger share of its characters in links is a menu."""

_WIDE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_SPACES = re.compile(r"[ \t\r\n\f\xa0]+")


def main_text(page: str) -> str:
    """The text of a page, one line per block, code as it stands; "" where there is none.

    Blocks inside <article> or <main> are taken where they hold most of the text, else all.
    """
    parser = _Blocks()
    parser.feed(page)
    parser.close()
    parser.end_block()
    blocks = _without_menus(parser.blocks)
    inner = [block for block in blocks if block.inside]
    if sum(len(block.text) for block in inner) > 0.5 * sum(len(block.text) for block in blocks):
        blocks = inner
    while blocks and blocks[-1].heading:  # of a section that is gone
        blocks.pop()
    return "\n".join(block.text for block in blocks)


class _Block:
    __slots__ = ("heading", "inside", "linked", "text")

    def __init__(self, text: str, linked: int, heading: bool, inside: bool):
        self.text, self.linked, self.heading, self.inside = text, linked, heading, inside


def _length(text: str) -> int:
    return len(text) + len(_WIDE.findall(text))


def _without_menus(blocks: list[_Block]) -> list[_Block]:
    good = [
        block.linked <= MOST_LINKED * len(block.text) and _length(block.text) >= SHORT
        for block in blocks
    ]
    kept = []
    for number, block in enumerate(blocks):
        around = [n for n in (number - 1, number + 1) if 0 <= n < len(blocks)]
        near = any(good[n] and _length(blocks[n].text) >= LONG for n in around)
        alone = len(blocks) <= 2  # a page that is hardly more than a note
        plain = block.linked <= MOST_LINKED * len(block.text)
        if good[number] or (plain and (block.heading or near or alone)):
            kept.append(block)
    return kept


class _Blocks(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[_Block] = []
        self._parts: list[str] = []
        self._linked = 0
        self._open: list[tuple[str, bool]] = []  # tags, and whether what they hold is dropped
        self._dropped = self._links = self._inside = self._code = 0
        self._heading = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in BLOCKS:
            self.end_block()
        elif tag == "br":
            self._parts.append("\n")
        if tag in VOID:
            return
        if tag in ("p", "li") and self._open and self._open[-1][0] == tag:  # never closed
            self.handle_endtag(tag)
        named = tag in BLOCKS and tag not in ("html", "body") and self._is_boilerplate(attrs)
        dropped = tag in DROPPED or named
        self._open.append((tag, dropped))
        self._dropped += dropped
        self._links += tag == "a"
        self._inside += tag in ("article", "main")
        self._code += tag == "pre"
        self._heading = self._heading or tag in HEADINGS

    def _is_boilerplate(self, attrs: list[tuple[str, str | None]]) -> bool:
        named = " ".join(value for key, value in attrs if key in ("class", "id", "role") and value)
        hidden = any(key == "hidden" or (key == "aria-hidden" and v == "true") for key, v in attrs)
        return hidden or bool(BOILERPLATE.search(named[:200]))

    def handle_endtag(self, tag: str) -> None:
        if tag in BLOCKS:
            self.end_block()
        depth = len(self._open) - 1
        while depth >= 0 and self._open[depth][0] != tag:
            depth -= 1
        if depth < 0:
            return
        for name, dropped in self._open[depth:]:
            self._dropped -= dropped
            self._links -= name == "a"
            self._inside -= name in ("article", "main")
            self._code -= name == "pre"
        del self._open[depth:]

    def handle_data(self, data: str) -> None:
        if self._dropped or (self._open and self._open[-1][0] == "title"):
            return
        text = data if self._code else _SPACES.sub(" ", data)
        self._parts.append(text)
        if self._links:
            self._linked += len(text.strip())

    def end_block(self) -> None:
        lines = "".join(self._parts).split("\n")
        text = "\n".join(lines if self._code else [line.strip() for line in lines]).strip("\n")
        if text.strip():
            self.blocks.append(_Block(text, self._linked, self._heading, self._inside > 0))
        self._parts, self._linked = [], 0
        self._heading = False
