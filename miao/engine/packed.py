"""A decoder's weights arranged for generation: fewer, larger matrix products, smaller numbers.

The plain twin is `Decoder.forward` with a cache. Here query, key and value come from one product,
gate and up projection from another, and weights are kept in the type that they are multiplied in.
For GPUs, for latent attention and experts, and for CPUs where `native.c` cannot be compiled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from miao.errors import MiaoError, first_line
from miao.model.attention import Attention, Context
from miao.model.cache import KVCache
from miao.model.decoder import Block, Decoder
from miao.model.feedforward import MLP
from miao.model.layers import RMSNorm
from miao.ops.attention import attention, cache_mask
from miao.ops.head_chunks import head_operand
from miao.ops.norm import rms_norm_reference

STEPS, ZERO, FINER = 63, 64, 126
"""Activations are -63 to 63 steps around the kernel's zero; half a step, the most that rounding
leaves, is 63 fine steps."""
WeightType = Literal["fp32", "bf16", "int8"]
Product = Callable[[Tensor], Tensor]
"""x [n, in] -> [n, out]."""


class PackedDecoder:
    """Reads tokens as a `Decoder` with a cache does; cannot be trained, and follows later changes
    of the decoder's weights only when it is told to (`follow`).

    Blocks that are not made of grouped-query attention and a dense feed-forward keep those parts
    as they are (latent attention, experts).

    Args:
        decoder: its matrices are given up, where `consume` says so, as they are packed.
        weights: fp32; bf16 (activations too); or int8 (CPU): see `Int8Linear`.
        consume: leave no second copy of the weights in memory; the decoder is of no use then.
    """

    def __init__(self, decoder: Decoder, weights: WeightType = "fp32", consume: bool = False):
        self.config, self.device, self.weights = decoder.config, decoder.device, weights
        self.compute_dtype = torch.bfloat16 if weights == "bf16" else torch.float32
        decoder.set_compute_dtype(self.compute_dtype)
        backbone = decoder.model
        self._rotary = backbone.rotary
        self._embedding = backbone.embed_tokens.weight.detach().to(self.compute_dtype)
        self._scale_v1: Tensor | None = None
        if weights == "int8":
            # One table for what goes in and what comes out, as in a page and in GGUF.
            self._embedding, scale_v = whole_rows(self._embedding)
            self._scale_v1 = scale_v[:, None]
        head = head_operand(decoder.lm_head.weight.detach(), self.compute_dtype)
        self._copies = [(self._embedding, [backbone.embed_tokens.weight])]
        self._head = _product([head], [None], weights, self.compute_dtype, self._copies)
        if weights != "int8":
            self._copies[-1] = self._copies[-1][0], [decoder.lm_head.weight]
        self._norm = backbone.norm
        self._layers: list[_Layer] = []
        for block in backbone.layers:
            assert isinstance(block, Block)
            self._layers.append(_Layer(block, weights, self.compute_dtype))
            self._copies += self._layers[-1].copies
            if consume:
                give_up(block)

    @torch.no_grad()
    def follow(self) -> None:
        """Takes the weights that the decoder has now, at the places of the old ones: what was
        recorded with them (CUDA graphs) stays right. Not for int8, nor after `consume`."""
        assert self.weights != "int8"
        for packed, sources in self._copies:
            torch._foreach_copy_(
                list(packed[: sum(map(len, sources))].split([len(m) for m in sources])), sources
            )

    def eval(self) -> PackedDecoder:
        """It always is what `eval` makes of a decoder."""
        return self

    def token_logits(self, hidden_nd: Tensor) -> Tensor:
        """Logits [n, tokens]."""
        return self._head(hidden_nd)[..., : self.config.tokens]

    def __call__(
        self, ids_bt: Tensor, positions_bt: Tensor, *, cache: KVCache, output: str = "hidden"
    ) -> Tensor:
        """Hidden states [b, t, d] behind the final norm."""
        assert output == "hidden"
        batch, width = ids_bt.shape
        x_nd = F.embedding(ids_bt.flatten(), self._embedding)
        if self._scale_v1 is not None:
            x_nd = x_nd * F.embedding(ids_bt.flatten(), self._scale_v1)
        mask: Tensor | None = None
        if batch > 1 or width > 1 or self.config.is_latent:
            mask = cache_mask(positions_bt, cache.visible, self.compute_dtype)
        rope = self._rotary(positions_bt, self.compute_dtype)
        context = Context(rope, mask, positions_bt, cache, None)
        turn = _Rotation(*rope)
        for layer in self._layers:
            x_nd = layer(x_nd, context, turn, batch)
        return _normed(x_nd, self._norm).view(batch, width, -1)


class _Rotation:
    """cos and sin [b, t, 1, head_dim] with the signs in sin, so that a rotation is two products."""

    def __init__(self, cos: Tensor, sin: Tensor):
        self.cos, self.sin = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
        self.half = cos.shape[-1]

    def __call__(self, x_bthd: Tensor) -> Tensor:
        return (x_bthd * self.cos).addcmul_(x_bthd.roll(self.half, -1), self.sin)


class _Layer:
    def __init__(self, block: Block, weights: WeightType, dtype: torch.dtype):
        self._first_norm, self._second_norm = block.input_layernorm, block.post_attention_layernorm
        self._attention = block.self_attn
        self._mlp = block.mlp
        self.copies: list[tuple[Tensor, list[Tensor]]] = []
        """What is packed, and the decoder's own numbers in it."""
        self._qkv: Product | None = None
        self._gate_up: Product | None = None
        if isinstance(block.self_attn, Attention):
            self._pack_attention(block.self_attn, weights, dtype)
        if isinstance(block.mlp, MLP):
            mlp = block.mlp
            pair = [mlp.gate_proj.weight, mlp.up_proj.weight]
            self._gate_up = _product(pair, [None, None], weights, dtype, self.copies)
            self._down = _product([mlp.down_proj.weight], [None], weights, dtype, self.copies)

    def _pack_attention(self, part: Attention, weights: WeightType, dtype: torch.dtype) -> None:
        projections = (part.q_proj, part.k_proj, part.v_proj)
        self._layer, self._head_dim = part.layer, part.head_dim
        self._key_heads = part.k_proj.out_features // part.head_dim
        self._query_heads = part.q_proj.out_features // part.head_dim
        self._qkv = _product(
            [p.weight for p in projections],
            [p.bias for p in projections],
            weights,
            dtype,
            self.copies,
        )
        self._out = _product([part.o_proj.weight], [None], weights, dtype, self.copies)
        self._head_norm: Tensor | None = None
        if part.q_norm is not None and part.k_norm is not None:
            norms = [part.q_norm.weight.detach()] * self._query_heads
            norms += [part.k_norm.weight.detach()] * self._key_heads
            self._head_norm = torch.stack(norms).to(dtype)
            self.copies.append((self._head_norm, [norm[None] for norm in norms]))
            self._eps = part.q_norm.eps

    def __call__(self, x_nd: Tensor, context: Context, turn: _Rotation, batch: int) -> Tensor:
        normed = _normed(x_nd, self._first_norm)
        if self._qkv is None:
            normed_btd = normed.view(batch, -1, normed.shape[-1])
            x_nd = x_nd + self._attention(normed_btd, context).flatten(0, 1)
        else:
            x_nd = x_nd + self._out(self._attend(self._qkv(normed), context, turn, batch))
        normed = _normed(x_nd, self._second_norm)
        if self._gate_up is None:
            normed_btd = normed.view(batch, -1, normed.shape[-1])
            return x_nd + self._mlp(normed_btd, None)[0].flatten(0, 1)
        gate, up = self._gate_up(normed).chunk(2, dim=-1)
        return x_nd + self._down(F.silu(gate).mul_(up))

    def _attend(self, qkv_nd: Tensor, context: Context, turn: _Rotation, batch: int) -> Tensor:
        qkv_bthd = qkv_nd.view(batch, -1, self._query_heads + 2 * self._key_heads, self._head_dim)
        turned, value = qkv_bthd.split((self._query_heads + self._key_heads, self._key_heads), 2)
        if self._head_norm is not None:
            turned = F.rms_norm(turned, (self._head_dim,), None, self._eps) * self._head_norm
        query, key = turn(turned).split((self._query_heads, self._key_heads), dim=2)
        assert context.cache is not None
        key, value = context.cache.update(self._layer, key, value, context.positions_bt)
        if query.shape[1] > 1:
            return attention(query, key, value, context.mask).flatten(0, 1)
        # One query per row: the heads that share a key are the queries of one matrix product.
        assert context.mask is None or isinstance(context.mask, Tensor)
        query_bkgd = query[:, 0].unflatten(1, (self._key_heads, -1))
        seen_bkgd = F.scaled_dot_product_attention(
            query_bkgd, key.transpose(1, 2), value.transpose(1, 2), attn_mask=context.mask
        )
        return seen_bkgd.flatten(1)


def _normed(x_nd: Tensor, norm: RMSNorm) -> Tensor:
    # The norm that training uses has a gradient of its own, which takes longer to set up than one
    # token takes to normalise.
    return rms_norm_reference(x_nd, norm.weight, norm.eps)


def _product(
    matrices: list[Tensor],
    biases: list[Tensor | None],
    weights: WeightType,
    dtype: torch.dtype,
    copies: list[tuple[Tensor, list[Tensor]]] | None = None,
) -> Product:
    """The product with several matrices stacked on each other; `copies` notes what is copied."""
    parts = [matrix.detach().float() for matrix in matrices]
    weight = torch.cat(parts) if len(parts) > 1 else parts[0]
    bias: Tensor | None = None
    if biases[0] is not None:
        own = [part.detach() for part in biases if part is not None]
        bias = torch.cat(own).to(dtype)
        if copies is not None:
            copies.append((bias, own))
    if weights == "int8":
        return Int8Linear(weight, bias)
    weight = weight.to(dtype)
    if copies is not None:
        copies.append((weight, [matrix.detach() for matrix in matrices]))
    return lambda x_nd: F.linear(x_nd, weight, bias)


def whole_rows(weight_oi: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix, or several [e, o, i], as int8 numbers and the size of a row's step [o], absmax."""
    scale_o = weight_oi.abs().amax(dim=-1).clamp(min=1e-12) / 127
    return (weight_oi / scale_o[..., None]).round().to(torch.int8), scale_o


class Int8Linear:
    """y = x·Wᵀ + b with W rounded to int8, one scale per output (absmax).

    The kernel (FBGEMM) multiplies 7-bit activations, which is too coarse for some: x is given to
    it as the sum of a coarse and a fine part, two rows of one product, which costs little while
    reading W takes the time. Scales are per row and sums are exact integers, so that a row's result
    does not depend on what stands beside it.

    Args:
        weight_oi: float32.

    Raises:
        MiaoError: this machine or this PyTorch has no such kernel.
    """

    def __init__(self, weight_oi: Tensor, bias_o: Tensor | None = None):
        self._bias_o = bias_o
        _, scale_o = whole_rows(weight_oi)
        zero_o = torch.zeros(len(scale_o), dtype=torch.int64)
        try:
            # PyTorch means to give up these tensors in favour of torchao's.
            with torch.inference_mode(False), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                quantized = torch.quantize_per_channel(weight_oi, scale_o, zero_o, 0, torch.qint8)
                self._packed = torch.ops.quantized.linear_prepack(quantized, None)
            self._multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
            self._multiply(torch.zeros(1, weight_oi.shape[1]), 1.0, ZERO, self._packed)
        except (RuntimeError, AttributeError, NotImplementedError) as error:
            raise MiaoError(
                f"int8 weights cannot be multiplied here: {first_line(error)}",
                fix="use --weights fp32 or bf16",
            ) from error

    def __call__(self, x_ni: Tensor) -> Tensor:
        largest_n = torch.linalg.vector_norm(x_ni, float("inf"), dim=-1, keepdim=True)
        factor_n = STEPS / largest_n.clamp_(min=1e-12)
        steps_ni = x_ni * factor_n
        parts_pni = torch.empty(2, *x_ni.shape)
        coarse_ni, fine_ni = parts_pni.unbind()
        torch.round(steps_ni, out=coarse_ni)
        torch.sub(steps_ni, coarse_ni, out=fine_ni).mul_(FINER)
        products = self._multiply(parts_pni.view(-1, x_ni.shape[-1]), 1.0, ZERO, self._packed)
        coarse_no, fine_no = products.chunk(2)
        y_no = coarse_no.add_(fine_no, alpha=1 / FINER).div_(factor_n)
        return y_no if self._bias_o is None else y_no + self._bias_o


def give_up(block: Block) -> None:
    """Frees the matrices that were packed."""
    parts: list[torch.nn.Module] = []
    if isinstance(block.self_attn, Attention):
        parts.append(block.self_attn)
    if isinstance(block.mlp, MLP):
        parts.append(block.mlp)
    for part in parts:
        for name, module in part.named_children():
            if name.endswith("_proj"):
                module.weight = torch.nn.Parameter(torch.empty(0), requires_grad=False)
