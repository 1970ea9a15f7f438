"""How a model finds the user's records: what `miao corpus score` writes beside each.

A text that surprises it far more than others is often broken, one that surprises it far less says
the same again and again (CCNet, arXiv:1911.00359). Of a conversation: whether the questions help to
foresee the answers (instruction-following difficulty, IFD: Li et al. 2024, arXiv:2308.12032).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from miao.corpus.records import Conversation, Document, Preference, text_of
from miao.evaluate.likelihood import Advance, nothing, sequence_logprobs
from miao.model.decoder import Decoder
from miao.tokenizer import Tokenizer

Scored = Document | Conversation | Preference


def record_scores(
    model: Decoder, tokenizer: Tokenizer, records: Sequence[Scored], advance: Advance = nothing
) -> list[dict[str, float]]:
    """Per record: `bits_per_byte` of a document; of a conversation `answer_bits_per_byte`, given
    what stands before, and `ifd`: the loss per token of its answers given all before, over their
    loss with nothing before. Near 1 or above: the questions do not help. Of a preference pair,
    those of its better answer.

    Numbers that are not defined (no answer, no byte) are left out.
    """
    sequences: list[list[int]] = []
    masks: list[list[bool] | None] = []
    for record in records:
        if isinstance(record, Document):
            boundary = tokenizer.document_boundary_id
            sequences.append([boundary, *tokenizer.encode(record.text), boundary])
            masks.append(None)
            continue
        if isinstance(record, Preference):
            record = Conversation(record.prompt + record.chosen, record.source)
        ids, mask = tokenizer.chat_template.encode(tokenizer, record)
        answer = [token for token, learned in zip(ids, mask, strict=True) if learned]
        sequences += [ids, [tokenizer.document_boundary_id, *answer]]
        masks += [mask, [False] + [True] * len(answer)]
    values = sequence_logprobs(model, sequences, advance)
    found, place = [], 0
    for record in records:
        if isinstance(record, Document):
            found.append(_document(record, values[place]))
            place += 1
        else:
            given, alone = (_answer(values[n], masks[n]) for n in (place, place + 1))
            answer = sequences[place + 1][1:]
            found.append(_conversation(given, alone, tokenizer, answer))
            place += 2
    return found


def _document(record: Document, logprobs: torch.Tensor) -> dict[str, float]:
    size = len(text_of(record).encode())
    bits = -float(logprobs.double().sum()) / math.log(2)
    return {"bits_per_byte": round(bits / size, 4)} if size else {}


def _answer(logprobs: torch.Tensor, mask: list[bool] | None) -> tuple[float, int]:
    """The summed loss of the learned tokens, in nats, and how many they are."""
    learned = torch.tensor((mask or [])[1:])
    return -float(logprobs[learned].double().sum()), int(learned.sum())


def _conversation(
    given: tuple[float, int], alone: tuple[float, int], tokenizer: Tokenizer, answer: list[int]
) -> dict[str, float]:
    size = sum(len(tokenizer.token_bytes(token)) for token in answer)
    found = {}
    if size:
        found["answer_bits_per_byte"] = round(given[0] / math.log(2) / size, 4)
    if given[1] and alone[1] and alone[0] > 0:
        found["ifd"] = round(given[0] / given[1] / (alone[0] / alone[1]), 4)
    return found
