"""Decoding token by token, for an answer that is shown while it is made."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from miao.tokenizer.tokenizer import Tokenizer


class StreamDecoder:
    """Turns ids into text as they arrive, never half a character.

    The pieces of `feed` and the last one of `flush`, joined, are what `Tokenizer.decode` gives.
    One per stream; not shared between threads.

    Args:
        continues: text stands before: the space that some vocabularies put before a text's first
            word, and take away again, is one between two words here.
    """

    def __init__(
        self, tokenizer: Tokenizer, skip_special_tokens: bool = True, continues: bool = False
    ):
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        self._strips = tokenizer.strips_space and not continues
        self._at_beginning = True
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, ids: int | Iterable[int]) -> str:
        """The characters that these ids complete; often none, when one is still cut in two."""
        several = ids if isinstance(ids, Iterable) else (ids,)
        kept = [self._tokenizer.token_bytes(i) for i in several if i not in self._skipped]
        return self._without_first_space(self._decoder.decode(b"".join(kept)))

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that never got its last byte."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        rest, self._at_beginning = self._without_first_space(rest), True
        return rest

    def _without_first_space(self, text: str) -> str:
        if text and self._at_beginning and self._strips:
            text = text.removeprefix(" ")
            self._at_beginning = False
        return text
