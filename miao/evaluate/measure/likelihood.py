"""Scores read off probabilities: bits per byte, multiple choice, preferences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from miao.corpus.records import Preference
from miao.corpus.seedbed.items import ChoiceItem
from miao.evaluate.scores import Score, accuracy, by_category, mean, ranked, ratio
from miao.model.decoder import Decoder
from miao.ops.head_chunks import IGNORE
from miao.shards.build import encode_preferences
from miao.shards.dataset import TokenDataset
from miao.tokenizer import Tokenizer

BATCH_TOKENS = 8192
Advance = Callable[[int], None]
T = TypeVar("T")


def nothing(done: int) -> None:
    """The progress callback of those who do not watch."""


@torch.inference_mode()
def sequence_logprobs(
    model: Decoder, sequences: Sequence[Sequence[int]], advance: Advance = nothing
) -> list[torch.Tensor]:
    """log p of every token after the first, one float32 tensor per sequence, in nats.

    Sequences of similar length run together, padded on the right (which causal attention does not
    see). One that is longer than the model's context is read in pieces of that length.
    """
    model.eval()
    limit = model.config.context_length
    pieces = [
        (number, start)
        for number, ids in enumerate(sequences)
        for start in range(0, max(len(ids) - 1, 1), limit)
    ]
    pieces.sort(key=lambda piece: min(len(sequences[piece[0]]) - piece[1], limit))
    found: dict[tuple[int, int], torch.Tensor] = {}
    for batch in _batches(pieces, lambda piece: min(len(sequences[piece[0]]) - piece[1], limit)):
        ids = [list(sequences[number][start : start + limit + 1]) for number, start in batch]
        width = max(len(row) for row in ids) - 1
        ids_bt = torch.tensor([row[:-1] + [0] * (width - len(row) + 1) for row in ids])
        labels_bt = torch.tensor([row[1:] + [IGNORE] * (width - len(row) + 1) for row in ids])
        logprobs_bt = model(
            ids_bt.to(model.device), labels_bt=labels_bt.to(model.device), output="logprobs"
        ).cpu()
        for piece, row, values in zip(batch, ids, logprobs_bt, strict=True):
            found[piece] = values[: len(row) - 1]
        advance(len(batch))
    return [
        torch.cat([found[number, start] for start in range(0, max(len(ids) - 1, 1), limit)])
        for number, ids in enumerate(sequences)
    ]


def bits_per_byte(
    model: Decoder,
    dataset: TokenDataset,
    tokenizer: Tokenizer,
    max_tokens: float,
    advance: Advance = nothing,
) -> Score:
    """Bits needed per UTF-8 byte of held-out text; unlike a loss per token it does not depend on
    the vocabulary. Every token counts, the end of the document too.

    Args:
        max_tokens: read whole sequences until so many tokens.
    """
    sequences = _first_sequences(dataset, max_tokens)
    logprobs = sequence_logprobs(model, sequences, advance)
    begun = len(tokenizer.document_start)
    num_bytes = [sum(len(tokenizer.token_bytes(i)) for i in ids[begun:-1]) for ids in sequences]
    bits = [-float(values[begun - 1 :].sum()) / math.log(2) for values in logprobs]
    return ratio("bits per byte", dataset.manifest.source, bits, num_bytes, "bits")


def answer_loss(model: Decoder, dataset: TokenDataset, max_tokens: float) -> float:
    """Mean cross-entropy, in nats per learned token, of held-out conversations."""
    sequences = _first_sequences(dataset, max_tokens)
    total, learned = 0.0, 0
    for number, values in enumerate(sequence_logprobs(model, sequences)):
        mask = dataset.mask(number)
        assert mask is not None, "conversations have a mask"
        total -= float((values * torch.from_numpy(mask[1:])).sum())
        learned += int(mask[1:].sum())
    return total / max(learned, 1)


def choose_by_perplexity(
    model: Decoder,
    tokenizer: Tokenizer,
    items: Sequence[ChoiceItem],
    advance: Advance = nothing,
) -> tuple[list[Score], list[int]]:
    """Multiple choice: each option is read after the prompt; the least perplexing one is chosen.

    Prompt and option are tokenised as one text, and compared from the first token in which the
    options of an item differ. Returns the scores by category and every choice.
    """
    texts = [item.prompt + option for item in items for option in item.options]
    encoded = iter([[*tokenizer.document_start, *ids] for ids in tokenizer.encode_batch(texts)])
    groups = [[next(encoded) for _ in item.options] for item in items]
    flat = [ids for group in groups for ids in group]
    values = iter(sequence_logprobs(model, flat, advance))
    choices = []
    for group in groups:
        shared = _common_prefix(group)
        means = [float(next(values)[shared - 1 :].mean()) for _ in group]
        choices.append(means.index(max(means)))
    return chosen(items, choices, "multiple choice"), choices


def chosen(items: Sequence[ChoiceItem], choices: Sequence[int], task: str) -> list[Score]:
    """The scores of these choices by category."""
    if not items:
        return []
    right = [choice == item.answer for choice, item in zip(choices, items, strict=True)]
    chance = sum(1 / len(item.options) for item in items) / len(items)
    return by_category(task, [i.category for i in items], right, chance)


def prefer(
    model: Decoder,
    tokenizer: Tokenizer,
    pairs: Sequence[Preference],
    reference: Decoder | None = None,
    beta: float = 1.0,
    advance: Advance = nothing,
) -> list[Score]:
    """Held-out preference pairs.

    Without a reference: how often the chosen answer has the higher mean log-probability per token.
    With one (the model before DPO): how often its implicit reward beta·log(pi/ref) is higher, by
    reason, and by how much (the margin).
    """
    encoded = [side for sides in encode_preferences(tokenizer, pairs) for side in sides]
    values = _answer_values(model, encoded, reference, beta, advance)
    if reference is None:
        right = [a > b for a, b in zip(values[::2], values[1::2], strict=True)]
        return [accuracy("preference (likelihood)", "all", right, 0.5)]
    margins = [a - b for a, b in zip(values[::2], values[1::2], strict=True)]
    right = [margin > 0 for margin in margins]
    scores = by_category("preference (reward)", [pair.source for pair in pairs], right, 0.5)
    return [*scores, mean("preference margin", "all", margins, "nats·beta")]


def prefer_single(
    model: Decoder,
    tokenizer: Tokenizer,
    answers: Sequence[Preference],
    reference: Decoder | None = None,
    beta: float = 1.0,
    advance: Advance = nothing,
) -> list[Score]:
    """Held-out single answers, labelled desirable or not: how often a desirable one is above an
    undesirable one, in the measures of `prefer`. None: there are not both kinds."""
    encoded = [a if a[0] else b for a, b in encode_preferences(tokenizer, answers)]
    values = _answer_values(model, encoded, reference, beta, advance)
    task = "preference (likelihood)" if reference is None else "preference (reward)"
    good = [v for v, answer in zip(values, answers, strict=True) if answer.chosen]
    bad = [v for v, answer in zip(values, answers, strict=True) if answer.rejected]
    return [ranked(task, "single answers", good, bad)] if good and bad else []


def _first_sequences(dataset: TokenDataset, max_tokens: float) -> list[list[int]]:
    """Whole sequences from the beginning until so many tokens."""
    sequences: list[list[int]] = []
    total = 0
    for number in range(len(dataset)):
        if total >= max_tokens:
            break
        sequences.append(dataset.tokens(number).tolist())
        total += len(sequences[-1])
    return sequences


def _answer_values(
    model: Decoder,
    encoded: Sequence[tuple[list[int], list[bool]]],
    reference: Decoder | None,
    beta: float,
    advance: Advance,
) -> list[float]:
    """Of each answer its mean log-probability per token; with a reference its implicit reward."""
    sums = _answer_sums(model, encoded, advance)
    if reference is None:
        return [s / max(sum(mask), 1) for s, (_, mask) in zip(sums, encoded, strict=True)]
    before = _answer_sums(reference, encoded, advance)
    return [beta * (now - then) for now, then in zip(sums, before, strict=True)]


def _answer_sums(
    model: Decoder, encoded: Sequence[tuple[list[int], list[bool]]], advance: Advance
) -> list[float]:
    logprobs = sequence_logprobs(model, [ids for ids, _ in encoded], advance)
    return [
        float((values * torch.tensor(mask[1:])).sum())
        for values, (_, mask) in zip(logprobs, encoded, strict=True)
    ]


def _common_prefix(group: Sequence[Sequence[int]]) -> int:
    """How many tokens all have in common at the start; at least one is left to compare."""
    shortest = min(len(ids) for ids in group)
    shared = 0
    while shared < shortest - 1 and len({ids[shared] for ids in group}) == 1:
        shared += 1
    return shared


def _batches(items: Sequence[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Runs of items (sorted by size) whose padded total stays within `BATCH_TOKENS`."""
    batch: list[T] = []
    for item in items:
        if batch and (len(batch) + 1) * size(item) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch
