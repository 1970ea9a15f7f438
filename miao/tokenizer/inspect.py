"""Shows what the tokenizer does to a text, a conversation, and what its vocabulary holds."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from miao.corpus.records import Conversation
from miao.tokenizer.tokenizer import Tokenizer

_VISIBLE = {" ": "·", "\n": "↵", "\t": "→", "\r": "␍"}
_LEARNT_STYLES = ("black on green3", "black on pale_green1")
_CONTEXT_STYLES = ("white on grey30", "white on grey42")
_CONTROL_STYLE, _LEARNT_CONTROL_STYLE = "bold magenta on grey15", "bold green3 on grey15"


@dataclass(frozen=True, slots=True)
class Piece:
    """One token of an inspected text.

    `shown` is what to print: its characters, with white space made visible and bytes that are only
    part of a character in hexadecimal, the last with what they make: <E6 86> <8B=憋>.
    `is_learnt`: the training loss counts it.
    """

    id: int
    shown: str
    is_control: bool
    is_learnt: bool


@dataclass(frozen=True, slots=True)
class Compression:
    """The size of a text, and the tokens that stand for it."""

    tokens: int
    characters: int
    bytes: int

    @property
    def characters_per_token(self) -> float:
        return self.characters / max(self.tokens, 1)

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / max(self.tokens, 1)


@dataclass(frozen=True, slots=True)
class Inspection(Compression):
    """The pieces of a text or a conversation, and its size (control tokens' spelling included)."""

    pieces: list[Piece]

    @property
    def learnt_tokens(self) -> int:
        return sum(piece.is_learnt for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class VocabularyOverview:
    """What a vocabulary is made of; the four counts add up to its size, but for unused ids."""

    vocab_size: int
    controls: int
    with_chinese: int
    partial: int
    """Bytes that are not a whole number of characters: building stones of rarer characters."""
    other: int
    longest_chinese: list[str]
    longest_latin: list[str]

    @property
    def chinese_share(self) -> float:
        """Share of the pieces that hold a Chinese character, 0 to 1."""
        return self.with_chinese / self.vocab_size


def inspect_text(tokenizer: Tokenizer, text: str, *, allow_special: bool = False) -> Inspection:
    """The pieces of a plain text. In pretraining all of them are learnt."""
    ids = tokenizer.encode(text, allow_special=allow_special)
    return _inspection(tokenizer, ids, [True] * len(ids))


def inspect_conversation(
    tokenizer: Tokenizer, conversation: Conversation, last_turn_only: bool = False
) -> Inspection:
    """The pieces of a conversation as fine-tuning sees them: what it learns, what is context."""
    ids, mask = tokenizer.chat_template.encode(tokenizer, conversation, last_turn_only)
    return _inspection(tokenizer, ids, mask)


def inspect_vocabulary(tokenizer: Tokenizer, longest: int = 20) -> VocabularyOverview:
    """Counts of the kinds of piece, and the `longest` longest Chinese and Latin ones."""
    control_ids = set(tokenizer.control_ids.values())
    partial, unused = 0, 0
    texts: list[str] = []
    for id in sorted(set(range(tokenizer.vocab_size)) - control_ids):
        raw = tokenizer.token_bytes(id)
        try:
            texts.append(raw.decode())
        except UnicodeDecodeError:
            partial += 1
        unused += not raw
    chinese = [text for text in texts if any(map(is_chinese, text))]
    latin = [text for text in texts if text.isascii() and text.strip().isalpha()]
    return VocabularyOverview(
        vocab_size=tokenizer.vocab_size,
        controls=len(control_ids),
        with_chinese=len(chinese),
        partial=partial,
        other=len(texts) - len(chinese) - unused,
        longest_chinese=_longest(chinese, longest),
        longest_latin=_longest(latin, longest),
    )


def render_inspection(inspection: Inspection, *, ids: bool = False) -> RenderableType:
    """For `rich.console.Console.print`: the pieces in colour (learnt green, context grey, control
    tokens bold), then the numbers.

    Args:
        ids: also a table with one line per token.
    """
    flow = Text()
    for number, piece in enumerate(inspection.pieces):
        if number:
            is_line_end = inspection.pieces[number - 1].shown.endswith(_VISIBLE["\n"])
            flow.append("\n" if is_line_end else "│", style="dim")
        flow.append(piece.shown, style=_style(piece, number))
    parts: list[RenderableType] = [flow, Text(_numbers(inspection), style="bold")]
    if ids:
        table = Table("#", "id", "piece", "learnt")
        for number, piece in enumerate(inspection.pieces):
            learnt = "yes" if piece.is_learnt else ""
            shown = Text(piece.shown, style=_style(piece, number))
            table.add_row(str(number), str(piece.id), shown, learnt)
        parts.insert(1, table)
    return Group(*parts)


def render_vocabulary(overview: VocabularyOverview) -> RenderableType:
    """For `rich.console.Console.print`: the counts and the longest pieces."""
    table = Table("kind of piece", "number", "share", title=f"{overview.vocab_size:,} tokens")
    for kind, count in (
        ("with Chinese", overview.with_chinese),
        ("other text", overview.other),
        ("part of a character", overview.partial),
        ("control", overview.controls),
    ):
        table.add_row(kind, f"{count:,}", f"{count / overview.vocab_size:.1%}")
    longest = [
        Text(f"longest {name}: ", style="bold").append("  ".join(pieces), style="not bold")
        for name, pieces in (
            ("Chinese", overview.longest_chinese),
            ("Latin", overview.longest_latin),
        )
        if pieces
    ]
    return Group(table, *longest)


def readable(raw: bytes) -> str:
    """Bytes of a token for the eye: "天气", "·the", "↵", and <E4 B8> for part of a character."""
    text = raw.decode("utf-8", "surrogateescape")
    shown, stray = [], bytearray()
    for character in text:
        if "\udc80" <= character <= "\udcff":
            stray.append(ord(character) - 0xDC00)
            continue
        shown += [_hexadecimal(stray), _visible(character)]
        stray = bytearray()
    return "".join([*shown, _hexadecimal(stray)])


def is_chinese(character: str) -> bool:
    """Whether a character is a Chinese one (CJK ideographs, extensions and compatibility forms)."""
    return any(
        first <= character <= last
        for first, last in (
            ("\u3400", "\u4dbf"),
            ("\u4e00", "\u9fff"),
            ("\uf900", "\ufaff"),
            ("\U00020000", "\U0003ffff"),
        )
    )


def _inspection(tokenizer: Tokenizer, ids: Sequence[int], mask: Sequence[bool]) -> Inspection:
    control_ids = set(tokenizer.control_ids.values())
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces, characters, size = [], 0, 0
    for id, is_learnt in zip(ids, mask, strict=True):
        raw = tokenizer.token_bytes(id)
        is_inside_character = bool(decoder.getstate()[0])
        text = decoder.decode(raw)
        shown = readable(raw)
        if is_inside_character and text and text[0] != "\ufffd":
            shown = shown.replace(">", f"={text[0]}>", 1)
        pieces.append(Piece(id, shown, id in control_ids, is_learnt))
        characters, size = characters + len(text), size + len(raw)
    characters += len(decoder.decode(b"", final=True))
    return Inspection(len(pieces), characters, size, pieces)


def _longest(texts: list[str], count: int) -> list[str]:
    return [text.strip() for text in sorted(texts, key=lambda text: (-len(text), text))[:count]]


def _visible(character: str) -> str:
    if character in _VISIBLE:
        return _VISIBLE[character]
    return character if character.isprintable() else _hexadecimal(character.encode())


def _hexadecimal(raw: bytes | bytearray) -> str:
    return f"<{raw.hex(' ').upper()}>" if raw else ""


def _style(piece: Piece, number: int) -> str:
    if piece.is_control:
        return _LEARNT_CONTROL_STYLE if piece.is_learnt else _CONTROL_STYLE
    return (_LEARNT_STYLES if piece.is_learnt else _CONTEXT_STYLES)[number % 2]


def _numbers(inspection: Inspection) -> str:
    return (
        f"{inspection.tokens:,} tokens ({inspection.learnt_tokens:,} learnt), "
        f"{inspection.characters_per_token:.2f} characters and "
        f"{inspection.bytes_per_token:.2f} bytes per token"
    )
