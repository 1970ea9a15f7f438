"""Evaluation side by side with lm-evaluation-harness: the same model, the same prompts.

    python benchmarks/evaluate.py --data FOLDER --tokenizer DIR [--model DIR] [--subjects law ...]

Needs lm-eval and transformers. Without --model a random model of 26M parameters is made. Both are
given the texts that `miao.evaluate` builds (equal to the harness's own: tests/evaluate); timed is
everything from texts to log-probabilities. CPU seconds are given beside seconds, since machines
are shared; the harness runs with its default batch of one row, and with eight.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from miao.evaluate.continuations import Continuation, continuation_logprobs
from miao.evaluate.items import read_questions
from miao.evaluate.prompts import Encoder, Prompt, build_prompt
from miao.evaluate.task import load_task
from miao.model import Decoder, ModelConfig, load_model, save_model
from miao.tokenizer import Tokenizer

SHAPE = {
    "hidden_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "intermediate_size": 1408,
    "max_position_embeddings": 8192,
}


def random_model(tokenizer: Tokenizer, directory: Path) -> None:
    """Random in every matrix, so that its answers differ from question to question."""
    model = Decoder(ModelConfig(vocab_size=tokenizer.vocab_size, **SHAPE))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.04, generator=generator)
    save_model(model, directory)
    tokenizer.save(directory)


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it returns, seconds, and CPU seconds of this process."""
    began, cpu = time.perf_counter(), time.process_time()
    made = work()
    return made, time.perf_counter() - began, time.process_time() - cpu


def ours(model: Decoder, tokenizer: Tokenizer, prompts: list[Prompt]) -> list[list[float]]:
    encoder, asked = Encoder(tokenizer), []
    for prompt in prompts:
        asked += [Continuation(a + b, len(b)) for a, b in encoder.pairs(prompt)]
    values = iter(continuation_logprobs(model, asked))
    return [[next(values).logprob for _ in prompt.choices] for prompt in prompts]


def harness(directory: Path, prompts: list[Prompt], batch: int) -> Callable[[], list[list[float]]]:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=str(directory), device="cpu", dtype="float32", batch_size=batch)
    requests = [
        Instance("loglikelihood", {}, (prompt.context, choice), number)
        for prompt in prompts
        for number, choice in enumerate(prompt.choices)
    ]

    def run() -> list[list[float]]:
        values = iter(model.loglikelihood(requests, disable_tqdm=True))
        return [[next(values)[0] for _ in prompt.choices] for prompt in prompts]

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of C-Eval's files")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--subjects", nargs="+", default=[])
    parser.add_argument("--limit", type=int)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8], help="of the harness")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    tokenizer, task = Tokenizer.from_directory(options.tokenizer), load_task("ceval")
    found = read_questions(task, options.data, None, options.shots, options.subjects, options.limit)
    prompts = [
        build_prompt(task, task.styles["lm-eval"], item, found.examples.get(item.subject, []))
        for item in found.all()
    ]
    with tempfile.TemporaryDirectory() as temporary:
        directory = options.model or Path(temporary)
        if options.model is None:
            random_model(tokenizer, directory)
        model = load_model(directory)
        runs: dict[str, Callable[[], list[list[float]]]] = {
            "miao": lambda: ours(model, tokenizer, prompts)
        }
        for batch in options.batches:
            runs[f"lm-eval, batch {batch}"] = harness(directory, prompts, batch)
        ours(model, tokenizer, prompts[:1])  # what is made once per process
        harness(directory, prompts[:1], 1)()
        results: dict[str, Any] = {}
        for _ in range(options.rounds):
            for name, work in runs.items():
                values, seconds, cpu = timed(work)
                best = results.setdefault(name, {"seconds": seconds, "cpu": cpu, "values": values})
                best["seconds"] = min(best["seconds"], seconds)
                best["cpu"] = min(best["cpu"], cpu)
    mine = results["miao"]["values"]
    summary: dict[str, Any] = {
        "questions": len(prompts),
        "shots": options.shots,
        "threads": torch.get_num_threads(),
    }
    for name, result in results.items():
        other = result.pop("values")
        same = sum(a.index(max(a)) == b.index(max(b)) for a, b in zip(mine, other, strict=True))
        gap = max(
            abs(x - y) for a, b in zip(mine, other, strict=True) for x, y in zip(a, b, strict=True)
        )
        summary[name] = result | {
            "same choice": same,
            "largest difference": gap,
            "times miao (cpu)": result["cpu"] / results["miao"]["cpu"],
            "times miao (wall)": result["seconds"] / results["miao"]["seconds"],
        }
    print(json.dumps(summary, indent=2))
    if options.out:
        options.out.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
