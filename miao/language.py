"""Messages and `--help` in the user's language: English as the code has it, Chinese by a table.

Code says plain English, f-strings and all; what it says is translated where it leaves the program
(`console`, `cli`, `Parser`). An f-string is finished by then, so the table's entries are templates:
`there is no verb '{1}'` finds the word again and puts it into the Chinese sentence; what stands in
a place is looked up likewise, for messages are made of messages. `locale/zh.po` is the table, a
gettext catalogue for any editor of such; `scripts/messages.py` writes into it what is missing.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import sys
import unicodedata
from pathlib import Path
from typing import Any

from miao.errors import MiaoError

CATALOGUE = Path(__file__).parent / "locale" / "zh.po"
PLACE = re.compile(r"\{(\d+|s)\}")
"""A place of a template: `{1}`, or `{s}`, an English ending that a translation may leave out."""
LEAST = 5
"""Letters of its own that a template with places needs, to be known again in any text."""
LEAST_IN_A_PART = 8
"""The same of a part of a line: what a model or a file says may stand there."""
NO_LINE_BEGINS = "，。；：、！？）》”’…%"


@functools.cache
def language() -> str:
    """`zh` or `en`: MIAO_LANG, else the locale's (on Windows: the user interface's).

    Raises:
        MiaoError: MIAO_LANG is another word.
    """
    asked = os.environ.get("MIAO_LANG", "").lower()
    if asked and asked[:2] not in ("zh", "en"):
        raise MiaoError(f"there are no messages in '{asked}'", where="MIAO_LANG", fix="zh or en")
    try:
        "中".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return "en"
    names = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
    said = asked or next(filter(None, map(os.environ.get, names)), "")
    if not said and sys.platform == "win32":
        import ctypes

        is_chinese = ctypes.windll.kernel32.GetUserDefaultUILanguage() & 0x3FF == 4
        said = "zh" if is_chinese else ""
    return "zh" if said.lower().startswith("zh") else "en"


def read_catalogue(path: Path) -> dict[str, str]:
    """English -> translation of a gettext catalogue (`.po`); of its quoting, what JSON has too."""
    catalogue = path.read_text(encoding="utf-8")
    lines = re.findall(r'^(msgid |msgstr |)(".*")$', catalogue, re.MULTILINE)
    pieces = json.loads(f"[{','.join(quoted for _, quoted in lines)}]")
    texts: list[str] = []
    for (keyword, _), piece in zip(lines, pieces, strict=True):
        if keyword:
            texts.append(piece)
        else:
            texts[-1] += piece
    return dict(zip(texts[2::2], texts[3::2], strict=True))  # the first two are the head


class _Template:
    """An English sentence with places, and its translation."""

    def __init__(self, english: str, said: str):
        self.said, self.places = said, PLACE.findall(english)
        self.literals = PLACE.split(english)[::2]
        self.longest = max(self.literals, key=len)
        self.letters = sum(map(str.isalpha, "".join(self.literals)))

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        places = ["([a-z]{0,3})" if place == "s" else "(.*?)" for place in self.places]
        pieces = zip(map(re.escape, self.literals), [*places, ""], strict=True)
        return re.compile("".join(map("".join, pieces)), re.DOTALL)


class Translator:
    """Finds the translation of finished texts."""

    def __init__(self, entries: dict[str, str]):
        self.entries = {english: said for english, said in entries.items() if said}

    @functools.cached_property
    def templates(self) -> list[_Template]:
        """Those with places, the one with the most words of its own first."""
        found = (_Template(e, s) for e, s in self.entries.items() if PLACE.search(e))
        known = (template for template in found if template.letters >= LEAST)
        return sorted(known, key=lambda template: -template.letters)

    def __call__(self, text: str) -> str:
        """The translation of a text, or of those lines of it that have one."""
        return self._whole(text) or "\n".join(
            self._whole(line) or self._piece(line) for line in text.split("\n")
        )

    def _whole(self, text: str, least: int = LEAST) -> str | None:
        if (said := self.entries.get(text)) is not None:
            return said
        for template in self.templates:
            if template.letters < least:
                return None
            if template.longest in text and (found := template.pattern.fullmatch(text)):
                values = dict(zip(template.places, map(self._value, found.groups()), strict=True))
                return "".join(
                    piece if number % 2 == 0 else values[piece]
                    for number, piece in enumerate(PLACE.split(template.said))
                )
        return None

    def _value(self, text: str) -> str:
        """What stands in a place: a message by itself, several with a comma between, or a name."""
        return text if " " not in text.strip() else self(text)

    def _piece(self, text: str) -> str:
        """A line without an entry: what its parts have (`PLACE: message`, `  -> remedy`)."""
        place, colon, message = text.partition(": ")
        if colon and (whole := self._whole(message, LEAST_IN_A_PART)):
            return place + colon + whole
        for mark in (" -> ", "; ", ": ", ", "):
            parts = text.split(mark)
            said = [
                (" " in part.strip() and self._whole(part, LEAST_IN_A_PART)) or part
                for part in parts
            ]
            if said != parts:
                return mark.join(said)
        return text


@functools.cache
def _translator(to: str) -> Translator:
    return Translator(read_catalogue(CATALOGUE) if to == "zh" else {})


def translated(text: str, to: str | None = None) -> str:
    """A message in the user's language (or that of a reader elsewhere, `to`); itself in English, or
    where the table has it not."""
    translator = _translator(to or language())
    return translator(text) if translator.entries and text.strip() else text


def in_language(error: MiaoError) -> str:
    """What an error says, in the user's language; in English where MIAO_LANG names none."""
    try:
        where, fix = (text and translated(text) for text in (error.where, error.fix))
        return str(MiaoError(translated(error.what), where=where, fix=fix))
    except MiaoError as wrong:
        return str(wrong)


class HelpInLanguage(argparse.HelpFormatter):
    """Help in the user's language; a Chinese character takes two columns of its lines."""

    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None = None) -> None:
        super().add_usage(usage, actions, groups, translated(prefix or "usage: "))

    def start_section(self, heading: str | None) -> None:
        super().start_section(heading and translated(heading))

    def add_text(self, text: str | None) -> None:
        super().add_text(text and translated(text))

    def _get_help_string(self, action: argparse.Action) -> str:
        text, own = super()._get_help_string(action) or "", action.help or ""
        words = translated(" ".join(own.split()))
        return words + translated(text.removeprefix(own)) if text.startswith(own) else text

    def _split_lines(self, text: str, width: int) -> list[str]:
        if text.isascii():
            return super()._split_lines(text, width)
        return _wrapped(" ".join(text.split()), width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.isascii():
            return super()._fill_text(text, width, indent)
        return "\n".join(indent + line for line in self._split_lines(text, width))


class AsWritten(HelpInLanguage, argparse.RawDescriptionHelpFormatter):
    """The same; the lines of description and epilog stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return argparse.RawDescriptionHelpFormatter._fill_text(self, text, width, indent)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines at most `width` cells wide (a stop may hang over), broken at spaces and around Chinese
    characters."""
    lines, cells = [""], 0
    for piece in re.findall(r"[（“]*(?:[\u2e80-\uffff]|[^\s\u2e80-\uffff（“]+)|\s+", text):
        wide = sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in piece)
        if cells + wide > width and lines[-1] and piece not in NO_LINE_BEGINS:
            lines, cells = [*lines, ""], 0
        if lines[-1] or not piece.isspace():
            lines[-1], cells = lines[-1] + piece, cells + wide
    return [line.rstrip() for line in lines]


class Parser(argparse.ArgumentParser):
    """The parser of a verb: no abbreviated options; help and errors in the user's language."""

    def __init__(self, **settings: Any):
        settings.setdefault("formatter_class", HelpInLanguage)
        settings.setdefault("allow_abbrev", False)
        super().__init__(**settings)

    def error(self, message: str) -> Any:
        """Prints the usage and the mistake, and ends with code 2."""
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: {translated('error: ')}{translated(message)}\n")
