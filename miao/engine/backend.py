"""How a model is read fastest where it is: by compiled code, CUDA graphs, or plain operations."""

from __future__ import annotations

from miao.device import give_back_freed_memory
from miao.engine.compiled import load_library
from miao.engine.graphs import GraphRunner
from miao.engine.native import NativeDecoder, NativeRunner, unsupported
from miao.engine.packed import PackedDecoder, WeightType
from miao.engine.runner import Runner
from miao.model.decoder import Decoder


def pack(
    decoder: Decoder, weights: WeightType = "fp32", consume: bool = False
) -> PackedDecoder | NativeDecoder:
    """A decoder's weights in the type and the order in which they are read fastest.

    Args:
        consume: leave no second copy of the weights in memory; the decoder is of no use then.

    Raises:
        MiaoError: see `Int8Linear`.
    """
    compiled = unsupported(decoder) is None and load_library() is not None
    packed = (NativeDecoder if compiled else PackedDecoder)(decoder, weights, consume)
    if consume:
        give_back_freed_memory()
    return packed


def make_runner(model: Decoder | PackedDecoder | NativeDecoder, rows: int, length: int) -> Runner:
    """The fastest runner for a model. That of a `Decoder` reads its weights as they are at the
    time, as long as it `is_current`.

    Args:
        rows: sequences at the same time. length: positions of each.
    """
    if isinstance(model, Decoder) and unsupported(model) is None and load_library() is not None:
        model = NativeDecoder(model)
    if isinstance(model, NativeDecoder):
        return NativeRunner(model, rows, length)
    return (GraphRunner if model.device.type == "cuda" else Runner)(model, rows, length)
