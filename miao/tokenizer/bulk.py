"""Encoding in bulk: the same ids from `fastokens`, an order of magnitude faster, where it is there.

What a fast encoder gives is compared with the tokenizer itself, on texts that are known to be
difficult before it is used, and on a sample of the texts all the way.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miao.errors import MiaoError, did_you_mean, install_hint
from miao.tokenizer.tokenizer import Tokenizer

Ids = NDArray[np.uint32]
Offsets = NDArray[np.int64]

CHECKED_FIRST = 64
"""So many texts are all compared; afterwards one in `CHECK_EVERY` is."""
CHECK_EVERY = 512
CHECKED_CHARACTERS = 20_000
"""Of a longer text only the beginning is compared."""
DIFFICULT = (
    "",
    " ",
    "I'm sure they'LL'd say: it's 12,345.67%!?  \n\n\t x\r\n  y",
    "清晨的露水，落在“小小的苗”上……第12章　全角　空格",
    "<|im_start|>user\n<|endoftext|><think>2+2</think><|im_end|></s><s><unk>[INST]",
    "e\u0301 é \u212b ﬁ ½ Ⅳ ① ２０２４ ١٢٣ \u0e01\u0e34 \u0928\u093f",
    "👩‍👩‍👧‍👦🏳️‍🌈🇨🇳 𠮷野家 \u200b\u200d\ufeff\u00a0\u3000\x00\x1f\x7f\x85\u2028",
    "    def f(x):\n\t\treturn {'a': [1, 2], \"b\": x**2}  # ---------- ==========\n",
    "ĠĊ ▁ <0xE4> ÀÿÃ ſ K İ ß ẞ 'ſ",
)


class BulkEncoder:
    """Encodes many ordinary texts (no control token counts) into one flat array.

    Args:
        tokenizer: whose ids are meant.
        fast: use fastokens where it is installed and gives these ids.
        meant: control tokens that the texts mean where they spell them.

    Raises:
        MiaoError: one of `meant` is no control token of the tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer, fast: bool = True, meant: Sequence[str] = ()):
        self.tokenizer = tokenizer
        for token in meant:
            if token not in tokenizer.control_ids:
                raise MiaoError(
                    f"{token!r} is no control token of this tokenizer",
                    where="tokenizer.meant",
                    fix=did_you_mean(token, tokenizer.control_ids)
                    or "add it: --tokenizer.special_tokens",
                )
        self._meant = re.compile("(" + _any_of(meant) + ")") if meant else None
        self._spelt = re.compile(_any_of(tokenizer.control_ids))
        self._firsts = {token[0] for token in tokenizer.control_ids}
        self.slow_because = "" if fast else "switched off"
        """Why the tokenizer's own library encodes; empty: fastokens does."""
        self.is_missing = False
        """Only because fastokens is not installed."""
        self._seen = 0
        self._fast: Any = self._load() if fast else None

    @property
    def is_fast(self) -> bool:
        return self._fast is not None

    def encode(self, texts: Sequence[str]) -> tuple[Ids, Offsets]:
        """The ids of all texts end to end, and where each begins (int64, one more than texts).

        Raises:
            EncoderMismatch: fastokens gave other ids for a text of the sample.
            MiaoError: half a surrogate pair in a text.
        """
        if self._meant is not None and any(map(self._meant.search, texts)):
            return self._encode_with_meant(texts, self._meant)
        return self._encode_ordinary(texts)

    def spelt(self, texts: Iterable[str]) -> Counter[str]:
        """How often control tokens are spelt in texts, by token: with "meant" before those that
        are meant, "spelt" before those whose letters are learned."""
        looked_at = (text for text in texts if any(first in text for first in self._firsts))
        found = Counter(token for text in looked_at for token in self._find(text))
        known = {token: self._meant and self._meant.fullmatch(token) for token in found}
        return Counter({f"{'meant' if known[t] else 'spelt'} {t}": n for t, n in found.items()})

    def _find(self, text: str) -> list[str]:
        found: list[str] = self._spelt.findall(text)
        return found

    def _encode_with_meant(
        self, texts: Sequence[str], meant: re.Pattern[str]
    ) -> tuple[Ids, Offsets]:
        """Cut at the tokens that are meant, as the library cuts texts at added tokens."""
        cut = [meant.split(text) for text in texts]  # ordinary text and tokens by turns
        ids, starts = self._encode_ordinary([piece for pieces in cut for piece in pieces[::2]])
        known, parts, lengths, at = self.tokenizer.control_ids, [], [], 0
        for pieces in cut:
            length = 0
            for place, piece in enumerate(pieces):
                if place % 2:
                    part: Ids = np.array([known[piece]], dtype=np.uint32)
                else:
                    part, at = ids[starts[at] : starts[at + 1]], at + 1
                parts.append(part)
                length += len(part)
            lengths.append(length)
        offsets = np.zeros(len(texts) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return np.concatenate(parts), offsets

    def _encode_ordinary(self, texts: Sequence[str]) -> tuple[Ids, Offsets]:
        if self._fast is None:
            return _flat(self.tokenizer.encode_batch(texts))
        try:
            raw, starts = self._fast.encode_batch_flat(list(texts), split_special_tokens=True)
        except UnicodeEncodeError:
            return _flat(self.tokenizer.encode_batch(texts))  # which names the text
        ids = np.frombuffer(raw, dtype=np.uint32)
        offsets = np.frombuffer(starts, dtype=np.uint64).astype(np.int64)
        self._check(texts, ids, offsets)
        return ids, offsets

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The same as lists, as `Tokenizer.encode_batch` gives them."""
        ids, offsets = self.encode(texts)
        flat = ids.tolist()
        return [flat[offsets[i] : offsets[i + 1]] for i in range(len(texts))]

    def _load(self) -> Any:
        try:
            import fastokens
        except ImportError:
            self.slow_because = f"fastokens is not installed: {install_hint('data')}"
            self.is_missing = True
            return None
        try:
            fast = fastokens.Tokenizer.from_json_str(self.tokenizer.ordinary_json())
            for text in DIFFICULT:
                raw, _ = fast.encode_batch_flat([text], split_special_tokens=True)
                if np.frombuffer(raw, dtype=np.uint32).tolist() != self.tokenizer.encode(text):
                    self.slow_because = f"fastokens gives other ids for {text!r}"
                    return None
        except Exception as error:  # whatever a foreign vocabulary makes the library raise
            self.slow_because = f"fastokens cannot use this tokenizer: {error}"
            return None
        return fast

    def _check(self, texts: Sequence[str], ids: Ids, offsets: Offsets) -> None:
        """Compares a sample of the texts: all of the first ones, then now and again one."""
        for number, text in enumerate(texts, self._seen):
            if number >= CHECKED_FIRST and number % CHECK_EVERY:
                continue
            at = number - self._seen
            given = ids[offsets[at] : offsets[at + 1]]
            if len(text) > CHECKED_CHARACTERS:
                text = text[:CHECKED_CHARACTERS]
                raw, _ = self._fast.encode_batch_flat([text], split_special_tokens=True)
                given = np.frombuffer(raw, dtype=np.uint32)
            if given.tolist() != self.tokenizer.encode(text):
                raise EncoderMismatch(f"fastokens gives other ids for {text[:80]!r}")
        self._seen += len(texts)


class EncoderMismatch(Exception):
    """The fast encoder and the tokenizer disagree about a text; what it encoded is not to be
    used."""


def _any_of(tokens: Iterable[str]) -> str:
    return "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True))


def _flat(encoded: list[list[int]]) -> tuple[Ids, Offsets]:
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(ids) for ids in encoded], out=offsets[1:])
    ids = np.fromiter((id for ids in encoded for id in ids), np.uint32, count=int(offsets[-1]))
    return ids, offsets
