"""Direct preference optimization (arXiv:2305.18290), on packed pairs.

A row holds pairs side by side: segments 1 and 2 are the chosen and the rejected answer of the
first pair, 3 and 4 of the second, and so on. The reference model's log-probabilities are computed
once, before training, and read like any other column of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miao.errors import MiaoError
from miao.files import atomic_open
from miao.ops.linear_cross_entropy import IGNORE
from miao.shards.loader import Batch, PackedSource
from miao.train.objectives.base import token_logprobs


class DpoObjective:
    """-log sigmoid(beta · margin), the sigmoid loss of the paper, plus `sft_weight` times the
    mean cross-entropy of the chosen answer's tokens (RPO, arXiv:2404.19733): DPO alone is content
    with both answers becoming unlikely, as long as the rejected one falls faster.

    margin = log(pi/ref)(chosen) - log(pi/ref)(rejected). At the first step the policy is the
    reference, so the loss is ln 2. Metrics, per pair: `accuracy` (margin > 0), `margin` (times
    beta), the log-probabilities of both sides, and `kl`: the estimator exp(r) - r - 1 of
    KL(policy || reference) with r = log(ref/pi) on the chosen tokens
    (http://joschu.net/blog/kl-approx.html), per token.
    """

    weight_unit = "pairs"

    def __init__(self, beta: float, sft_weight: float = 0.0):
        self.beta, self.sft_weight = beta, sft_weight

    def weight(self, batch: Batch) -> int:
        return sum(len(row) // 2 for row in batch.sequences)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        assert batch.reference_bt is not None, "DPO needs the reference log-probabilities"
        logprobs_bt = token_logprobs(model, batch)
        policy_p2 = pair_sums(logprobs_bt, batch)
        reference_p2 = pair_sums(batch.reference_bt, batch)
        ratio_p2 = policy_p2 - reference_p2
        margin_p = self.beta * (ratio_p2[:, 0] - ratio_p2[:, 1])
        tokens_p2 = pair_sums((batch.labels_bt != IGNORE).float(), batch).clamp(min=1)
        loss = -F.logsigmoid(margin_p).sum()
        loss = loss - self.sft_weight * (policy_p2[:, 0] / tokens_p2[:, 0]).sum()
        with torch.no_grad():
            log_ratio_bt = batch.reference_bt - logprobs_bt
            kl_bt = (log_ratio_bt.exp() - log_ratio_bt - 1) * (batch.labels_bt != IGNORE)
            kl_p = pair_sums(kl_bt, batch)[:, 0] / tokens_p2[:, 0]
            metrics = {
                "accuracy": (margin_p > 0).float().sum(),
                "margin": margin_p.sum(),
                "kl": kl_p.sum(),
                "chosen_logprob": policy_p2[:, 0].sum(),
                "rejected_logprob": policy_p2[:, 1].sum(),
            }
        return loss, metrics


def pair_sums(values_bt: Tensor, batch: Batch) -> Tensor:
    """Sums per sequence, as [pairs, 2] (chosen, rejected)."""
    rows = [len(row) for row in batch.sequences]
    width = max(rows)
    sums_bs = torch.zeros(len(rows), width + 1, dtype=values_bt.dtype, device=values_bt.device)
    sums_bs = sums_bs.scatter_add(1, batch.segments_bt, values_bt)
    return torch.cat([sums_bs[b, 1 : count + 1] for b, count in enumerate(rows)]).view(-1, 2)


def cache_reference(
    model: nn.Module,
    source: PackedSource,
    batches: Iterable[Batch],
    path: Path,
    advance: Callable[[int], None] = lambda rows: None,
) -> np.ndarray:
    """The reference log-probability of every token of a source, computed once and kept on disk.

    Args:
        batches: one pass over the source's rows. path: float32 file, aligned with the tokens.

    Returns:
        A read-only memory map, float32 [tokens].
    """
    size = source.dataset.manifest.tokens
    if not (path.exists() and path.stat().st_size == 4 * size):
        values = np.zeros(size, dtype=np.float32)
        model.eval()
        device = next(model.parameters()).device
        for batch in batches:
            with torch.no_grad():
                logprobs = token_logprobs(model, batch.to(device)).cpu()
            _scatter_to_tokens(values, logprobs, batch, source)
            advance(len(batch.sequences))
        if not np.isfinite(values).all():
            raise MiaoError("the reference model gives log-probabilities that are not finite")
        with atomic_open(path, "wb") as file:
            file.write(values.tobytes())
    return np.memmap(path, dtype=np.float32, mode="r")


def _scatter_to_tokens(
    values: np.ndarray, logprobs_bt: Tensor, batch: Batch, source: PackedSource
) -> None:
    for b, row in enumerate(batch.sequences):
        for number, (_, sequence) in enumerate(row, start=1):
            slots = (batch.segments_bt[b] == number).nonzero().squeeze(1)
            first = source.dataset.flat_offset(sequence) + 1
            values[first : first + len(slots)] = logprobs_bt[b, slots].numpy()
