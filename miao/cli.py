"""The verbs; what each does is in the file of its name in miao/commands/, imported when called."""

from __future__ import annotations

import argparse
import codecs
import io
import json
import os
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from miao import __version__
from miao.errors import Interrupted, MiaoError, did_you_mean, nearest
from miao.language import AsWritten, Parser, in_language, translated

RUN = {
    "run": "all stages of a recipe, those that are done are skipped",
    "corpus": "your text (or the built-in corpus) to records; "
    "`corpus check|catalog|build|classifier|score|distill --help`",
    "tokenizer": "train or take the tokenizer; `tokenizer inspect|compare|extend|import --help`",
    "shards": "tokenise everything; `shards stats|append|export --help`",
    "pretrain": "train from random weights on documents",
    "sft": "fine-tune on conversations",
    "dpo": "learn from preference pairs",
    "grpo": "learn from rewards for its own answers",
    "report": "write report.html; `report runs/NAME` of what is there",
}
"""Verbs of a recipe: the whole chain, or the chain up to this stage."""
OTHERS = {
    "grow": "the best model from your text in the time that you have: `grow TEXTS --hours 2`",
    "chat": "talk to a trained model",
    "serve": "put a model behind an OpenAI-compatible address",
    "studio": "grow, watch, talk to and look inside a model, in the browser",
    "board": "runs while they train, in the browser, side by side",
    "inspect": "what goes on inside a model while it reads a text",
    "recipe": "the recipes that come with Miao; `recipe NAME > mine.yaml` copies one",
    "model": "what a shape costs: `model list`, `model show NAME`",
    "doctor": "what this machine can do, and how long a recipe will take",
    "export": "write a model for other programs: Hugging Face or GGUF",
    "push": "publish a model on Hugging Face or ModelScope",
    "eval": "benchmarks (C-Eval, CMMLU, MMLU, ...) and comparisons",
}
WORKSHOP = {
    "corpus": ("check", "catalog", "build", "classifier", "score", "distill"),
    "tokenizer": ("inspect", "compare", "extend", "import"),
    "shards": ("stats", "append", "export"),
}
"""What a stage's verb does without a recipe, by the next word."""
OF_A_RECIPE = (".yaml", ".yml", "-h", "--help")
"""With a word that ends so, `miao report` is the chain's; else it is of a directory."""
EPILOG = """A recipe is a YAML file of options, or the name of one that `miao recipe` lists; any
option can be given on the command line:

  miao run seedling --corpus.paths my_texts/ --pretrain.tokens 8M
  miao run RECIPE --help    lists every option of a recipe
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line; returns the exit code (2: a mistake the user can mend)."""
    _write_every_character()
    if "_ARGCOMPLETE" in os.environ and find_spec("argcomplete"):
        return _complete()
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
        print(f"miao: {in_language(error)}", file=sys.stderr)
        return 2
    except Interrupted as interruption:
        stopped = f"\nstopped; everything is saved. Go on with:\n  miao {shlex.join(words)}"
        if not interruption.whole:
            stopped = f"\nstopped. Go on with:\n  miao {shlex.join(words)}"
        print(translated(stopped), file=sys.stderr)
        return interruption.exit_code
    except KeyboardInterrupt:
        stopped = f"\nstopped. Go on with:\n  miao {shlex.join(words)}"
        print(translated(stopped), file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141


def _write_every_character() -> None:
    """Makes what the output's encoding lacks (an emoji in GBK, a file name that is no text) come
    out as the escapes of JSON, which is what some verbs print; no message ends a command."""
    codecs.register_error("json-escapes", _json_escapes)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="json-escapes")


def _json_escapes(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _dispatch(words: list[str]) -> int:
    if not words or words[0].startswith("-"):
        parser = _parser()
        parser.parse_args(words[:1])  # ends at --version
        parser.print_help()
        return 0
    if words[0] not in RUN | OTHERS:
        raise _unknown_verb(words[0])
    verb, rest = words[0], words[1:]
    if verb in OTHERS or _is_workshop(verb, rest):
        return int(import_module(f"miao.commands.{verb}").main(rest))
    if rest and not rest[0].startswith("-"):
        from miao.recipe.reading import find_recipe

        if find_recipe(rest[0]) is None:
            raise _no_recipe(verb, rest[0])
    from miao.commands import run

    return run.main(rest, verb, RUN[verb])


def _complete() -> int:
    """Answers a shell that asks how the line may go on; ends the process."""
    from miao import complete

    _, *words, _ = complete.words_before()
    verb = words[0] if words else ""
    if verb not in RUN | OTHERS:
        complete.answer(_parser())
    complete.leave_out_the_verb(verb)
    if verb == "doctor":
        complete.answer(complete.recipe_parser(["--measure", "--json"]))
    if verb in RUN and not _is_workshop(verb, words[1:]):
        complete.answer(complete.recipe_parser(["--resume-with-changes"]))
    Parser.parse_args = lambda self, *_: complete.answer(self)  # type: ignore[assignment]
    return int(import_module(f"miao.commands.{verb}").main(words[1:]))


def _is_workshop(verb: str, rest: list[str]) -> bool:
    if verb == "report":
        return not any(word.endswith(OF_A_RECIPE) or _is_recipe(word) for word in rest)
    return bool(rest) and rest[0] in WORKSHOP.get(verb, ())


def _is_recipe(word: str) -> bool:
    from miao.recipe.reading import find_recipe

    return not Path(word).exists() and find_recipe(word) is not None


def _unknown_verb(word: str) -> MiaoError:
    if word.endswith(OF_A_RECIPE):
        return MiaoError("a verb is missing", where=word, fix=f"miao run {shlex.quote(word)}")
    hint = did_you_mean(word, RUN | OTHERS) or "`miao --help` lists the verbs"
    return MiaoError(f"there is no verb '{word}'", fix=hint)


def _no_recipe(verb: str, word: str) -> MiaoError:
    """The error for a word that is no recipe, with the recipe or the next verb that was meant."""
    from miao.recipe.reading import no_such_recipe, recipes_near

    others = WORKSHOP.get(verb, ())
    if not others or word.endswith(OF_A_RECIPE):
        return no_such_recipe(word)
    known = {other: other for other in others} | recipes_near(word)
    hint = f"miao {verb} RECIPE: {RUN[verb].partition(';')[0]}"
    if meant := nearest(Path(word).name, known):
        hint = f"did you mean '{known[meant]}'?"
    return MiaoError(f"neither a recipe nor {' | '.join(others)}", where=word, fix=hint)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="miao",
        description="Grow a small Chinese/English language model, from raw text to a chat.",
        epilog=EPILOG,
        formatter_class=AsWritten,
    )
    parser.add_argument("--version", action="version", version=f"miao {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for verb, text in (RUN | OTHERS).items():
        is_part = verb in RUN and verb != "run"
        verbs.add_parser(verb, help=f"the chain up to here: {text}" if is_part else text)
    return parser
