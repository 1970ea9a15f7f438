"""How well a model uses a long context: bits per byte by position, and a number to be found again.

Both read rows as long as asked for, also beyond the length that the model was made for: that is
how the model before and after an extension are compared.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from miao.corpus.seedbed import recall
from miao.corpus.seedbed.persona import Language
from miao.corpus.seedbed.stories import children
from miao.evaluate.measure.continuations import Continuation, continuation_logprobs
from miao.evaluate.measure.likelihood import Advance, nothing
from miao.evaluate.scores import Score, accuracy
from miao.model.decoder import Decoder
from miao.shards.dataset import TokenDataset
from miao.tokenizer import Tokenizer

BUCKETS = 8
DEPTHS = (0.1, 0.5, 0.9)
"""Where in the text the number stands, as a fraction of it."""
PASSKEYS_PER_CELL = 8
MAX_DOCUMENTS = 64


@dataclass(frozen=True)
class LongContext:
    """What one model does over a context of `length` tokens."""

    length: int
    positions: list[tuple[int, float]]
    """(end of a bucket of positions, bits per byte of the tokens in it); empty without documents
    that long."""
    passkeys: list[tuple[int, float, int]]
    """(tokens of the text, share of numbers found again, how many were asked)."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def scores(self) -> list[Score]:
        """The same as scores: passkey accuracy by length, bits per byte of the last bucket."""
        found = [
            accuracy(
                "passkey", f"{tokens} tokens", [i < round(share * n) for i in range(n)], 1 / 9000
            )
            for tokens, share, n in self.passkeys
        ]
        if self.positions:
            first = self.positions[-2][0] if len(self.positions) > 1 else 0
            end, bits = self.positions[-1]
            place = f"tokens {first}-{end}"
            found.append(Score("bits per byte by position", place, 1, bits, unit="bits"))
        return found


def measure_long_context(
    model: Decoder,
    tokenizer: Tokenizer,
    length: int,
    datasets: Sequence[TokenDataset],
    advance: Advance = nothing,
    seed: int = 0,
) -> LongContext:
    """Passkeys at an eighth, a quarter, half and all of `length`; bits per byte by position over
    held-out documents of at least three quarters of it."""
    model.eval()
    lengths = [length // 8, length // 4, length // 2, length]
    passkeys = [
        (tokens, *_passkey_share(model, tokenizer, tokens, seed, advance)) for tokens in lengths
    ]
    return LongContext(length, _bits_by_position(model, tokenizer, length, datasets), passkeys)


def _bits_by_position(
    model: Decoder, tokenizer: Tokenizer, length: int, datasets: Sequence[TokenDataset]
) -> list[tuple[int, float]]:
    documents = [
        dataset.tokens(number)[: length + 1].tolist()
        for dataset in datasets
        for number in range(len(dataset))
        if dataset.lengths[number] >= 0.75 * length
    ][:MAX_DOCUMENTS]
    if not documents:
        return []
    size = math.ceil(length / BUCKETS)
    bits, num_bytes = [0.0] * BUCKETS, [0] * BUCKETS
    for ids in documents:
        for position, value in enumerate(_logprobs(model, ids).tolist()):
            bits[position // size] -= value / math.log(2)
            num_bytes[position // size] += len(tokenizer.token_bytes(ids[position + 1]))
    return [
        (min((number + 1) * size, length), bits[number] / num_bytes[number])
        for number in range(BUCKETS)
        if num_bytes[number]
    ]


@torch.inference_mode()
def _logprobs(model: Decoder, ids: list[int]) -> torch.Tensor:
    row = torch.tensor([ids], device=model.device)
    return model(row[:, :-1], labels_bt=row[:, 1:], output="logprobs")[0].cpu()


def _passkey_share(
    model: Decoder, tokenizer: Tokenizer, tokens: int, seed: int, advance: Advance
) -> tuple[float, int]:
    rng = random.Random(f"{seed}/{tokens}")
    prompts = [
        _passkey_prompt(tokenizer, rng, tokens, depth)
        for depth in DEPTHS
        for _ in range(PASSKEYS_PER_CELL)
    ]
    # Greedy decoding writes a number of which every token is the likeliest.
    asked = [Continuation(ids, answer) for ids, answer in prompts]
    found = continuation_logprobs(model, asked, tokens, advance)
    return sum(one.is_greedy for one in found) / len(prompts), len(prompts)


def _passkey_prompt(
    tokenizer: Tokenizer, rng: random.Random, tokens: int, depth: float
) -> tuple[list[int], int]:
    """A text of at most `tokens` that ends in a number it has said before, twice in one place as in
    the first passkey test (arXiv:2305.16300), and how many of its last tokens are that number."""
    language: Language = "zh" if rng.random() < 0.5 else "en"
    name, number = rng.choice(children(language)), recall.some_number(rng)
    space = "" if language == "zh" else " "
    ending = space + recall.asking(language, name)[0]
    said = space.join(2 * [recall.statement(language, name, number)])
    answer = len(tokenizer.encode(ending + number)) - len(tokenizer.encode(ending))
    sentences: list[str] = []
    begun = len(tokenizer.document_start)
    room = tokens - len(tokenizer.encode(said + ending + number)) - begun - 1
    while True:
        sentence = recall.filler(rng, language)
        room -= len(tokenizer.encode(space + sentence))
        if room < 0:
            break
        sentences.append(sentence)
    sentences.insert(round(depth * len(sentences)), said)
    ids = tokenizer.encode(space.join(sentences) + ending + number)
    return [*tokenizer.document_start, *ids], answer
