"""Trains the tokenizer: byte-level BPE over Qwen2's split of text, for Chinese and English."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from miao.errors import MiaoError, did_you_mean, install_hint
from miao.tokenizer.ranks import vocabulary_of_ranks
from miao.tokenizer.tokenizer import (
    CONTROL_TOKENS,
    MARKUP_TOKENS,
    MIAO_CONFIG,
    Tokenizer,
    byte_letters,
    half_surrogate,
)

# Contractions | letters with one leading mark or space | one digit | punctuation | line ends |
# spaces. llama.cpp, vLLM and others know exactly this pattern as "qwen2".
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


PATTERNS = {
    "qwen2": QWEN2_PATTERN,
    # Up to three digits together; case-insensitive contractions. llama.cpp: "smaug-bpe".
    "llama3": QWEN2_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|"),
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    # OpenAI's latest: words by case, contractions kept with their word. llama.cpp differs slightly.
    "o200k": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}
"""Ways to cut text before merging, by name."""
TRAINERS = ("tokenizers", "rustbpe")
LONGEST_PIECE = 128
"""Characters of a word, as a pattern cuts them, that are learned from together: a word costs the
trainers its length for every merge in it, and text without punctuation is one word. No token is
nearly as long."""
_LONG_RUN = re.compile(
    rf"[^\W\d_]{{{LONGEST_PIECE}}}|[^\w\s]{{{LONGEST_PIECE}}}|\s{{{LONGEST_PIECE}}}"
)


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int = 6400,
    *,
    trainer: str = "tokenizers",
    pattern: str = "qwen2",
    special_tokens: Sequence[str] = (),
    min_frequency: int = 2,
    max_token_bytes: int = 24,
    show_progress: bool = False,
) -> Tokenizer:
    """Learns the merges that shorten `texts` most; the same texts always give the same tokenizer.

    Memory grows with the number of different words (in Chinese, clauses; see `sample.MEMORY`): some
    50 to 100 million characters are plenty for a vocabulary of this size.

    Args:
        vocab_size: tokens in all: the control tokens, 256 bytes, and the merges.
        trainer: `tokenizers`, or `rustbpe` (about half the time and memory).
        pattern: a name of `PATTERNS`, or a regular expression.
        special_tokens: control tokens beyond Miao's 16.
        min_frequency: a pair that occurs less often is not merged (`tokenizers` only).
        max_token_bytes: no token is longer (24 bytes: eight Chinese characters), lest whole
            clauses of a repetitive text take the place of words.
        show_progress: draws the library's progress bars on stderr (`tokenizers` only).

    Raises:
        MiaoError: no text, too small or too large a vocabulary for it, an impossible option.
    """
    controls = _control_tokens(special_tokens)
    smallest = len(controls) + 256
    if vocab_size < smallest:
        raise MiaoError(
            f"a vocabulary of {vocab_size} is too small: the 256 bytes and "
            f"{len(controls)} control tokens need {smallest}",
            where="tokenizer.vocab_size",
            fix="choose 1024 or more; 6400 suits small Chinese/English models",
        )
    expression = PATTERNS.get(pattern, pattern)
    counted = _CountedTexts(texts, pattern in PATTERNS)
    if trainer == "rustbpe":
        merges = vocab_size - smallest
        backend = _train_rustbpe(counted, expression, controls, merges, max_token_bytes)
    elif trainer == "tokenizers":
        backend = untrained_backend(expression)
        learner = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            max_token_length=max_token_bytes + 1,  # the library's limit is exclusive
            special_tokens=[AddedToken(token, normalized=False) for token in controls],
            initial_alphabet=list(byte_letters()),
            show_progress=show_progress,
        )
        backend.train_from_iterator(counted, learner)
    else:
        raise MiaoError(
            f"there is no trainer '{trainer}'",
            where="tokenizer.trainer",
            fix=did_you_mean(trainer, TRAINERS) or f"one of {', '.join(TRAINERS)}",
        )
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


def untrained_backend(pattern: str = QWEN2_PATTERN) -> tokenizers.Tokenizer:
    """The pipeline without merges: no normaliser, so that any text comes back as it was.

    Raises:
        MiaoError: not a regular expression.
    """
    backend = tokenizers.Tokenizer(models.BPE())
    try:
        split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    except Exception as error:  # the library raises bare Exception
        raise MiaoError(
            f"'{pattern}' is neither the name of a pattern nor a regular expression: {error}",
            where="tokenizer.pattern",
            fix=did_you_mean(pattern, PATTERNS) or f"one of {', '.join(PATTERNS)}",
        ) from error
    bytes_as_letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_as_letters])
    backend.decoder = decoders.ByteLevel()
    return backend


def _control_tokens(special_tokens: Sequence[str]) -> list[str]:
    controls = [*CONTROL_TOKENS, *special_tokens]
    for token in special_tokens:
        if not (len(token) > 2 and token.startswith("<") and token.endswith(">")):
            raise MiaoError(
                f"{token!r} is no name for a control token",
                where="tokenizer.special_tokens",
                fix="write it as <|name|>",
            )
        if controls.count(token) > 1:
            raise MiaoError(f"{token!r} is there twice", where="tokenizer.special_tokens")
    return controls


def _train_rustbpe(
    texts: _CountedTexts, pattern: str, controls: list[str], merges: int, max_token_bytes: int
) -> tokenizers.Tokenizer:
    """Learns with rustbpe. It knows no longest token: more merges than needed are learned, and
    those of tokens that are too long left out (with all that are built on them)."""
    try:
        import rustbpe
    except ImportError as error:
        raise MiaoError(
            "rustbpe is not installed",
            where="tokenizer.trainer",
            fix=f"{install_hint('data')}, or --tokenizer.trainer tokenizers",
        ) from error
    backend = untrained_backend(pattern)  # before the training: it checks the pattern
    learner = rustbpe.Tokenizer()
    learner.train_from_iterator(iter(texts), 256 + merges + merges // 4, pattern=pattern)
    ranks = [(bytes(token), rank) for token, rank in learner.get_mergeable_ranks()]
    ordered = [token for token, _ in sorted(ranks, key=lambda pair: pair[1])]
    kept = [token for token in ordered if len(token) <= max_token_bytes][: 256 + merges]
    vocabulary, pairs = vocabulary_of_ranks(kept)
    named = {token: number for number, token in enumerate(controls)}
    shifted = {token: len(controls) + rank for token, rank in vocabulary.items()}
    backend.model = models.BPE(vocab=named | shifted, merges=pairs)
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in controls])
    return backend


def bounded(text: str, known: bool = True) -> Iterator[str]:
    """A text to learn from, cut where a word would be too long; text with punctuation as it is.

    Args:
        known: it is one of `PATTERNS` that cuts words; of others nobody can say how long they are.
    """
    if not known:
        room = 8 * LONGEST_PIECE
        yield from (text[at : at + room] for at in range(0, len(text), room))
        return
    begin = 0
    for run in _LONG_RUN.finditer(text):
        yield text[begin : run.end()]
        begin = run.end()
    yield text[begin:] if begin else text


class _CountedTexts:
    """Passes texts on (`bounded`), counts their characters, and names the text that is not
    Unicode."""

    def __init__(self, texts: Iterable[str], known: bool):
        self._texts, self._known = texts, known
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        for number, text in enumerate(self._texts, 1):
            self.characters += len(text)
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise half_surrogate(f"text {number}") from error
            yield from bounded(text, self._known)


def _with_visible_markup(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The trainer makes every control token "special", that is, hidden when decoding; <think> and
    the tool tags must show."""
    spec = json.loads(backend.to_str())
    for token in spec["added_tokens"]:
        token["special"] = token["content"] not in MARKUP_TOKENS
    return tokenizers.Tokenizer.from_str(json.dumps(spec))
