"""Encoding of many texts that share most of their lines: every line is encoded once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from miao.tokenizer import Tokenizer
from miao.tokenizer.train import PATTERNS

SAFE = tuple(PATTERNS[name] for name in ("qwen2", "llama3", "gpt2"))
"""Patterns in which no word goes on from a line end to what is not white space."""
_LINE = re.compile(r"(?<=\n)(?=\S)")
MOST_KEPT = 100_000


class LineEncoder:
    """The same ids as `Tokenizer.encode_batch`, for texts of which many lines come again.

    Byte-level BPE merges within words only. Where a line ends and the next begins with something
    visible, the patterns that are known here always begin a word, so that the lines' ids are the
    text's. With any other tokenizer texts are encoded as a whole.
    """

    def __init__(self, tokenizer: Tokenizer, trusted: bool = False):
        self._tokenizer, self._trusted = tokenizer, trusted
        spec = tokenizer.spec()
        added = spec["added_tokens"]
        self._added = [str(token["content"]) for token in added]
        # A token that spans a line end, or takes the white space before it along.
        across = any("\n" in token["content"] or token["lstrip"] for token in added)
        self.by_line = _words_end_with_lines(spec) and not across
        self._known: dict[str, list[int]] = {}

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text."""
        if len(self._known) > MOST_KEPT:
            self._known = {}
        cut = [self._lines(text) for text in texts]
        missing = list({line: None for lines in cut for line in lines if line not in self._known})
        if missing:
            found = self._tokenizer.encode_batch(missing, allow_special=self._trusted)
            self._known |= zip(missing, found, strict=True)
        return [[id for line in lines for id in self._known[line]] for lines in cut]

    def _lines(self, text: str) -> list[str]:
        if not self.by_line or (self._trusted and any(token in text for token in self._added)):
            return [text]
        return _LINE.split(text)


def _words_end_with_lines(spec: dict[str, Any]) -> bool:
    model, steps = spec.get("model") or {}, spec.get("pre_tokenizer") or {}
    if model.get("type") != "BPE" or model.get("dropout"):
        return False
    if (spec.get("normalizer") or {"type": "NFC"}).get("type") != "NFC":
        return False
    parts = steps.get("pretokenizers", [steps])
    if any(part.get("add_prefix_space") for part in parts):
        return False
    match [part.get("type") for part in parts]:
        case ["ByteLevel"]:
            return bool(parts[0].get("use_regex", True))  # the pattern of gpt2
        case ["Split", "ByteLevel"]:
            pattern = (parts[0].get("pattern") or {}).get("Regex")
            isolated = parts[0].get("behavior") == "Isolated" and not parts[0].get("invert")
            return pattern in SAFE and isolated and not parts[1].get("use_regex", True)
    return False
