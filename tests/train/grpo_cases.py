"""A GRPO so small that a rollout takes a moment; run by one process or by two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from miao.corpus.records import Message
from miao.errors import Interrupted
from miao.model import Decoder, ModelConfig, save_model
from miao.recipe import GrpoOptions
from miao.rewards import Problem, Rewards
from miao.rewards.answers import Examiner
from miao.rewards.tools import Environment
from miao.tokenizer import Tokenizer
from miao.train.distributed.choice import make_parallel
from miao.train.distributed.world import World
from miao.train.feed.rollouts import Rollouts
from miao.train.loop import Trainer
from miao.train.objectives import GrpoObjective
from miao.train.watch.metrics import MetricsLog
from tests.train.tiny import stop_after

SEQ_LEN = 64


def ascii_share(prompt: str, completion: str, record: dict[str, Any]) -> float:
    """A reward that any model earns some of: the share of ASCII characters."""
    return sum(letter.isascii() for letter in completion) / max(len(completion), 1)


def grpo_options(**changes: Any) -> GrpoOptions:
    values: dict[str, Any] = {
        "enabled": True, "tokens": 4000, "seq_len": SEQ_LEN, "batch_tokens": 64 * SEQ_LEN,
        "micro_batch": 3, "learning_rate": 5e-3, "save_every": 0, "eval_every": 0,
        "sample_every": 0, "warmup": 0, "schedule": "constant", "prompts_per_rollout": 4,
        "group_size": 4, "max_new_tokens": 8, "precision": "fp32",
    }  # fmt: skip
    return GrpoOptions(**values | changes)


def tiny_model(tokenizer: Tokenizer, seed: int = 0) -> Decoder:
    model = Decoder(
        ModelConfig(tokenizer.vocab_size, 32, 2, 2, 1, 16, 48, max_position_embeddings=128)
    )
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        values = torch.randn(parameter.shape, generator=generator)
        parameter.data = 1 + 0.1 * values if parameter.ndim == 1 else 0.15 * values
    return model


def problems(count: int = 10) -> list[Problem]:
    found = []
    for number in range(count):
        text = f"{number} + 1 = ?" + " please" * (number % 3)
        found.append(Problem([Message("user", text)], {"answer": number + 1}))
    return found


def make(
    tokenizer: Tokenizer,
    model: Decoder,
    options: GrpoOptions,
    world: World | None = None,
    environment: Environment | None = None,
    reference: Decoder | None = None,
) -> Rollouts:
    rewards = Rewards({"ascii": ascii_share}, {"ascii": 1.0})
    examiner = Examiner(tokenizer, rewards, environment, options, SEQ_LEN + 1)
    return Rollouts(
        options, model, examiner, problems(), problems(3), 7, world or World(), reference
    )


def train(
    world: World,
    tokenizer: Tokenizer,
    directory: Path,
    changes: dict[str, Any],
    stop: int | None = None,
) -> dict[str, Any]:
    """Trains, and leaves the main process's model in `directory/model`."""
    torch.manual_seed(world.rank)
    options, model = grpo_options(**changes), tiny_model(tokenizer)
    reference = tiny_model(tokenizer).eval() if options.kl_coef else None
    parallel = make_parallel("auto", model, options, world)
    rollouts = make(tokenizer, model, options, world, reference=reference)
    trainer = Trainer(
        "grpo",
        options,
        model,
        rollouts,
        GrpoObjective(options, model, rollouts.figures),
        float(options.tokens or 0),
        directory / "checkpoints",
        MetricsLog(directory / "metrics.jsonl", "grpo"),
        peak_flops=1e12,
        parallel=parallel,
    )
    if stop is not None:
        stop_after(trainer, stop)
    stopped = False
    try:
        trainer.run()
    except Interrupted:
        stopped = True
    whole = parallel.plain_model()
    if whole is not None:
        save_model(whole, directory / "model")
    return {"steps": trainer.step, "stopped": stopped, "rollouts": rollouts.number}
