"""A decoder's pass in one call of compiled code (`native.c`), for CPUs.

PyTorch takes longer to launch the two hundred operations of a small model's token than a processor
needs to compute them. The C file computes them all in one call; its plain twin is `PackedDecoder`.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from ctypes import POINTER, c_float, c_int, c_int64, c_size_t, c_void_p

import torch
from torch import Tensor, nn

from miao.engine.compiled import load_library
from miao.engine.packed import WeightType, give_up, whole_rows
from miao.engine.runner import Piece, Runner
from miao.model.attention import Attention
from miao.model.cache import KVCache
from miao.model.decoder import Block, Decoder
from miao.model.feedforward import MLP
from miao.model.layers import Linear, RMSNorm

KINDS: dict[WeightType, int] = {"fp32": 0, "bf16": 1, "int8": 2}
HUGE_PAGE, USE_HUGE_PAGES = 2**21, 14
"""Bytes, and what Linux's `madvise` calls MADV_HUGEPAGE."""
LINE = 64
"""Bytes of a line of a processor's cache."""


class _Matrix(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("weight", "scale", "bias")),
        *((name, c_int64) for name in ("outputs", "inputs")),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("input_norm", "post_norm", "q_norm", "k_norm")),
        *((name, _Matrix) for name in ("q", "k", "v", "o", "gate", "up", "down")),
    )


_SIZES = ("kind", "hidden", "layers", "heads", "key_heads", "head_dim", "inner", "vocab")


class _Model(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in _SIZES),
        ("eps", c_float),
        *((name, c_void_p) for name in ("norm", "cos", "sin")),
        *((name, _Matrix) for name in ("embedding", "head")),
        ("layer", POINTER(_Layer)),
    )


class _Cache(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("keys", "values")),
        *((name, c_int64) for name in ("slots", "length")),
    )


class _Arena:
    """Memory for all weights of a model together, in huge pages where the system gives them. With
    the usual pages of 4 KiB, a fourth of the time goes to finding out where they are.

    Args:
        tensors: shapes that it must have room for. size: bytes of each of their numbers.
    """

    def __init__(self, tensors: Sequence[Tensor], size: int):
        bytes_in_all = sum(_lines(tensor.numel() * size) for tensor in tensors)
        self._memory = torch.empty(bytes_in_all + HUGE_PAGE, dtype=torch.uint8)
        begin = self._memory.data_ptr()
        self._free = -begin % HUGE_PAGE
        if sys.platform == "linux":
            advise = ctypes.CDLL(None).madvise
            advise.argtypes = [c_void_p, c_size_t, c_int]
            advise(begin + self._free, bytes_in_all, USE_HUGE_PAGES)

    def copy(self, tensor: Tensor) -> Tensor:
        """The same numbers at a place here."""
        size = tensor.numel() * tensor.element_size()
        place = self._memory[self._free : self._free + size]
        self._free += _lines(size)
        return place.view(tensor.dtype).view(tensor.shape).copy_(tensor)


def _lines(size: int) -> int:
    return -(-size // LINE) * LINE


class NativeDecoder:
    """A `Decoder` read by compiled code. fp32 weights are the decoder's own, in place: no copy,
    and changes of them count at once. bf16 and int8 are copies, which follow nothing.

    Activations are float32 whatever the weights are; beside int8 weights they are rounded to 14
    bits of the largest of their row.

    Args:
        decoder: one that is not `unsupported`.
        consume: the decoder is needed for nothing else: its fp32 matrices move to where they are
            read faster; with bf16 and int8 it gives them up.
    """

    def __init__(self, decoder: Decoder, weights: WeightType = "fp32", consume: bool = False):
        assert unsupported(decoder) is None
        self.config, self.device, self.weights = decoder.config, decoder.device, weights
        self.compute_dtype = torch.float32
        library = load_library()
        assert library is not None
        self._library = library
        self._kept: list[Tensor] = []
        """Whatever the C structures point at."""
        self._arena = self._make_arena(decoder, consume)
        self._watched: list[tuple[Tensor, int]] = []
        backbone, c = decoder.model, decoder.config
        self._layers = (_Layer * c.num_hidden_layers)()
        for place, block in enumerate(backbone.layers):
            assert isinstance(block, Block)
            self._layers[place] = self._layer(block)
            if consume and weights != "fp32":
                give_up(block)
        head = self._matrix(decoder.lm_head)
        table = backbone.embed_tokens.weight
        embedding = _Matrix(None, None, None, *table.shape)
        if weights != "int8":
            embedding.weight = self._watch(table)
        elif table is decoder.lm_head.weight:
            embedding = head
        else:
            numbers, scale_v = whole_rows(table.detach())
            embedding.weight, embedding.scale = self._keep(numbers), self._keep(scale_v)
        sizes = (c.hidden_size, c.num_hidden_layers, c.num_attention_heads, c.num_key_value_heads)
        self._model = _Model(
            KINDS[weights],
            *(*sizes, c.head_dim, c.intermediate_size, c.vocab_size, c.rms_norm_eps),
            *(self._watch(backbone.norm.weight), None, None, embedding, head, self._layers),
        )
        self._rotary = backbone.rotary
        self._angles: tuple[Tensor, ...] = (torch.empty(0),)
        self._memory = torch.empty(0)

    @property
    def is_current(self) -> bool:
        """Whether the decoder's weights still stand where they were found."""
        return all(parameter.data_ptr() == place for parameter, place in self._watched)

    def eval(self) -> NativeDecoder:
        """It always is what `eval` makes of a decoder."""
        return self

    def read(
        self,
        cache: KVCache,
        ids: Sequence[int],
        positions: Sequence[int],
        rows: Sequence[int],
        wanted: Sequence[int],
        hidden: bool = False,
    ) -> Tensor:
        """Reads tokens into the cache.

        Args:
            ids, positions, rows: of each token. wanted: places among them.
            hidden: the states behind the final norm [count, d] instead of logits.

        Returns:
            Of the wanted tokens: logits [count, tokens].
        """
        if len(self._angles[0]) < cache.length:
            self._turn_up_to(cache.length)
        threads, count, tokens = torch.get_num_threads(), len(wanted), len(ids)
        size = self._library.miao_work_size(
            ctypes.byref(self._model), max(tokens, count), cache.length, threads
        )
        if self._memory.numel() < size:
            self._memory = torch.empty(size)
        result = torch.empty(count, self.config.hidden_size if hidden else self.config.vocab_size)
        keys, values = cache.flat
        place = _Cache(keys.data_ptr(), values.data_ptr(), keys.shape[1], cache.length)
        failed = self._library.miao_read(
            ctypes.byref(self._model),
            ctypes.byref(place),
            tokens,
            *((c_int64 * tokens)(*numbers) for numbers in (ids, positions, rows)),
            count,
            (c_int64 * count)(*wanted),
            result.data_ptr() if hidden else None,
            None if hidden else result.data_ptr(),
            self._memory.data_ptr(),
            threads,
        )
        assert not failed, "a token, position or row out of range"
        return result if hidden else result[:, : self.config.tokens]

    def _make_arena(self, decoder: Decoder, consume: bool) -> _Arena | None:
        if self.weights != "fp32":
            matrices = [m.weight for m in decoder.modules() if isinstance(m, nn.Linear)]
            return _Arena(matrices, 2 if self.weights == "bf16" else 1)
        if not consume:
            return None
        matrices = [parameter for parameter in decoder.parameters() if parameter.ndim == 2]
        arena = _Arena(matrices, 4)
        for parameter in matrices:
            parameter.data = arena.copy(parameter.data)
        return arena

    def _turn_up_to(self, length: int) -> None:
        """Makes the table of the angles of every position below `length`."""
        turned = self._rotary(torch.arange(length)[None], torch.float32)
        self._angles = tuple(angles[0, :, 0].contiguous() for angles in turned)
        self._model.cos, self._model.sin = (angles.data_ptr() for angles in self._angles)

    def _layer(self, block: Block) -> _Layer:
        attention, mlp = block.self_attn, block.mlp
        assert isinstance(attention, Attention) and isinstance(mlp, MLP)
        norms = (block.input_layernorm, block.post_attention_layernorm)
        head_norms = (attention.q_norm, attention.k_norm)
        return _Layer(
            *(self._watch(norm.weight) for norm in norms),
            *(None if norm is None else self._watch(norm.weight) for norm in head_norms),
            *map(self._matrix, (attention.q_proj, attention.k_proj, attention.v_proj)),
            *map(self._matrix, (attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj)),
        )

    def _matrix(self, module: nn.Linear) -> _Matrix:
        weight, scale = module.weight.detach(), None
        bias = None if module.bias is None else self._watch(module.bias)
        if self.weights == "fp32":
            place = self._watch(module.weight)
        else:
            assert self._arena is not None
            if self.weights == "bf16":
                numbers = _paired(weight.to(torch.bfloat16))
            else:
                numbers, scale_o = whole_rows(weight)
                scale = self._keep(scale_o)
            place = self._keep(self._arena.copy(numbers))
        return _Matrix(place, scale, bias, *weight.shape)

    def _watch(self, parameter: Tensor) -> int:
        self._watched.append((parameter, parameter.data_ptr()))
        return self._keep(parameter.detach())

    def _keep(self, tensor: Tensor) -> int:
        assert tensor.is_contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()


def _paired(weight_oi: Tensor) -> Tensor:
    """bf16 numbers in the order in which `half_tile` reads them."""
    outputs, inputs = weight_oi.shape
    whole = inputs // 16 * 16
    pairs = weight_oi[:, :whole].view(outputs, -1, 2, 8).transpose(2, 3).reshape(outputs, whole)
    return torch.cat([pairs, weight_oi[:, whole:]], dim=1)


class NativeRunner(Runner):
    """A `Runner` without padding: what a token gets does not depend, to the bit, on what is read
    with it."""

    def __init__(self, model: NativeDecoder, rows: int, length: int):
        self.model = self._native = model
        self.cache = KVCache(model.config, rows, length, model.compute_dtype, model.device)

    @property
    def is_current(self) -> bool:
        return self._native.is_current

    @torch.inference_mode()
    def __call__(self, pieces: Sequence[Piece]) -> Tensor:
        ids: list[int] = []
        positions: list[int] = []
        rows: list[int] = []
        wanted: list[int] = []
        for piece in pieces:
            wanted += (len(ids) + place for place in piece.wanted)
            ids += piece.tokens
            positions += range(piece.start, piece.start + len(piece.tokens))
            rows += [piece.row] * len(piece.tokens)
        return self._native.read(self.cache, ids, positions, rows, wanted)

    def _hidden(self, cache: KVCache, ids: Sequence[int], start: int) -> Tensor:
        wanted, positions = range(len(ids)), range(start, start + len(ids))
        return self._native.read(cache, ids, positions, [0] * len(ids), wanted, hidden=True)


def unsupported(model: Decoder) -> str | None:
    """Why a decoder cannot be read by compiled code; None: it can."""
    if model.device.type != "cpu":
        return "it is not on a CPU"
    if model.compute_dtype != torch.float32:
        return "it computes in another type than float32"
    if (model.config.rope_scaling or {}).get("rope_type") == "dynamic":
        return "its angles depend on how much is read at once"
    for block in model.model.layers:
        if type(block) is not Block or type(block.self_attn) is not Attention:
            return "its attention is of another kind"
        if type(block.mlp) is not MLP:
            return "it has experts"
    for module in model.modules():
        if list(module.children()) or not list(module.parameters(recurse=False)):
            continue
        if type(module) not in (Linear, RMSNorm, nn.Embedding):
            return f"it holds a {type(module).__name__}"
    for parameter in model.parameters():
        plain = type(parameter) is nn.Parameter and parameter.is_contiguous()
        if not plain or parameter.dtype != torch.float32:
            return "its weights are not plain float32"
    return None
