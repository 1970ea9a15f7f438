"""Adds tokens to a tokenizer without changing what it has: every old id stays.

New merges are learned on top of the old ones: the text is cut by the old tokenizer first, then
pairs of its tokens are merged. They come after all old merges, so the old tokens are found exactly
as before, and the new ones only join them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from miao.errors import MiaoError
from miao.tokenizer.tokenizer import MARKUP_TOKENS, Tokenizer
from miao.tokenizer.train import bounded

BATCH = 512
_FIRST_STAND_IN = 0x20000
"""One character stands for one old token: from here on there is room for a million of them."""


@dataclass(frozen=True)
class Extension:
    """A tokenizer with more tokens, and what the new ones were made of."""

    tokenizer: Tokenizer
    made_of: dict[int, list[int]]
    """New id -> old ids that spelt the same until now (none of a control token)."""


def extend_tokenizer(
    tokenizer: Tokenizer,
    texts: Iterable[str] = (),
    new_tokens: int = 0,
    control_tokens: Sequence[str] = (),
    max_token_bytes: int = 24,
) -> Extension:
    """Learns `new_tokens` merges from `texts`, and adds control tokens, all after the old ids.

    Raises:
        MiaoError: the texts do not yield so many, a control token that is there already, or a
            tokenizer that is not byte-level BPE.
    """
    if not tokenizer.is_byte_level:
        raise MiaoError(
            "only byte-level BPE vocabularies can be extended, and this one is sentencepiece's",
            fix="take another base model (Qwen, Llama 3, DeepSeek), or train your own tokenizer",
        )
    if new_tokens < 0:
        raise MiaoError(f"{new_tokens} new tokens", fix="ask for 0 or more")
    spec = tokenizer.spec()
    vocabulary = spec["model"]["vocab"]
    first = tokenizer.vocab_size
    for added in spec["added_tokens"]:  # else the library would number those after the new merges
        vocabulary.setdefault(added["content"], added["id"])
    made_of: dict[int, list[int]] = {}
    merges = spec["model"]["merges"]
    pairs = _new_merges(tokenizer, texts, new_tokens, max_token_bytes) if new_tokens else []
    if len(pairs) < new_tokens:
        raise MiaoError(
            f"the text yields only {len(pairs):,} new tokens, not {new_tokens:,}",
            fix="ask for fewer, or give more text of the new kind",
        )
    as_text = bool(merges) and isinstance(merges[0], str)
    for id, (left, right) in enumerate(pairs, first):
        vocabulary[left + right] = id
        merges.append(f"{left} {right}" if as_text else [left, right])
        made_of[id] = [
            old
            for part in (vocabulary[left], vocabulary[right])
            for old in made_of.get(part, [part])
        ]
    for id, token in enumerate(control_tokens, first + len(pairs)):
        if token in vocabulary or tokenizer.token_to_id(token) is not None:
            raise MiaoError(
                f"the vocabulary has {token!r} already, or it is there twice",
                fix="leave it out: it keeps the id that it has",
            )
        if not (len(token) > 2 and token.startswith("<") and token.endswith(">")):
            raise MiaoError(f"{token!r} is no control token", fix="write it as <|name|>")
        vocabulary[token] = id
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        special = token not in MARKUP_TOKENS
        spec["added_tokens"].append({"id": id, "content": token, **flags, "special": special})
        made_of[id] = []
    extended = tokenizer.with_spec(spec)
    assert extended.vocab_size == first + len(pairs) + len(control_tokens)
    return Extension(extended, made_of)


def _new_merges(
    tokenizer: Tokenizer, texts: Iterable[str], count: int, max_token_bytes: int
) -> list[tuple[str, str]]:
    """Up to `count` merges of old (and new) tokens, as the vocabulary spells them.

    The library learns them: each old token is written as one character of its own, words are kept
    apart by spaces, and what the trainer makes of those characters is translated back.
    """
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=tokenizer.vocab_size + 2 * count, min_frequency=2, show_progress=False
    )
    backend.train_from_iterator(_stand_ins(tokenizer, texts), trainer)
    learned = _merges_of(backend)
    known = set(tokenizer.spec()["model"]["vocab"])
    pairs: list[tuple[str, str]] = []
    made: set[str] = set()
    for left, right in learned:
        halves = [
            "".join(tokenizer.id_to_token(ord(c) - _FIRST_STAND_IN) or "" for c in half)
            for half in (left, right)
        ]
        token = "".join(halves)
        # What is too long is left out with all that is built on it; what the vocabulary has
        # already, by another way, keeps its id and its way.
        parts_exist = all(
            len(half) == 1 or spelt in made
            for half, spelt in zip((left, right), halves, strict=True)
        )
        # (A letter of the vocabulary is a byte.)
        if (
            parts_exist
            and token not in known
            and token not in made
            and len(token) <= max_token_bytes
        ):
            pairs.append((halves[0], halves[1]))
            made.add(token)
        if len(pairs) == count:
            break
    return pairs


def _merges_of(backend: tokenizers.Tokenizer) -> list[tuple[str, str]]:
    """The merges of a BPE backend, in order."""
    merges = json.loads(backend.to_str())["model"]["merges"]
    return [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in merges]


def _stand_ins(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[str]:
    """Each text with one character per token, and a space where a word ends."""
    backend = tokenizers.Tokenizer.from_str(tokenizer.ordinary_json())
    backend.encode_special_tokens = True
    batch: list[str] = []

    def encoded() -> Iterator[str]:
        for encoding in backend.encode_batch(batch, add_special_tokens=False):
            line: list[str] = []
            before = None
            for id, word in zip(encoding.ids, encoding.word_ids, strict=True):
                line += [" "] * (word != before) + [chr(_FIRST_STAND_IN + id)]
                before = word
            yield "".join(line)

    for text in chain.from_iterable(map(bounded, texts)):
        batch.append(text)
        if len(batch) == BATCH:
            yield from encoded()
            batch = []
    if batch:
        yield from encoded()
