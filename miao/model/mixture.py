"""A feed-forward that is a choice of experts per token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miao.model.config import ModelConfig
from miao.model.feedforward import MLP
from miao.ops.experts import (
    balance_loss,
    expert_counts,
    experts_swiglu,
    route_sigmoid,
    route_softmax,
)


class Router(nn.Module):
    """One score per expert; its products are in float32, since a near tie decides an expert."""

    e_score_correction_bias: Tensor

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.zeros(config.num_experts, config.hidden_size))
        if config.scoring_func == "sigmoid":
            self.register_buffer("e_score_correction_bias", torch.zeros(config.num_experts))

    def forward(self, x_nd: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores [n, e], weights [n, k] and numbers [n, k] of the chosen experts."""
        c = self.config
        logits_ne = F.linear(x_nd.float(), self.weight)
        if c.scoring_func == "softmax":
            chosen = route_softmax(logits_ne, c.num_experts_per_tok, c.norm_topk_prob)
        else:
            chosen = route_sigmoid(
                logits_ne,
                self.e_score_correction_bias,
                c.num_experts_per_tok,
                c.norm_topk_prob,
                c.n_group,
                c.topk_group,
                c.routed_scaling_factor,
            )
        return logits_ne, *chosen


class Experts(nn.Module):
    """The routed experts' matrices, stacked; on disk each expert stands alone."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        count, hidden, inner = config.num_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_proj = nn.Parameter(torch.empty(count, inner, hidden))
        self.up_proj = nn.Parameter(torch.empty(count, inner, hidden))
        self.down_proj = nn.Parameter(torch.empty(count, hidden, inner))

    def forward(self, x_nd: Tensor, weights_nk: Tensor, experts_nk: Tensor) -> Tensor:
        gate, up, down = (w.to(x_nd.dtype) for w in (self.gate_proj, self.up_proj, self.down_proj))
        return experts_swiglu(x_nd, gate, up, down, weights_nk, experts_nk)


class MoE(nn.Module):
    """Mixture of experts: each token visits `num_experts_per_tok` routed ones, and the shared ones.

    Two ways to keep the experts equally busy. Softmax routing adds `balance_loss` to the training
    loss (Qwen3-MoE). Sigmoid routing nudges a bias after every optimizer step, up for idle experts
    and down for busy ones, and leaves the loss alone (DeepSeek-V3, arXiv:2408.15664).
    """

    load: Tensor

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate = Router(config)
        self.experts = Experts(config)
        self.shared_experts: MLP | None = None
        if config.n_shared_experts:
            inner = config.n_shared_experts * config.moe_intermediate_size
            self.shared_experts = MLP(config.hidden_size, inner)
        self.has_balance_loss = config.scoring_func == "softmax"
        # Tokens per expert since `take_load`, while training.
        self.register_buffer("load", torch.zeros(config.num_experts), persistent=False)

    def forward(
        self, x_btd: Tensor, real_bt: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The block's output; while training also its balance loss, where it has one, and the
        tokens that chose each expert [e], which the caller adds to `load` (a block that is
        computed twice must not count them twice)."""
        x_nd = x_btd.flatten(0, 1)
        logits_ne, weights_nk, experts_nk = self.gate(x_nd)
        result_nd = self.experts(x_nd, weights_nk, experts_nk)
        if self.shared_experts is not None:
            result_nd = result_nd + self.shared_experts(x_nd)
        balance: Tensor | None = None
        load_e: Tensor | None = None
        if self.training:
            real_n = None if real_bt is None else real_bt.flatten()
            load_e = expert_counts(experts_nk, len(self.load), real_n)
            if self.has_balance_loss:
                balance = balance_loss(logits_ne, experts_nk, real_n)
        return result_nd.view_as(x_btd), balance, load_e

    def take_load(self) -> Tensor:
        """Tokens per expert since the last call [e]."""
        load = self.load.clone()
        self.load.zero_()
        return load

    @torch.no_grad()
    def nudge_bias(self, load_e: Tensor, rate: float) -> None:
        """bias += rate · sign(mean load - load), where routing is by sigmoid."""
        if not self.has_balance_loss:
            self.gate.e_score_correction_bias += rate * (load_e.mean() - load_e).sign()
