"""The inspection of a text: numbers of a pass in the JSON form that page/inspect.js describes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from miao.errors import MiaoError
from miao.inspect.forward import Seen, Without, lens, watch
from miao.model import Decoder
from miao.tokenizer import Tokenizer

MOST_TOKENS = 256
MOST_WEIGHTS = 2_000_000
"""Of attention, in one inspection: so many numbers take some 20 MB of JSON."""
MOST_GUESSES = 50
DIGITS = 6
Json = dict[str, Any]


@dataclass(frozen=True)
class Show:
    """How much of it is told.

    Args:
        likeliest: tokens at each place; per_layer: after each layer.
        attention: whether what heads look at is told.
        whole: a place of which the log-probabilities of all tokens are told.
    """

    likeliest: int = 10
    per_layer: int = 3
    attention: bool = True
    whole: int | None = None


def most_tokens(model: Decoder, show: Show) -> int:
    """The longest text that is looked at: attention takes its square, in every head."""
    c = model.config
    most = min(MOST_TOKENS, c.context_length)
    if not show.attention:
        return most
    heads = c.num_hidden_layers * c.num_attention_heads
    return min(most, max(1, int((math.sqrt(1 + 8 * MOST_WEIGHTS / heads) - 1) / 2)))


def inspect(
    model: Decoder,
    tokenizer: Tokenizer,
    ids: Sequence[int],
    prompt: int = 0,
    show: Show | None = None,
    against: Decoder | None = None,
    without: Without | None = None,
) -> Json:
    """What the model expects, place by place, and what goes on in it.

    Args:
        prompt: how many of the ids stand before what a model has answered.
        against: another model of the same tokens, which reads them too.
        without: what is switched off while the model reads them once more.

    Raises:
        MiaoError: no text; ids, places or parts that the model has not; both `against` and
            `without`.
    """
    show = show or Show()
    _check(model, tokenizer, ids, against, without)
    read = list(ids[: most_tokens(model, show)])
    seen = watch(model, read)
    places, logprobs_tv = _places(model, tokenizer, read, seen, show)
    other = None
    if against is not None or without is not None:
        changed = watch(against or model, read, without)
        theirs, others_tv = _places(against or model, tokenizer, read, changed, show)
        other = {"places": theirs, "kl": _rounded(divergence(logprobs_tv, others_tv))}
    whole = None
    if show.whole is not None:
        if not 0 <= show.whole < len(read):
            message = f"there is no place {show.whole}: there are {len(read)}, counted from 0"
            raise MiaoError(message, where="whole")
        whole = {"place": show.whole, "logprobs": _rounded(logprobs_tv[show.whole])}
    return {
        "tokens": [token_json(tokenizer, id) for id in read],
        "prompt": min(prompt, len(read)),
        "places": places,
        "attention": list(map(_triangle, seen.attention_lhts)) if show.attention else None,
        "other": other,
        "whole": whole,
        "cut": len(ids) > len(read),
    }


def divergence(logprobs_tv: Tensor, others_tv: Tensor) -> Tensor:
    """KL(first || second) of the rows, in nats; never below 0."""
    return (logprobs_tv.exp() * (logprobs_tv - others_tv)).sum(dim=-1).clamp_min(0)


def token_json(tokenizer: Tokenizer, id: int) -> Json:
    """An id with its text and its bytes."""
    raw = tokenizer.token_bytes(id) if id < tokenizer.vocab_size else b""
    return {"id": id, "text": raw.decode("utf-8", "replace"), "bytes": list(raw)}


def _check(
    model: Decoder,
    tokenizer: Tokenizer,
    ids: Sequence[int],
    against: Decoder | None,
    without: Without | None,
) -> None:
    if not ids:
        raise MiaoError("there is no text to look at", fix="give it at least one token")
    if max(ids) >= model.config.tokens or min(ids) < 0:
        raise MiaoError(f"token ids must be from 0 to {model.config.tokens - 1}", where="ids")
    if against is None:
        return
    if without is not None:
        raise MiaoError(
            "one comparison at a time", where="against", fix="leave out `against` or `without`"
        )
    if against.config.tokens != model.config.tokens:
        raise MiaoError(
            f"the models have {model.config.tokens} and {against.config.tokens} tokens: what they "
            "expect cannot be compared",
            where="against",
            fix="compare models of the same tokenizer, such as two stages of a run",
        )


def _places(
    model: Decoder, tokenizer: Tokenizer, ids: Sequence[int], seen: Seen, show: Show
) -> tuple[list[Json], Tensor]:
    """The places, and the log-probabilities at the end [t, tokens]."""
    follows_t = torch.tensor([*ids[1:], 0], device=model.device)
    layers: list[list[Json]] = [[] for _ in ids]
    logprobs_tv, next_t1 = torch.empty(0), torch.empty(0)
    for stream_td, chosen, logprobs_tv in zip(
        seen.stream_ltd, seen.experts, lens(model, seen), strict=True
    ):
        sizes = _rounded(stream_td.float().square().mean(dim=-1).sqrt())
        next_t1 = logprobs_tv.gather(1, follows_t[:, None])
        following = _rounded(next_t1.squeeze(1))
        guesses = _likeliest(tokenizer, logprobs_tv, show.per_layer)
        experts = [None] * len(ids) if chosen is None else _experts(*chosen)
        for place, layer in enumerate(layers):
            layer.append(
                {
                    "size": sizes[place],
                    "next": following[place] if place + 1 < len(ids) else None,
                    "likeliest": guesses[place],
                    "experts": experts[place],
                }
            )
    if not bool(logprobs_tv.isfinite().all()):
        raise MiaoError(
            "the model computes no numbers (NaN or infinite): its weights are damaged, or its "
            "training diverged",
            fix="look at an earlier checkpoint",
        )
    ranks = (1 + (logprobs_tv > next_t1).sum(dim=-1)).tolist()
    entropy = _rounded(-(logprobs_tv.exp() * logprobs_tv).sum(dim=-1))
    likeliest = _likeliest(tokenizer, logprobs_tv, show.likeliest)
    places = [
        {
            "next": {"logprob": layers[place][-1]["next"], "rank": ranks[place]}
            if place + 1 < len(ids)
            else None,
            "entropy": entropy[place],
            "likeliest": likeliest[place],
            "layers": layers[place],
        }
        for place in range(len(ids))
    ]
    return places, logprobs_tv


def _likeliest(tokenizer: Tokenizer, logprobs_tv: Tensor, count: int) -> list[list[Json]]:
    top = logprobs_tv.topk(min(count, MOST_GUESSES, logprobs_tv.shape[1]), dim=-1)
    found = []
    for ids, values in zip(top.indices.tolist(), _rounded(top.values), strict=True):
        pairs = zip(ids, values, strict=True)
        found.append([token_json(tokenizer, id) | {"logprob": value} for id, value in pairs])
    return found


def _experts(numbers_tk: Tensor, weights_tk: Tensor) -> list[Any]:
    pairs = zip(numbers_tk.tolist(), _rounded(weights_tk), strict=True)
    return [[list(pair) for pair in zip(*place, strict=True)] for place in pairs]


def _triangle(weights_hts: Tensor) -> list[list[list[float]]]:
    """Of each head and place, the weights up to that place."""
    heads = _rounded(weights_hts)
    return [[row[: place + 1] for place, row in enumerate(rows)] for rows in heads]


def _rounded(values: Tensor) -> Any:
    """Lists with a few digits: JSON that is not longer than it says."""
    return values.detach().double().cpu().numpy().round(DIGITS).tolist()
