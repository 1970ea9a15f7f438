"""Merges a PEFT adapter (LoRA, rsLoRA, DoRA) into the weights that it was trained on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from miao.errors import MiaoError, install_hint
from miao.export.parity.compare import TOLERANCE, Finding
from miao.export.parity.in_transformers import quiet
from miao.files import read_json, write_json
from miao.hubs.files import is_model_file
from miao.model.directory import INDEX, read_safetensors

CONFIG, ADAPTER = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_TEXT = list(range(3, 90))


def merge_adapter(base: Path, adapter: Path, target: Path) -> Finding:
    """Writes a model directory: `base` with the adapter's changes in its weights, in float32.

    Returns:
        how far the merged model's logits are from those of the model with the adapter beside it.

    Raises:
        MiaoError: transformers or peft is missing; not a PEFT adapter; one that was trained on
            another shape; one that cannot be merged.
    """
    require_adapter(adapter)
    peft, transformers = _libraries()
    import torch

    with quiet():
        model = transformers.AutoModelForCausalLM.from_pretrained(
            base, dtype=torch.float32, local_files_only=True
        ).eval()
        _check_shapes(model, adapter)
        try:
            with_adapter = peft.PeftModel.from_pretrained(model, adapter).eval()
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise _refusal(adapter, error) from error
        _check_loaded(peft, with_adapter, adapter)
        ids_bt = torch.tensor([_TEXT]) % model.config.vocab_size
        with torch.inference_mode():
            truth = with_adapter(ids_bt).logits
        try:
            merged = with_adapter.merge_and_unload(safe_merge=True)
        except (RuntimeError, ValueError, NotImplementedError) as error:
            raise _refusal(adapter, error) from error
        with torch.inference_mode():
            difference = float((merged(ids_bt).logits - truth).abs().max())
        merged.save_pretrained(target)
    _copy_beside_weights(base, target)
    largest = max(1.0, float(truth.abs().max()))
    measured = f"logits differ by at most {difference:.1e} (largest {largest:.1f})"
    return Finding("merged adapter", measured, difference <= TOLERANCE * largest)


def require_adapter(directory: Path) -> None:
    """Raises:
    MiaoError: `directory` holds no PEFT adapter that can be read and merged.
    """
    lacking = [name for name in (CONFIG, ADAPTER) if not (directory / name).is_file()]
    if lacking:
        pickled = (directory / "adapter_model.bin").is_file()
        why = "its weights are a pickle, which Miao never reads" if pickled else "it has no "
        raise MiaoError(
            "not a PEFT adapter: " + (why if pickled else why + " and no ".join(lacking)),
            where=directory,
            fix=f"name the directory that holds {CONFIG} and {ADAPTER}",
        )
    config = read_json(directory / CONFIG)
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise MiaoError(
            f"an adapter of type {kind} cannot be merged into the weights",
            where=directory / CONFIG,
            fix="LoRA, rsLoRA and DoRA can",
        )


def adapter_base(directory: Path) -> str | None:
    """The model that an adapter says it was trained on."""
    return read_json(directory / CONFIG).get("base_model_name_or_path")


def _libraries() -> tuple[Any, Any]:
    try:
        import peft
        import transformers
    except ImportError as error:
        raise MiaoError(
            f"merging an adapter needs the '{error.name}' package", fix=install_hint("hf")
        ) from error
    return peft, transformers


def _check_shapes(model: Any, adapter: Path) -> None:
    """Compares the adapter's matrices with those that they change, before anything is loaded."""
    weights = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    problems = []
    for name, value in read_safetensors(adapter / ADAPTER).items():
        module, _, part = name.removeprefix(_PREFIX).partition(".lora_")
        if part not in ("A.weight", "B.weight"):
            continue
        shape = weights.get(f"{module}.weight")
        if shape is None and any(name.startswith(f"{_experts(module)}.") for name in weights):
            continue  # the joined matrices of experts, which peft compares itself
        if shape is None:
            problems.append(f"{module}: not in this model")
        elif part == "A.weight" and value.shape[1] != shape[1]:
            problems.append(f"{module}: made for {value.shape[1]} inputs, not {shape[1]}")
        elif part == "B.weight" and value.shape[0] != shape[0]:
            problems.append(f"{module}: made for {value.shape[0]} outputs, not {shape[0]}")
    if problems:
        shown = "\n".join(f"  - {line}" for line in problems[:6])
        more = f"\n  ... and {len(problems) - 6} more" if len(problems) > 6 else ""
        base = adapter_base(adapter)
        raise MiaoError(
            f"the adapter was trained on another model:\n{shown}{more}",
            where=adapter,
            fix="name the model that it was trained on" + (f": {base}" if base else ""),
        )


def _experts(module: str) -> str:
    return module.removesuffix(".base_layer")


def _check_loaded(peft: Any, model: Any, adapter: Path) -> None:
    """peft only warns of matrices that a file lacks or has too many; here they must all be in."""
    import torch

    wanted = read_safetensors(adapter / ADAPTER)
    found = peft.get_peft_model_state_dict(model)
    names = sorted(wanted.keys() ^ found.keys())
    names += [
        name
        for name in wanted.keys() & found.keys()
        if not torch.equal(wanted[name].float(), found[name].float().cpu())
    ]
    if names:
        raise MiaoError(
            f"the adapter's weights and its configuration do not fit: {names[0]}"
            + (f" and {len(names) - 1} more" if len(names) > 1 else ""),
            where=adapter,
            fix="merge it with the version of peft that wrote it, or train it again",
        )


def _refusal(adapter: Path, error: Exception) -> MiaoError:
    return MiaoError(f"the adapter cannot be merged: {error}", where=adapter)


def _copy_beside_weights(base: Path, target: Path) -> None:
    """Everything of the base model but its weights, over what transformers has written."""
    for file in base.iterdir():
        if is_model_file(file.name) and file.suffix != ".safetensors" and file.name != INDEX:
            shutil.copy(file, target / file.name)
    config = read_json(target / "config.json")
    config["torch_dtype"] = config["dtype"] = "float32"
    write_json(target / "config.json", config)
