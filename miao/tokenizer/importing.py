"""Vocabularies of tiktoken and sentencepiece as `tokenizer.json`: the same ids, no pickle."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, models

from miao.errors import MiaoError
from miao.tokenizer.ranks import vocabulary_of_ranks
from miao.tokenizer.sentencepiece import SentencePieces, read_sentencepiece
from miao.tokenizer.tokenizer import CONTROL_TOKENS, MIAO_CONFIG, SPECIAL_TOKENS, Tokenizer
from miao.tokenizer.train import PATTERNS, untrained_backend

KNOWN_FILES = {
    "gpt2": "gpt2",
    "r50k_base": "gpt2",
    "p50k_base": "gpt2",
    "cl100k_base": "llama3",
    "o200k_base": "o200k",
    "qwen": "qwen2",
}
"""Which pattern (of `PATTERNS`) goes with a .tiktoken file of this name."""


def import_tiktoken(
    path: Path,
    pattern: str | None = None,
    special_tokens: Mapping[str, int | None] | None = None,
    bare: bool = False,
) -> Tokenizer:
    """A vocabulary of lines "base64 rank", as .tiktoken files have it.

    Args:
        pattern: how the text is cut first, which the file does not say: a name of `PATTERNS` or a
            regular expression; None: known from the file's name.
        special_tokens: control tokens and their ids (None: the next free one).
        bare: without Miao's control tokens, which otherwise come last.

    Raises:
        MiaoError: a damaged file, no pattern, an id that is taken, nothing that ends a text.
    """
    ranks = _read_ranks(path)
    pattern = pattern or KNOWN_FILES.get(path.stem)
    if pattern is None:
        raise MiaoError(
            "a .tiktoken file does not say how text is cut before the merges",
            where=path,
            fix=f"name it: --pattern, one of {', '.join(PATTERNS)}, or a regular expression",
        )
    vocabulary, merges = vocabulary_of_ranks(ranks)
    controls = _numbered(vocabulary, special_tokens or {}, path)
    backend = untrained_backend(PATTERNS.get(pattern, pattern))
    # tiktoken looks for the whole word first, whatever the merges would make of it.
    backend.model = models.BPE(vocab=vocabulary | controls, merges=merges, ignore_merges=True)
    ends = [token for token in controls if "end" in token] or list(controls)
    return _finished(backend, list(controls), {"eos_token": ends[0] if ends else None}, bare, path)


def import_sentencepiece(path: Path, bare: bool = False) -> Tokenizer:
    """A sentencepiece .model (BPE or unigram) with byte pieces.

    Where it normalises text (NFKC), `tokenizers` treats combining marks and \\r\\n
    otherwise.

    Args:
        bare: without Miao's control tokens, which otherwise come last.

    Raises:
        MiaoError: a damaged file, or one without pieces for all 256 bytes.
    """
    pieces = read_sentencepiece(path)
    special = [token for token in (pieces.unknown, *pieces.controls) if token]
    added = [_added(pieces.ids[token], token, special=True) for token in special]
    added += [_added(pieces.ids[token], token, special=False) for token in pieces.user_defined]
    spec = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(added, key=lambda token: token["id"]),
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(pieces)},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": _decoders(pieces)},
        "model": _model(pieces),
    }
    try:
        backend = tokenizers.Tokenizer.from_str(json.dumps(spec))
    except Exception as error:  # the library raises bare Exception
        raise MiaoError(
            f"tokenizers cannot express this vocabulary: {error}", where=path
        ) from error
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": pieces.unknown}
    config = {name: token for name, token in names.items() if token in pieces.ids}
    return _finished(backend, [], config, bare, path)


def _finished(
    backend: tokenizers.Tokenizer,
    controls: list[str],
    config: dict[str, Any],
    bare: bool,
    path: Path,
) -> Tokenizer:
    """The tokenizer with its control tokens; Miao's own among them unless it is to be bare."""
    ours = [] if bare else [token for token in CONTROL_TOKENS if token not in controls]
    for token in [*controls, *ours]:
        added = AddedToken(token, normalized=False)
        if token in controls or token in SPECIAL_TOKENS:
            backend.add_special_tokens([added])
        else:
            backend.add_tokens([added])
    base = {key: MIAO_CONFIG[key] for key in ("tokenizer_class", "clean_up_tokenization_spaces")}
    try:
        return Tokenizer(backend, base | config if bare else MIAO_CONFIG)
    except MiaoError as error:
        fix = "name one, such as --special '<|endoftext|>', or leave out --bare"
        raise MiaoError(error.what, where=path, fix=fix) from error


def _read_ranks(path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MiaoError(
            f"cannot be read: {error.strerror}",
            where=path,
            fix="name a .tiktoken vocabulary or a sentencepiece .model",
        ) from error
    if data.lstrip().startswith(b"{"):
        raise MiaoError(
            "this is JSON, no .tiktoken vocabulary",
            where=path,
            fix=f"a tokenizer.json needs no import: --tokenizer.path {path.parent}",
        )
    lines = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise MiaoError(
                "not a line of a tiktoken vocabulary (a token in base64, and its rank)",
                where=f"{path}:{number}",
                fix="download the file again",
            ) from error
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing or len(set(ranks.values())) < len(ranks) or min(ranks.values()) < 0:
        what = (
            f"{len(missing)} of the 256 bytes are missing" if missing else "a rank is there twice"
        )
        raise MiaoError(
            "the file is empty" if not ranks else f"the vocabulary is damaged: {what}",
            where=path,
            fix="download the file again; without all 256 bytes some texts could not be spelt",
        )
    return ranks


def _numbered(
    vocabulary: Mapping[str, int], special: Mapping[str, int | None], path: Path
) -> dict[str, int]:
    taken = set(vocabulary.values())
    numbered: dict[str, int] = {}
    for token, id in special.items():
        id = max(taken) + 1 if id is None else id
        if id in taken or token in vocabulary or id < 0:
            raise MiaoError(
                f"'{token}' cannot have the id {id}: it is taken",
                where=path,
                fix=f"leave out the id ({max(taken) + 1} is free), or give another",
            )
        numbered[token] = id
        taken.add(id)
    return numbered


def _added(id: int, token: str, special: bool) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id, "content": token, **flags, "special": special}


def _normalizers(pieces: SentencePieces) -> list[dict[str, Any]]:
    prefix = [{"type": "Prepend", "prepend": "▁"}] if pieces.adds_prefix else []
    steps: list[dict[str, Any]] = []
    if pieces.charsmap:
        charsmap = base64.b64encode(pieces.charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if pieces.removes_extra_spaces:
        # Not the step "Strip", which takes line ends and other white space, too.
        for pattern, content in ((r"\A +| +\z", ""), (" {2,}", " ")):
            steps.append({"type": "Replace", "pattern": {"Regex": pattern}, "content": content})
        steps += prefix  # to a text of which something is left
    else:
        steps = prefix + steps
    return [*steps, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]


def _decoders(pieces: SentencePieces) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if pieces.adds_prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return steps


def _model(pieces: SentencePieces) -> dict[str, Any]:
    if pieces.kind == "unigram":
        vocabulary = [[token, pieces.scores[id]] for token, id in pieces.ids.items()]
        unknown = pieces.ids.get(pieces.unknown or "")
        return {"type": "Unigram", "unk_id": unknown, "vocab": vocabulary, "byte_fallback": True}
    merges: list[list[str]] = []
    normal = {token for token in pieces.ids if token in pieces.normal}
    for token in sorted(normal, key=lambda token: -pieces.scores[pieces.ids[token]]):
        cuts = [(token[:at], token[at:]) for at in range(len(token) - 1, 0, -1)]
        merges += [[a, b] for a, b in cuts if a in normal and b in normal]
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": pieces.unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": True,
        "ignore_merges": False,
        "vocab": pieces.ids,
        "merges": merges,
    }


def parse_special(words: list[str]) -> dict[str, int | None]:
    """`<|x|>` and `<|x|>=100257` as tokens with their ids."""
    found: dict[str, int | None] = {}
    for word in words:
        match = re.fullmatch(r"(.+?)(?:=(\d+))?", word)
        assert match is not None or not word
        if match:
            found[match[1]] = int(match[2]) if match[2] else None
    return found
