"""`miao tokenizer inspect | compare | extend | import`: the tokenizer workshop."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from miao.console import ProgressLine, console, print_table, say, warn
from miao.corpus.check import sniff_kind
from miao.corpus.read.formats import read_records
from miao.corpus.read.sources import find_files
from miao.errors import MiaoError
from miao.files import atomic_directory, require_replaceable, write_json
from miao.hubs import local_directory
from miao.language import Parser
from miao.rundir import RunDir
from miao.tokenizer import (
    Tokenizer,
    inspect_conversation,
    inspect_text,
    inspect_vocabulary,
    render_inspection,
    render_vocabulary,
)

TEXT_CHARACTERS = 20_000_000
"""At most so much text is read to count tokens or to learn new ones."""


def main(words: Sequence[str]) -> int:
    """Runs `miao tokenizer WORDS`: inspect, compare, extend or import."""
    parser = Parser(
        prog="miao tokenizer",
        description="The tokenizer workshop; `miao tokenizer RECIPE` trains the tokenizer.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    _add_inspect(verbs)
    _add_compare(verbs)
    _add_extend(verbs)
    _add_import(verbs)
    options = parser.parse_args(words)
    commands = {
        "inspect": inspect_command,
        "compare": compare_command,
        "extend": extend_command,
        "import": import_command,
    }
    commands[options.verb](options)
    return 0


def inspect_command(options: argparse.Namespace) -> None:
    """Shows tokens of a text, of the first records of a file, or the vocabulary and its use."""
    tokenizer = load_tokenizer(options.directory)
    if options.text is not None:
        console.print(render_inspection(inspect_text(tokenizer, options.text), ids=options.ids))
    elif options.file:
        _inspect_file(tokenizer, options)
    else:
        from miao.tokenizer.usage import coverage_of, render_coverage, render_usage, usage_of

        console.print(render_vocabulary(inspect_vocabulary(tokenizer)))
        console.print(render_coverage(coverage_of(tokenizer)))
        counts, where = _counts(tokenizer, options)
        if counts is not None:
            console.print(render_usage(tokenizer, usage_of(tokenizer, counts), where))
        else:
            say("unused tokens: give a text to count in, --corpus FILES")


def compare_command(options: argparse.Namespace) -> None:
    """Prints characters and bytes per token of several tokenizers, and draws them."""
    from miao.tokenizer.compare import (
        compare_tokenizers,
        comparison_rows,
        load_any,
        samples,
    )

    texts = {} if options.text and options.only else samples()
    for path in options.text or ():
        texts[Path(path).name] = "\n".join(islice(_texts([path], 2_000_000), None))
    backends: dict[str, Any] = {}
    for name in options.tokenizers:
        known = Path(name)
        path = known if known.suffix in (".tiktoken", ".model") else local_directory(name)
        backends[_short(name, backends)] = load_any(path)
    compared = compare_tokenizers(backends, texts)
    columns, rows = comparison_rows(compared)
    print_table("characters / bytes per token", columns, rows)
    lossy = any(not cut.is_lossless for one in compared for cut in one.cuts.values())
    if lossy:
        say("* decoding does not give the text back as it was")


def extend_command(options: argparse.Namespace) -> None:
    """Adds tokens to a tokenizer, and rows to the model that it belongs to."""
    from miao.tokenizer.extend import extend_tokenizer

    directory = _tokenizer_directory(options.directory)
    require_replaceable(options.out, _is_model_or_tokenizer)
    tokenizer = Tokenizer.from_directory(directory)
    if not options.new_tokens and not options.control:
        raise MiaoError(
            "nothing to add", fix="--new-tokens 1000 --text FILES, or --control '<|name|>'"
        )
    if options.new_tokens and not options.text:
        raise MiaoError("new tokens are learned from text", fix="--text FILES")
    texts = list(_texts(options.text or [], TEXT_CHARACTERS)) if options.text else []
    before = sum(map(len, tokenizer.encode_batch(texts[:2000])))
    learned_from = _shown("reading the text", texts)
    extension = extend_tokenizer(tokenizer, learned_from, options.new_tokens, options.control or ())
    after = sum(map(len, extension.tokenizer.encode_batch(texts[:2000])))
    if (directory / "config.json").exists():
        _write_grown_model(directory, options.out, extension)
        say(f"{options.out}: model and tokenizer, {extension.tokenizer.vocab_size:,} tokens")
        say(f"  train it: --model.path {options.out} --tokenizer.path {options.out}")
    else:
        with atomic_directory(options.out) as temporary:
            extension.tokenizer.save(temporary)
        say(f"{options.out}: {extension.tokenizer.vocab_size:,} tokens, the old ids unchanged")
        model = RunDir(Path(options.directory)).last_model()
        whose = model or "the model's directory"
        say(f"  the tokenizer only: a model needs as many embedding rows; extend {whose} for both")
    if before:
        say(f"  the text takes {after / before:.1%} of the tokens that it took before")


def import_command(options: argparse.Namespace) -> None:
    """Writes a foreign vocabulary as tokenizer.json."""
    from miao.tokenizer.importing import import_sentencepiece, import_tiktoken, parse_special

    require_replaceable(options.out, _is_model_or_tokenizer)
    if options.file.suffix == ".model" and not options.pattern:
        if options.special:
            raise MiaoError(
                "a sentencepiece .model has its own control tokens",
                where="--special",
                fix="leave it out; `miao tokenizer extend --control` adds some",
            )
        tokenizer = import_sentencepiece(options.file, options.bare)
    else:
        special = parse_special(options.special or [])
        tokenizer = import_tiktoken(options.file, options.pattern, special, options.bare)
    with atomic_directory(options.out) as temporary:
        tokenizer.save(temporary)
    say(f"{options.out}: {tokenizer.vocab_size:,} tokens, the ids as they were")
    if "Precompiled" in str(tokenizer.spec()["normalizer"]):
        warn(
            "this vocabulary normalises text (NFKC): decoding gives the normalised text, and "
            "combining marks and \\r\\n may be cut otherwise than by sentencepiece"
        )
    say(f"  use it: --tokenizer.path {options.out}")
    say(f"  look:   miao tokenizer inspect {options.out} --text '你好, world'")


def _is_model_or_tokenizer(directory: Path) -> bool:
    """Whether nothing but a tokenizer, or a model with it, is there."""
    known = ("*token*.json", "chat_template.jinja", "*config.json", "model*.safetensors*")
    return all(any(file.match(name) for name in known) for file in directory.iterdir())


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a run, a model, a tokenizer directory or a hub name."""
    return Tokenizer.from_directory(_tokenizer_directory(name))


def _tokenizer_directory(name: str) -> Path:
    directory = local_directory(name)
    if not (directory / "tokenizer.json").exists() and (directory / "tokenizer").is_dir():
        return directory / "tokenizer"
    return directory


def _inspect_file(tokenizer: Tokenizer, options: argparse.Namespace) -> None:
    if sniff_kind(find_files([options.file])[0]) in ("document", None):
        documents = islice(read_records([options.file], "document"), options.count)
        shown = [inspect_text(tokenizer, document.text) for document in documents]
    else:
        records = islice(read_records([options.file], "conversation"), options.count)
        shown = [inspect_conversation(tokenizer, record) for record in records]
    for inspection in shown:
        console.print(render_inspection(inspection, ids=options.ids))


def _counts(tokenizer: Tokenizer, options: argparse.Namespace) -> tuple[Any, str]:
    """How often each token occurs in the given files, or in the shards of the run."""
    from miao.tokenizer.usage import count_tokens

    if options.corpus:
        texts = _shown("counting tokens", list(_texts(options.corpus, TEXT_CHARACTERS)))
        return count_tokens(tokenizer, texts), ", ".join(options.corpus)
    shards = RunDir(Path(options.directory)).path / "shards" / "pretrain" / "train"
    if not shards.is_dir():
        return None, ""
    from miao.shards.stats import token_counts

    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for directory in sorted(shards.glob("*/")):
        found, fingerprint = token_counts(directory)
        if fingerprint != tokenizer.fingerprint():
            warn(f"{directory} was cut by another tokenizer")
            return None, ""
        counts += found
    return counts, f"the pretraining shards of {options.directory}"


def _texts(paths: list[str], characters: float) -> Iterator[str]:
    for document in read_records(paths, "document"):
        characters -= len(document.text)
        yield document.text
        if characters <= 0:
            say(f"  (the first {TEXT_CHARACTERS:,} characters count)")
            return


def _shown(what: str, texts: list[str]) -> Iterator[str]:
    """The texts, with a progress line of how much of them was taken."""
    with ProgressLine(what, sum(map(len, texts))) as line:
        for text in texts:
            yield text
            line.advance(len(text))


def _write_grown_model(directory: Path, out: Path, extension: Any) -> None:
    """The model with a row for each new token."""
    from miao.model import load_model, save_model, with_tokens
    from miao.model.token_rows import GROWN

    size = extension.tokenizer.vocab_size
    model = with_tokens(load_model(directory), size, extension.made_of)
    with atomic_directory(out) as temporary:
        save_model(model, temporary)
        write_json(temporary / GROWN, {"first": size - len(extension.made_of)})
        extension.tokenizer.save(temporary)


def _short(name: str, taken: dict[str, Any]) -> str:
    path = Path(name)
    short = path.parent.name if path.name in ("tokenizer.json", "tokenizer") else path.name
    short = short or name
    return name if short in taken else short


def _add_verb(verbs: Any, name: str, what: str, example: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=f"example: miao tokenizer {name} {example}",
    )
    return parser


def _add_inspect(verbs: Any) -> None:
    parser = _add_verb(
        verbs,
        "inspect",
        "how text is cut, what is learned, what the vocabulary holds and uses",
        "runs/seedling --text '人工智能 2026'",
    )
    parser.add_argument("directory", help="a run, a model or a tokenizer directory")
    parser.add_argument("--text", help="text to cut")
    parser.add_argument(
        "--file", help="records to show: the first conversations or documents of a file"
    )
    parser.add_argument(
        "--count", type=int, default=3, help="how many records of --file (default 3)"
    )
    parser.add_argument("--ids", action="store_true", help="show the token ids too")
    parser.add_argument(
        "--corpus", nargs="+", help="files to count tokens in (default: the shards of the run)"
    )


def _add_compare(verbs: Any) -> None:
    parser = _add_verb(
        verbs,
        "compare",
        "characters and bytes per token, side by side",
        "runs/seedling hf:Qwen/Qwen3-0.6B --text my_texts/",
    )
    parser.add_argument(
        "tokenizers",
        nargs="+",
        help="runs, directories, tokenizer.json, .tiktoken, .model, or hub names",
    )
    parser.add_argument("--text", nargs="+", help="files of yours to compare on, too")
    parser.add_argument("--only", action="store_true", help="only on these, not on our samples")


def _add_extend(verbs: Any) -> None:
    parser = _add_verb(
        verbs,
        "extend",
        "add tokens; the old ids stay",
        "runs/seedling/model --new-tokens 1000 --text my_texts/ --out grown/",
    )
    parser.add_argument("directory", help="a tokenizer, or a model, whose embeddings grow with it")
    parser.add_argument("--out", type=Path, required=True, help="the directory to write")
    parser.add_argument("--new-tokens", type=int, default=0, help="how many to learn from --text")
    parser.add_argument("--text", nargs="+", help="files of the new kind of text")
    parser.add_argument("--control", nargs="+", help="control tokens to add, such as '<|name|>'")


def _add_import(verbs: Any) -> None:
    parser = _add_verb(
        verbs,
        "import",
        "tiktoken and sentencepiece as tokenizer.json",
        "tokenizer.model --out imported/",
    )
    parser.add_argument("file", type=Path, help="a .tiktoken vocabulary or a sentencepiece .model")
    parser.add_argument("--out", type=Path, required=True, help="the directory to write")
    parser.add_argument(
        "--pattern", help="tiktoken: how text is cut (qwen2, llama3, gpt2, o200k, or a regex)"
    )
    parser.add_argument(
        "--special", nargs="+", help="tiktoken: control tokens, '<|name|>' or '<|name|>=ID'"
    )
    parser.add_argument("--bare", action="store_true", help="without Miao's control tokens")
