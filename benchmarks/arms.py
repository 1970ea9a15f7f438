"""One side of a comparison of trainers: Miao's loop, or the Hugging Face `Trainer`, as a process
that trains a while when asked and says how far it came (see `common.Worker`).

Everything outside the trainers is the same: the shape, the token shards, the held-out rows, the
number of threads, glibc's memory settings. Times are from step to step; data loading, logging and
the optimizer are inside them, compiling and held-out evaluation are not.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent.parent))

from common import Commands, synchronize
from document_bits import Row, document_bits, read_documents
from document_bits import bits_per_byte as document_bits_per_byte

from miao.device import cap_gpu_memory, keep_freed_memory, peak_memory_mib
from miao.model import Decoder, ModelConfig
from miao.model.hf_config import to_hf
from miao.recipe import PretrainOptions
from miao.shards import Batch, PackedLoader, PackedSource, TokenDataset
from miao.tokenizer import Tokenizer
from miao.train.loop import Trainer
from miao.train.microbatch import fit_to_memory
from miao.train.objectives import LanguageObjective
from miao.train.watch.metrics import MetricsLog

IGNORE = -100
FOREVER = 10**9


@dataclass
class Spec:
    """What an arm trains, and how."""

    arm: str
    """miao; hf-padded: each record for itself, padded to the longest of the batch; hf-packed: the
    rows that Miao trains on, positions and mask beginning anew with each document; hf-concat:
    documents run together and cut into rows, attention across their borders (`run_clm.py`)."""
    config: dict[str, Any]
    """Fields of `ModelConfig`."""
    data: list[str]
    """Token shards to train on."""
    heldout: list[str] = field(default_factory=list)
    tokenizer: str | None = None
    device: str = "cpu"
    precision: str = "fp32"
    compile: bool = False
    seq_len: int = 512
    batch_tokens: int = 8192
    """Slots per optimizer step (hf-padded: 8 records, the Trainer's default)."""
    micro_tokens: int | None = None
    """Slots per forward pass; None: Miao's own choice, and the whole step in the Trainer."""
    log_every: int = 1
    """Steps between two looks at the clock."""
    budget: float | None = None
    """Real tokens over which the learning rate runs its course; None: it is constant."""
    learning_rate: float = 1e-3
    """Of the Trainer's AdamW; Miao's rates are its defaults."""
    heldout_tokens: int = 20_000
    memory_gib: float | None = None
    """Train as if the GPU had no more."""
    keep_memory: bool = True
    """glibc keeps freed memory, as Miao always does; False: the system's default."""
    workers: int = 0
    """The Trainer's loader processes."""
    documents: str | None = None
    """Held-out texts (JSON Lines); measured by document, instead of by rows of `heldout`."""
    options: dict[str, Any] = field(default_factory=dict)
    """More options of Miao's pretraining, or of the Trainer."""
    cpu_clock: bool = False
    """Seconds are CPU seconds over the number of threads, not those of the wall."""
    seed: int = 0


def clock(spec: Spec) -> float:
    """Seconds; of the wall, or of the processor shared by the threads (compilers' included)."""
    if not spec.cpu_clock:
        return time.perf_counter()
    return sum(os.times()[:4]) / torch.get_num_threads()


class Pacer:
    """Lets a trainer run until a block is over, answers, and waits for the next command."""

    def __init__(self, spec: Spec, commands: Commands, heldout: Callable[[], Any]):
        self.spec, self.commands, self.heldout = spec, commands, heldout
        self.began: float | None = None
        self.command: dict[str, Any] = {}
        self.tokens = self.steps = 0
        self.first = (0.0, 0)
        self.facts: dict[str, Any] = {}

    def start(self) -> None:
        """Waits for the first command; training begins behind it."""
        self.command = self.commands.next()
        self.began = clock(self.spec)

    def tick(self, tokens: int, steps: int) -> None:
        """Between two steps: real tokens and optimizer steps since training began."""
        synchronize(self.spec.device)
        assert self.began is not None
        seconds = clock(self.spec) - self.began
        over = seconds >= self.command.get("seconds", math.inf)
        over = over or tokens - self.tokens >= self.command.get("tokens", math.inf)
        over = over or steps - self.steps >= self.command.get("steps", math.inf)
        if not over:
            return
        values = {
            "seconds": seconds,
            "tokens": tokens - self.tokens,
            "steps": steps - self.steps,
            "all_tokens": tokens,
            "peak_mib": peak_memory_mib(torch.device(self.spec.device)),
            **self.facts,
        }
        if self.command.get("heldout"):
            values["bits_per_byte"], values["documents"] = self.heldout()
        self.commands.reply(**values)
        self.command = self.commands.next()
        self.tokens, self.steps = tokens, steps
        synchronize(self.spec.device)
        self.began = clock(self.spec)


def sources(spec: Spec, directories: list[str]) -> list[PackedSource]:
    return [
        PackedSource(Path(d).name, TokenDataset(Path(d)), spec.seq_len, seed=1 + spec.seed)
        for d in directories
    ]


def heldout_rows(spec: Spec) -> list[Batch]:
    """The first held-out rows, some `heldout_tokens` in all."""
    rows: list[Batch] = []
    taken = 0
    if spec.heldout:
        for batch in PackedLoader(sources(spec, spec.heldout), spec.seq_len).one_pass(4):
            rows.append(batch)
            taken += batch.real_tokens
            if taken >= spec.heldout_tokens:
                break
    return rows


def held_out(
    spec: Spec,
    rows: list[Batch],
    loss: Callable[[Batch], torch.Tensor],
    logits: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[float, list[Row] | None]:
    """Bits per byte of the learned text of `rows`, or of documents, each with its own.

    Args:
        loss: summed nats of a batch.
    """
    assert spec.tokenizer is not None, "a held-out measure needs a tokenizer"
    cut = Tokenizer.from_directory(Path(spec.tokenizer))
    if spec.documents is not None:
        texts = read_documents(Path(spec.documents))
        found = document_bits(texts, cut.encode, cut.document_start, logits, spec.seq_len)
        return document_bits_per_byte(found), found
    assert rows, "a held-out measure needs shards"
    nats, num_bytes = 0.0, 0
    with torch.no_grad():
        for batch in rows:
            nats += float(loss(batch))
            learned = batch.labels_bt[batch.labels_bt != IGNORE].tolist()
            num_bytes += sum(len(cut.token_bytes(i)) for i in learned if i not in cut.special_ids)
    return nats / math.log(2) / max(num_bytes, 1), None


def run_miao(spec: Spec, commands: Commands) -> None:
    """Miao's own loop, on packed rows."""
    device = torch.device(spec.device)
    model = Decoder(ModelConfig(**spec.config))
    model.initialize(spec.seed)
    model.to(device)
    model.set_compute_dtype(torch.bfloat16 if spec.precision == "bf16" else torch.float32)
    rows = heldout_rows(spec)

    def heldout() -> tuple[float, list[Row] | None]:
        model.eval()
        value = held_out(
            spec,
            rows,
            lambda b: LanguageObjective().loss(model, b.to(device))[0],
            lambda ids_bt: model(ids_bt.to(device)),
        )
        model.train()
        return value

    pacer = Pacer(spec, commands, heldout)

    class Paced(MetricsLog):
        def write(self, **values: Any) -> None:
            if "tokens_per_second" in values:
                pacer.facts = {name: float(values[name]) for name in ("loss", "data_wait")}
                gradients = getattr(trainer, "gradients", None)
                if gradients is not None:
                    pacer.facts["micro_batch"] = gradients.micro_batch
                pacer.tick(int(values["tokens"]), int(values["step"]))

    with tempfile.TemporaryDirectory() as directory:
        log = Paced(Path(directory) / "metrics.jsonl", "pretrain")
        trainer = miao_trainer(spec, model, Path(directory), log)
        pacer.start()
        trainer.run()
    finish(commands)


def miao_trainer(spec: Spec, model: Decoder, directory: Path, log: MetricsLog) -> Trainer:
    """Miao's loop for a spec; it looks at nothing, samples nothing and saves nothing."""
    given: dict[str, Any] = {
        "tokens": spec.budget or float(FOREVER) * 1e3,
        "seq_len": spec.seq_len,
        "batch_tokens": spec.batch_tokens,
        "micro_batch": "auto" if spec.micro_tokens is None else spec.micro_tokens // spec.seq_len,
        "schedule": "wsd" if spec.budget else "constant",
        "warmup": 0.02 if spec.budget else 20 * spec.batch_tokens,
        "eval_every": 0,
        "sample_every": 0,
        "save_every": 0,
        "log_every": spec.log_every,
    }
    options = PretrainOptions(**given | spec.options)
    options = fit_to_memory("pretrain", options, model)
    if spec.compile:
        model.compile_for_training()
    return Trainer(
        "pretrain",
        options,
        model,
        PackedLoader(sources(spec, spec.data), spec.seq_len),
        LanguageObjective(),
        float(options.tokens or 0),
        directory / "checkpoints",
        log,
        peak_flops=1e12,
    )


class Records(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Records of token shards, one by one."""

    def __init__(self, spec: Spec):
        self.sets = [TokenDataset(Path(d)) for d in spec.data]
        self.limit = spec.seq_len
        self.index = [(n, i) for n, dataset in enumerate(self.sets) for i in range(len(dataset))]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, item: int) -> dict[str, Any]:
        number, sequence = self.index[item]
        ids = self.sets[number].tokens(sequence, 0, self.limit)
        mask = self.sets[number].mask(sequence, 0, self.limit)
        labels = ids if mask is None else np.where(mask, ids, IGNORE)
        return {"input_ids": ids.tolist(), "labels": labels.tolist()}


class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Miao's packed rows, the labels shifted already."""

    def __init__(self, spec: Spec):
        self.loader = PackedLoader(sources(spec, spec.data), spec.seq_len)
        tokens = sum(source.total_tokens for source in self.loader.sources)
        self.rows = self.loader.next_rows(max(1, min(200_000, tokens // spec.seq_len)))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> dict[str, Any]:
        batch = self.loader.batch([self.rows[item]])
        return {
            "input_ids": batch.ids_bt[0],
            "labels": batch.labels_bt[0],
            "shift_labels": batch.labels_bt[0],
            "position_ids": batch.positions_bt[0],
            "real_tokens": batch.real_tokens,
        }


class Concatenated(Records):
    """All records run together and cut into rows of one length (`group_texts` of run_clm.py)."""

    def __init__(self, spec: Spec):
        super().__init__(spec)
        order = np.random.default_rng(1).permutation(len(self.index))
        parts = [Records.__getitem__(self, int(i)) for i in order[:60_000]]
        ids = np.concatenate([part["input_ids"] for part in parts])
        labels = np.concatenate([part["labels"] for part in parts])
        whole = len(ids) // spec.seq_len * spec.seq_len
        self.ids = torch.from_numpy(ids[:whole]).view(-1, spec.seq_len)
        self.labels = torch.from_numpy(labels[:whole]).view(-1, spec.seq_len)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, item: int) -> dict[str, Any]:
        return {"input_ids": self.ids[item], "labels": self.labels[item]}


def run_hugging_face(spec: Spec, commands: Commands) -> None:
    """The Hugging Face `Trainer` on transformers' class of the same shape."""
    import transformers
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        DataCollatorForSeq2Seq,
        PreTrainedTokenizerFast,
        TrainerCallback,
        TrainingArguments,
        default_data_collator,
    )

    keys = to_hf(ModelConfig(**spec.config))
    torch.manual_seed(spec.seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**keys))
    padded = spec.arm == "hf-padded"
    kinds = {"hf-padded": Records, "hf-packed": Rows, "hf-concat": Concatenated}
    data = kinds[spec.arm](spec)
    if padded:
        assert spec.tokenizer is not None
        tokenizer = PreTrainedTokenizerFast.from_pretrained(spec.tokenizer)
        collator = DataCollatorForSeq2Seq(tokenizer, padding=True)
        per_pass, passes = 8, 1
    else:
        collator = default_data_collator
        micro = min(spec.micro_tokens or spec.batch_tokens, spec.batch_tokens)
        per_pass = max(1, micro // spec.seq_len)
        passes = max(1, spec.batch_tokens // (per_pass * spec.seq_len))
    rows = heldout_rows(spec)

    def loss_of(batch: Batch) -> torch.Tensor:
        batch = batch.to(torch.device(spec.device))
        logits = model(
            input_ids=batch.ids_bt, position_ids=batch.positions_bt, use_cache=False
        ).logits
        return F.cross_entropy(
            logits.float().flatten(0, 1),
            batch.labels_bt.flatten(),
            ignore_index=IGNORE,
            reduction="sum",
        )

    def heldout() -> tuple[float, list[Row] | None]:
        model.eval()
        value = held_out(
            spec,
            rows,
            loss_of,
            lambda ids_bt: model(ids_bt.to(spec.device), use_cache=False).logits,
        )
        model.train()
        return value

    pacer = Pacer(spec, commands, heldout)

    class Counting(transformers.Trainer):
        real: Any = 0

        def training_step(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
            real = inputs.pop("real_tokens", None)
            if real is None:
                mask = inputs.get("attention_mask")
                real = inputs["input_ids"].numel() if mask is None else mask
            self.real = self.real + (real.sum() if torch.is_tensor(real) else real)
            return super().training_step(model, inputs, *rest, **more)

    class Pace(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % spec.log_every == 0:
                pacer.tick(int(trainer.real), state.global_step)

    mean = np.mean(
        [len(data[i]["input_ids"]) for i in range(0, len(data), max(1, len(data) // 200))]
    )
    per_step = per_pass * passes * float(mean)
    with tempfile.TemporaryDirectory() as directory:
        arguments = TrainingArguments(
            output_dir=directory,
            per_device_train_batch_size=per_pass,
            gradient_accumulation_steps=passes,
            learning_rate=spec.learning_rate,
            max_steps=FOREVER if spec.budget is None else max(1, round(spec.budget / per_step)),
            lr_scheduler_type="linear" if spec.budget else "constant",
            bf16=spec.precision == "bf16",
            torch_compile=spec.compile,
            use_cpu=spec.device == "cpu",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_num_workers=spec.workers,
            **spec.options,
        )
        trainer = Counting(
            model=model,
            args=arguments,
            train_dataset=data,
            data_collator=collator,
            callbacks=[Pace()],
        )
        pacer.start()
        trainer.train()
    finish(commands)


def finish(commands: Commands) -> None:
    """The budget is spent: every further command is answered so."""
    while True:
        commands.reply(finished=True)
        commands.next()


def main() -> None:
    commands = Commands()
    spec = Spec(**json.loads(sys.argv[1]))
    if spec.keep_memory and spec.device == "cpu":
        keep_freed_memory()
    if spec.memory_gib is not None:
        cap_gpu_memory(spec.memory_gib, torch.device(spec.device))
    if spec.arm == "miao":
        run_miao(spec, commands)
    else:
        run_hugging_face(spec, commands)


def environment() -> dict[str, str]:
    """Settings of a worker that trains: quiet, and without anything fetched."""
    return {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "5000"),
    }


if __name__ == "__main__":
    main()
