"""From logits to the next token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from miao.errors import MiaoError


@dataclass(frozen=True)
class SamplingOptions:
    """How answers are drawn. Temperature 0 is greedy: always the likeliest token."""

    temperature: float = 0.0
    top_k: int = 0
    """Keep only the k likeliest tokens; 0: all."""
    top_p: float = 1.0
    """Keep the likeliest tokens that together have this share of the probability that top_k
    leaves (arXiv:1904.09751)."""
    repetition_penalty: float = 1.0
    """Divide positive logits of tokens seen before by this, multiply negative ones
    (arXiv:1909.05858)."""
    max_new_tokens: int = 256
    seed: int | None = None

    def __post_init__(self) -> None:
        problems = {
            "temperature must not be negative": not self.temperature >= 0,
            "top_k must not be negative": self.top_k < 0,
            "top_p must be above 0, at most 1": not 0 < self.top_p <= 1,
            "repetition_penalty must be positive": self.repetition_penalty <= 0,
            "max_new_tokens must be positive": self.max_new_tokens < 1,
        }
        for problem, wrong in problems.items():
            if wrong:
                raise MiaoError(problem, where="sampling options")


def next_tokens(
    logits_bv: Tensor,
    seen: list[list[int]],
    options: SamplingOptions,
    generator: torch.Generator | None,
) -> Tensor:
    """Token ids [b].

    Args:
        logits_bv: float32 logits of the next token. seen: tokens of each row so far.
    """
    if options.repetition_penalty != 1.0:
        logits_bv = _penalise(logits_bv, seen, options.repetition_penalty)
    if options.temperature == 0:
        return logits_bv.argmax(dim=-1)
    probabilities = (logits_bv / options.temperature).softmax(dim=-1)
    ordered, order = probabilities.sort(dim=-1, descending=True)
    if options.top_k:
        ordered[:, options.top_k :] = 0
        ordered /= ordered.sum(dim=-1, keepdim=True)
    before = ordered.cumsum(dim=-1) - ordered
    ordered = ordered.masked_fill(before >= options.top_p, 0)
    choice = torch.multinomial(ordered, 1, generator=generator)
    return order.gather(1, choice).squeeze(1)


def _penalise(logits_bv: Tensor, seen: list[list[int]], penalty: float) -> Tensor:
    logits_bv = logits_bv.clone()
    for row, tokens in enumerate(seen):
        index = torch.tensor(sorted(set(tokens)), device=logits_bv.device)
        values = logits_bv[row, index]
        logits_bv[row, index] = torch.where(values > 0, values / penalty, values * penalty)
    return logits_bv
