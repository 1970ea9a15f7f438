"""`miao serve`: a model behind an OpenAI-compatible address."""

from __future__ import annotations

import argparse
import contextlib
import socket
import tempfile
from pathlib import Path
from typing import Any

from miao.console import say, warn
from miao.errors import MiaoError, install_hint
from miao.files import read_json
from miao.hubs import is_hub_name
from miao.language import Parser
from miao.model.estimate import gib
from miao.openai_api import api_key
from miao.rundir import find_model
from miao.serve.listening import BACKLOG, address_of, is_loopback, listen, names_of


def main(words: list[str]) -> int:
    """Runs the command line `miao serve ...`; returns when the server has stopped.

    Raises:
        MiaoError: no such model, a port that is taken, a package that is missing.
    """
    options = make_parser().parse_args(words)
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MiaoError(
            f"serving needs the '{error.name}' package", fix=install_hint("serve")
        ) from error
    from miao.serve.app import Limits, create_app
    from miao.serve.running import run_until_stopped

    key = api_key(options.api_key)
    if options.runs is not None and not options.runs.is_dir():
        raise MiaoError("there is no such directory", where=options.runs)
    listening = listen(options.host, options.port)
    with listening, contextlib.ExitStack() as kept:
        models = load_models(options, kept)
        limits = Limits(options.max_queue, options.timeout, options.max_body, options.read_timeout)
        hosts = names_of(options.host, options.allow_host)
        app = create_app(models, limits, key, tuple(options.cors_origin), options.runs, hosts)
        listening.listen(BACKLOG)
        _say_ready(options, listening, models, key)
        worker = app.state.worker
        try:
            patience, refuse = options.shutdown_timeout, app.state.desk.close
            run_until_stopped(app, listening, patience, worker.total_open, worker.stop, refuse)
        finally:
            worker.stop()
    return 0


def make_parser() -> argparse.ArgumentParser:
    """What `miao serve` takes."""
    parser = Parser(
        prog="miao serve",
        description="Serves a model to OpenAI's clients: chat, completions, embeddings.",
    )
    for name, text, more in _OPTIONS:
        parser.add_argument(name, help=text, **more)
    return parser


_REPEATABLE: dict[str, Any] = {"action": "append", "default": []}
_OPTIONS: list[tuple[str, str, dict[str, Any]]] = [
    (
        "model",
        "a run directory (runs/NAME), a model directory, a checkpoint or a hub name",
        {},
    ),
    ("--name", "what clients call the model (default: the directory's name)", {}),
    (
        "--adapter",
        "also serve the model with this LoRA adapter, under a name of its own; repeatable",
        {"metavar": "[NAME=]DIR", **_REPEATABLE},
    ),
    ("--host", "address to listen at (default: this machine only)", {"default": "127.0.0.1"}),
    ("--port", "0: any free one (default 8000)", {"type": int, "default": 8000}),
    ("--api-key", "clients must send it (default: the variable MIAO_API_KEY)", {}),
    (
        "--cors-origin",
        "let web pages of this origin call the server; repeatable (default: none)",
        {"metavar": "ORIGIN", **_REPEATABLE},
    ),
    (
        "--allow-host",
        "also answer to this name, as behind a proxy; repeatable (default: where only this machine "
        "can reach the server, to localhost alone; else to any name)",
        {"metavar": "NAME", **_REPEATABLE},
    ),
    ("--runs", "also show this directory of runs, at /runs", {"metavar": "DIR", "type": Path}),
    ("--device", "auto, cpu, cuda, mps", {"default": "auto"}),
    (
        "--weights",
        "type of the weights: int8 is fastest on CPUs and changes answers slightly (default: bf16 "
        "on GPUs that have it, else fp32)",
        {"choices": ("auto", "fp32", "bf16", "int8"), "default": "auto"},
    ),
    ("--context", "longest prompt plus answer, in tokens (default: the model's)", {"type": int}),
    ("--max-concurrency", "answers made at once (default 16)", {"type": int, "default": 16}),
    ("--max-queue", "requests that may wait; more get 429", {"type": int, "default": 64}),
    ("--timeout", "seconds after which a request is given up", {"type": float, "default": 600.0}),
    (
        "--read-timeout",
        "seconds in which a request must have come whole (default 60)",
        {"type": float, "default": 60.0},
    ),
    ("--max-body", "bytes of a request at most", {"type": int, "default": 4 * 2**20}),
    (
        "--shutdown-timeout",
        "seconds that begun answers get when the server is stopped",
        {"type": int, "default": 60},
    ),
    ("--temperature", "where a request says nothing (default: the model's)", {"type": float}),
    ("--top-p", "likewise", {"type": float}),
]


def load_models(options: argparse.Namespace, kept: contextlib.ExitStack) -> list[Any]:
    """The model, and its merger with every adapter.

    Args:
        kept: holds the temporary directories of merged adapters.

    Raises:
        MiaoError: any of them cannot be read or does not fit.
    """
    for name in (
        "max_concurrency",
        "max_queue",
        "timeout",
        "max_body",
        "read_timeout",
        "context",
        "shutdown_timeout",
    ):
        value = getattr(options, name)
        if value is not None and value < (0 if name == "max_queue" else 1):
            raise MiaoError(f"--{name.replace('_', '-')}: {value} is too small")
    directory = _directory_of(options.model)
    name = options.name or _name_of(options.model)
    models = [_load(directory, directory, name, options)]
    for given in options.adapter:
        alias, _, path = given.rpartition("=")
        adapter = Path(path)
        name = alias or adapter.name
        if any(served.name == name for served in models):
            raise MiaoError(f"two models are called '{name}'", fix="--adapter NAME=DIR names one")
        from miao.export.adapter import merge_adapter

        merged = Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="miao-serve-")))
        merge_adapter(directory, adapter, merged)
        models.append(_load(merged, directory, name, options))
    return models


def _directory_of(model: str) -> Path:
    """That of a model, or a checkpoint's own."""
    from miao.inspect.models import is_checkpoint

    return Path(model) if is_checkpoint(Path(model)) else find_model(model)


def _load(directory: Path, settings: Path, name: str, options: argparse.Namespace) -> Any:
    from miao.device import choose_device, choose_dtype
    from miao.engine.backend import make_runner, pack
    from miao.engine.sampling import SamplingOptions
    from miao.engine.scheduler import Scheduler
    from miao.inspect.models import is_checkpoint, load_checkpoint
    from miao.model import load_model
    from miao.serve.models import Served
    from miao.tokenizer import Tokenizer

    if is_checkpoint(directory):
        decoder, tokenizer = load_checkpoint(directory)
    else:
        decoder, tokenizer = load_model(directory), Tokenizer.from_directory(settings)
    device = choose_device(options.device)
    weights = options.weights
    if weights == "auto":
        is_half = device.type == "cuda" and str(choose_dtype("auto", device)) == "torch.bfloat16"
        weights = "bf16" if is_half else "fp32"
    if weights == "int8" and device.type != "cpu":
        raise MiaoError("int8 weights are for CPUs", where="--weights", fix="use bf16")
    packed = pack(decoder.to(device), weights, consume=True)
    trained = decoder.config.context_length
    context = options.context or trained
    if context > trained:
        raise MiaoError(f"--context: the model was made for {trained} tokens, not {context}")
    runner = make_runner(packed, options.max_concurrency, context)
    scheduler = Scheduler(runner, frozenset(tokenizer.stop_ids))
    return Served(name, tokenizer, scheduler, _defaults(settings, options, SamplingOptions))


def _defaults(directory: Path, options: argparse.Namespace, kind: Any) -> Any:
    """The model's own sampling settings, under those of the command line."""
    from miao.engine.sampling import OF_A_MODEL

    path = directory / "generation_config.json"
    own = read_json(path) if path.exists() else {}
    found = {name: own[name] for name in OF_A_MODEL if own.get(name) is not None}
    found = {} if own.get("do_sample") is False else {"temperature": 1.0} | found
    given = {"temperature": options.temperature, "top_p": options.top_p}
    return kind(**found | {name: value for name, value in given.items() if value is not None})


def _name_of(model: str) -> str:
    """That of a repository on a hub, of a run, or of a model directory."""
    if is_hub_name(model):
        return model.rpartition("/")[2].partition("@")[0]
    directory = Path(model).resolve()
    return directory.parent.name if directory.name == "model" else directory.name


def _say_ready(
    options: argparse.Namespace, listening: socket.socket, models: list[Any], key: str | None
) -> None:
    address = address_of(options.host, listening)
    first = models[0].scheduler.runner
    size = first.cache.keys.nbytes + first.cache.values.nbytes
    say(f"serving {', '.join(served.name for served in models)} at {address}/v1")
    say(
        f"  context {models[0].context} tokens, {options.max_concurrency} answers at once, "
        f"keys and values up to {gib(size)} each, weights {first.model.weights} "
        f"on {first.model.device}"
    )
    if key is None and not is_loopback(options.host):
        warn("anybody who can reach this address can use the model: consider --api-key")
    say(f"  talk to it: {address}/ in a browser      stop it: Ctrl-C")
    say(f"              miao chat --server {address}")
