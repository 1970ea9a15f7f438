"""Crawls (WARC, WET) -> the main text of their pages."""

from __future__ import annotations

from collections.abc import Iterator

from miao.corpus.read.opened import Source, missing_library, open_binary, readable
from miao.corpus.read.streams import OnRepair

MOST_BYTES = 1 << 26
"""Of one page."""


def read_warc(
    path: Source, on_repair: OnRepair | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """The text of each page that was answered with 200, and each text that was taken from one
    before (WET), by their number in the file, with the address.

    Pages are decoded and their main text is found by trafilatura; requests, redirects, pictures
    and pages without text are passed over and counted.
    """
    try:
        from trafilatura import extract
        from warcio.archiveiterator import ArchiveIterator
        from warcio.exceptions import ArchiveLoadFailed
    except ImportError as error:
        raise missing_library("warcio and trafilatura", path, "web") from error
    number = 0
    with readable(path), open_binary(path) as file:
        try:
            for number, record in enumerate(ArchiveIterator(file), 1):
                kind, status = record.rec_type, record.http_headers
                if kind is None:
                    raise OSError(f"record {number} is none of a crawl")
                if kind not in ("response", "conversion"):
                    continue
                content = record.content_stream().read(MOST_BYTES)
                missing: int = getattr(record.raw_stream, "limit", 0)
                if missing and len(content) < MOST_BYTES:
                    raise OSError(f"record {number} is cut off")
                if kind == "conversion":
                    text: str | None = content.decode("utf-8", "replace")
                elif status is None or status.get_statuscode() != "200":
                    text = None
                else:
                    text = _text(extract, content, status.get_header("Content-Type") or "")
                if text and not text.isspace():
                    address = record.rec_headers.get_header("WARC-Target-URI") or ""
                    yield number, {"text": text, "url": address}
                elif on_repair:
                    on_repair(path, "answers of a crawl without text, passed over")
        # What is no crawl at all makes warcio stumble over itself.
        except (ArchiveLoadFailed, AttributeError, ValueError, IndexError) as error:
            raise OSError(f"record {number + 1}: {error}") from error


def _text(extract: object, content: bytes, kind: str) -> str | None:
    if "html" in kind:
        assert callable(extract)
        text: str | None = extract(content, include_comments=False)
        return text
    return content.decode("utf-8", "replace") if kind.startswith("text/plain") else None
