"""Low-rank adapters (LoRA arXiv:2106.09685, rsLoRA 2312.03732, DoRA 2402.09353) by peft: the
model's own weights stay as they are, and small matrices beside its linear layers are trained."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from miao.console import count, say
from miao.errors import MiaoError, did_you_mean, install_hint
from miao.files import atomic_directory, read_json
from miao.hubs import local_directory
from miao.model import Decoder
from miao.model.directory import Named, own_tensors, write_safetensors
from miao.model.layers import Linear
from miao.model.token_rows import EMBEDDING, GROWN, HEAD
from miao.recipe import Recipe, StageOptions
from miao.recipe.grpo import GrpoOptions
from miao.recipe.stages import AdapterOptions, DpoOptions, SftOptions
from miao.tokenizer import Tokenizer

ADAM_BYTES = 12
"""Per trained number: its gradient and AdamW's two means, float32."""
_PREFIX = "base_model.model."
_PLACES = {EMBEDDING: f"model.{EMBEDDING}", HEAD: HEAD}
_NAMES = {"lora": "LoRA", "rslora": "rsLoRA", "dora": "DoRA"}
BASE_LAYER, MAGNITUDE = ".base_layer.", ".lora_magnitude_vector."
Rows = Callable[[int, int], Tensor]
"""Gives rows `start:stop` of a tensor."""
Whole = Callable[[Tensor], Tensor]
"""Puts a tensor together of which every process holds some rows."""
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


def trained_tokens(
    where: str, named: list[str], recipe: Recipe, tokenizer: Tokenizer, base: Path
) -> list[int]:
    """Ids of the tokens whose rows are trained beside an adapter: named ones, and new ones."""
    known = tokenizer.control_ids
    for token in named:
        if token not in known:
            raise MiaoError(
                f"{token!r} is no control token of this tokenizer",
                where=where,
                fix=did_you_mean(token, known) or "add it: --tokenizer.special_tokens",
            )
    first = tokenizer.vocab_size
    if recipe.tokenizer.adds_to_given:
        given = Tokenizer.from_directory(local_directory(str(recipe.tokenizer.path)))
        first = given.vocab_size
    if (base / GROWN).exists():
        first = min(first, int(read_json(base / GROWN)["first"]))
    return sorted({*(known[token] for token in named), *range(first, tokenizer.vocab_size)})


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
    peft.inject_adapter_in_model(config, model)
    with torch.no_grad():
        for name, values in _first_values(model, seed):
            model.get_parameter(name).copy_(values)
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


def _first_values(model: Decoder, seed: int) -> Named:
    """Where the factors begin: U(-1/√n, 1/√n) of n inputs, and zero; as PEFT draws them."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if ".lora_A." in name:
            drawn = torch.rand(parameter.shape, generator=generator)
            yield name, (2 * drawn - 1) / parameter.shape[1] ** 0.5
        elif ".lora_B." in name:
            yield name, torch.zeros(parameter.shape)


def adapted_values(model: Decoder, seed: int, base: dict[str, Rows]) -> Iterator[tuple[str, Rows]]:
    """The values that a model with an adapter begins with, where it was made without memory.

    Args:
        base: the weights of the model without one.
    """
    drawn = dict(_first_values(model, seed))
    for name in own_tensors(model):
        plain = name.replace(BASE_LAYER, ".")
        before, magnitude, _ = name.partition(MAGNITUDE)
        if plain in base:
            yield name, base[plain]
        elif name in drawn:
            yield name, partial(rows_within, drawn[name])
        elif magnitude:  # of DoRA, whose factors give nothing yet
            yield name, partial(_row_norms, base[f"{before}.weight"])
        else:
            assert model.token_rows is not None
            table = base[f"{_PLACES[name.rpartition('.')[2]]}.weight"]
            yield name, partial(_picked_rows, table, model.token_rows.ids.tolist())


def rows_within(values: Tensor, start: int, stop: int) -> Tensor:
    """`Rows` of a tensor that is there."""
    return values[start:stop]


def _row_norms(rows: Rows, start: int, stop: int) -> Tensor:
    return torch.linalg.norm(rows(start, stop), dim=1)


def _picked_rows(rows: Rows, ids: list[int], start: int, stop: int) -> Tensor:
    return torch.cat([rows(row, row + 1) for row in ids[start:stop]] or [rows(0, 0)])


def merged_weights(model: Decoder, whole: Whole = lambda tensor: tensor) -> Named:
    """Every weight of a model without an adapter, this one's worked into it; one after the other.
    Where the model is spread, all processes go through it together."""
    own, rows = own_tensors(model), model.token_rows
    if not has_adapter(model):
        yield from ((name, whole(tensor)) for name, tensor in own.items())
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = {n: layer for n, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)}
    places = {f"{_PLACES[part]}.weight": part for part in (EMBEDDING, HEAD)}
    for name, tensor in own.items():
        before, adapted, part = name.partition(BASE_LAYER)
        if adapted and part == "weight":
            layer: Any = layers[before]
            alone: dict[int, Any] = {
                id(p): torch.nn.Parameter(whole(p.detach()).clone()) for p in layer.parameters()
            }
            copied = copy.deepcopy(layer, alone)
            with torch.no_grad():
                copied.merge()
            yield f"{before}.weight", copied.get_base_layer().weight.detach()
        elif adapted:
            yield f"{before}.{part}", whole(tensor)
        elif name in places and rows is not None:
            yield name, whole(tensor).index_copy(0, rows.ids, whole(rows.of(places[name]).detach()))
        elif ".lora_" not in name and not name.startswith("token_rows."):
            yield name, whole(tensor)


@torch.no_grad()
def merged(model: Decoder) -> Decoder:
    """A model of its own with the adapter in its weights: to measure, to sample, and to save."""
    plain = Decoder(model.config)
    own = own_tensors(plain)
    for name, tensor in merged_weights(model):
        own[name].copy_(tensor)
    plain.set_compute_dtype(model.compute_dtype)
    return plain.to(model.device).eval()


def adapter_tensors(model: Decoder, whole: Whole = lambda tensor: tensor) -> dict[str, Tensor]:
    """What a PEFT file of the adapter holds, on the CPU. Where the model is spread, all processes
    call it together."""
    state = {n: whole(t).cpu() for n, t in model.state_dict().items() if ".lora_" in n}
    state = _peft().get_peft_model_state_dict(model, state, save_embedding_layers=False)
    tensors = {name if name.startswith(_PREFIX) else _PREFIX + name: t for name, t in state.items()}
    if model.token_rows is not None:
        for name, values in model.token_rows.rows.items():
            place = f"{_PREFIX}{_PLACES[name]}.token_adapter.trainable_tokens_delta"
            tensors[place] = whole(values.detach()).cpu()
    for name in vars(model)["peft_config"]["default"].modules_to_save or ():
        place = f"{_PLACES[name]}.weight"
        tensors[_PREFIX + place] = whole(model.get_parameter(place).detach()).cpu()
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


def save_adapter(model: Decoder, directory: Path, tensors: dict[str, Tensor] | None = None) -> None:
    """Writes the adapter as PEFT does: `adapter_config.json`, `adapter_model.safetensors`.

    Args:
        tensors: its `adapter_tensors` (default: asked for).
    """
    config: Any = copy.deepcopy(vars(model)["peft_config"]["default"])
    config.inference_mode = True
    if (rows := model.token_rows) is not None:
        ids = rows.ids.tolist()
        apart = {name: ids for name in rows.rows}
        config.trainable_token_indices = apart if HEAD in apart else ids
    with atomic_directory(directory) as temporary:
        write_safetensors(
            tensors or adapter_tensors(model), temporary / "adapter_model.safetensors"
        )
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
