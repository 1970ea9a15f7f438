"""How a model finds the user's records: what `miao corpus score` writes beside each.

A text that surprises it far more than others is often broken, one that surprises it far less says
the same again and again (CCNet, arXiv:1911.00359). Of a conversation: whether the questions help to
foresee the answers (instruction-following difficulty, IFD: Li et al. 2024, arXiv:2308.12032).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import compress

import torch

from miao.corpus.records import Conversation, Document, Preference
from miao.evaluate.measure.likelihood import Advance, nothing, sequence_logprobs
from miao.model.decoder import Decoder
from miao.tokenizer import Tokenizer

Scored = Document | Conversation | Preference


def record_scores(
    model: Decoder,
    tokenizer: Tokenizer,
    records: Sequence[Scored],
    most: int | None = None,
    advance: Advance = nothing,
) -> list[dict[str, float]]:
    """Per record: `bits_per_byte` of a document; of a conversation `answer_bits_per_byte`, given
    what stands before, and `ifd`: the loss per token of its answers given all before, over their
    loss with nothing before. Near 1 or above: the questions do not help. Of a preference pair,
    those of its better answer.

    Numbers that are not defined (no answer, no byte) are left out.

    Args:
        most: read this many tokens of each, at its beginning (default: all).
    """
    sequences: list[list[int]] = []
    masks: list[list[bool]] = []
    for record in records:
        for ids, mask in _sequences(tokenizer, record):
            sequences.append(ids[:most])
            masks.append(mask[:most])
    values = iter(zip(sequences, masks, sequence_logprobs(model, sequences, advance), strict=True))
    found = []
    for record in records:
        loss, count, size = _loss(tokenizer, *next(values))
        scores = {}
        if size:
            name = "bits_per_byte" if isinstance(record, Document) else "answer_bits_per_byte"
            scores[name] = round(loss / math.log(2) / size, 4)
        if not isinstance(record, Document):
            alone, number, _ = _loss(tokenizer, *next(values))
            if count and number and alone > 0:
                scores["ifd"] = round(loss / count / (alone / number), 4)
        found.append(scores)
    return found


def _sequences(tokenizer: Tokenizer, record: Scored) -> list[tuple[list[int], list[bool]]]:
    """Ids and which of them count: of a document, or of a conversation and of its answers alone."""
    start = list(tokenizer.document_start)
    unseen = [False] * len(start)
    if isinstance(record, Document):
        ids = [*tokenizer.encode(record.text), tokenizer.document_boundary_id]
        return [(start + ids, unseen + [True] * len(ids))]
    if isinstance(record, Preference):
        record = Conversation(record.prompt + record.chosen, record.source)
    ids, mask = tokenizer.chat_template.encode(tokenizer, record)
    answer = list(compress(ids, mask))
    return [(ids, mask), (start + answer, unseen + [True] * len(answer))]


def _loss(
    tokenizer: Tokenizer, ids: list[int], mask: list[bool], logprobs: torch.Tensor
) -> tuple[float, int, int]:
    """The summed loss of the tokens that count, in nats; how many they are, and their bytes."""
    learned = torch.tensor(mask[1:], dtype=torch.bool)
    counted = [token for token in compress(ids, mask) if token not in tokenizer.special_ids]
    size = sum(len(tokenizer.token_bytes(token)) for token in counted)
    return -float(logprobs[learned].double().sum()), int(learned.sum()), size
