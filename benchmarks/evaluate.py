"""Evaluation side by side with lm-evaluation-harness: the same model, the same prompts.

    python benchmarks/evaluate.py --data FOLDER --tokenizer DIR [--shape 26m | 6m | --model DIR]

Needs lm-eval and transformers; FOLDER holds C-Eval's files. Without --model a random model is made
(random in every matrix, so that its answers differ). Both are given the texts that `miao.evaluate`
builds (equal to the harness's own: tests/evaluate); timed is everything from texts to
log-probabilities, in turn within one process (A B B A ...), in seconds and in CPU seconds, which
vary less where a machine is shared. The harness runs as its `hf` model does by default (one row at
a time, on a CPU the fastest) or with other batch sizes. Agreement is counted question by question.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import best_and_median, parser_for, report

from miao.evaluate.measure.continuations import Continuation, continuation_logprobs
from miao.evaluate.tasks.items import Questions, read_questions
from miao.evaluate.tasks.prompts import Encoder, Prompt, build_prompt
from miao.evaluate.tasks.task import Task, load_task
from miao.model import Decoder, ModelConfig, load_model, save_model
from miao.model.presets import preset
from miao.tokenizer import Tokenizer

SMALL = {
    "hidden_size": 256,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 704,
}
Values = list[list[float]]
COLUMNS = [
    "arm",
    "questions",
    "seconds",
    "times_miao",
    "cpu_seconds",
    "times_miao_cpu",
    "same_choice",
]


def shape(name: str, vocab_size: int, context: int) -> ModelConfig:
    """The preset 26m, or a fourth of it, with room for prompts that nobody needs to cut."""
    if name == "6m":
        return ModelConfig(vocab_size=vocab_size, max_position_embeddings=context, **SMALL)
    return dataclasses.replace(
        preset(name).config, vocab_size=vocab_size, max_position_embeddings=context
    )


def random_model(config: ModelConfig, tokenizer: Tokenizer, directory: Path) -> None:
    model = Decoder(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.04, generator=generator)
    save_model(model, directory)
    tokenizer.save(directory)


def ours(model: Decoder, tokenizer: Tokenizer, by_subject: list[list[Prompt]]) -> Values:
    """Subject by subject, as `miao eval` asks."""
    encoder, found = Encoder(tokenizer), []
    for prompts in by_subject:
        asked = [
            Continuation(before + after, len(after))
            for prompt in prompts
            for before, after in encoder.pairs(prompt)
        ]
        values = iter(continuation_logprobs(model, asked))
        found += [[next(values).logprob for _ in prompt.choices] for prompt in prompts]
    return found


def harness(directory: Path, prompts: list[Prompt], batch: int) -> Callable[[], Values]:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=str(directory), device="cpu", dtype="float32", batch_size=batch)
    requests = [
        Instance("loglikelihood", {}, (prompt.context, choice), number)
        for prompt in prompts
        for number, choice in enumerate(prompt.choices)
    ]

    def run() -> Values:
        values = iter(model.loglikelihood(requests, disable_tqdm=True))
        return [[next(values)[0] for _ in prompt.choices] for prompt in prompts]

    return run


def measure(calls: dict[str, Callable[[], Values]], rounds: int) -> list[dict[str, Any]]:
    """A row per arm; the first is the one that the others are compared with."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    values: dict[str, Values] = {}
    for number in range(rounds):
        for name in list(calls) if number % 2 == 0 else list(calls)[::-1]:
            began, used = time.perf_counter(), time.process_time()
            values[name] = calls[name]()
            seconds[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - used)
            took = f"{seconds[name][-1]:.1f} s, {cpu[name][-1]:.1f} s of CPU"
            print(f"round {number + 1}, {name}: {took}", flush=True)
    first = next(iter(calls))
    rows = []
    for name in calls:
        best = best_and_median(seconds[name])
        pairs = list(zip(values[first], values[name], strict=True))
        rows.append(
            {
                "arm": name,
                "questions": len(pairs),
                "seconds": best["best"],
                "median": best["median"],
                "per_minute": 60 * len(pairs) / best["best"],
                "times_miao": best["best"] / min(seconds[first]),
                "cpu_seconds": min(cpu[name]),
                "times_miao_cpu": min(cpu[name]) / min(cpu[first]),
                "same_choice": sum(a.index(max(a)) == b.index(max(b)) for a, b in pairs),
                "largest_gap": max(
                    (abs(x - y) for a, b in pairs for x, y in zip(a, b, strict=True)),
                    default=math.nan,
                ),
            }
        )
    return rows


def read(task: Task, options: Any) -> tuple[Questions, list[list[Prompt]]]:
    """The questions, and their prompts by subject."""
    subjects = options.subjects or list(task.subjects)[:: options.every]
    limit = 2 if options.quick else None
    found = read_questions(task, options.data, None, options.shots, subjects, limit)
    style = task.styles["lm-eval"]
    return found, [
        [build_prompt(task, style, item, found.examples.get(name, [])) for item in items]
        for name, items in found.items.items()
    ]


def main() -> None:
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of C-Eval's files")
    add("--tokenizer", type=Path, required=True, help="a directory with tokenizer.json")
    add("--shape", default="26m", help="6m or a preset (default 26m)")
    add("--model", type=Path, help="a model directory in place of a random model")
    add("--context", type=int, default=4096, help="positions of the random model")
    add("--subjects", nargs="+", default=[])
    add("--every", type=int, default=1, metavar="N", help="every N-th of the 52 subjects")
    add("--shots", type=int, default=5)
    add("--batches", nargs="*", type=int, default=[1], help="of the harness; none: Miao alone")
    add("--rounds", type=int, default=2)
    options = parser.parse_args()
    tokenizer, task = Tokenizer.from_directory(options.tokenizer), load_task("ceval")
    found, by_subject = read(task, options)
    prompts = [prompt for part in by_subject for prompt in part]
    with tempfile.TemporaryDirectory() as temporary:
        directory = options.model or Path(temporary)
        if options.model is None:
            config = shape(options.shape, tokenizer.vocab_size, options.context)
            random_model(config, tokenizer, directory)
        model = load_model(directory)
        calls: dict[str, Callable[[], Values]] = {
            "miao": lambda: ours(model, tokenizer, by_subject)
        }
        ours(model, tokenizer, [prompts[:2]])  # what is made once per process
        for batch in options.batches:
            harness(directory, prompts[:2], batch)()
            calls[f"lm-eval, batch {batch}"] = harness(directory, prompts, batch)
        rows = measure(calls, options.rounds)
    tokens = sum(len(Encoder(tokenizer).pairs(prompt)[0][0]) for prompt in prompts)
    more = {"shots": options.shots, "subjects": len(found.items), "prompt_tokens": tokens}
    report("evaluate", options, "cpu", COLUMNS, rows, shape=options.shape, **more)


if __name__ == "__main__":
    main()
