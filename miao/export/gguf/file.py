"""Writes a model as one GGUF file, for llama.cpp, Ollama, LM Studio and their kin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BufferedWriter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np

from miao.errors import MiaoError, install_hint
from miao.export.gguf.names import Architecture, Shape, TensorPlan, describe
from miao.export.gguf.tokenizer import tokenizer_settings
from miao.files import atomic_open, read_json
from miao.hubs.files import weights_files
from miao.model.directory import open_safetensors

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter

FileType = Literal["f32", "f16", "q8_0", "q4_0"]
BLOCK = 32
"""Neighbouring weights that share one scale in q8_0 and q4_0; a row holds whole blocks."""
CHUNK = 1 << 22
"""Weights that are in memory at a time (and a few copies of them)."""
_LARGEST_F16 = 65504.0
_EMBEDDINGS = ("token_embd.weight", "output.weight")
_STORED = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class GGUFFacts:
    """What was written. `types` counts tensors by their type; `fallbacks` are those that kept
    F16 because their rows are no whole number of blocks; `notes` are for the user to read."""

    path: Path
    architecture: str
    file_type: FileType
    parameters: int
    size_bytes: int
    types: dict[str, int]
    fallbacks: list[str]
    notes: list[str] = field(default_factory=list)


def write_gguf(
    model_directory: Path,
    target: Path,
    file_type: FileType = "q8_0",
    advance: Callable[[int], None] = lambda parameters: None,
    *,
    name: str | None = None,
) -> GGUFFacts:
    """Writes a Hugging Face model directory as one GGUF file, whole or not at all.

    Norms, biases and routers stay float32. q4_0 keeps the embedding and the head at q8_0: in a
    model of 2.4M weights that took a third to two fifths off what q4_0 costs in held-out loss
    (0.034 -> 0.023 and 0.021 -> 0.012 nats), for 1.7 instead of 1.3 MB. A tensor whose rows are
    no multiple of 32 falls back to f16. Only some `CHUNK` weights are in memory at a time.

    Args:
        model_directory: config.json, weights, tokenizer, as `miao` or transformers write them.
        target: the file to write; its directory is made.
        advance: called with the number of weights just written (see `count_parameters`).
        name: what programs call the model (default: the model card's, or the directory's name).

    Raises:
        MiaoError: the `gguf` package is missing; llama.cpp cannot represent the model or its
            tokenizer; weights are missing, damaged or not finite; the disk is full.
    """
    _require_package()
    from gguf import GGUFWriter
    from gguf.gguf_writer import WriterState

    if file_type not in get_args(FileType):
        raise MiaoError(
            f"no file type '{file_type}'", fix="one of " + ", ".join(get_args(FileType))
        )
    model_directory, target = Path(model_directory), Path(target)
    where = model_directory / "config.json"
    config = read_json(where)
    if not isinstance(config, dict):
        raise MiaoError("a JSON object was expected here", where=where)
    weights = _Weights(model_directory)
    model = describe(config, weights.shapes, where)
    settings, notes = tokenizer_settings(model_directory, model.settings["vocab_size"])
    writer = GGUFWriter(None, model.name)
    general = _general(model_directory, model, file_type, name)
    for key, value in {**general, **settings}.items():
        getattr(writer, f"add_{key}")(value)
    types = {plan.name: _type_of(plan, file_type) for plan in model.tensors}
    for plan in model.tensors:
        _announce(writer, plan.name, plan.shape, types[plan.name])
    for constant, values in model.constants.items():
        types[constant] = _f32()
        _announce(writer, constant, values.shape, types[constant])
    with atomic_open(target, "wb") as file:
        writer.fout = [cast(BufferedWriter, file)]
        writer.state = WriterState.EMPTY
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.write_padding(file, file.tell())
        for plan in model.tensors:
            written = 0
            for block in _blocks(plan, weights):
                data = _encode(block, types[plan.name], plan.name, model_directory)
                data.tofile(file)
                written += data.nbytes
                advance(block.size)
            writer.write_padding(file, written)
        for values in model.constants.values():
            values.tofile(file)
            writer.write_padding(file, values.nbytes)
    fallbacks = [
        plan.name
        for plan in model.tensors
        if types[plan.name].name == "F16" and file_type in ("q8_0", "q4_0")
    ]
    return GGUFFacts(
        target,
        model.name,
        file_type,
        sum(_numel(plan.shape) for plan in model.tensors),
        target.stat().st_size,
        dict(Counter(kind.name for kind in types.values())),
        fallbacks,
        [*model.notes, *notes],
    )


def count_parameters(model_directory: Path) -> int:
    """Weights in the files of a directory, read from their headers: the total for `advance`."""
    return sum(_numel(shape) for shape in _Weights(Path(model_directory)).shapes.values())


def _require_package() -> None:
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise MiaoError(
            "writing GGUF needs the 'gguf' package", fix=install_hint("gguf")
        ) from error


class _Weights:
    """The tensors of a model directory, read a few rows at a time."""

    def __init__(self, directory: Path):
        self._files: dict[str, Any] = {}
        self.shapes: dict[str, Shape] = {}
        for path in (directory / name for name in weights_files(directory)):
            file = open_safetensors(path)
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_slice(name)
                if tensor.get_dtype() not in _STORED:
                    raise MiaoError(
                        f"{name} is stored as {tensor.get_dtype()}",
                        where=path,
                        fix="save the model in float32, float16 or bfloat16",
                    )
                self._files[name] = file
                self.shapes[name] = tuple(tensor.get_shape())

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows of a tensor as float32 [rows, columns]; a vector is one column."""
        values = self._files[name].get_slice(name)[start:stop].float().numpy()
        return values.reshape(stop - start, -1)


def _blocks(plan: TensorPlan, weights: _Weights) -> Iterator[np.ndarray]:
    """The rows of a tensor in the order of the GGUF, some `CHUNK` weights at a time."""
    height, width = plan.source_shape[0], _numel(plan.source_shape[1:])
    if not plan.sources:
        yield np.zeros((height, width), dtype=np.float32)
    group = height // plan.groups
    first, last = plan.take or (0, group)
    step = max(1, CHUNK // width)
    for source in plan.sources:
        if plan.groups == 1 and not plan.rotary and not plan.transposed and plan.repeat == 1:
            for start in range(first, last, step):
                yield weights.rows(source, start, min(start + step, last))
            continue
        for start in range(0, height, group):
            block = weights.rows(source, start + first, start + last)
            if plan.rotary:
                block = np.concatenate([block[: -plan.rotary], _paired(block[-plan.rotary :])])
            block = np.ascontiguousarray(block.T) if plan.transposed else block
            for _ in range(plan.repeat):
                yield block


def _paired(rows: np.ndarray) -> np.ndarray:
    """Rotary rows from Hugging Face's order (first halves, then second halves of the pairs) to
    neighbours: 0, n/2, 1, n/2 + 1, ..."""
    return rows.reshape(2, -1, rows.shape[1]).swapaxes(0, 1).reshape(rows.shape)


def _f32() -> GGMLQuantizationType:
    from gguf import GGMLQuantizationType

    return GGMLQuantizationType.F32


def _type_of(plan: TensorPlan, file_type: FileType) -> GGMLQuantizationType:
    from gguf import GGMLQuantizationType as Type

    if len(plan.shape) == 1 or plan.is_router:
        return Type.F32
    wanted = Type[file_type.upper()]
    if wanted in (Type.Q8_0, Type.Q4_0) and plan.shape[-1] % BLOCK:
        return Type.F16
    return Type.Q8_0 if wanted is Type.Q4_0 and plan.name in _EMBEDDINGS else wanted


def _announce(writer: GGUFWriter, name: str, shape: Shape, kind: GGMLQuantizationType) -> None:
    """Adds a tensor's name, shape and type to the header."""
    from gguf import GGML_QUANT_SIZES

    block, block_bytes = GGML_QUANT_SIZES[kind]
    nbytes = _numel(shape) // block * block_bytes
    writer.add_tensor_info(name, shape, np.dtype(np.float32), nbytes, raw_dtype=kind)


def _encode(
    block: np.ndarray, kind: GGMLQuantizationType, name: str, directory: Path
) -> np.ndarray:
    """Rows of float32 in the type of the file."""
    from gguf.quants import quantize

    largest = float(np.abs(block).max(initial=0))
    if not np.isfinite(largest):
        raise MiaoError(
            f"{name} holds values that are not finite",
            where=directory,
            fix="export an earlier checkpoint: this one is broken",
        )
    if kind.name == "F16" and largest > _LARGEST_F16:
        raise MiaoError(
            f"{name} holds {largest:g}, which f16 cannot", where=directory, fix="write f32"
        )
    return quantize(block, kind)


def _general(
    directory: Path, model: Architecture, file_type: FileType, name: str | None
) -> dict[str, Any]:
    """Settings of the model, its name and where it comes from."""
    import gguf

    from miao.export.card import card_metadata

    kinds = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0", "q4_0": "MOSTLY_Q4_0"}
    experts = sum(_numel(p.shape) for p in model.tensors if len(p.sources) > 1)
    shared = sum(_numel(p.shape) for p in model.tensors) - experts
    count = model.settings.get("expert_count", 0)
    card = card_metadata(directory)
    settings: dict[str, Any] = {
        "type": gguf.GGUFType.MODEL,
        "name": str(name or card.get("model_name") or directory.resolve().name),
        "size_label": gguf.size_label(shared + experts, shared, experts // (count or 1), count),
        "file_type": gguf.LlamaFileType[kinds[file_type]],
        "quantization_version": gguf.GGML_QUANT_VERSION,
    }
    for key in ("author", "license", "license_name", "license_link"):
        if isinstance(card.get(key), str):
            settings[key] = card[key]
    for key, theirs in (("language", "languages"), ("tags", "tags")):
        words = card.get(key)
        if words:
            settings[theirs] = [words] if isinstance(words, str) else [str(word) for word in words]
    return settings | model.settings


def _numel(shape: Shape) -> int:
    return int(np.prod(shape, dtype=np.int64))
