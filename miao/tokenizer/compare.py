"""How well tokenizers of any kind compress kinds of text, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tokenizers

from miao.errors import MiaoError
from miao.tokenizer.importing import import_sentencepiece, import_tiktoken
from miao.tokenizer.inspect import Compression
from miao.tokenizer.tokenizer import Tokenizer

SAMPLES = ("zh", "en", "code", "math", "classical")


def samples() -> dict[str, str]:
    """Short texts to compare tokenizers on, by kind: written for this, but for the classical ones,
    which are in the public domain."""
    folder = Path(__file__).with_name("samples")
    return {kind: (folder / f"{kind}.txt").read_text(encoding="utf-8") for kind in SAMPLES}


@dataclass(frozen=True, slots=True)
class Cut(Compression):
    """A text as one tokenizer cuts it."""

    is_lossless: bool


@dataclass(frozen=True)
class Compared:
    """One tokenizer: its size, and what it makes of each text."""

    name: str
    vocab_size: int
    cuts: dict[str, Cut]


def load_any(path: Path) -> tokenizers.Tokenizer:
    """A tokenizer of any kind: a `tokenizer.json` (or its directory), a .tiktoken vocabulary, or a
    sentencepiece .model.

    Raises:
        MiaoError: none of them, or damaged.
    """
    if path.suffix == ".tiktoken":
        return _backend(import_tiktoken(path))
    if path.suffix == ".model":
        return _backend(import_sentencepiece(path))
    places = [path, path / "tokenizer.json", path / "tokenizer" / "tokenizer.json"]
    places.append(path / "model" / "tokenizer.json")
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise MiaoError(
            "there is no tokenizer here" if path.exists() else "no such file or directory",
            where=path,
            fix="give a tokenizer.json, a directory or run that holds one, a .tiktoken vocabulary "
            "or a sentencepiece .model",
        )
    try:
        backend = tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise MiaoError(
            f"the tokenizer cannot be read: {error}",
            where=file,
            fix="download or copy the file again",
        ) from error
    backend.no_truncation()
    backend.no_padding()
    return backend


def compare_tokenizers(
    backends: Mapping[str, tokenizers.Tokenizer], texts: Mapping[str, str]
) -> list[Compared]:
    """Cuts every text with every tokenizer, without the tokens that begin and end a text."""
    found = []
    for name, backend in backends.items():
        cuts = {kind: _cut(backend, text) for kind, text in texts.items()}
        found.append(Compared(name, backend.get_vocab_size(), cuts))
    return found


def _cut(backend: tokenizers.Tokenizer, text: str) -> Cut:
    ids = backend.encode(text, add_special_tokens=False).ids
    back = backend.decode(ids, skip_special_tokens=False)
    return Cut(len(ids), len(text), len(text.encode()), back == text)


def _backend(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(tokenizer.ordinary_json())


def comparison_rows(compared: Sequence[Compared]) -> tuple[list[str], list[list[str]]]:
    """Columns (tokenizers) and rows (kinds of text): characters and bytes per token."""
    rows = [["tokens in all", *(f"{one.vocab_size:,}" for one in compared)]]
    for kind in compared[0].cuts:
        cuts = [one.cuts[kind] for one in compared]
        cells = [
            f"{cut.characters_per_token:.2f} / {cut.bytes_per_token:.2f}"
            + ("" if cut.is_lossless else " *")
            for cut in cuts
        ]
        rows.append([kind, *cells])
    return ["text", *(one.name for one in compared)], rows
