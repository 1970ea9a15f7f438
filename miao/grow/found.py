"""What the user brought: read once, checked, counted; of much text a fair part."""

from __future__ import annotations

import bz2
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from miao import rules
from miao.console import count
from miao.corpus.check import language_of
from miao.corpus.read.accounting import UnreadColumns
from miao.corpus.read.convert import EXPECTED
from miao.corpus.read.formats import RecordCounts, convert_file
from miao.corpus.read.kinds import sniff_kind
from miao.corpus.read.opened import COMPRESSIONS
from miao.corpus.read.parts import read_part, split_file
from miao.corpus.read.problems import Problem
from miao.corpus.read.sources import find_sources
from miao.corpus.records import Kind, text_of
from miao.errors import MiaoError
from miao.files import write_jsonl

READ = 16_000_000
"""Characters that are looked at, over all sources; of more text the rest is reckoned."""
LEAST = 2_000
"""Characters below which nothing can be learned to write from."""
CUT = 2_000
"""Characters of the records that long texts are cut into, so that some can be held out."""
FEWEST = 400
"""Documents below which they are cut, where they are longer than that."""
SAMPLE, PIECES = 200_000, 400
"""Bytes that are compressed, to see how hard the text is; of so many pieces from all over it."""
PACKED = 3.5
"""Bytes of text in a byte of a compressed file, about."""
BYTES_PER_TOKEN = {
    1024: (2.0, 2.4), 2048: (2.6, 3.0), 4096: (3.2, 3.6), 6400: (3.5, 3.9), 12800: (4.0, 4.4),
    25600: (4.4, 4.7),
}  # fmt: skip
"""Of Chinese and of English, by the size of the vocabulary: what the tokenizer comes to here."""
REFERENCE = 6400
SMALL_VOCABULARY = 0.025
"""The power of it that a smaller one costs beyond the bytes that it reads (two texts, 1,024 to
4,096 entries)."""
_END = re.compile(r"\n|(?<=[。！？!?])|(?<=\. )")


@dataclass
class Source:
    """The files of one name."""

    name: str
    kind: Kind
    files: list[str] = field(default_factory=list)
    records: int = 0
    characters: float = 0.0
    bytes: float = 0.0
    """Of text, as UTF-8."""
    problems: int = 0
    chinese: int = 0
    """Of the records that were looked at, those in Chinese."""
    seen: int = 0
    whole: bool = True
    """All of it was looked at."""


@dataclass
class Found:
    """Everything that was found."""

    sources: list[Source]
    first_problem: str | None = None
    level: float = 1.0
    """Bits per byte that the text takes over those of the rules' text (`rules.text_level`)."""
    pieces: list[str] = field(default_factory=list, repr=False)
    """Of the text, from all over it; not written down."""

    def of(self, kind: Kind) -> list[Source]:
        return [source for source in self.sources if source.kind == kind]

    def files(self, kind: Kind) -> list[str]:
        return [file for source in self.of(kind) for file in source.files]

    def named_files(self, kind: Kind) -> list[str]:
        """The files as options name them, with their sources."""
        return [f"{s.name}={file}" for s in self.of(kind) for file in s.files]

    def total(self, kind: Kind, what: str) -> float:
        return float(sum(getattr(source, what) for source in self.of(kind)))

    @property
    def chinese(self) -> float:
        """Share of Chinese, by records of text."""
        seen = self.total("document", "seen")
        return self.total("document", "chinese") / seen if seen else 0.0

    @property
    def is_cut(self) -> bool:
        """Whether the documents are so few and long that they are cut before they are used."""
        records, characters = (self.total("document", w) for w in ("records", "characters"))
        return records < FEWEST and characters > CUT * max(records, 1)

    def to_json(self) -> dict[str, Any]:
        return asdict(replace(self, pieces=[]))

    def lines(self) -> list[str]:
        """What was found, in a line of each kind."""
        return [_line(kind, self.of(kind)) for kind in NAMES if self.of(kind)]


NAMES: dict[Kind, str] = {"document": "text", "conversation": "chats", "preference": "pairs"}


def look(texts: Sequence[str], chats: Sequence[str], pairs: Sequence[str]) -> Found:
    """Reads what was brought. Conversations and pairs among the texts are told by their form.

    Raises:
        MiaoError: nothing can be read, a file is not what it was given as, or the text is too
            little to learn from.
    """
    given: list[tuple[Kind | None, Sequence[str]]] = [
        (None, texts), ("conversation", chats), ("preference", pairs),
    ]  # fmt: skip
    found: dict[tuple[Kind, str], Source] = {}
    for asked, paths in given:
        for path, name in find_sources(list(paths)) if paths else []:
            kind = asked or sniff_kind(path) or "document"
            source = found.setdefault((kind, name), Source(name, kind))
            source.files.append(str(path))
    result, sample = Found(list(found.values())), _Sample()
    sizes = [sum(_size(Path(file)) for file in source.files) for source in result.sources]
    for source, size in zip(result.sources, sizes, strict=True):
        _count(source, READ * size / max(sum(sizes), 1), result, sample)
        if source.kind != "document" and not source.seen:
            raise MiaoError(
                f"no {source.kind}s stand in it",
                where=source.files[0],
                fix=f"{EXPECTED[source.kind]}; what is text goes before the options",
            )
    characters = result.total("document", "characters")
    if characters < LEAST:
        raise MiaoError(
            f"{characters:,.0f} characters of text are too little to learn a language from",
            where=", ".join(map(str, texts)),
            fix=f"bring at least {LEAST:,} characters (two pages); 100,000 give a first idea, "
            "some millions a model that can write",
        )
    text = sample.text()
    result.level = rules.text_level(
        8 * len(bz2.compress(text)) / len(text), len(text), result.chinese
    )
    result.pieces = sample.pieces
    return result


def _some_files(files: list[str], most: float) -> list[str]:
    """Of files that are too many to look into: some, drawn by chance. One that is a single record
    is read as a whole, of another its beginning."""
    drawn, cost = random.Random(0).sample(files, len(files)), 0.0
    for number, file in enumerate(drawn, start=1):
        single = Path(file).suffix.lower() in (".txt", ".md")
        size = _size(Path(file))
        cost += size if single else min(size, most / 16)
        if cost > 6 * most:
            return drawn[:number]
    return files


class _Sample:
    """Pieces from all over a text, each as likely as any other."""

    def __init__(self) -> None:
        self.rng, self.seen, self.pieces = random.Random(0), 0, list[str]()

    def add(self, text: str) -> None:
        for piece in cut(text):
            self.seen += 1
            if len(self.pieces) < PIECES:
                self.pieces.append(piece)
            elif (place := self.rng.randrange(self.seen)) < PIECES:
                self.pieces[place] = piece

    def text(self) -> bytes:
        self.rng.shuffle(self.pieces)
        return "\n".join(self.pieces).encode(errors="replace")[:SAMPLE]


def _count(source: Source, most: float, result: Found, sample: _Sample) -> None:
    """Counts up to so many characters of a source, the same share of every file."""
    counts = RecordCounts()

    def note(problem: Problem) -> None:
        source.problems += 1
        error = problem.error()
        result.first_problem = result.first_problem or f"{error.where}: {error.what}"

    looked_at = _some_files(source.files, most)
    room = most / len(looked_at)
    for file in looked_at:
        path, taken, bytes_taken, number = Path(file), 0, 0, 0
        whole = True
        try:
            for record, _, _ in convert_file(path, source.kind, source.name, note, counts):
                text = text_of(record)
                taken, number = taken + len(text), number + 1
                if source.kind == "document":
                    sample.add(text)
                bytes_taken += len(text.encode(errors="replace"))
                source.seen += 1
                source.chinese += language_of(text) == "zh"
                if taken >= room and len(source.files) * room > READ / 100:
                    whole = False
                    break
        except UnreadColumns as error:
            raise MiaoError(error.what, where=path, fix=error.fix) from error
        factor = 1.0 if whole else max(_size(path) / max(bytes_taken, 1), 1.0)
        source.whole &= whole
        source.records += round(number * factor)
        source.characters += taken * factor
        source.bytes += bytes_taken * factor
    if len(looked_at) < len(source.files):
        source.whole = False
        share = sum(_size(Path(f)) for f in looked_at) / sum(_size(Path(f)) for f in source.files)
        source.records = round(source.records / share)
        source.characters, source.bytes = source.characters / share, source.bytes / share


def bytes_per_token(vocabulary: int, chinese: float) -> float:
    zh, en = BYTES_PER_TOKEN[vocabulary]
    return chinese * zh + (1 - chinese) * en


def expected(found: Found, inner: float, vocabulary: int, tokens: float) -> rules.Interval:
    """What the rules say of so many tokens of this text, at the level of theirs."""
    reference = bytes_per_token(REFERENCE, found.chinese)
    read = tokens * bytes_per_token(vocabulary, found.chinese)
    bits = rules.expected_bits(
        inner, read / reference, found.total("document", "bytes") / reference
    )
    factor = max(REFERENCE / vocabulary, 1.0) ** SMALL_VOCABULARY
    return rules.Interval(factor * bits.value, factor * bits.low, factor * bits.high)


def take_texts(found: Found, characters: float, directory: Path, seed: int) -> list[str]:
    """Writes a part of the text, of every source the same share and from all over its files, cut
    into records that keep the source they name; the folder's files by source.

    Args:
        characters: how much in all; more than there is: everything.
    """
    share = min(characters / max(found.total("document", "characters"), 1.0), 1.0)
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for source in found.of("document"):
        name = re.sub(r"[^\w.\-]+", "_", source.name).strip("._")[:64] or "documents"
        path = directory / f"{name}.jsonl"
        drawn = _drawn(source, share * source.characters, share < 1, seed)
        pieces = ((piece, named) for text, named in drawn for piece in cut(text))
        write_jsonl(path, ({"text": piece, "source": named} for piece, named in pieces))
        written.append(str(path))
    return written


def _drawn(source: Source, room: float, some: bool, seed: int) -> Iterator[tuple[str, str]]:
    """Texts, and where they say that they are from."""
    parts = [part for file in source.files for part in split_file(Path(file), "document")]
    rng = random.Random(f"{seed}/{source.name}")
    if some:
        rng.shuffle(parts)
    each = room / len(parts)
    taken = 0.0
    for number, part in enumerate(parts):
        here = 0
        limit = max(each, (room - taken) / (len(parts) - number)) if some else float("inf")
        if some and taken >= room:
            return
        for record in read_part(part):
            if here >= limit:
                break
            here += len(record.text)
            own = record.source != part.path.stem  # what a file without a word is called
            yield record.text, record.source if own else source.name
        taken += here


def cut(text: str) -> Iterator[str]:
    """Pieces of about `CUT` characters, each ending where a paragraph or a sentence does."""
    start = 0
    while len(text) - start > 1.5 * CUT:
        end = _END.search(text, start + CUT)
        stop = min(end.end() if end else len(text), start + 2 * CUT)
        if piece := text[start:stop].strip():
            yield piece
        start = stop
    if piece := text[start:].strip():
        yield piece


def _size(path: Path) -> float:
    return path.stat().st_size * (PACKED if path.suffix.lower() in COMPRESSIONS else 1.0)


def _line(kind: Kind, sources: list[Source]) -> str:
    files = sum(len(source.files) for source in sources)
    records, characters, problems = (
        sum(getattr(source, what) for source in sources)
        for what in ("records", "characters", "problems")
    )
    about = "" if all(source.whole for source in sources) else "about "
    text = f"{NAMES[kind]}: {files:,} file{'s' * (files != 1)}, {about}{records:,} records, "
    text += f"{about}{count(characters)} characters ({shares(sources)})"
    text += f", sources {', '.join(s.name for s in sources[:6])}" if kind == "document" else ""
    return text + (f"; {problems:,} bad records are left out" if problems else "; nothing is wrong")


def shares(sources: list[Source]) -> str:
    """`zh 98%, other 2%`, of the records that were looked at."""
    tally: Counter[str] = Counter()
    for source in sources:
        tally["zh"] += source.chinese
        tally["other"] += source.seen - source.chinese
    total = max(sum(tally.values()), 1)
    return ", ".join(f"{name} {n / total:.0%}" for name, n in tally.most_common() if n)
