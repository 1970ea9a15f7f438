"""Log-probabilities of continuations, with nothing computed twice.

Texts with the same beginning (few-shot examples, a question's options) share the pass over it;
texts that differ in their last token only are one row; many rows are read end to end by one pass,
without padding. The result is that of a full forward pass per text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from miao.evaluate.measure.likelihood import Advance, nothing
from miao.evaluate.measure.prefix import SHORTEST, SharedPrefix
from miao.model.decoder import Decoder

ROW_TOKENS, ROW_TOKENS_GPU = 2048, 32768
"""Tokens that one pass reads."""
LEAST_SAVED, LEAST_SAVED_GPU = 256, 4096
"""Tokens that a pass over a common beginning must save to be worth it."""
HEAD_ROWS = 1024
"""Positions whose logits exist at one time."""


@dataclass(frozen=True)
class Continuation:
    """A text of which the last `scored` tokens are the continuation."""

    ids: Sequence[int]
    scored: int


def rolling(ids: Sequence[int], limit: int) -> list[Continuation]:
    """A long text as continuations that score each token after the first once: pieces of the
    context's length, the last with as much before it as fits (as lm-evaluation-harness does it)."""
    ends = [*range(limit + 1, len(ids), limit), len(ids)]
    starts = [1, *ends[:-1]]
    return [
        Continuation(ids[max(end - limit - 1, 0) : end], end - start)
        for start, end in zip(starts, ends, strict=True)
    ]


@dataclass(frozen=True)
class Likelihood:
    """Of one continuation: the sum of log p in nats, whether every token was the likeliest, and
    how many tokens were cut off at the beginning for the text to fit the context."""

    logprob: float
    is_greedy: bool
    cut: int = 0


@dataclass
class _Row:
    """One pass: the input, how many of its last positions are scored, and what may come last."""

    ids: tuple[int, ...]
    scored: int = 0
    members: list[int] = field(default_factory=list)


@dataclass
class _Group:
    prefix: int
    rows: list[_Row]


@torch.inference_mode()
def continuation_logprobs(
    model: Decoder,
    continuations: Sequence[Continuation],
    limit: int | None = None,
    advance: Advance = nothing,
) -> list[Likelihood]:
    """The log-probability of every continuation after what stands before it.

    Args:
        limit: longest input in tokens (default: the model's context). A longer text loses its
            beginning; `Likelihood.cut` says how much.
    """
    model.eval()
    limit = limit or model.config.context_length
    rows, last_ids, cuts = _rows(continuations, limit)
    found: list[Likelihood | None] = [None] * len(continuations)
    for group in _groups(list(rows.values()), _least_saved(model)):
        for row, values, greedy in _read_group(model, group, last_ids):
            inner = row.scored - 1
            for own, number in enumerate(row.members, inner):
                start = row.scored - min(continuations[number].scored, row.scored)
                found[number] = Likelihood(
                    float(values[start:inner].sum() + values[own]),
                    bool(greedy[start:inner].all() and greedy[own]),
                    cuts[number],
                )
            advance(len(row.members))
    assert all(one is not None for one in found)
    return [one for one in found if one is not None]


def _rows(
    continuations: Sequence[Continuation], limit: int
) -> tuple[dict[tuple[int, ...], _Row], list[int], list[int]]:
    """The distinct inputs; each continuation's last token, and how much of it was cut."""
    rows: dict[tuple[int, ...], _Row] = {}
    last_ids, cuts = [], []
    for number, one in enumerate(continuations):
        assert 0 < one.scored < len(one.ids), "something must stand before what is scored"
        ids = tuple(one.ids[-limit - 1 :])
        row = rows.setdefault(ids[:-1], _Row(ids[:-1]))
        row.scored = max(row.scored, min(one.scored, len(row.ids)))
        row.members.append(number)
        last_ids.append(ids[-1])
        cuts.append(len(one.ids) - len(ids))
    return rows, last_ids, cuts


def _depends_on_length(model: Decoder) -> bool:
    """Dynamic scaling: all keys of a pass depend on the length of its longest text."""
    return (model.config.rope_scaling or {}).get("rope_type") == "dynamic"


def _least_saved(model: Decoder) -> float:
    if _depends_on_length(model):
        return float("inf")
    return LEAST_SAVED if model.device.type == "cpu" else LEAST_SAVED_GPU


def _groups(rows: list[_Row], least_saved: float) -> Iterator[_Group]:
    """Cuts rows into groups with a common beginning, so that most tokens are saved.

    Over the sorted rows, every run with a common beginning is an interval of the tree of longest
    common prefixes; an interval is kept whole where that saves more than its parts together.
    """
    rows = sorted(rows, key=lambda row: row.ids)
    shared = [0, *(_shared(a.ids, b.ids) for a, b in pairwise(rows))]
    alone = [True] * len(rows)
    for first, last, prefix in _best_intervals(shared, least_saved):
        # At least one token of its own for every row: there is a position to predict from.
        prefix = min(prefix, min(len(row.ids) for row in rows[first : last + 1]) - 1)
        yield _Group(prefix, rows[first : last + 1])
        alone[first : last + 1] = [False] * (last + 1 - first)
    if rest := [row for row, is_alone in zip(rows, alone, strict=True) if is_alone]:
        yield _Group(0, rest)


def _shared(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    if one[: len(other)] == other[: len(one)]:
        return min(len(one), len(other))
    return next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)


@dataclass
class _Interval:
    prefix: int
    first: int
    parts: list[_Interval] = field(default_factory=list)
    last: int = 0
    saved: float = 0.0
    whole: bool = False

    def close(self, last: int, least_saved: float) -> None:
        self.last = last
        own = float(self.prefix * (last - self.first))
        if self.prefix < SHORTEST or own < least_saved:
            own = 0.0
        inside = sum(part.saved for part in self.parts)
        self.saved, self.whole = max(own, inside), own > inside


def _best_intervals(shared: list[int], least_saved: float) -> list[tuple[int, int, int]]:
    """(first row, last row, common beginning) of the runs that are worth a pass of their own.

    `shared[i]`: tokens that row i has in common with row i - 1.
    """
    root = _Interval(0, 0)
    stack = [root]
    for number, common in enumerate([*shared[1:], 0], 1):
        first, closed = number - 1, None
        while common < stack[-1].prefix:
            closed = stack.pop()
            closed.close(number - 1, least_saved)
            first = closed.first
            if common <= stack[-1].prefix:
                stack[-1].parts.append(closed)
                closed = None
        if common > stack[-1].prefix:
            stack.append(_Interval(common, first, [closed] if closed else []))
    found, waiting = [], root.parts
    while waiting:
        interval = waiting.pop()
        if interval.whole:
            found.append((interval.first, interval.last, interval.prefix))
        elif interval.saved:
            waiting.extend(interval.parts)
    return sorted(found)


def _read_group(
    model: Decoder, group: _Group, last_ids: list[int]
) -> Iterator[tuple[_Row, Tensor, Tensor]]:
    """Every row with the log-probabilities of its scored tokens (those of the input, then the
    last token of every member), and whether each was the likeliest."""
    length = group.prefix
    prefix = group.rows[0].ids[:length]
    inside = max(row.scored - (len(row.ids) - length) for row in group.rows)
    # From here on the prefix is scored for some row; its last state predicts the rows' first token.
    early = max(length - max(inside, 1), 0)
    cache, hidden_pd = SharedPrefix.read(model, prefix, early)
    before, greedy_before = _label_logprobs(model, hidden_pd[:-1], list(prefix[early + 1 :]))
    for batch in _batches(sorted(group.rows, key=lambda row: len(row.ids)), length, model):
        picked, labels, counts = [], [], []
        for row, hidden_td in zip(batch, _hidden(model, batch, cache), strict=True):
            inner, final = list(row.ids[len(row.ids) - row.scored + 1 :]), row.members
            if row.scored > len(row.ids) - length:
                picked.append(hidden_pd[-1:])
                inner = list(row.ids[length:])
            picked += [hidden_td[:-1], hidden_td[-1:].expand(len(final), -1)]
            labels += [*inner, *(last_ids[number] for number in final)]
            counts.append(len(inner) + len(final))
        values, greedy = _label_logprobs(model, torch.cat(picked), labels)
        parts = zip(batch, values.split(counts), greedy.split(counts), strict=True)
        for row, own, is_likeliest in parts:
            missing = row.scored - 1 + len(row.members) - len(own)
            tail = len(before) - missing
            yield (
                row,
                torch.cat((before[tail:], own)),
                torch.cat((greedy_before[tail:], is_likeliest)),
            )


def _hidden(model: Decoder, batch: Sequence[_Row], cache: SharedPrefix) -> tuple[Tensor, ...]:
    """Of every row the hidden states [t, d] that predict a scored token, read behind the prefix."""
    length, counts = cache.prefix_length, []
    ids: list[int] = []
    positions: list[int] = []
    wanted: list[int] = []
    for row in batch:
        width = len(row.ids) - length
        counts.append(min(row.scored, width))
        ids += row.ids[length:]
        positions += range(length, length + width)
        wanted += range(len(ids) - counts[-1], len(ids))
    cache.extend([len(row.ids) - length for row in batch])
    row_t, positions_t, wanted_n = (
        torch.tensor(values, device=model.device) for values in (ids, positions, wanted)
    )
    hidden_btd = model(
        row_t[None], positions_t[None], cache=cache, wanted_n=wanted_n, output="hidden"
    )
    return hidden_btd[0].split(counts)


def _batches(rows: Sequence[_Row], prefix: int, model: Decoder) -> Iterator[Sequence[_Row]]:
    """Rows, sorted by length, that one pass reads."""
    most = ROW_TOKENS if model.device.type == "cpu" else ROW_TOKENS_GPU
    same_length = _depends_on_length(model)
    batch: list[_Row] = []
    tokens = 0
    for row in rows:
        width = len(row.ids) - prefix
        other_length = same_length and batch and len(batch[-1].ids) != len(row.ids)
        if batch and (tokens + width > most or other_length):
            yield batch
            batch, tokens = [], 0
        batch.append(row)
        tokens += width
    if batch:
        yield batch


def _label_logprobs(model: Decoder, hidden_nd: Tensor, labels: list[int]) -> tuple[Tensor, Tensor]:
    """log p of a label at every position, float64 on the CPU, and whether it is the likeliest."""
    values, greedy = [torch.empty(0, dtype=torch.float64)], [torch.empty(0, dtype=torch.bool)]
    index = torch.tensor(labels, dtype=torch.int64, device=hidden_nd.device)
    for start in range(0, len(labels), HEAD_ROWS):
        part = slice(start, start + HEAD_ROWS)
        logits = model.token_logits(hidden_nd[part]).float()
        chosen = logits.gather(1, index[part, None]).squeeze(1)
        values.append((chosen - logits.logsumexp(dim=-1)).cpu().double())
        greedy.append((chosen >= logits.amax(dim=-1)).cpu())
    return torch.cat(values), torch.cat(greedy)
