"""Options of the training stages and of what is measured after each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from miao.recipe.quantities import Quantity
from miao.recipe.schedule import Schedule


@dataclass
class StageOptions:
    """What every training stage has in common."""

    enabled: bool = True
    """Run this stage."""
    tokens: Quantity | None = None
    """Budget in real tokens (padding is not counted). Give this, `epochs` or `minutes`."""
    epochs: float | None = None
    """Budget in passes over the data."""
    minutes: float | None = None
    """Budget by the clock, held-out losses and checkpoints of the stage included: the rate falls as
    time passes, however fast the machine is meanwhile. Warm-up, decay and intervals are shares."""
    seq_len: int = 256
    """Length of a packed row, in tokens."""
    batch_tokens: Quantity = 8192
    """Token slots per optimizer step, over all devices and accumulation."""
    micro_batch: int | Literal["auto"] = "auto"
    """Rows per forward pass; the rest of batch_tokens is accumulated."""
    learning_rate: float = 3e-3
    """Peak rate of AdamW (embeddings, head, norms, biases)."""
    muon_learning_rate: float = 2e-2
    """Peak rate of Muon (2-D matrices inside the blocks); 0 uses AdamW for all."""
    weight_decay: float = 0.0
    """Decoupled weight decay on matrices."""
    adam_betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    """AdamW's two decay rates."""
    muon_momentum: float = 0.95
    """Muon's (Nesterov) momentum."""
    schedule: Schedule = "wsd"
    """Learning-rate shape after warm-up; wsd = warm-up, stable, decay."""
    warmup: Quantity = 0.02
    """Linear warm-up: tokens, or a fraction of the budget."""
    decay: Quantity = 0.4
    """Length of wsd's final linear decay: tokens, or a fraction of the budget."""
    final_learning_rate: float = 0.0
    """The rate at the very end, as a fraction of the peak."""
    router_bias_rate: float = 0.001
    """Sigmoid-routed experts: step of the balancing bias after every optimizer step."""
    grad_clip: float = 1.0
    """Clip the global gradient norm to this; 0 switches it off."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Compute type of matrix products; weights and optimizer stay fp32. auto: bf16 where it is
    native, fp16 (with a scaled loss) on GPUs without it, else fp32."""
    grad_dtype: Literal["fp32", "bf16"] = "fp32"
    """Type of gradient sums: over micro-batches (one process, or ddp) and over processes. bf16
    takes half the memory and traffic, and rounds every addition to 8 binary digits (up to 0.4 %).
    fsdp, hsdp and ZeRO add up micro-batches in fp32 whatever it says."""
    compile: Literal["auto", "on", "graphs", "off"] = "auto"
    """torch.compile the blocks (auto: on a GPU, or where the budget repays it); graphs: also
    replayed as CUDA graphs, for small models whose kernels are shorter than their launch."""
    activation_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Compute every block once more in the backward pass instead of keeping what it made: far less
    memory for a quarter of the speed (auto: where memory asks for it)."""
    eval_every: Quantity = 0.25
    """Held-out loss every so many tokens, or fraction of the budget."""
    sample_every: Quantity = 0.25
    """Write samples every so many tokens, or fraction of the budget, as far as they take 1 % of the
    time of training at most; 0: only at the end."""
    save_every: Quantity = 0.25
    """Checkpoint every so many tokens, or fraction of the budget."""
    keep_last: int = 2
    """How many checkpoints to keep; older ones make room, but those of keep_every."""
    keep_every: Quantity = 0
    """Keep a checkpoint for good every so many tokens, or fraction of the budget; 0: none."""
    spike_action: Literal["off", "skip", "rollback"] = "skip"
    """When loss or gradient norm jump: skip that step; or go back to the checkpoint before the
    batches that led there and train on without them. What is not finite is always skipped."""
    spike_threshold: float = 20.0
    """A jump is more than the recent median plus this many (robust) standard deviations."""
    spike_window: int = 64
    """How many recent steps a jump is measured against."""
    log_every: int = 10
    """Steps between lines in metrics.jsonl."""


@dataclass
class TeacherOptions:
    """Learn from a larger model's probabilities beside the text (distillation)."""

    path: str | None = None
    """A run, a model directory or a hub name, with the same tokenizer; null: no teacher."""
    weight: float = 0.5
    """Share of the teacher in the loss; the rest is cross-entropy."""
    temperature: float = 1.0
    """Above 1 both distributions are flattened: unlikely tokens count for more."""
    kl: Literal["forward", "reverse"] = "forward"
    """forward: cover all that the teacher would say; reverse: keep to what it finds likely."""


@dataclass
class PretrainOptions(StageOptions):
    """Next-token prediction on documents."""

    teacher: TeacherOptions = field(default_factory=TeacherOptions)
    """Distillation."""
    tokens: Quantity | None = "4M"


@dataclass
class AdapterOptions:
    """Train small matrices beside the linear layers instead of all weights (needs peft)."""

    kind: Literal["none", "lora", "rslora", "dora"] = "none"
    """none: train all weights; lora; rslora: scaled by alpha/sqrt(rank), for high ranks; dora:
    direction and size of each weight row apart."""
    rank: int = 16
    """Inner size of the added pair of matrices."""
    alpha: float = 32
    """Their product is multiplied with alpha/rank."""
    dropout: float = 0.0
    """Share of the adapters' inputs that is dropped while training."""
    targets: list[str] = field(default_factory=list)
    """Which linear layers, such as [q_proj, v_proj]; empty: all in the blocks."""
    tokens: list[str] = field(default_factory=list)
    """Control tokens whose rows of the embedding and the head are trained as well (PEFT's
    trainable_token_indices); those that the recipe adds to a given tokenizer, or `miao tokenizer
    extend` to the model, always are."""
    modules_to_save: list[Literal["embed_tokens", "lm_head"]] = field(default_factory=list)
    """Matrices that are trained whole and saved with the adapter (PEFT's field): embed_tokens,
    lm_head. For a new language or many new tokens; of a tied pair either means both."""


@dataclass
class SftOptions(StageOptions):
    """Supervised fine-tuning: the loss is on what the assistant says."""

    adapter: AdapterOptions = field(default_factory=AdapterOptions)
    """LoRA and its kin."""
    epochs: float | None = 1.0
    last_turn_only: bool = False
    """Learn only the last assistant turn of each conversation."""
    teacher: TeacherOptions = field(default_factory=TeacherOptions)
    """Distillation."""
    neftune_alpha: float = 0.0
    """Noise on the embeddings while training (NEFTune; usually 5); 0: none."""
    replay: float = 0.0
    """Share of the tokens that are pretraining documents again, against forgetting."""


REFERENCE_FREE = ("simpo", "orpo")
"""Preference losses without a reference model."""


@dataclass
class DpoOptions(StageOptions):
    """Direct preference optimization: raise the chosen answer over the rejected one."""

    adapter: AdapterOptions = field(default_factory=AdapterOptions)
    """LoRA and its kin."""
    epochs: float | None = 1.0
    learning_rate: float = 1e-4
    muon_learning_rate: float = 0.0
    spike_action: Literal["off", "skip", "rollback"] = "off"
    loss: Literal["sigmoid", "ipo", "simpo", "orpo", "kto"] = "sigmoid"
    """sigmoid: DPO; ipo: a fixed margin is enough; simpo, orpo: without a reference model; kto:
    each answer by itself, desirable or not, paired or single."""
    beta: float = 0.1
    """How strongly the reference model holds the policy back; of simpo (usually 2) the scale, of
    orpo the weight of the preference."""
    length_normalized: bool = False
    """sigmoid, kto: compare means over the answers' tokens instead of sums, so that length does not
    count (raise beta about as much as answers are long); ipo, simpo and orpo always do."""
    label_smoothing: float = 0.0
    """sigmoid, simpo: the share of pairs that are taken to be labelled the wrong way round."""
    simpo_margin: float = 1.0
    """simpo: how far apart the sides should be (gamma)."""
    desirable_weight: float = 1.0
    """kto: weight of the desirable answers."""
    undesirable_weight: float = 1.0
    """kto: weight of the undesirable answers."""
    replay: float = 0.0
    """Share of the tokens that are conversations of SFT again, against forgetting."""
    sft_weight: float = 0.0
    """Weight of the chosen answers' cross-entropy in the loss (RPO); keeps them likely."""


@dataclass
class DuringOptions:
    """Tasks asked while a stage is trained: curves of what the model learns, in metrics.jsonl, the
    report and the board."""

    tasks: list[str] = field(default_factory=list)
    """Names of tasks and sets, such as [early] or, from 100M parameters on, [grown] (both need no
    files), or YAML files; empty: none."""
    every: Quantity = 0.05
    """Ask every so many tokens, or fraction of the budget; later where `share` is used up."""
    questions: int = 20
    """Of each subject, always the same ones."""
    share: float = 0.02
    """Of the time of training at most."""
    data: str | None = None
    """The folder of the tasks' files; none is needed for early, grown, skills."""


@dataclass
class EvaluateOptions:
    """What is measured after every stage."""

    enabled: bool = True
    """Evaluate after every stage."""
    choice_items: int = 400
    """Multiple-choice questions (built-in corpus only)."""
    question_items: int = 400
    """Questions answered in the chat and checked, over all categories (built-in corpus only)."""
    preference_pairs: int = 400
    """Held-out preference pairs."""
    own_items: int = 40
    """Questions of your own held-out conversations that are answered beside their references, and
    cloze questions made of your own held-out text."""
    heldout_tokens: Quantity = "40K"
    """Held-out tokens per source for bits per byte."""
    max_new_tokens: int = 48
    """Longest generated answer."""
    seconds: float | None = None
    """An evaluation takes about so long at most: questions are asked, in a mixed order, until it is
    over, and none of a model that has only been pretrained. null: all are asked."""
    during: DuringOptions = field(default_factory=DuringOptions)
    """Tasks while training."""
