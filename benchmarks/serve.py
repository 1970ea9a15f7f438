"""Generation side by side: Miao's engine, transformers.generate, llama.cpp, on the same weights.

    python benchmarks/serve.py --shapes 26m 104m --llama-packages VENV/lib/python3.11/site-packages

Random weights of a preset's shape, greedy, prompts of random tokens. Each engine has a process of
its own, and they take turns. transformers reads a batch as one static block of equal lengths,
which is the best case for it. Memory is what a process holds, the Python libraries included.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from pathlib import Path
from typing import Any

from common import ROOT, Worker, parser_for, report

ARMS: dict[str, dict[str, Any]] = {
    "transformers fp32": {"engine": "transformers", "weights": "fp32"},
    "miao fp32": {"engine": "miao", "weights": "fp32"},
    "miao bf16": {"engine": "miao", "weights": "bf16"},
    "miao int8": {"engine": "miao", "weights": "int8"},
    "miao fp32, no compiler": {"engine": "miao", "weights": "fp32", "fast": False},
    "llama.cpp F32": {"engine": "llama.cpp", "file_type": "f32"},
    "llama.cpp F16": {"engine": "llama.cpp", "file_type": "f16"},
    "llama.cpp Q8_0": {"engine": "llama.cpp", "file_type": "q8_0"},
}
BASE = "transformers fp32"
TIMEOUT = 900.0
COLUMNS = ("shape", "engine", "streams", "tokens/s", "x transformers", "first token s", "MiB")


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--shapes", nargs="+", default=["26m", "104m"])
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 4, 16, 64])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--tokens", type=int, default=128, help="of every answer")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of every prompt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: processor time, for --threads 1 on a busy machine",
    )
    parser.add_argument("--llama-packages", help="site-packages that hold llama_cpp")
    parser.add_argument("--models", type=Path, help="keep the random models here")
    parser.add_argument("--prepare", action="store_true", help="only make the models")
    options = parser.parse_args()
    options.device = "cpu"
    if options.quick:
        options.shapes, options.streams = ["26m"], [1, 4]
        options.tokens, options.rounds = 16, 1
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="miao-bench-") as scratch:
        for shape in options.shapes:
            if options.prepare:
                make_model(shape, options.models / shape)
                for file_type in ("f32", "f16", "q8_0"):
                    make_gguf(options.models / shape, file_type)
                continue
            rows += compare(shape, options.models or Path(scratch), options)
    if options.prepare:
        return
    report("serve", options, "cpu", COLUMNS, rows, tokens=options.tokens, prompt=options.prompt)


def compare(
    shape: str,
    scratch: Path,
    options: argparse.Namespace,
    arms: dict[str, dict[str, Any]] = ARMS,
    base: str = BASE,
) -> list[dict[str, Any]]:
    """Rows of the table for one shape.

    Args:
        arms: what runs, by name. base: the one that the others are held against.
    """
    model, vocab_size = make_model(shape, scratch / shape)
    length = options.prompt + options.tokens
    spec = {"model": str(model), "vocab_size": vocab_size, "threads": options.threads}
    spec |= {
        "clock": options.clock,
        "device": options.device,
        "length": length,
        "context": length + 1,
    }
    workers: dict[str, Worker] = {}
    for name in options.arms:
        arm = arms[name] | spec
        if "file_type" in arm:
            arm["gguf"] = str(make_gguf(model, arm["file_type"]))
        env = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(options.threads)}
        if arm["engine"] == "llama.cpp" and options.llama_packages:
            env["PYTHONPATH"] += os.pathsep + options.llama_packages
        log = scratch / f"{name}.log"
        worker = Worker(ROOT / "benchmarks" / "serve_arms.py", arm, log, env)
        try:
            worker.receive(TIMEOUT)
            workers[name] = worker
        except RuntimeError as error:
            print(f"{name}: not run ({str(error).splitlines()[-1]})", flush=True)
    try:
        return measure(shape, workers, options, base)
    finally:
        for worker in workers.values():
            worker.close()


def measure(
    shape: str, workers: dict[str, Worker], options: argparse.Namespace, base: str
) -> list[dict[str, Any]]:
    """All workers in turn, so that whatever else the machine does hits them alike."""
    rows = []
    for streams in options.streams:
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
        for turn in range(options.rounds):
            for name in list(workers)[:: -1 if turn % 2 else 1]:
                reply = workers[name].ask(
                    TIMEOUT, streams=streams, tokens=options.tokens, prompt=options.prompt
                )
                found[name].append(reply)
        speed = {
            name: max(reply["tokens"] / reply["seconds"] for reply in replies)
            for name, replies in found.items()
        }
        for name, replies in found.items():
            firsts = [reply["first"] for reply in replies if reply["first"] is not None]
            row = {
                "shape": shape,
                "engine": name,
                "streams": streams,
                "tokens/s": speed[name],
                "x transformers": speed[name] / speed[base] if base in speed else None,
                "first token s": min(firsts) if firsts else None,
                "MiB": replies[-1]["memory_mib"],
            }
            rows.append(row)
            print(row, flush=True)
    return rows


def make_model(shape: str, directory: Path) -> tuple[Path, int]:
    """A model directory with random weights and a tokenizer, and its vocabulary size."""
    import torch

    from miao.model import Decoder, save_model
    from miao.model.presets import PRESETS, preset
    from miao.tokenizer import train_tokenizer

    config = preset(shape).config if shape in PRESETS else recipe_config(shape)
    if (directory / "tokenizer.json").exists():
        return directory, config.vocab_size
    model = Decoder(config)
    model.initialize(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):  # they start at zero
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    save_model(model, directory)
    dice = random.Random(0)  # words enough for any vocabulary
    words = ("".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(100_000))
    train_tokenizer([" ".join(words)], config.vocab_size).save(directory)
    return directory, config.vocab_size


def recipe_config(name: str) -> Any:
    """The model of a built-in recipe that is no preset."""
    from miao.model.build import new_config
    from miao.recipe.reading import load_recipe

    recipe = load_recipe(name)
    return new_config(recipe.model, recipe.tokenizer.vocab_size, None)


def make_gguf(model: Path, file_type: str) -> Path:
    from miao.export.gguf.file import write_gguf

    path = model / f"model-{file_type}.gguf"
    if not path.exists():
        write_gguf(model, path, file_type)
    return path


if __name__ == "__main__":
    main()
