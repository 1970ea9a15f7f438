"""From logits to the next token: every row of a batch by its own options, on the device."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from miao.errors import MiaoError

SHORTLIST = 128
"""On a CPU nuclei are looked for among so many of the likeliest tokens; only where they do not
hold enough is the whole vocabulary sorted."""
COLDEST, HOTTEST = 1e-5, 1e5
"""Temperatures below the first are greedy: dividing by them would leave the range of float32."""
LARGEST = 1e20
"""Of biases and penalties: whatever they are added to or divided by stays in float32."""
REPETITION = (1e-4, 1e4)
"""Likewise of a factor of the logits."""
OF_A_MODEL = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""Options that a model may bring along (generation_config.json)."""
OF_A_REQUEST = (*OF_A_MODEL, "presence_penalty", "frequency_penalty")
"""Options that whoever asks a server may give, one number each."""
NOTHING = -1
"""In the place of a token, where none is possible."""


class NoTokenError(RuntimeError):
    """Every token is forbidden, or the model's logits are no numbers."""

    def __init__(self) -> None:
        super().__init__("no token can follow: all are forbidden, or the logits are no numbers")


@dataclass(frozen=True)
class SamplingOptions:
    """How answers are drawn. Temperature 0 is greedy: always the likeliest token.

    In this order: repetition_penalty, logit_bias and the other penalties change the logits;
    temperature divides them; top_k, top_p and min_p leave tokens out.
    """

    temperature: float = 0.0
    top_k: int = 0
    """Keep only the k likeliest tokens; 0: all."""
    top_p: float = 1.0
    """Keep the likeliest tokens that together have this share of the probability that top_k
    leaves (arXiv:1904.09751), and always the likeliest."""
    min_p: float = 0.0
    """Keep tokens at least this likely, as a share of the likeliest (arXiv:2407.01082)."""
    repetition_penalty: float = 1.0
    """Divide positive logits of tokens seen before by this, multiply negative ones
    (arXiv:1909.05858)."""
    presence_penalty: float = 0.0
    """Subtract this from the logits of tokens that the answer holds already."""
    frequency_penalty: float = 0.0
    """Subtract this as often as the answer holds the token."""
    logit_bias: dict[int, float] = field(default_factory=dict)
    """Add to the logits of these token ids."""
    max_new_tokens: int = 256
    seed: int | None = None
    """The same seed draws the same answer, whatever runs beside it."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer (they are not part of it)."""
    logprobs: int | None = None
    """Report the log-probability of every token, and of so many likeliest ones beside it."""

    def __post_init__(self) -> None:
        added = (self.presence_penalty, self.frequency_penalty, *self.logit_bias.values())
        least, most = REPETITION
        # Limits of float32, in which all of this is computed.
        problems = {
            "temperature must not be negative": not self.temperature >= 0,
            f"temperature must be at most {HOTTEST:g}": not self.temperature <= HOTTEST,
            "top_k must not be negative": self.top_k < 0,
            "top_p must be from 0 to 1": not 0 <= self.top_p <= 1,
            "min_p must be from 0 to 1": not 0 <= self.min_p <= 1,
            f"repetition_penalty must be from {least:g} to {most:g}": (
                not least <= self.repetition_penalty <= most
            ),
            f"penalties and biases must be finite, at most {LARGEST:g}": (
                not all(-LARGEST <= value <= LARGEST for value in added)
            ),
            "max_new_tokens must be positive": self.max_new_tokens < 1,
            "stop must not hold an empty text": "" in self.stop,
            "logprobs must not be negative": (self.logprobs or 0) < 0,
        }
        for problem, wrong in problems.items():
            if wrong:
                raise MiaoError(problem, where="sampling options")

    @property
    def leaves_out(self) -> bool:
        """Whether some tokens may not be drawn, however likely: what `_left` does."""
        return bool(self.top_k or self.top_p < 1 or self.min_p)

    @property
    def changes_logits(self) -> bool:
        """Whether penalties or biases are in play."""
        plain = (self.repetition_penalty, self.presence_penalty, self.frequency_penalty)
        return plain != (1.0, 0.0, 0.0) or bool(self.logit_bias)


class Draw:
    """What one answer's sampling remembers from token to token: counts, biases, its dice.

    Args:
        index: which of several answers with the same seed this is; each has its own dice.
    """

    def __init__(
        self,
        options: SamplingOptions,
        prompt: Sequence[int],
        vocab_size: int,
        device: torch.device,
        index: int = 0,
    ):
        self.options = options
        # One uniform number per token, from the host: the same on every device, in any company.
        seed = options.seed
        self._dice = random.Random() if seed is None else random.Random(f"{seed}/{index}")
        self._held: float | None = None
        self.bias_v: Tensor | None = None
        self.counts_v: Tensor | None = None
        self.seen_v: Tensor | None = None
        if not options.changes_logits:
            return
        self.bias_v = torch.zeros(vocab_size, device=device)
        for token, bias in options.logit_bias.items():
            if not 0 <= token < vocab_size:
                raise MiaoError(
                    f"logit_bias names token {token}; the vocabulary has {vocab_size}",
                    where="sampling options",
                )
            self.bias_v[token] = bias
        self.counts_v = torch.zeros(vocab_size, device=device)
        self.seen_v = torch.zeros(vocab_size, dtype=torch.bool, device=device)
        self.seen_v[torch.tensor(sorted(set(prompt)), dtype=torch.int64, device=device)] = True

    def uniform(self) -> float:
        """The next number of the dice, in [0, 1)."""
        return self._dice.random() if self._held is None else self._held

    def hold(self) -> None:
        """The next number stands until a token is noted, however often it is asked for."""
        self._held = self.uniform()

    def note(self, token: int) -> None:
        """Counts a token of the answer."""
        self._held = None
        if self.counts_v is not None and self.seen_v is not None:
            self.counts_v[token] += 1
            self.seen_v[token] = True


@torch.inference_mode()
def next_tokens(logits_bv: Tensor, draws: Sequence[Draw]) -> Tensor:
    """One token id per row [b]; NOTHING where none is possible.

    Args:
        logits_bv: float32 logits of the next token; tokens at -inf are never chosen.
    """
    logits_bv = changed_logits(logits_bv, draws)
    chosen_b = _chosen(logits_bv, draws)
    possible_b = logits_bv.gather(1, chosen_b[:, None]).squeeze(1).isfinite()
    return chosen_b.where(possible_b, NOTHING)


def _chosen(logits_bv: Tensor, draws: Sequence[Draw]) -> Tensor:
    ways = [_way(draw.options) for draw in draws]
    if len(set(ways)) == 1:
        return ways[0](logits_bv, draws)
    chosen_b = torch.empty(len(draws), dtype=torch.int64, device=logits_bv.device)
    for way in dict.fromkeys(ways):
        rows = [row for row, own in enumerate(ways) if own is way]
        index = torch.tensor(rows, device=logits_bv.device)
        chosen_b[index] = way(logits_bv[index], [draws[row] for row in rows])
    return chosen_b


def _way(options: SamplingOptions) -> Callable[[Tensor, Sequence[Draw]], Tensor]:
    """How a row's token is chosen: by its own options, so that its company changes nothing."""
    if options.temperature < COLDEST:
        return _likeliest
    return _drawn if options.leaves_out else _drawn_from_all


def changed_logits(logits_bv: Tensor, draws: Sequence[Draw]) -> Tensor:
    """The logits after biases and penalties; the caller's stay as they are."""
    if not any(draw.options.changes_logits for draw in draws):
        return logits_bv
    logits_bv = logits_bv.clone()
    for logits_v, draw in zip(logits_bv, draws, strict=True):
        if draw.bias_v is None or draw.counts_v is None or draw.seen_v is None:
            continue
        options = draw.options
        if (penalty := options.repetition_penalty) != 1.0:
            factor_v = torch.where(logits_v > 0, 1 / penalty, penalty)
            logits_v.mul_(torch.where(draw.seen_v, factor_v, 1.0))
        logits_v += draw.bias_v
        logits_v -= options.frequency_penalty * draw.counts_v
        logits_v -= options.presence_penalty * (draw.counts_v > 0)
    return logits_bv


def _likeliest(logits_bv: Tensor, draws: Sequence[Draw]) -> Tensor:
    return logits_bv.argmax(dim=-1)


def _drawn_from_all(logits_bv: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Draws from the whole vocabulary, in the order of its ids: nothing needs to be sorted."""
    cumulated = _probabilities(logits_bv, draws).cumsum(dim=-1)
    whole = cumulated[:, -1:]
    dice = _column([draw.uniform() for draw in draws], logits_bv) * whole
    place = torch.searchsorted(cumulated, dice, right=True)
    last = (cumulated < whole).sum(dim=-1, keepdim=True)  # the last token that is not impossible
    return torch.minimum(place, last).squeeze(1)


def _column(values: list[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device)[:, None]


def _probabilities(logits_bv: Tensor, draws: Sequence[Draw]) -> Tensor:
    temperatures = _column([draw.options.temperature for draw in draws], logits_bv)
    return (logits_bv / temperatures).softmax(dim=-1)


def _drawn(logits_bv: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Draws from what is left of every row's own distribution, by inverting its distribution
    function."""
    ordered, order = _left(logits_bv, draws)
    cumulated = ordered.cumsum(dim=-1)
    dice = _column([draw.uniform() for draw in draws], logits_bv)
    place = (cumulated <= dice * cumulated[:, -1:]).sum(dim=-1, keepdim=True)
    # Rounding may carry the sum past the last token that is left.
    last = ((ordered > 0).sum(dim=-1, keepdim=True) - 1).clamp_min(0)
    return order.gather(1, torch.minimum(place, last)).squeeze(1)


@torch.inference_mode()
def distribution(logits_v: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """What a token would be drawn from: the ids that are left, the likeliest first, and their
    probabilities, which sum to 1.

    Args:
        logits_v: float32 logits of the next token.
    """
    logits_bv = changed_logits(logits_v[None], [draw])
    if draw.options.temperature < COLDEST:
        return logits_bv[0].argmax()[None], torch.ones(1)
    ordered, order = _left(logits_bv, [draw])
    left = ordered[0] > 0
    return order[0][left], ordered[0][left] / ordered[0].sum()


def _left(logits_bv: Tensor, draws: Sequence[Draw]) -> tuple[Tensor, Tensor]:
    """Shares of the likeliest tokens, the largest first and zero where they are left out, and
    their ids."""
    options = [draw.options for draw in draws]
    probabilities = _probabilities(logits_bv, draws)
    vocab_size = logits_bv.shape[-1]
    top_k = [min(o.top_k or vocab_size, vocab_size) for o in options]
    top_p = _column([o.top_p for o in options], logits_bv)
    width = _width(probabilities, top_k, options)
    if width is None:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    else:
        ordered, order = probabilities.topk(width, dim=-1)
    if min(top_k) < ordered.shape[1]:
        ranks = torch.arange(ordered.shape[1], device=logits_bv.device)
        ordered = ordered.masked_fill(ranks >= _column([float(k) for k in top_k], logits_bv), 0)
    # With the whole row's mass, a shortlist's shares are what they are in the whole row.
    limited = any(o.top_k for o in options)
    mass = torch.ones_like(top_p)
    if limited:
        mass = torch.where(
            _column([float(o.top_k) for o in options], logits_bv) > 0,
            ordered.sum(-1, keepdim=True),
            mass,
        )
    cumulated = ordered.cumsum(dim=-1)
    outside = cumulated - ordered >= top_p * mass
    outside[:, 0] = False  # however small the share
    ordered = ordered.masked_fill(outside, 0)
    if any(o.min_p for o in options):
        ordered = ordered.masked_fill(
            ordered < ordered[:, :1] * _column([o.min_p for o in options], logits_bv), 0
        )
    return ordered, order


def _width(probabilities: Tensor, top_k: list[int], options: list[SamplingOptions]) -> int | None:
    """How many of the likeliest tokens are enough for every row; None: all of them."""
    if max(top_k) <= SHORTLIST:
        return max(top_k)
    bounded = all(o.leaves_out for o in options)
    if probabilities.device.type != "cpu" or not bounded or probabilities.shape[1] <= SHORTLIST:
        return None
    likeliest = probabilities.topk(SHORTLIST, dim=-1).values
    sums, least = likeliest.sum(-1).tolist(), likeliest[:, -1].tolist()
    most = likeliest[:, 0].tolist()
    for k, o, total, low, high in zip(top_k, options, sums, least, most, strict=True):
        # With both, top_p counts within what top_k leaves: that must be in the list as well.
        by_nucleus = not o.top_k and total > o.top_p
        if not (k <= SHORTLIST or by_nucleus or low < o.min_p * high):
            return None
    return SHORTLIST
