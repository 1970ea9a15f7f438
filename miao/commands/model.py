"""`miao model list` and `miao model show`: what a shape costs, before anything is trained."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from miao.console import count, print_table, say
from miao.errors import MiaoError, did_you_mean
from miao.files import read_json
from miao.hubs import is_hub_name, local_directory
from miao.language import Parser
from miao.model.build import new_config
from miao.model.config import ModelConfig
from miao.model.counts import count_parameters, flops_per_token, kv_bytes_per_token
from miao.model.directory import load_config
from miao.model.estimate import (
    GPUS,
    estimate_training,
    gib,
    long_time,
    serving_memory,
    training_memory,
)
from miao.model.hf_config import from_hf, native_architecture, to_hf
from miao.model.presets import PRESETS, Plan, preset
from miao.recipe import TokenizerOptions, parse_quantity
from miao.recipe.reading import YAML, find_recipe, load_recipe
from miao.rundir import find_model
from miao.tokenizer import Tokenizer

LONGEST_ROW = 2048
TOKENS_PER_PARAMETER = 20
BATCH_TOKENS = 262144


def main(words: Sequence[str]) -> int:
    """Runs `miao model list` or `miao model show SOURCE`."""
    parser = Parser(
        prog="miao model",
        description="What a model's shape costs: parameters, memory, arithmetic, hours per GPU.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="every preset")
    show = verbs.add_parser(
        "show", help="one preset, recipe, run, model directory, config.json or hub name"
    )
    show.add_argument(
        "source", help="26m, RECIPE, runs/NAME, DIRECTORY, config.json or hf:owner/name"
    )
    show.add_argument("--tokens", help="pretraining budget, such as 5B (default: the preset's)")
    show.add_argument("--seq-len", type=int, help="tokens per row")
    show.add_argument("--batch-tokens", help="token slots per optimizer step, such as 256K")
    for one in (listing, show):
        one.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(words)
    if options.verb == "list":
        list_command(options.json)
        return 0
    tokens = None if options.tokens is None else parse_quantity(options.tokens, "--tokens")
    batch = options.batch_tokens
    batch = None if batch is None else int(parse_quantity(batch, "--batch-tokens"))
    show_command(options.source, options.json, tokens, options.seq_len, batch)
    return 0


def list_command(as_json: bool = False) -> None:
    """Prints every preset with its parameters, memory, cache and arithmetic."""
    plans = [plan_of(name) for name in PRESETS]
    if as_json:
        print(json.dumps([facts(plan) for plan in plans], ensure_ascii=False, indent=2))
        return
    known = [facts(plan) for plan in plans]
    shapes = [_shape_row(entry, plan.config) for entry, plan in zip(known, plans, strict=True)]
    columns = ["preset", "architecture", "size", "parameters", "active", "embedding"]
    print_table("presets (size: width × blocks)", columns, shapes, right_from=3)
    columns = ["preset", "to train", "to serve", "cache/token", "FLOP/token"]
    print_table("what they take: an estimate", columns, [_cost_row(k) for k in known])
    say("to train: from this much memory on, with one row at a time. to serve: bf16 weights and")
    say("the cache of one full context. FLOP/token: in training, forward and backward.")
    say("More of one: miao model show NAME. To train one: miao run NAME")


def show_command(
    source: str,
    as_json: bool = False,
    tokens: float | None = None,
    seq_len: int | None = None,
    batch_tokens: int | None = None,
) -> None:
    """Prints one shape: its parts, what it costs, and how long which GPU would train it.

    Args:
        source: see `plan_of`; `tokens`, `seq_len` and `batch_tokens` likewise.

    Raises:
        MiaoError: as `plan_of`.
    """
    plan = plan_of(source, tokens, seq_len, batch_tokens)
    known = facts(plan)
    if as_json:
        print(json.dumps(known, ensure_ascii=False, indent=2))
        return
    rows = _shape_rows(plan.config) + _cost_rows(known)
    print_table(plan.name, ["what", "value"], rows, right_from=2)
    if plan.note:
        say(textwrap.fill(plan.note, 88))
    say()
    rows = [_gpu_row(line) for line in known["training"]]
    title = f"pretraining on {count(plan.tokens)} tokens, rows of {plan.seq_len}: an estimate"
    print_table(title, ["GPU", "micro-batch", "memory", "tokens/s", "time"], rows)
    say(
        "Computed from datasheets, not measured: what good code reaches, compiled, in bf16\n"
        "(a roofline, times 0.8; docs, page 13). This machine: miao doctor RECIPE"
    )


def plan_of(
    source: str,
    tokens: float | None = None,
    seq_len: int | None = None,
    batch_tokens: int | None = None,
) -> Plan:
    """The shape that `source` names.

    Args:
        source: a preset, a recipe, a model or run directory, a config.json, or a name on a
            hub (which is downloaded).
        tokens: pretraining budget (default: the preset's, or 20 per active parameter outside the
            embedding). seq_len: tokens per row. batch_tokens: token slots per optimizer step.

    Raises:
        MiaoError: nothing of that name, or a configuration that Miao cannot read; a row that is
            longer than the context or than the step.
    """
    if source in PRESETS:
        plan = preset(source)
    elif Path(source).suffix in YAML or (find_recipe(source) and not Path(source).exists()):
        plan = _recipe_plan(source)
    else:
        config = _read_config(source)
        plan = Plan(
            source,
            config,
            _usual_tokens(config),
            min(LONGEST_ROW, config.context_length),
            BATCH_TOKENS,
        )
    plan = replace(
        plan,
        tokens=plan.tokens if tokens is None else int(tokens),
        seq_len=plan.seq_len if seq_len is None else seq_len,
        batch_tokens=plan.batch_tokens if batch_tokens is None else batch_tokens,
    )
    if plan.seq_len < 1:
        raise MiaoError("a row has at least one token", where="--seq-len")
    if plan.seq_len > min(plan.config.context_length, plan.batch_tokens):
        raise MiaoError(
            f"a row of {plan.seq_len} tokens is longer than the model's context of "
            f"{plan.config.context_length} or than the step of {plan.batch_tokens}",
            where="--seq-len",
        )
    return plan


def facts(plan: Plan) -> dict[str, Any]:
    """All that `show` says, as JSON-like values; bytes, tokens and FLOPs are plain numbers."""
    config = plan.config
    counted = count_parameters(config)
    estimates = [
        estimate_training(config, gpu, plan.tokens, plan.seq_len, plan.batch_tokens) for gpu in GPUS
    ]
    return {
        "name": plan.name,
        "model_type": native_architecture(config),
        "note": plan.note,
        "parameters": {
            "total": counted.total,
            "active": counted.active,
            "embedding": counted.embedding,
        },
        "kv_bytes_per_token": kv_bytes_per_token(config),
        "flops_per_token": flops_per_token(config, plan.seq_len),
        "training_bytes_one_row": training_memory(config, 1, plan.seq_len).total,
        "serving_bytes": serving_memory(config, config.context_length),
        "assumptions": {
            "tokens": plan.tokens,
            "seq_len": plan.seq_len,
            "batch_tokens": plan.batch_tokens,
        },
        "training": [
            {
                "gpu": e.gpu.name,
                "micro_batch": e.micro_batch,
                "memory_bytes": e.memory.total,
                "tokens_per_second": e.tokens_per_second,
                "hours": e.hours,
                "mfu": e.mfu,
                "limit": e.limit,
            }
            for e in estimates
        ],
        "config": to_hf(config),
    }


def _recipe_plan(path: str) -> Plan:
    """The model that a recipe trains or begins with, and its pretraining where it has one."""
    recipe = load_recipe(path)
    base, options = recipe.model.path, recipe.pretrain
    if base is not None:
        config, note = load_config(find_model(base)), f"The recipe begins with {base}."
    else:
        config, note = new_config(recipe.model, _vocab_size(recipe.tokenizer), None), ""
    tokens = _usual_tokens(config)
    if options.enabled and options.tokens is not None:
        tokens = int(parse_quantity(options.tokens, "pretrain.tokens"))
    batch_tokens = int(parse_quantity(options.batch_tokens, "pretrain.batch_tokens"))
    return Plan(
        path, config, tokens, min(options.seq_len, config.context_length), batch_tokens, note
    )


def _vocab_size(options: TokenizerOptions) -> int:
    if options.path is None:
        return options.vocab_size
    return Tokenizer.from_directory(local_directory(options.path)).vocab_size


def _usual_tokens(config: ModelConfig) -> int:
    counted = count_parameters(config)
    return TOKENS_PER_PARAMETER * (counted.active - counted.embedding)


def _read_config(source: str) -> ModelConfig:
    path = Path(source)
    if not is_hub_name(source):
        if path.is_file():
            return from_hf(read_json(path), source)
        if not path.exists():
            raise MiaoError(
                f"'{source}' is neither a preset nor a directory or file",
                fix=did_you_mean(source, PRESETS) or "presets: " + ", ".join(PRESETS),
            )
    return load_config(find_model(source))


def _shape_row(known: dict[str, Any], config: ModelConfig) -> list[str]:
    parameters = known["parameters"]
    return [
        known["name"],
        known["model_type"],
        f"{config.hidden_size}×{config.num_hidden_layers}",
        _millions(parameters["total"]),
        _millions(parameters["active"]),
        f"{parameters['embedding'] / parameters['total']:.0%}",
    ]


def _cost_row(known: dict[str, Any]) -> list[str]:
    return [
        known["name"],
        gib(known["training_bytes_one_row"]),
        gib(known["serving_bytes"]),
        _bytes(known["kv_bytes_per_token"]),
        _flops(known["flops_per_token"]),
    ]


def _shape_rows(c: ModelConfig) -> list[list[str]]:
    if c.is_latent:
        attention = (
            f"{c.num_attention_heads} heads of {c.qk_nope_head_dim}+{c.qk_rope_head_dim}, values "
            f"{c.v_head_dim}; latents: queries {c.q_lora_rank or 'none'}, keys/values "
            f"{c.kv_lora_rank}"
        )
    else:
        extras = [", QK-norm"] * c.qk_norm + [", biases"] * c.attention_bias
        attention = (
            f"{c.num_attention_heads} query and {c.num_key_value_heads} key/value heads of "
            f"{c.head_dim}{''.join(extras)}"
        )
    feed_forward = f"{c.intermediate_size} wide"
    if c.num_experts:
        dense = c.first_k_dense_replace
        feed_forward = (
            f"{c.num_experts} experts of {c.moe_intermediate_size}, {c.num_experts_per_tok} active"
            + (f", {c.n_shared_experts} shared" if c.n_shared_experts else "")
            + (f"; the first {dense} blocks dense, {c.intermediate_size}" if dense else "")
        )
    return [
        ["architecture", native_architecture(c)],
        ["width × blocks", f"{c.hidden_size} × {c.num_hidden_layers}"],
        ["attention", attention],
        ["feed-forward", feed_forward],
        [
            "vocabulary",
            f"{c.vocab_size:,}, embedding {'tied' if c.tie_word_embeddings else 'and head apart'}",
        ],
        ["positions", f"{c.context_length:,}, base {c.rope_theta:,.0f}"],
    ]


def _cost_rows(known: dict[str, Any]) -> list[list[str]]:
    parameters, plan = known["parameters"], known["assumptions"]
    cache = known["kv_bytes_per_token"]
    return [
        ["parameters", f"{parameters['total']:,}"],
        ["active per token", f"{parameters['active']:,}"],
        ["embedding", f"{parameters['embedding']:,}"],
        ["cache per token, bf16", f"{cache:,} bytes"],
        [f"FLOPs per token, training at {plan['seq_len']}", _flops(known["flops_per_token"])],
        ["FLOPs per token, reading", _flops(known["flops_per_token"] / 3)],
        ["to train, row by row (estimate)", gib(known["training_bytes_one_row"])],
        ["to serve, bf16 (estimate)", gib(known["serving_bytes"])],
    ]


def _gpu_row(line: dict[str, Any]) -> list[str]:
    memory = gib(line["memory_bytes"])
    if line["micro_batch"] is None:
        return [line["gpu"], "too small", memory, "", ""]
    speed = count(line["tokens_per_second"])
    return [line["gpu"], str(line["micro_batch"]), memory, speed, long_time(line["hours"])]


def _millions(number: int) -> str:
    return f"{number / 1e6:.2f}M" if number < 1e9 else f"{number / 1e9:.3f}B"


def _flops(number: float) -> str:
    return f"{number / 1e9:.2f}G" if number >= 1e8 else f"{number / 1e6:.1f}M"


def _bytes(number: int) -> str:
    return f"{number / 1024:.1f} KiB" if number >= 1024 else f"{number} B"
