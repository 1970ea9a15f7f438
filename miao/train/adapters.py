"""Low-rank adapters (LoRA arXiv:2106.09685, rsLoRA 2312.03732, DoRA 2402.09353) by peft: the
model's own weights stay as they are, and small matrices beside its linear layers are trained."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from miao.console import count, say
from miao.errors import MiaoError, did_you_mean, install_hint
from miao.files import atomic_directory
from miao.model import Decoder
from miao.model.directory import write_safetensors
from miao.model.layers import Linear
from miao.model.token_rows import EMBEDDING, HEAD
from miao.recipe import StageOptions
from miao.recipe.grpo import GrpoOptions
from miao.recipe.stages import AdapterOptions, DpoOptions, SftOptions

ADAM_BYTES = 12
"""Per trained number: its gradient and AdamW's two means, float32."""
_PREFIX = "base_model.model."
_PLACES = {EMBEDDING: f"model.{EMBEDDING}", HEAD: HEAD}
_NAMES = {"lora": "LoRA", "rslora": "rsLoRA", "dora": "DoRA"}
Options = TypeVar("Options", bound=StageOptions)


def adapter_of(options: StageOptions) -> AdapterOptions | None:
    """The adapter that a stage trains; None: it trains all weights."""
    kinds = SftOptions | DpoOptions | GrpoOptions
    if isinstance(options, kinds) and options.adapter.kind != "none":
        return options.adapter
    return None


def with_adapter_settings(options: Options) -> Options:
    """The stage's options as they hold while an adapter is trained: AdamW for everything (Muon's
    orthogonal steps are meant for whole matrices, not for factors that start at zero), the base
    model's routing left alone, and no pass computed twice where dropout would differ."""
    if (adapter := adapter_of(options)) is None:
        return options
    options = replace(options, muon_learning_rate=0.0, router_bias_rate=0.0)
    return replace(options, activation_checkpointing="off") if adapter.dropout else options


def linear_layers(model: Decoder) -> list[str]:
    """Names (last part) of the linear layers inside the blocks: what can be adapted."""
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, Linear) and ".layers." in name
        }
    )


def adapter_size(model: Decoder, options: AdapterOptions) -> int:
    """How many numbers `add_adapter` would train; the model may be one on the meta device."""
    targets = options.targets or linear_layers(model)
    size = 0
    for name, module in model.named_modules():
        if isinstance(module, Linear) and ".layers." in name and name.split(".")[-1] in targets:
            wide = module.in_features + module.out_features
            size += options.rank * wide + (module.out_features if options.kind == "dora" else 0)
    return size + sum(table.numel() for table in _whole_tables(model, options).values())


def _whole_tables(model: Decoder, options: AdapterOptions) -> dict[str, torch.nn.Parameter]:
    """The matrices that are trained whole beside an adapter, a tied pair once."""
    named: list[str] = list(options.modules_to_save)
    if model.config.tie_word_embeddings and named:
        named = [EMBEDDING]
    return {name: model.get_parameter(f"{_PLACES[name]}.weight") for name in sorted(set(named))}


def check_targets(targets: list[str], known: list[str], where: str) -> None:
    """Raises `MiaoError` for a target that is none of the model's linear layers."""
    if unknown := sorted(set(targets) - set(known)):
        hint = did_you_mean(unknown[0], known)
        raise MiaoError(
            f"the model has no linear layer '{unknown[0]}'",
            where=where,
            fix=" ".join(filter(None, [hint, f"it has: {', '.join(known)}"])),
        )


def require_peft(where: str) -> None:
    """Raises `MiaoError` with the command that installs peft, where it is missing."""
    if importlib.util.find_spec("peft") is None:
        raise MiaoError("adapters need the 'peft' package", where=where, fix=install_hint("hf"))


def add_adapter(
    model: Decoder,
    options: AdapterOptions,
    base: Path,
    seed: int,
    quiet: bool = False,
    tokens: Sequence[int] = (),
) -> None:
    """Puts an adapter that changes nothing yet into the model, and freezes everything else.

    Args:
        base: where the model's weights came from; the adapter will name it.
        quiet: says nothing.
        tokens: ids whose rows of the embedding (and of an untied head) are trained as well.

    Raises:
        MiaoError: peft is missing, or a target that the model does not have.
    """
    peft = _peft()
    known = linear_layers(model)
    targets = options.targets or known
    check_targets(targets, known, "adapter.targets")
    whole = sum(parameter.numel() for parameter in model.parameters())
    config = peft.LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=list(targets),
        use_rslora=options.kind == "rslora",
        use_dora=options.kind == "dora",
        task_type="CAUSAL_LM",
        base_model_name_or_path=str(base.resolve()),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, model)
    tables = _whole_tables(model, options)
    if not model.config.tie_word_embeddings and len(tables) == 1 and tokens:
        raise MiaoError(
            f"the rows of {len(tokens)} tokens are trained in both embed_tokens and lm_head",
            where="adapter.modules_to_save",
            fix="name both, or none",
        )
    for table in tables.values():
        table.requires_grad_(True)
    config.modules_to_save = _names_of(tables, model) or None
    if tokens and not tables:
        model.train_token_rows(tokens)
    if quiet:
        return
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    say(
        f"  {_NAMES[options.kind]} of rank {options.rank} on {', '.join(targets)}: "
        f"{count(trained)} of {count(whole)} parameters are trained, all by AdamW; gradients and "
        f"optimizer hold {_mib(trained)} instead of {_mib(whole)}"
    )
    if tables:
        say(f"  {' and '.join(_names_of(tables, model))} are trained whole, too")
    elif tokens:
        say(f"  the rows of {len(tokens)} tokens are trained, too")
    if model.mixtures():
        say("  routed experts and their router have no adapter: they stay as they are")


def _names_of(tables: dict[str, torch.nn.Parameter], model: Decoder) -> list[str]:
    """What PEFT calls them; for it the halves of a tied pair are two."""
    return [EMBEDDING, HEAD] if tables and model.config.tie_word_embeddings else list(tables)


def has_adapter(model: Decoder) -> bool:
    """Whether `add_adapter` was here."""
    return hasattr(model, "peft_config")


def merged(model: Decoder) -> Decoder:
    """A model of its own with the adapter in its weights: to measure, to sample, and to save."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    plain = Decoder(model.config)
    own = plain.state_dict()
    found: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, BaseTunerLayer):
                layer: Any = copy.deepcopy(module)
                layer.merge()
                for part, value in layer.get_base_layer().state_dict().items():
                    found[f"{name}.{part}"] = value
        rest = model.state_dict()
        for name, target in own.items():
            target.copy_(found[name] if name in found else rest[name])
        if model.token_rows is not None:
            for part in (EMBEDDING, HEAD):
                table = own[f"{_PLACES[part]}.weight"]
                table.copy_(model.token_rows.within(part, table))
    plain.set_compute_dtype(model.compute_dtype)
    return plain.to(model.device).eval()


def save_adapter(model: Decoder, directory: Path) -> None:
    """Writes the adapter as PEFT does: `adapter_config.json`, `adapter_model.safetensors`."""
    peft: Any = _peft()
    state = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {
        name if name.startswith(_PREFIX) else _PREFIX + name: value.detach().cpu().contiguous()
        for name, value in state.items()
    }
    config: Any = copy.deepcopy(vars(model)["peft_config"]["default"])
    config.inference_mode = True
    if (rows := model.token_rows) is not None:
        ids = rows.ids.tolist()
        apart = {name: ids for name in rows.rows}
        config.trainable_token_indices = apart if HEAD in apart else ids
        for name, values in rows.rows.items():
            place = f"{_PREFIX}{_PLACES[name]}.token_adapter.trainable_tokens_delta"
            tensors[place] = values.detach().cpu().contiguous()
    for name in config.modules_to_save or ():
        place = f"{_PLACES[name]}.weight"
        tensors[_PREFIX + place] = model.get_parameter(place).detach().cpu().clone()
    with atomic_directory(directory) as temporary:
        write_safetensors(tensors, temporary / "adapter_model.safetensors")
        config.save_pretrained(temporary)


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise MiaoError(
            f"adapters need the '{error.name}' package", fix=install_hint("hf")
        ) from error
    return peft


def _mib(numbers: int) -> str:
    return f"{ADAM_BYTES * numbers / 2**20:.1f} MiB"
