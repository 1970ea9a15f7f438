"""Log-probabilities of continuations, with nothing computed twice.

Texts with the same beginning (few-shot examples, a question's options) share the pass over it;
texts that differ in their last token only are one row; rows of similar length run together. The
result is that of a full forward pass per text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from miao.evaluate.likelihood import Advance, nothing
from miao.evaluate.prefix import SHORTEST, SharedPrefix
from miao.model.decoder import Decoder

ROW_TOKENS, SEEN_TOKENS = 4096, 32768
"""Padded tokens of a batch, and those together with the prefix that each of its rows sees."""
GPU_FACTOR = 8
PASS, PASS_GPU = 48, 2048
"""What a pass costs beside its tokens, in tokens: so much padding is as bad as one pass more."""
LEAST_SAVED, LEAST_SAVED_GPU = 256, 4096
"""Tokens that a pass over a common beginning must save to be worth it."""
HEAD_ROWS = 1024
"""Positions whose logits exist at one time."""


@dataclass(frozen=True)
class Continuation:
    """A text of which the last `scored` tokens are the continuation."""

    ids: Sequence[int]
    scored: int


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
    cache, hidden_pd = SharedPrefix.read(model, list(group.rows[0].ids[:length]))
    inside = max(row.scored - (len(row.ids) - length) for row in group.rows)
    early = length - max(inside, 1)  # first position of the prefix that is scored for all rows
    prefix_labels = list(group.rows[0].ids[early + 1 : length])
    before, greedy_before = _label_logprobs(model, hidden_pd[early : length - 1], prefix_labels)
    for batch in _batches(sorted(group.rows, key=lambda row: len(row.ids)), length, model):
        width = max(len(row.ids) for row in batch) - length
        ids = [[*row.ids[length:], *[0] * (width - len(row.ids) + length)] for row in batch]
        positions = torch.arange(length, length + width, device=model.device)
        cache.extend(width)
        hidden_btd = model(
            torch.tensor(ids, device=model.device),
            positions.expand(len(batch), width),
            cache=cache if length else None,
            output="hidden",
        )
        picked, labels, counts = [], [], []
        for number, row in enumerate(batch):
            start = max(len(row.ids) - row.scored - length, -1 if length else 0)
            inner, final = row.ids[length + start + 1 :], [last_ids[m] for m in row.members]
            end = len(row.ids) - length
            if start < 0:
                picked += [hidden_pd[length - 1 :], hidden_btd[number, : end - 1]]
            else:
                picked += [hidden_btd[number, start : end - 1]]
            picked.append(hidden_btd[number, end - 1 : end].expand(len(final), -1))
            labels += [*inner, *final]
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


def _batches(rows: Sequence[_Row], prefix: int, model: Decoder) -> Iterator[Sequence[_Row]]:
    """Cuts rows, sorted by length, into batches with the least padding and the fewest passes.

    `best[i]`: the cost of the first i rows, and where their last batch begins.
    """
    on_cpu, same_length = model.device.type == "cpu", _depends_on_length(model)
    factor, one_pass = (1, PASS) if on_cpu else (GPU_FACTOR, PASS_GPU)
    best = [(0, 0)]
    for end, row in enumerate(rows, 1):
        width, padding, cheapest = len(row.ids) - prefix, 0, None
        for start in range(end - 1, -1, -1):
            count, shorter = end - start, len(row.ids) - len(rows[start].ids)
            padding += shorter
            too_large = count * width > factor * ROW_TOKENS
            too_large |= count * len(row.ids) > factor * SEEN_TOKENS
            # So much padding is never worth it: two batches would have less.
            if count > 1 and (too_large or padding > 4 * one_pass or (same_length and shorter)):
                break
            cost = best[start][0] + count * width + one_pass
            cheapest = min(cheapest or (cost, start), (cost, start))
        assert cheapest is not None, "a row alone is always a batch"
        best.append(cheapest)
    ends = [len(rows)]
    while ends[-1]:
        ends.append(best[ends[-1]][1])
    for start, end in pairwise(reversed(ends)):
        yield rows[start:end]


def _label_logprobs(model: Decoder, hidden_nd: Tensor, labels: list[int]) -> tuple[Tensor, Tensor]:
    """log p of a label at every position, float64 on the CPU, and whether it is the likeliest."""
    values, greedy = [torch.empty(0, dtype=torch.float64)], [torch.empty(0, dtype=torch.bool)]
    index = torch.tensor(labels, dtype=torch.int64, device=hidden_nd.device)
    for start in range(0, len(labels), HEAD_ROWS):
        part = slice(start, start + HEAD_ROWS)
        logits = model.lm_head(hidden_nd[part]).float()
        chosen = logits.gather(1, index[part, None]).squeeze(1)
        values.append((chosen - logits.logsumexp(dim=-1)).double().cpu())
        greedy.append((chosen >= logits.amax(dim=-1)).cpu())
    return torch.cat(values), torch.cat(greedy)
