"""Files that users bring -> raw objects (dicts and lists), one by one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from miao.corpus.read.html import main_text
from miao.corpus.read.json_stream import JsonStream
from miao.corpus.read.opened import DamagedFile, Source, format_of, unknown_format
from miao.corpus.read.problems import OnProblem, Problem, stop
from miao.corpus.read.streams import (
    OnRepair,
    decode_line,
    raw_lines_between,
    read_raw_lines,
    read_text,
)
from miao.corpus.read.tables import read_arrow, read_parquet, read_table
from miao.errors import MiaoError

TEXT_PIECE = 1 << 16  # bytes: about the size of the documents that a large text is cut into
WHOLE_TEXT = 1 << 20  # bytes: a text up to this size stays one document
MOST_HTML = 1 << 26  # bytes of one page

_RECORD_KEYS = {"text", "content", "instruction", "prompt", "question", "query", "input", "tools"}
_ARTICLE = re.compile(
    r'<doc id="(?P<id>[^"]*)" [^\n]*?url="(?P<url>[^"]*)" title="(?P<title>.*)">\n'
)
_BLANK_LINES = re.compile(r"\n(?:[ \t\r\u3000]*\n)+")


def read_objects(
    path: str | Source,
    on_problem: OnProblem = stop,
    on_repair: OnRepair | None = None,
    columns: Sequence[str] | None = None,
    encoding: str | None = None,
    span: tuple[int, int] | None = None,
) -> Iterator[tuple[int, Any]]:
    """Yields (line number, raw object), or (record number, ...) for .json, .parquet and .arrow.

    Memory does not grow with the file, except for a .json that is one single object. A line or
    table row that cannot be parsed goes to `on_problem`; if that returns, reading goes on.
    `on_repair(path, how)` hears of everything that was decoded otherwise than as plain UTF-8.
    `columns`: what must be read of a parquet file. `encoding`: of a text that is no UTF-8, where
    it is known better than it can be told. `span`: of plain JSON lines those that begin in these
    bytes, numbered from 1.

    Raises:
        DamagedFile: a file that cannot be read, is damaged, truncated, or no text.
    """
    path = Path(path) if isinstance(path, str) else path
    known = format_of(path)
    if known is None:
        raise unknown_format(path)
    match known[0]:
        case ".jsonl" | ".ndjson":
            if span:
                return _parse_lines(path, raw_lines_between(path, *span), on_problem, on_repair)
            lines = read_raw_lines(path, on_repair, encoding)
            return _parse_lines(path, lines, on_problem, on_repair)
        case ".json":
            return _read_json(path, on_repair, encoding)
        case ".csv":
            return read_table(path, ",", on_problem, on_repair, encoding)
        case ".tsv":
            return read_table(path, "\t", on_problem, on_repair, encoding)
        case ".parquet":
            return read_parquet(path, columns)
        case ".arrow":
            return read_arrow(path)
        case ".html" | ".htm":
            return _read_html(path, on_problem, on_repair, encoding)
        case _:
            return _read_text(path, on_repair, encoding)


def _read_html(
    path: Source, on_problem: OnProblem, on_repair: OnRepair | None, encoding: str | None
) -> Iterator[tuple[int, dict[str, str]]]:
    """A page's main text as one object."""
    parts, size = [], 0
    for part in read_text(path, on_repair=on_repair, encoding=encoding):
        parts.append(part)
        size += len(part)
        if size > MOST_HTML:
            raise DamagedFile("too large for a web page", where=str(path), fix="split it")
    if text := main_text("".join(parts)):
        yield 1, {"text": text}
    elif size:
        reason = "the page has no main text (menus, links and scripts only)"
        on_problem(Problem(path, 1, reason, "drop it, or export it as .txt", "".join(parts)))


def _read_text(
    path: Source, on_repair: OnRepair | None, encoding: str | None
) -> Iterator[tuple[int, dict[str, str]]]:
    """The whole text as one object, or the pieces of a large one, joined again the same text;
    of WikiExtractor's `<doc id=... title="...">...</doc>` each article."""
    chunks = read_text(path, TEXT_PIECE, on_repair, encoding)
    first = next(chunks, "")
    if _ARTICLE.match(first):
        yield from _articles(chain([first], chunks))
        return
    whole: list[str] | None = []
    size, line = 0, 1
    for piece in _text_pieces(chain([first], chunks)):
        if whole is None:
            yield line, {"text": piece}
            line += piece.count("\n")
            continue
        whole.append(piece)
        size += len(piece.encode())
        if size > WHOLE_TEXT:
            for earlier in whole:
                yield line, {"text": earlier}
                line += earlier.count("\n")
            whole = None
    if whole is not None:
        yield line, {"text": "".join(whole)}


def _articles(chunks: Iterable[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The articles of a file of WikiExtractor's; what stands between them, as texts too."""
    begun: list[str] = []
    fields: dict[str, str] = {}
    number = at = 1
    for line in _lines_of(chunks):
        opening = _ARTICLE.match(line)
        closing = line.rstrip("\n") == "</doc>"
        if opening or closing:
            if text := "".join(begun).strip("\n"):
                yield at, {**fields, "text": text}
            begun, at = [], number
            fields = opening.groupdict() if opening else {}
        else:
            begun.append(line)
        number += 1
    if text := "".join(begun).strip("\n"):
        yield at, {**fields, "text": text}


def _lines_of(chunks: Iterable[str]) -> Iterator[str]:
    r"""Lines with their "\n"."""
    begun = ""
    for chunk in chunks:
        *lines, begun = (begun + chunk).split("\n")
        yield from (line + "\n" for line in lines)
    if begun:
        yield begun


def _text_pieces(chunks: Iterable[str]) -> Iterator[str]:
    """Cuts after the last blank lines in every `TEXT_PIECE` bytes.

    Where four times as many have none, cuts after the last line, or before the last character.
    No piece is blank: the spaces at the borders stay with their neighbours.
    """
    begun, count = "", 0
    for chunk in chunks:
        begun, count = begun + chunk, count + 1
        start, end = len(begun) - len(begun.lstrip()), len(begun.rstrip())
        cut = max((match.end() for match in _BLANK_LINES.finditer(begun, start, end)), default=0)
        if not cut and count >= 4 and end - start > TEXT_PIECE:
            cut = begun.rfind("\n", start, end) + 1 or end - 1
        if cut > start:
            yield begun[:cut]
            begun, count = begun[cut:], 0
    if begun:
        yield begun


def _parse_lines(
    path: Source,
    lines: Iterable[tuple[int, bytes]],
    on_problem: OnProblem,
    on_repair: OnRepair | None,
) -> Iterator[tuple[int, Any]]:
    for number, raw in lines:
        try:
            line, mended = decode_line(raw)
        except MiaoError as error:
            on_problem(Problem(path, number, error.what, error.fix, raw))
            continue
        if mended and on_repair:
            on_repair(path, mended)
        text = line.strip(" \t\r\ufeff")
        if not text:
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            at = line.index(text) + getattr(error, "pos", 0)
            fix = "mend or delete the line: each must hold one whole JSON object"
            if number == 1 and text in ("[", "{"):
                fix = "this looks like JSON over several lines: rename the file to .json"
            on_problem(Problem(path, number, _invalid(error, at + 1, text), fix, line))
        else:
            yield number, value


def _invalid(error: Exception, column: int, text: str) -> str:
    """Describes invalid JSON, showing the beginning of what was read as JSON."""
    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    shown = repr(text[:60]) + ("..." if len(text) > 60 else "")
    return f"invalid JSON at column {column} ({reason}) in {shown}"


def _read_json(
    path: Source, on_repair: OnRepair | None, encoding: str | None
) -> Iterator[tuple[int, Any]]:
    """The items of a list; the one list of objects in an object, or that object; or JSON lines."""
    stream = JsonStream(path, on_repair, encoding)
    if stream.peek() == "[":
        yield from enumerate(stream.items(), 1)
        if stream.peek():
            raise stream.error("more after the end of the list", stream.at)
    elif stream.peek():
        first = stream.value()
        if stream.peek():  # many .json files hold JSON lines
            yield 1, first
            number = 1
            while stream.peek():
                number += 1
                yield number, stream.value()
        else:
            yield from enumerate(_records_in(first), 1)


def _records_in(value: Any) -> list[Any]:
    """The records of `{"version": 1, "data": [{...}, ...]}`; any other value is one itself.

    A list of turns, or whatever stands beside a text or a question, belongs to one record.
    """
    if isinstance(value, dict) and not _RECORD_KEYS & value.keys():
        lists = [entry for entry in value.values() if isinstance(entry, list)]
        if len(lists) == 1 and all(
            isinstance(entry, dict) and not {"role", "from"} & entry.keys() for entry in lists[0]
        ):
            return lists[0]
    return [value]
