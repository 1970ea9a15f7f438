"""Trains the tokenizer: byte-level BPE over Qwen2's split of text, for Chinese and English."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from miao.errors import MiaoError
from miao.tokenizer.tokenizer import (
    CONTROL_TOKENS,
    MIAO_CONFIG,
    SPECIAL_TOKENS,
    Tokenizer,
    byte_letters,
)

# Contractions | letters with one leading mark or space | one digit | punctuation | line ends |
# spaces. llama.cpp, vLLM and others know exactly this pattern as "qwen2".
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SMALLEST_VOCABULARY = len(CONTROL_TOKENS) + 256


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int = 6400,
    *,
    min_frequency: int = 2,
    max_token_bytes: int = 24,
    show_progress: bool = False,
) -> Tokenizer:
    """Learns the merges that shorten `texts` most; the same texts always give the same tokenizer.

    Memory grows with the number of different words (in Chinese, clauses): some 50 to 100 million
    characters are plenty for a vocabulary of this size.

    Args:
        vocab_size: tokens in all: 16 control tokens, 256 bytes, and the merges.
        min_frequency: a pair that occurs less often is not merged.
        max_token_bytes: no token is longer (24 bytes: eight Chinese characters), lest whole
            clauses of a repetitive text take the place of words.
        show_progress: draws the library's progress bars on stderr.

    Raises:
        MiaoError: no text, or too small or too large a vocabulary for it.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise MiaoError(
            f"a vocabulary of {vocab_size} is too small: the 256 bytes and "
            f"{len(CONTROL_TOKENS)} control tokens need {SMALLEST_VOCABULARY}",
            where="tokenizer.vocab_size",
            fix="choose 1024 or more; 6400 suits small Chinese/English models",
        )
    backend = untrained_backend()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        max_token_length=max_token_bytes + 1,  # the library's limit is exclusive
        special_tokens=[AddedToken(token, normalized=False) for token in CONTROL_TOKENS],
        initial_alphabet=list(byte_letters()),
        show_progress=show_progress,
    )
    counted = _CountedTexts(texts)
    backend.train_from_iterator(counted, trainer)
    if counted.characters == 0:
        raise MiaoError("there is no text to train a tokenizer on", fix="check the data paths")
    reached = backend.get_vocab_size()
    if reached < vocab_size:
        raise MiaoError(
            f"the text allows only {reached:,} tokens, not {vocab_size:,} "
            f"({counted.characters:,} characters)",
            where="tokenizer.vocab_size",
            fix=f"set --tokenizer.vocab_size {reached} or less, or give more text",
        )
    return Tokenizer(_with_visible_markup(backend), MIAO_CONFIG)


def untrained_backend() -> tokenizers.Tokenizer:
    """The pipeline without merges: no normaliser, so that any text comes back as it was."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


class _CountedTexts:
    """Passes texts on, counts their characters, and names the text that is not Unicode."""

    def __init__(self, texts: Iterable[str]):
        self._texts = texts
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        for number, text in enumerate(self._texts, 1):
            self.characters += len(text)
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise MiaoError(
                    "the text holds half a surrogate pair, which no encoding can represent",
                    where=f"text {number}",
                    fix="clean it with text.encode('utf-8', 'replace').decode()",
                ) from error
            yield text


def _with_visible_markup(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The trainer makes every control token "special", that is, hidden when decoding; <think> and
    the tool tags must show."""
    spec = json.loads(backend.to_str())
    for token in spec["added_tokens"]:
        token["special"] = token["content"] in SPECIAL_TOKENS
    return tokenizers.Tokenizer.from_str(json.dumps(spec))
