"""Options of GRPO: what is asked, what is rewarded, how the model moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from miao.recipe.quantities import Quantity
from miao.recipe.stages import AdapterOptions, StageOptions


@dataclass
class ArithmeticOptions:
    """Built-in problems, in the words of the built-in corpus."""

    operations: list[Literal["+", "-", "<"]] = field(default_factory=lambda: ["+", "-"])
    """Sums, differences, and (<) which of two numbers is the greater or the smaller."""
    largest: int = 100
    """Numbers are from 0 to this."""
    largest_result: int = 100
    """Results of sums and differences are from 0 to this."""
    count: int = 4000
    """How many different problems to train on."""


@dataclass
class GrpoOptions(StageOptions):
    """Reinforcement learning from rewards that a program computes (GRPO and its variants)."""

    enabled: bool = False
    adapter: AdapterOptions = field(default_factory=AdapterOptions)
    """LoRA and its kin."""
    tokens: Quantity | None = "500K"
    """Budget in tokens of rollouts (prompts and answers), counted once per pass."""
    batch_tokens: Quantity = 65536
    """Most token slots per optimizer step; rollouts with more of them make several steps."""
    learning_rate: float = 1e-5
    muon_learning_rate: float = 0.0
    spike_action: Literal["off", "skip", "rollback"] = "off"
    log_every: int = 1
    problems: list[str] = field(default_factory=list)
    """Files of problems: records with prompt, question or messages, and what the rewards read
    (answer). Empty: arithmetic, made on the spot."""
    arithmetic: ArithmeticOptions = field(default_factory=ArithmeticOptions)
    """Built-in problems."""
    heldout: int = 400
    """Problems kept out of training, to measure on before and after."""
    rewards: dict[str, float] = field(default_factory=lambda: {"exact_answer": 1.0})
    """Reward functions and their weights: exact_answer, think_format, answer_format, short,
    tool_use, or your own as module:function or file.py:function."""
    environment: str | None = None
    """Answers the model's tool calls: calculator, or your own class as module:Class."""
    max_turns: int = 4
    """With an environment: the assistant's turns in one rollout, at most."""
    prompts_per_rollout: int = 64
    """Problems that are asked together, before the weights move again."""
    group_size: int = 8
    """Answers to each problem; each is held against the others."""
    max_new_tokens: int = 64
    """Longest turn of the assistant."""
    temperature: float = 1.0
    """Of sampling; the policy that is trained is the model at this temperature."""
    parallel_answers: int = 256
    """Answers that are generated at the same time (memory for their keys and values)."""
    rollouts: Literal["engine", "vllm"] = "engine"
    """What draws the answers: the own engine, in the same memory, or a running vLLM server."""
    vllm_url: str = "http://127.0.0.1:8000"
    """Where vLLM listens, started with VLLM_SERVER_DEV_MODE=1 on the model the stage begins with.
    Its key, if it has one, is MIAO_API_KEY."""
    vllm_weights: str | None = None
    """A directory that vLLM reads under the same path, for the weights of every rollout (default:
    a temporary one, for a server on this machine)."""
    passes: int = 1
    """How often each set of rollouts is learned from."""
    loss: Literal["grpo", "dapo", "dr_grpo", "cispo"] = "grpo"
    """grpo: mean over each answer's tokens, then over answers; dapo: over all tokens alike;
    dr_grpo: neither divided by lengths nor by the group's spread; cispo: clipped weights instead
    of clipped gradients, over all tokens alike."""
    clip_low: float = 0.2
    """A token's probability may fall to 1 - this of what it was, before its gradient is cut."""
    clip_high: float = 0.2
    """It may rise to 1 + this (cispo: its weight never exceeds it)."""
    kl_coef: float = 0.0
    """Weight of the KL divergence from the model that the stage begins with; 0: no such model."""
