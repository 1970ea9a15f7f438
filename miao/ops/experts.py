"""Mixture of experts: choosing experts for each token, and running them.

Tokens are sorted by expert and every expert works on its slice, in one grouped matrix product: no
token is dropped, no expert is padded to a capacity, and where PyTorch's product is its fast one
(`experts_never_wait`) the host never waits for the counts.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

_grouped_mm = getattr(F, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)
_ALIGNMENT = 16
"""Bytes that the rows of a grouped product's operands must be a multiple of."""
FEW_TOKENS = 64
"""So many take no longer through every expert than the experts' weights take to be read."""


def route_softmax(logits_ne: Tensor, top_k: int, normalize: bool) -> tuple[Tensor, Tensor]:
    """The `top_k` likeliest experts of each token (Qwen3-MoE).

    Args:
        logits_ne: the router's scores. normalize: make the chosen weights sum to one.

    Returns:
        weights [n, k] in float32 and expert numbers [n, k].
    """
    weights_nk, experts_nk = logits_ne.float().softmax(dim=-1).topk(top_k, dim=-1)
    if normalize:
        weights_nk = weights_nk / weights_nk.sum(dim=-1, keepdim=True)
    return weights_nk, experts_nk


def route_sigmoid(
    logits_ne: Tensor,
    bias_e: Tensor,
    top_k: int,
    normalize: bool,
    groups: int = 1,
    kept_groups: int = 1,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """DeepSeek-V3's routing (arXiv:2412.19437, section 2.1.2): each expert's affinity is a sigmoid;
    a bias that no gradient touches steers the choice but not the weights.

    Args:
        bias_e: added to the affinities for the choice alone.
        groups, kept_groups: experts stand in `groups` of equal size, and a token may choose from
            the `kept_groups` whose two best experts score highest.
        scale: factor on the weights.

    Returns:
        weights [n, k] in float32 and expert numbers [n, k].
    """
    scores_ne = logits_ne.float().sigmoid()
    choice_ne = scores_ne.detach() + bias_e
    if groups > 1:
        choice_ngm = choice_ne.unflatten(-1, (groups, -1))
        group_ng = choice_ngm.topk(min(2, choice_ngm.shape[-1]), dim=-1).values.sum(dim=-1)
        kept_nj = group_ng.topk(kept_groups, dim=-1).indices
        closed_ng = torch.ones_like(group_ng, dtype=torch.bool).scatter_(1, kept_nj, False)
        choice_ne = choice_ngm.masked_fill(closed_ng[..., None], float("-inf")).flatten(1)
    experts_nk = choice_ne.topk(top_k, dim=-1).indices
    weights_nk = scores_ne.gather(1, experts_nk)
    if normalize:
        weights_nk = weights_nk / (weights_nk.sum(dim=-1, keepdim=True) + 1e-20)
    return weights_nk * scale, experts_nk


def expert_counts(experts_nk: Tensor, num_experts: int, real_n: Tensor | None = None) -> Tensor:
    """How many tokens chose each expert, float32 [e]; tokens where `real_n` is 0 do not count."""
    ones_nk = torch.ones_like(experts_nk, dtype=torch.float32)
    if real_n is not None:
        ones_nk = ones_nk * real_n[:, None]
    counts_e = torch.zeros(num_experts, dtype=torch.float32, device=experts_nk.device)
    return counts_e.scatter_add_(0, experts_nk.flatten(), ones_nk.flatten())


def balance_loss(logits_ne: Tensor, experts_nk: Tensor, real_n: Tensor | None = None) -> Tensor:
    """e · sum over experts of (share of tokens) · (mean probability), float32: `top_k` when all
    experts are chosen alike, more otherwise (Switch Transformer, arXiv:2101.03961, equations 4-6,
    summed over the k choices as transformers does)."""
    num_experts = logits_ne.shape[1]
    probabilities_ne = logits_ne.float().softmax(dim=-1)
    if real_n is None:
        total: Tensor | int = len(logits_ne)
    else:
        total = real_n.sum().clamp(min=1)
        probabilities_ne = probabilities_ne * real_n[:, None]
    share_e = expert_counts(experts_nk, num_experts, real_n) / total
    return num_experts * (share_e * probabilities_ne.sum(dim=0) / total).sum()


def experts_swiglu(
    x_nd: Tensor,
    gate_eid: Tensor,
    up_eid: Tensor,
    down_edi: Tensor,
    weights_nk: Tensor,
    experts_nk: Tensor,
) -> Tensor:
    """Sum over a token's experts of weight · down(silu(gate(x)) · up(x)), [n, d].

    Args:
        gate_eid, up_eid: [e, i, d] and down_edi: [e, d, i], in the type of x.
        weights_nk, experts_nk: what a router gave.
    """
    takes = _grouped_mm_takes(x_nd, gate_eid)
    few = x_nd.device.type == "cuda" and _few(len(x_nd))
    if few and not (takes and experts_never_wait(x_nd.dtype)):
        return experts_swiglu_dense(x_nd, gate_eid, up_eid, down_edi, weights_nk, experts_nk)
    if not takes:
        return experts_swiglu_reference(x_nd, gate_eid, up_eid, down_edi, weights_nk, experts_nk)
    assert _grouped_mm is not None
    num_tokens, top_k = experts_nk.shape
    by_expert = experts_nk.flatten().argsort(stable=True)
    ends_e = expert_counts(experts_nk, len(gate_eid)).cumsum(0).to(torch.int32)
    sorted_md = x_nd[by_expert // top_k]
    gate_mi = _grouped_mm(sorted_md, gate_eid.mT, offs=ends_e)
    up_mi = _grouped_mm(sorted_md, up_eid.mT, offs=ends_e)
    out_md = _grouped_mm(F.silu(gate_mi) * up_mi, down_edi.mT, offs=ends_e)
    out_md = out_md * weights_nk.flatten()[by_expert, None].to(out_md.dtype)
    # Back to the order of the tokens by a gather: adding into rows would be random on a GPU.
    return out_md[by_expert.argsort()].view(num_tokens, top_k, -1).sum(dim=1)


def experts_swiglu_dense(
    x_nd: Tensor,
    gate_eid: Tensor,
    up_eid: Tensor,
    down_edi: Tensor,
    weights_nk: Tensor,
    experts_nk: Tensor,
) -> Tensor:
    """The same for a few tokens: every token goes through every expert, and what it did not choose
    weighs nothing. All shapes are known beforehand, so that a CUDA graph can record it."""
    hidden_eni = F.silu(x_nd @ gate_eid.mT) * (x_nd @ up_eid.mT)
    out_end = hidden_eni @ down_edi.mT
    weights_ne = torch.zeros(len(x_nd), len(gate_eid), dtype=out_end.dtype, device=x_nd.device)
    weights_ne = weights_ne.scatter(1, experts_nk, weights_nk.to(out_end.dtype))
    return (out_end * weights_ne.T[..., None]).sum(dim=0)


def experts_swiglu_reference(
    x_nd: Tensor,
    gate_eid: Tensor,
    up_eid: Tensor,
    down_edi: Tensor,
    weights_nk: Tensor,
    experts_nk: Tensor,
) -> Tensor:
    """The plain twin: a loop over the experts."""
    result_nd = torch.zeros_like(x_nd)
    for expert, gate_id in enumerate(gate_eid):
        up_id, down_di = up_eid[expert], down_edi[expert]
        tokens, choice = (experts_nk == expert).nonzero(as_tuple=True)
        x_md = x_nd[tokens]
        out_md = F.linear(F.silu(F.linear(x_md, gate_id)) * F.linear(x_md, up_id), down_di)
        weights_m = weights_nk[tokens, choice].to(out_md.dtype)
        result_nd = result_nd.index_add(0, tokens, out_md * weights_m[:, None])
    return result_nd


@cache
def experts_never_wait(dtype: torch.dtype) -> bool:
    """Whether PyTorch's grouped product on this GPU is one kernel: in bfloat16, on the datacenter
    cards of compute capability 9 and 10. Elsewhere it is a loop, before which the host waits."""
    if dtype != torch.bfloat16 or not torch.cuda.is_available() or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability()[0] in (9, 10)


def _few(tokens: int) -> bool:
    """Whether so many tokens are better off in all experts: few, or recorded as a CUDA graph."""
    if tokens <= FEW_TOKENS:
        return True
    return not torch.compiler.is_compiling() and torch.cuda.is_current_stream_capturing()


def _grouped_mm_takes(x_nd: Tensor, weight_eid: Tensor) -> bool:
    """Whether the grouped product exists for this device, type and these sizes."""
    if _grouped_mm is None or x_nd.device.type not in ("cpu", "cuda"):
        return False
    if x_nd.dtype != torch.bfloat16 and (
        x_nd.device.type == "cuda" or torch.compiler.is_compiling()
    ):
        return False  # the compiler's own idea of the product knows bfloat16 only
    return all(size * x_nd.element_size() % _ALIGNMENT == 0 for size in weight_eid.shape[1:])
