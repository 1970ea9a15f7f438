"""Everything that must hold between the values of a recipe before anything starts."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Any

from miao.errors import MiaoError, did_you_mean
from miao.recipe import (
    DEFAULT_CONTEXT,
    STAGES,
    TRACKERS,
    CorpusOptions,
    GrpoOptions,
    ModelOptions,
    Quantity,
    Recipe,
    StageOptions,
    parse_quantity,
)


def check_recipe(recipe: Recipe) -> None:
    """Everything that is wrong with the values, said at once, before anything starts."""
    problems: list[str] = []

    def need(condition: bool, message: str) -> None:
        if not condition:
            problems.append(message)

    need(
        is_run_name(recipe.name),
        "name: letters, digits, '.', '_' and '-' only, of any script (中文也行)",
    )
    need(0 <= recipe.corpus.heldout < 0.5, "corpus.heldout: a fraction from 0 to 0.5")
    need(recipe.corpus.heldout_max >= 0, "corpus.heldout_max: must not be negative")
    share = recipe.corpus.own_share
    alone = share is None or share == "auto"
    need(alone or 0 < float(share or 0) <= 1, "corpus.own_share: above 0, at most 1, or auto")
    need(recipe.corpus.text_talks >= 0, "corpus.text_talks: must not be negative")
    need(
        all(w >= 0 for w in recipe.corpus.weights.values()), "corpus.weights: must not be negative"
    )
    _check_workshop(recipe.corpus, need)
    model = recipe.model
    _check_model(model, need)
    _need_quantity(recipe.corpus.seedbed.characters, "corpus.seedbed.characters", need)
    _need_quantity(recipe.tokenizer.sample, "tokenizer.sample", need)
    need(0 <= recipe.tokenizer.balance <= 1, "tokenizer.balance: a number from 0 to 1")
    need((recipe.tokenizer.workers or 1) > 0, "tokenizer.workers: must be positive")
    _need_quantity(recipe.evaluate.heldout_tokens, "evaluate.heldout_tokens", need)
    during = recipe.evaluate.during
    _need_quantity(during.every, "evaluate.during.every", need)
    need(recipe.minutes is None or recipe.minutes > 0, "minutes: must be positive, or null")
    timed = any(getattr(recipe, s).minutes is not None for s in STAGES)
    need(not (timed and during.tasks), "evaluate.during.tasks: not with budgets in minutes")
    need(during.questions > 0, "evaluate.during.questions: must be positive")
    need(0 < during.share <= 1, "evaluate.during.share: a share of the time, above 0, at most 1")
    for stage in STAGES:
        if getattr(recipe, stage).enabled:
            _check_stage(stage, getattr(recipe, stage), model, need)
    _check_grpo(recipe.grpo, recipe.parallel, need)
    for stage, replay in (("sft", recipe.sft.replay), ("dpo", recipe.dpo.replay)):
        need(0 <= replay < 1, f"{stage}.replay: a share from 0 to below 1")
    by_deepspeed = recipe.parallel.startswith("zero")
    for stage in ("sft", "dpo", "grpo"):
        adapter = getattr(recipe, stage).adapter
        need(adapter.rank > 0, f"{stage}.adapter.rank: must be positive")
        need(adapter.alpha > 0, f"{stage}.adapter.alpha: must be positive")
        need(0 <= adapter.dropout < 1, f"{stage}.adapter.dropout: a share from 0 to below 1")
        need(
            adapter.kind == "none"
            or not adapter.dropout
            or getattr(recipe, stage).activation_checkpointing != "on",
            f"{stage}.adapter.dropout: activation_checkpointing would drop others the second time",
        )
        need(
            adapter.kind == "none" or not by_deepspeed,
            f"{stage}.adapter: not with parallel {recipe.parallel} (but with ddp, fsdp, hsdp)",
        )
    for stage, teacher in (("pretrain", recipe.pretrain.teacher), ("sft", recipe.sft.teacher)):
        need(0 <= teacher.weight <= 1, f"{stage}.teacher.weight: a share from 0 to 1")
        need(teacher.temperature > 0, f"{stage}.teacher.temperature: must be positive")
        need(
            teacher.path is None or not by_deepspeed,
            f"{stage}.teacher: not with parallel {recipe.parallel} (but with ddp, fsdp, hsdp)",
        )
    need(recipe.sft.neftune_alpha >= 0, "sft.neftune_alpha: must not be negative")
    need(
        not (recipe.sft.neftune_alpha and recipe.sft.teacher.path),
        "sft.neftune_alpha: not together with sft.teacher.path",
    )
    need(recipe.dpo.beta > 0, "dpo.beta: must be positive")
    need(0 <= recipe.dpo.label_smoothing < 0.5, "dpo.label_smoothing: from 0 to below 0.5")
    for tracker in recipe.trackers:
        need(tracker in TRACKERS, f"trackers: '{tracker}' is none of {', '.join(TRACKERS)}")
    if problems:
        raise MiaoError(
            "the recipe does not hold together:\n" + "\n".join(f"  - {line}" for line in problems)
        )


def check_weights(weights: dict[str, float], sources: Collection[str]) -> None:
    """Raises `MiaoError` for a weight (`corpus.weights`) of a source that does not exist."""
    check_sources(weights, sources, "corpus.weights")


def is_run_name(name: str) -> bool:
    """Whether a run directory may be called so: letters of any script, digits, `.`, `_`, `-`."""
    return bool(re.fullmatch(r"(?!\.+$)[\w.\-]+", name))


def check_sources(named: Collection[str], sources: Collection[str], where: str) -> None:
    """Raises `MiaoError` for a source that does not exist, of an option that names some."""
    if unknown := sorted(set(named) - set(sources)):
        raise MiaoError(
            f"there is no source '{unknown[0]}'",
            where=where,
            fix=did_you_mean(unknown[0], sources) or f"sources: {', '.join(sources)}",
        )


def _check_grpo(grpo: GrpoOptions, parallel: str, need: Any) -> None:
    need(
        not (grpo.enabled and parallel.startswith("zero")),
        f"grpo: not with parallel {parallel} (but with ddp, fsdp, hsdp)",
    )
    need(
        grpo.rollouts == "engine" or grpo.adapter.kind == "none",
        "grpo.rollouts: vllm takes whole weights, not adapters (grpo.adapter.kind none)",
    )
    need(grpo.epochs is None, "grpo.epochs: the budget is in tokens of rollouts (grpo.tokens)")
    need(
        grpo.spike_action == "off",
        "grpo.spike_action: off only, since steps of different sizes cannot be compared",
    )
    need(grpo.group_size >= 2, "grpo.group_size: at least 2, since answers are compared")
    for name in ("prompts_per_rollout", "max_new_tokens", "parallel_answers", "passes"):
        need(getattr(grpo, name) > 0, f"grpo.{name}: must be positive")
    need(grpo.max_turns > 0, "grpo.max_turns: must be positive")
    need(grpo.heldout >= 0, "grpo.heldout: must not be negative")
    need(grpo.temperature > 0, "grpo.temperature: must be positive, or all answers are the same")
    need(0 <= grpo.clip_low <= 1, "grpo.clip_low: from 0 to 1")
    need(grpo.clip_high >= 0, "grpo.clip_high: must not be negative")
    need(grpo.kl_coef >= 0, "grpo.kl_coef: must not be negative")
    need(bool(grpo.rewards), "grpo.rewards: at least one")
    need(any(grpo.rewards.values()), "grpo.rewards: all weights are 0")
    need(
        grpo.max_new_tokens < grpo.seq_len,
        f"grpo.seq_len: {grpo.seq_len} holds no prompt beside max_new_tokens {grpo.max_new_tokens}",
    )
    numbers = grpo.arithmetic
    need(bool(numbers.operations), "grpo.arithmetic.operations: at least one")
    for name in ("largest", "largest_result", "count"):
        need(getattr(numbers, name) > 0, f"grpo.arithmetic.{name}: must be positive")


def _check_workshop(corpus: CorpusOptions, need: Any) -> None:
    clean, dedup, overlap = corpus.clean, corpus.dedup, corpus.contamination
    numbers = ("max_characters", "max_quality")
    limits = [name for name in vars(clean) if name.startswith("max_") and name not in numbers]
    for name in (*limits, "min_chinese"):
        value = getattr(clean, name)
        need(
            value is None or 0 <= value <= 1 or name == "max_blocked",
            f"corpus.clean.{name}: a share from 0 to 1, or null",
        )
    shares = ("max_short_lines", "min_ended_lines", "max_list_lines", "max_ellipsis_lines")
    for name in (*shares, "min_lettered_words", "max_repeated_paragraphs"):
        value = getattr(clean.web, name)
        need(value is None or 0 <= value <= 1, f"corpus.clean.web.{name}: a share, 0 to 1, or null")
    for n, limit in clean.web.max_repetition.items():
        need(n > 0 and 0 <= limit <= 1, "corpus.clean.web.max_repetition: {n: share from 0 to 1}")
    need(
        dedup.substrings is None or dedup.substrings > 1,
        "corpus.dedup.substrings: above 1, or null",
    )
    need(0 <= clean.min_score <= 1, "corpus.clean.min_score: from 0 to 1")
    need(0 < dedup.near_threshold <= 1, "corpus.dedup.near_threshold: above 0, at most 1")
    need(dedup.near_ngram > 0, "corpus.dedup.near_ngram: must be positive")
    need(overlap.ngram > 0, "corpus.contamination.ngram: must be positive")
    need(0 < overlap.min_share <= 1, "corpus.contamination.min_share: above 0, at most 1")
    need(corpus.workers is None or corpus.workers > 0, "corpus.workers: must be positive, or null")
    for stage in ("pretrain", "sft", "dpo"):
        for name, category in getattr(corpus.mix, stage).items():
            where = f"corpus.mix.{stage}.{name}"
            need(category.max_epochs > 0, f"{where}.max_epochs: must be positive")
            need(category.repeat > 0, f"{where}.repeat: must be positive")
            need(category.weight is None or category.weight > 0, f"{where}.weight: positive")


def _check_model(model: ModelOptions, need: Any) -> None:
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"):
        need(getattr(model, name) > 0, f"model.{name}: must be positive")
    heads, key_heads = model.num_attention_heads, model.num_key_value_heads
    if model.kv_lora_rank is not None:
        sizes = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        for name in sizes:
            need(getattr(model, name) > 0, f"model.{name}: must be positive")
        need(model.qk_rope_head_dim % 2 == 0, "model.qk_rope_head_dim: rotary positions need pairs")
    else:
        if key_heads > 0:
            need(
                heads % key_heads == 0,
                f"model.num_key_value_heads: {key_heads} does not divide the {heads} query heads",
            )
        if model.head_dim is None and heads > 0:
            need(
                model.hidden_size % heads == 0,
                f"model.hidden_size: {model.hidden_size} is not a multiple of num_attention_heads "
                f"{heads} (or give head_dim)",
            )
        head_dim = model.head_dim or model.hidden_size // max(heads, 1)
        need(head_dim % 2 == 0, f"model.head_dim: {head_dim} is odd, rotary positions need pairs")
    scaling = model.rope_scaling
    need(scaling.factor >= 1, "model.rope_scaling.factor: at least 1")
    need(
        scaling.rope_type == "default" or scaling.factor > 1,
        f"model.rope_scaling.factor: {scaling.rope_type} needs one above 1",
    )
    if model.num_experts:
        need(
            0 < model.num_experts_per_tok <= model.num_experts,
            f"model.num_experts_per_tok: {model.num_experts_per_tok} of {model.num_experts}",
        )
        need(
            0 <= model.first_k_dense_replace < model.num_hidden_layers,
            f"model.first_k_dense_replace: {model.first_k_dense_replace} of "
            f"{model.num_hidden_layers} blocks",
        )


def _check_stage(name: str, stage: StageOptions, model: ModelOptions, need: Any) -> None:
    for key in (
        "tokens",
        "batch_tokens",
        "warmup",
        "decay",
        "eval_every",
        "sample_every",
        "save_every",
        "keep_every",
    ):
        if (value := getattr(stage, key)) is not None:
            number = _need_quantity(value, f"{name}.{key}", need)
            need(
                key != "batch_tokens" or number >= stage.seq_len,
                f"{name}.batch_tokens: smaller than one row of seq_len {stage.seq_len}",
            )
    budgets = (stage.tokens, stage.epochs, stage.minutes)
    need(
        sum(value is not None for value in budgets) == 1,
        f"{name}: give exactly one of tokens, epochs and minutes (null switches the others off)",
    )
    if stage.minutes is not None:
        need(stage.minutes > 0, f"{name}.minutes: must be positive")
        need(name != "grpo", "grpo.minutes: its budget is in tokens of rollouts (grpo.tokens)")
        for key in ("warmup", "decay", "eval_every", "sample_every", "save_every", "keep_every"):
            share = _need_quantity(getattr(stage, key), f"{name}.{key}", need) < 1
            need(share, f"{name}.{key}: with minutes a share of the time, below 1")
    need(stage.seq_len >= 8, f"{name}.seq_len: at least 8")
    context = model.max_position_embeddings or DEFAULT_CONTEXT
    need(
        model.path is not None or stage.seq_len <= context,
        f"{name}.seq_len: {stage.seq_len} is above the model's max_position_embeddings {context}",
    )
    need(stage.micro_batch == "auto" or int(stage.micro_batch) > 0, f"{name}.micro_batch: positive")
    need(stage.epochs is None or stage.epochs > 0, f"{name}.epochs: must be positive")
    need(stage.learning_rate >= 0, f"{name}.learning_rate: must not be negative")
    need(len(stage.adam_betas) == 2, f"{name}.adam_betas: two numbers")
    need(stage.grad_clip >= 0, f"{name}.grad_clip: must not be negative")
    need(stage.log_every > 0, f"{name}.log_every: must be positive")
    need(stage.keep_last > 0, f"{name}.keep_last: must be positive")
    need(stage.spike_threshold > 0, f"{name}.spike_threshold: must be positive")
    need(stage.spike_window >= 8, f"{name}.spike_window: at least 8")


def _need_quantity(value: Quantity, key: str, need: Any) -> float:
    """The number meant, or infinity where it is none and the problem has been noted."""
    try:
        return parse_quantity(value, key)
    except MiaoError as error:
        need(False, f"{key}: {error.what} -> {error.fix}")
        return math.inf
