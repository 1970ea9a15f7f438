"""One engine in a process of its own, for `serve.py` and `gpu_serve.py`: greedy answers of a given
length to prompts of random tokens, as many at once as are asked for."""

from __future__ import annotations

import ctypes
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from common import Commands

MOST_STREAMS = 64
Generate = Callable[[list[list[int]], int], Iterator[int]]
"""Prompts and length -> how many tokens each step made, as they come."""


def prompts_of(streams: int, length: int, vocab_size: int) -> list[list[int]]:
    """The same random prompts in every process."""
    dice = random.Random(streams)
    return [[dice.randrange(3, vocab_size) for _ in range(length)] for _ in range(streams)]


def miao(spec: dict[str, Any]) -> Generate:
    import torch

    from miao.engine import Request, SamplingOptions, Scheduler
    from miao.engine.backend import make_runner, pack
    from miao.engine.packed import PackedDecoder
    from miao.engine.runner import Runner
    from miao.model import load_model

    decoder = load_model(spec["model"]).to(spec["device"])
    runner: Runner
    if spec.get("fast", True):
        runner = make_runner(
            pack(decoder, spec["weights"], consume=True), MOST_STREAMS, spec["context"]
        )
    else:
        packed = PackedDecoder(decoder, spec["weights"], consume=True)
        runner = Runner(packed, MOST_STREAMS, spec["context"])
    scheduler = Scheduler(runner, frozenset(), reuse_prefixes=False)
    torch.set_grad_enabled(False)

    def generate(prompts: list[list[int]], tokens: int) -> Iterator[int]:
        for prompt in prompts:
            scheduler.submit(Request(prompt, SamplingOptions(max_new_tokens=tokens)))
        while scheduler.has_work:
            yield len(scheduler.step())

    return generate


def transformers(spec: dict[str, Any]) -> Generate:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.generation.streamers import BaseStreamer

    dtype = torch.bfloat16 if spec["weights"] == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=dtype).to(spec["device"])
    model.eval()

    now = clock_of(spec)

    class Clock(BaseStreamer):
        """Notes when each step's tokens are there; the first call brings the prompt."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def put(self, value: Any) -> None:
            self.times.append(now())

        def end(self) -> None:
            pass

    def generate(prompts: list[list[int]], tokens: int) -> Iterator[int]:
        ids = torch.tensor(prompts, device=spec["device"])
        clock = Clock()
        first = None
        with torch.inference_mode():
            if len(prompts) == 1:
                began = now()
                model.generate(ids, attention_mask=torch.ones_like(ids), streamer=clock,
                    max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0,
                    temperature=None, top_p=None)  # fmt: skip
                first = clock.times[1] - began
            else:
                model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens,
                    min_new_tokens=tokens, do_sample=False, pad_token_id=0, temperature=None,
                    top_p=None)  # fmt: skip
        generate.first = first  # type: ignore[attr-defined]
        yield len(prompts) * tokens

    return generate


def llama_cpp(spec: dict[str, Any]) -> Generate:
    """llama.cpp through its C interface, all streams in one batch per step."""
    import llama_cpp as ll

    ll.llama_log_set(_QUIET, ctypes.c_void_p(0))
    ll.llama_backend_init()
    model = ll.llama_model_load_from_file(spec["gguf"].encode(), ll.llama_model_default_params())
    assert model, spec["gguf"]
    settings = ll.llama_context_default_params()
    settings.n_ctx = spec["length"] * MOST_STREAMS
    settings.n_seq_max = MOST_STREAMS
    settings.n_batch = settings.n_ubatch = 2048
    settings.n_threads = settings.n_threads_batch = spec["threads"]
    settings.kv_unified = False
    context = ll.llama_init_from_model(model, settings)
    vocab_size = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model))
    memory = ll.llama_get_memory(context)
    batch = ll.llama_batch_init(2048, 0, 1)

    def decode(entries: list[tuple[int, int, int, bool]]) -> None:
        batch.n_tokens = len(entries)
        for place, (token, position, sequence, wanted) in enumerate(entries):
            batch.token[place], batch.pos[place] = token, position
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, sequence
            batch.logits[place] = wanted
        assert ll.llama_decode(context, batch) == 0

    def likeliest(place: int) -> int:
        import numpy as np

        logits = np.ctypeslib.as_array(ll.llama_get_logits_ith(context, place), (vocab_size,))
        return int(logits.argmax())

    def generate(prompts: list[list[int]], tokens: int) -> Iterator[int]:
        ll.llama_memory_clear(memory, True)
        newest: list[int] = []
        per_pass = max(1, 2048 // len(prompts[0]))
        for start in range(0, len(prompts), per_pass):
            part = list(enumerate(prompts))[start : start + per_pass]
            ends = [len(prompt) * (n + 1) - 1 for n, (_, prompt) in enumerate(part)]
            decode([
                (token, position, number, position == len(prompt) - 1)
                for number, prompt in part
                for position, token in enumerate(prompt)
            ])  # fmt: skip
            newest += [likeliest(end) for end in ends]
        yield len(prompts)
        for step in range(tokens - 1):
            position = len(prompts[0]) + step
            decode([(token, position, number, True) for number, token in enumerate(newest)])
            newest = [likeliest(number) for number in range(len(prompts))]
            yield len(prompts)

    return generate


def _quiet(level: int, text: bytes, data: Any) -> None:
    return None


_QUIET = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(_quiet)


def vllm(spec: dict[str, Any]) -> Generate:
    from vllm import LLM, SamplingParams

    model = LLM(spec["model"], dtype="bfloat16", max_model_len=spec["context"], seed=0)

    def generate(prompts: list[list[int]], tokens: int) -> Iterator[int]:
        settings = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
        model.generate(inputs, settings, use_tqdm=False)
        yield len(prompts) * tokens

    return generate


ENGINES = {"miao": miao, "transformers": transformers, "llama.cpp": llama_cpp, "vllm": vllm}


def clock_of(spec: dict[str, Any]) -> Callable[[], float]:
    """Seconds of the wall, or of the processor."""
    return time.process_time if spec["clock"] == "cpu" else time.perf_counter


def measure(generate: Generate, spec: dict[str, Any], command: dict[str, Any]) -> dict[str, Any]:
    """Seconds until the first token, and until all."""
    clock = clock_of(spec)
    prompts = prompts_of(command["streams"], command["prompt"], spec["vocab_size"])
    began, first, made = clock(), 0.0, 0
    for count in generate(prompts, command["tokens"]):
        made += count
        if not first:
            first = clock() - began
    seconds = clock() - began
    first = getattr(generate, "first", first)
    assert made == command["streams"] * command["tokens"], made
    return {"seconds": seconds, "first": first, "tokens": made, "memory_mib": memory_mib(spec)}


def memory_mib(spec: dict[str, Any]) -> float:
    """What the process (or the GPU) holds now."""
    if spec["device"] == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


def main() -> None:
    commands, spec = Commands(), json.loads(sys.argv[1])
    if spec["engine"] != "llama.cpp":
        import torch

        torch.set_num_threads(spec["threads"])
    generate = ENGINES[spec["engine"]](spec)
    measure(generate, spec, {"streams": 1, "prompt": 8, "tokens": 4})
    commands.reply(ready=True)
    while True:
        commands.reply(**measure(generate, spec, commands.next()))


if __name__ == "__main__":
    main()
