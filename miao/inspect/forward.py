"""One pass over a text, of which everything stays: streams, attention, experts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from miao.errors import MiaoError
from miao.model import Decoder
from miao.model.attention import Context
from miao.model.decoder import Block
from miao.model.mixture import MoE
from miao.ops.watched_attention import WatchedAttention


@dataclass(frozen=True)
class Without:
    """What is switched off; everything counts from 0.

    Args:
        tokens: places that no later place sees (each still sees itself).
        layers: that add nothing to the stream.
        heads: (layer, head) whose result is zero.
    """

    tokens: Collection[int] = ()
    layers: Collection[int] = ()
    heads: Collection[tuple[int, int]] = ()

    def check(self, model: Decoder, tokens: int) -> None:
        """Raises:
        MiaoError: something that the model or the text has not.
        """
        c = model.config
        named = [
            ("token", tokens, self.tokens),
            ("layer", c.num_hidden_layers, [*self.layers, *(layer for layer, _ in self.heads)]),
            ("head", c.num_attention_heads, [head for _, head in self.heads]),
        ]
        for what, count, numbers in named:
            if beyond := [number for number in numbers if not 0 <= number < count]:
                raise MiaoError(
                    f"there are {count} {what}s: no number {beyond[0] + 1} from 1", where="without"
                )


@dataclass
class Seen:
    """What a pass left behind."""

    stream_ltd: list[Tensor] = field(default_factory=list)
    """The residual stream behind each layer [t, d]."""
    attention_lhts: list[Tensor] = field(default_factory=list)
    """What each head of each layer looks at, [h, t, t] float32; of a layer that is off: zeros."""
    experts: list[tuple[Tensor, Tensor] | None] = field(default_factory=list)
    """Of each layer with experts: the chosen ones' numbers and weights, [t, k]."""


@torch.inference_mode()
def watch(model: Decoder, ids: Sequence[int], without: Without | None = None) -> Seen:
    """Reads token ids as one document, in evaluation.

    Raises:
        MiaoError: see `Without.check`.
    """
    without = without or Without()
    without.check(model, len(ids))
    backbone, seen = model.model, Seen()
    silent: dict[int, set[int]] = {}
    for layer, head in without.heads:
        silent.setdefault(layer, set()).add(head)
    watched = WatchedAttention(sorted(set(without.tokens)), silent)
    positions_bt = torch.arange(len(ids), device=model.device)[None]
    x_btd = backbone.embed_tokens(torch.tensor([[*ids]], device=model.device))
    x_btd = x_btd.to(model.compute_dtype)
    rope = backbone.rotary(positions_bt, model.compute_dtype)
    context = Context(rope, watched, positions_bt, None, None)
    for watched.layer, block in enumerate(backbone.layers):
        assert isinstance(block, Block)
        chosen = None
        if watched.layer not in without.layers:
            x_btd = x_btd + block.self_attn(block.input_layernorm(x_btd), context)
            normed = block.post_attention_layernorm(x_btd)
            if isinstance(block.mlp, MoE):
                _, weights_nk, numbers_nk = block.mlp.gate(normed.flatten(0, 1))
                chosen = numbers_nk, weights_nk
                x_btd = x_btd + block.mlp(normed, None)[0]
            else:
                x_btd = x_btd + block.mlp(normed)
        nothing = torch.zeros(model.config.num_attention_heads, len(ids), len(ids))
        seen.attention_lhts.append(watched.weights.get(watched.layer, nothing))
        seen.stream_ltd.append(x_btd[0])
        seen.experts.append(chosen)
    return seen


@torch.inference_mode()
def lens(model: Decoder, seen: Seen) -> Iterator[Tensor]:
    """Log-probabilities [t, tokens] that norm and head make of the stream behind each layer, one
    layer after the other (all at once would be large); the last are the model's own."""
    for x_td in seen.stream_ltd:
        yield model.token_logits(model.model.norm(x_td[None]))[0].float().log_softmax(dim=-1)
