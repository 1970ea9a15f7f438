"""Texts that a model writes, each up to the first text that ends it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from miao.engine import Engine, SamplingOptions
from miao.engine.text import TextStream
from miao.evaluate.measure.likelihood import Advance, nothing
from miao.model.decoder import Decoder
from miao.tokenizer import Tokenizer

ROWS = 64
CACHE_BYTES = 2**31
"""Keys and values of all rows that run at the same time take no more than about this."""


def write_texts(
    model: Decoder,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    options: SamplingOptions,
    until: Sequence[str] = (),
    advance: Advance = nothing,
    rows: int = ROWS,
) -> list[str]:
    """`write` without word of how the texts ended."""
    return [text for text, _ in write(model, tokenizer, prompts, options, until, advance, rows)]


def write(
    model: Decoder,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    options: SamplingOptions,
    until: Sequence[str] = (),
    advance: Advance = nothing,
    rows: int = ROWS,
) -> list[tuple[str, bool]]:
    """What the model writes behind every prompt, without the stop text that ended it; and whether
    it came to an end by itself, before its length or the context was used up.

    A row ends with the token that completes a stop text, and gives its place to the next prompt.
    Prompts that begin alike (few-shot examples) share what was read of them.

    Args:
        until: texts that end an answer. rows: prompts at the same time; fewer where the cache of
            long ones would not fit `CACHE_BYTES`.

    Raises:
        MiaoError: a prompt that leaves no room in the context.
    """
    if not prompts:
        return []
    stops = tuple(stop for stop in until if stop)
    longest = max(len(prompt) for prompt in prompts)
    length = min(model.config.context_length, longest + options.max_new_tokens)
    engine = Engine(
        model,
        frozenset(tokenizer.stop_ids),
        max(1, min(rows, CACHE_BYTES // (length * _bytes_per_token(model)))),
        length,
        reuse_prefixes=True,
    )
    watcher = (lambda: TextStream(tokenizer, stops)) if stops else None
    answers = engine.generate(prompts, options, advance, watcher)
    texts = [_before(tokenizer.decode(ids), stops) for ids in answers]
    rooms = [min(options.max_new_tokens, length - len(prompt)) for prompt in prompts]
    return [(text, len(ids) < room) for text, ids, room in zip(texts, answers, rooms, strict=True)]


def _bytes_per_token(model: Decoder) -> int:
    numbers = sum(math.prod(shape) for shape in model.config.cache_shapes)
    return model.config.num_hidden_layers * numbers * model.compute_dtype.itemsize


def _before(text: str, stops: Sequence[str]) -> str:
    places = [text.find(stop) for stop in stops if stop in text]
    return text[: min(places)] if places else text
