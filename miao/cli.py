"""The verbs. Thin on purpose: each imports its room only when it is called."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence

from miao import __version__
from miao.errors import Interrupted, MiaoError, install_hint

STAGE_VERBS = {
    "corpus": "your text (or the built-in corpus) to records; `corpus check|catalog|build|distill`",
    "tokenizer": "train or take the tokenizer; `tokenizer inspect|compare|extend|import`",
    "shards": "tokenise everything; `shards stats|append|export`",
    "pretrain": "train from random weights on documents",
    "sft": "fine-tune on conversations",
    "dpo": "learn from preference pairs",
    "grpo": "learn from rewards for its own answers",
    "report": "write report.html; `report runs/NAME` of what is there",
}
CORPUS_VERBS = ("check", "catalog", "distill")
TOKENIZER_VERBS = ("inspect", "compare", "extend", "import")
SHARDS_VERBS = ("stats", "append", "export")
OF_A_RECIPE = (".yaml", ".yml", "-h", "--help")
"""With a word that ends so, `miao report` is the chain's; else it is of a directory."""
EPILOG = """A recipe is a YAML file of options (see recipes/seedling.yaml); any option can be given
on the command line:  miao run recipes/seedling.yaml --corpus.paths my_texts/ --pretrain.tokens 8M

  miao run RECIPE --help    lists every option of a recipe
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line; returns the exit code (2: a mistake the user can mend)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # DeepSpeed's launcher adds an argument that the environment says already (LOCAL_RANK).
    words = [word for word in words if not word.startswith(("--local_rank=", "--local-rank="))]
    # Waiting OpenMP threads soon go to sleep. By default they spin for milliseconds, which makes a
    # machine that is shared with anything else several times slower (docs/LOG.md).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    try:
        return _dispatch(words)
    except MiaoError as error:
        if os.environ.get("MIAO_DEBUG") == "1":
            raise
        print(f"miao: {error}", file=sys.stderr)
        return 2
    except Interrupted as interruption:
        print(
            f"\nstopped; everything is saved. Go on with:\n  miao {shlex.join(words)}",
            file=sys.stderr,
        )
        return interruption.exit_code
    except KeyboardInterrupt:
        print(f"\nstopped. Go on with:\n  miao {shlex.join(words)}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141


def _dispatch(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="miao",
        description="Grow a small Chinese/English language model, from raw text to a chat.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"miao {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    verbs.add_parser(
        "run", help="all stages of a recipe, those that are done are skipped", add_help=False
    )
    for name, text in STAGE_VERBS.items():
        verbs.add_parser(name, help=f"the chain up to here: {text}", add_help=False)
    verbs.add_parser("chat", help="talk to a trained model", add_help=False)
    verbs.add_parser(
        "serve", help="put a model behind an OpenAI-compatible address", add_help=False
    )
    verbs.add_parser(
        "board", help="runs while they train, in the browser, side by side", add_help=False
    )
    verbs.add_parser(
        "model", help="what a shape costs: `model list`, `model show NAME`", add_help=False
    )
    verbs.add_parser(
        "doctor", help="what this machine can do, and how long a recipe will take", add_help=False
    )
    verbs.add_parser(
        "export", help="write a model for other programs: Hugging Face or GGUF", add_help=False
    )
    verbs.add_parser("push", help="publish a model on Hugging Face or ModelScope", add_help=False)
    verbs.add_parser(
        "eval", help="benchmarks (C-Eval, CMMLU, MMLU, ...) and comparisons", add_help=False
    )
    if not words or words[0] in ("-h", "--help", "--version") or words[0] not in verbs.choices:
        parser.parse_args(words[:1])
        parser.print_help()
        return 0
    verb, rest = words[0], words[1:]
    if verb == "chat":
        return _chat(rest)
    if verb == "export":
        from miao.export.command import main as export_main

        return export_main(rest)
    if verb == "serve":
        from miao.serve.command import main as serve_main

        return serve_main(rest)
    if verb == "board":
        return _board(rest)
    if verb == "push":
        return _push(rest)
    if verb == "eval":
        from miao.evaluate.command import main as eval_main

        return eval_main(rest)
    if verb == "model":
        return _model(rest)
    if verb == "doctor":
        from miao.doctor.command import main as doctor_main

        return doctor_main(rest)
    if verb == "corpus" and rest[:1] == ["build"]:
        from miao.workshop import main as workshop_main

        return workshop_main(rest[1:])
    if verb == "corpus" and rest[:1] and rest[0] in CORPUS_VERBS:
        return _corpus(rest[0], rest[1:])
    if verb == "tokenizer" and rest[:1] and rest[0] in TOKENIZER_VERBS:
        from miao.tokenizer_verb import main as tokenizer_main

        return tokenizer_main(rest)
    if verb == "shards" and rest[:1] and rest[0] in SHARDS_VERBS:
        from miao.shards_verb import main as shards_main

        return shards_main(rest)
    if verb == "report" and not any(word.endswith(OF_A_RECIPE) for word in rest):
        from miao.report.command import main as report_main

        return report_main(rest)
    return _run(verb, rest)


def _board(words: list[str]) -> int:
    try:
        from miao.serve.board import main as board_main
    except ImportError as error:
        raise MiaoError(
            f"the board needs the '{error.name}' package", fix=install_hint("serve")
        ) from error
    return board_main(words)


def _corpus(verb: str, words: list[str]) -> int:
    if verb == "check":
        from miao.corpus.check import main as check_main

        return check_main(words)
    if verb == "distill":
        from miao.corpus.distill import main as distill_main

        return distill_main(words)
    from miao.corpus.catalog.listing import main as catalog_main

    return catalog_main(words)


def _run(verb: str, words: list[str]) -> int:
    from miao.options import make_parser
    from miao.recipe import Recipe
    from miao.recipe.reading import load_recipe
    from miao.train.world import said_once

    if "-h" in words or "--help" in words:
        what = STAGE_VERBS.get(verb, "all stages of a recipe")
        print(f"miao {verb} RECIPE.yaml [--key.sub value ...]\n\n{what}\n")
        make_parser(Recipe, f"miao {verb} RECIPE").print_help()
        return 0
    path = words.pop(0) if words and not words[0].startswith("--") else None
    if path is None:
        raise MiaoError("which recipe?", fix=f"miao {verb} recipes/seedling.yaml")
    with said_once():
        recipe = load_recipe(path, words)
    from miao.run import run_recipe

    run_recipe(recipe, "report" if verb == "run" else verb)
    return 0


def _chat(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="miao chat",
        description="Talk to a trained model; answers stream as they are made. Inside: /help.",
    )
    parser.add_argument(
        "directory", nargs="?", help="a run directory (runs/NAME) or a model directory"
    )
    parser.add_argument("--server", help="talk to a server at this address instead")
    parser.add_argument("--server-model", help="which of its models (default: its first)")
    parser.add_argument("--api-key", help="its key (default: the variable MIAO_API_KEY)")
    parser.add_argument(
        "--adapter", metavar="DIR", help="with this LoRA adapter (PEFT format); names its own model"
    )
    parser.add_argument("-p", "--prompt", help="ask this once, print the answer, and leave")
    parser.add_argument("--system", help="a system prompt")
    parser.add_argument(
        "--temperature", type=float, default=0.6, help="0: always the likeliest token"
    )
    parser.add_argument("--top-p", type=float, default=0.9, help="nucleus sampling (default 0.9)")
    parser.add_argument("--top-k", type=int, default=0, help="only the k likeliest tokens (0: all)")
    parser.add_argument(
        "--repetition-penalty", type=float, default=1.0, help="above 1: repeat less"
    )
    parser.add_argument("--max-new-tokens", type=int, default=256, help="longest answer")
    parser.add_argument("--seed", type=int, help="makes the answers repeatable")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    options = parser.parse_args(words)
    from miao.chat import chat_command

    chat_command(options)
    return 0


def _push(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="miao push",
        description="Uploads a model to a hub; needs a token (HF_TOKEN or MODELSCOPE_API_TOKEN).",
    )
    parser.add_argument(
        "model", help="a run directory (runs/NAME), a model directory or a hub name"
    )
    parser.add_argument("--to", required=True, help="hf:owner/name or modelscope:owner/name")
    parser.add_argument("--private", action="store_true", help="create a private repository")
    parser.add_argument("--message", help="the commit message")
    options = parser.parse_args(words)
    from miao.hubs import parse_hub_name, push_directory
    from miao.rundir import find_model

    name = parse_hub_name(options.to)  # before a model is looked for, which may be a download
    push_directory(
        find_model(options.model), name, private=options.private, message=options.message
    )
    return 0


def _model(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="miao model",
        description="What a model's shape costs: parameters, memory, arithmetic, hours per GPU.",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="every preset")
    show = verbs.add_parser(
        "show", help="one preset, recipe, run, model directory, config.json or hub name"
    )
    show.add_argument(
        "source", help="26m, RECIPE.yaml, runs/NAME, DIRECTORY, config.json or hf:owner/name"
    )
    show.add_argument("--tokens", help="pretraining budget, such as 5B (default: the preset's)")
    show.add_argument("--seq-len", type=int, help="tokens per row")
    show.add_argument("--batch-tokens", help="token slots per optimizer step, such as 256K")
    for one in (listing, show):
        one.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(words)
    from miao.model_verb import list_command, show_command
    from miao.recipe import parse_quantity

    if options.verb == "list":
        list_command(options.json)
        return 0
    tokens = None if options.tokens is None else parse_quantity(options.tokens, "--tokens")
    batch = options.batch_tokens
    batch = None if batch is None else int(parse_quantity(batch, "--batch-tokens"))
    show_command(options.source, options.json, tokens, options.seq_len, batch)
    return 0
