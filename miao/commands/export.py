"""`miao export`: a model as a Hugging Face directory, GGUF or a page, compared before it counts."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miao import __version__
from miao.console import ProgressLine, by_product, headline, say, say_next, warn
from miao.corpus.steps import link
from miao.errors import MiaoError, install_hint
from miao.export.origin import MARK, Origin, check_target, find_origin, is_page_name, place
from miao.files import write_json, write_text
from miao.hubs import local_directory
from miao.hubs.files import is_model_file
from miao.language import Parser
from miao.recipe import STAGES

if TYPE_CHECKING:
    from miao.export.card import Card
    from miao.export.parity.compare import Finding

DTYPES = ("float32", "bfloat16", "float16")
FILE_TYPES = ("f32", "f16", "q8_0", "q4_0")


def main(words: Sequence[str]) -> int:
    """Runs `miao export WORDS`."""
    parser = Parser(
        prog="miao export",
        description="Writes a model for other programs: a Hugging Face directory (transformers, "
        "vLLM, SGLang), GGUF with a Modelfile (llama.cpp, Ollama, LM Studio), one HTML file that "
        "talks by itself in a browser, offline, or a folder with such a page for a static host "
        "(GitHub Pages, a static Space of Hugging Face or ModelScope). Where the program (for a "
        "page Node.js) is installed, what it computes is compared with what Miao computes.",
    )
    parser.add_argument(
        "model", help="a run directory (runs/NAME), a model directory or a hub name"
    )
    parser.add_argument("--to", required=True, choices=("hf", "gguf", "page", "folder"))
    parser.add_argument(
        "--out",
        type=Path,
        help="the directory to write (default RUN/export/hf); for a page NAME.html names the file",
    )
    parser.add_argument(
        "--dtype",
        choices=(*DTYPES, "int8"),
        help="type of the weights (default: hf bfloat16, page and folder int8, or float16)",
    )
    parser.add_argument(
        "--quantize",
        nargs="+",
        choices=FILE_TYPES,
        metavar="TYPE",
        help=f"gguf: one or several of {', '.join(FILE_TYPES)} (default f16)",
    )
    parser.add_argument("--stage", choices=STAGES, help="a stage of the run (default: the last)")
    parser.add_argument(
        "--merge-lora", metavar="ADAPTER", help="merge this PEFT adapter into the weights first"
    )
    parser.add_argument(
        "--license",
        help="for the model card (default: the model's own; apache-2.0 where the built-in corpus "
        "is all that a run read)",
    )
    parser.add_argument("--title", help="page, folder: its title (default: the model's name)")
    parser.add_argument("--greeting", help="page, folder: what it says first")
    parser.add_argument(
        "--theme",
        nargs="+",
        metavar="WORD",
        help="page, folder: light, dark or auto (as the device has it), and an accent: b3541e",
    )
    parser.add_argument("--no-check", action="store_true", help="do not compare afterwards")
    parser.add_argument(
        "--opencompass",
        nargs="*",
        metavar="TASK",
        help="hf: write opencompass.py too, with which OpenCompass evaluates the export "
        "(default tasks: ceval cmmlu)",
    )
    options = parser.parse_args(words)
    export(options)
    return 0


def export(options: argparse.Namespace) -> Path:
    """Writes the export that is asked for, whole or not at all, and returns its place.

    Raises:
        MiaoError: no such model or stage; options that do not belong together; `--out` holds
            something else; the export does not compute the same elsewhere (it is then left beside
            as `OUT.failed`, and what was at `OUT` before stays).
    """
    _check_options(options)
    origin = find_origin(options.model, options.stage)
    parts = [options.to, options.stage, "merged" if options.merge_lora else None]
    out = options.out or origin.default_out("-".join(part for part in parts if part), options.model)
    check_target(out, origin, may_be_page=options.to == "page")
    headline(f"export {origin.name} to {options.to}")
    with place(out) as written, _source(origin, options, out) as (source, merged):
        writer = {"gguf": _write_gguf, "hf": _write_hf}.get(options.to, _write_page)
        try:
            failed_types = writer(origin, source, written, merged, options)
        except FailedCheck as failure:
            failed = out.with_name(f"{out.name}.failed")
            shutil.rmtree(failed, ignore_errors=True)
            os.replace(written, failed)
            raise MiaoError(failure.what, where=failed, fix=failure.fix) from failure
    if options.opencompass is not None:
        from miao.evaluate.opencompass import write_opencompass

        say(f"  {write_opencompass(out, origin.name, options.opencompass)}")
    _say_end(out, origin, options)
    if failed_types:
        raise MiaoError(
            f"could not be written: {'; '.join(failed_types)}",
            where=out,
            fix="the others are there",
        )
    return out


class FailedCheck(MiaoError):
    """The export is written, but does not compute what it should."""


def _check_options(options: argparse.Namespace) -> None:
    if options.to != "gguf" and options.quantize:
        raise MiaoError("--quantize belongs to --to gguf", fix=f"for {options.to} choose --dtype")
    if options.to == "gguf" and options.dtype:
        raise MiaoError("--dtype belongs to --to hf", fix="for gguf choose --quantize")
    if options.to != "hf" and options.opencompass is not None:
        raise MiaoError("--opencompass belongs to --to hf", fix="OpenCompass reads nothing else")
    is_page = options.to in ("page", "folder")
    if not is_page and (options.title or options.greeting or options.theme):
        raise MiaoError(
            "--title, --greeting and --theme belong to --to page and --to folder",
            fix="leave them out",
        )
    fitting = ("int8", "float16") if is_page else DTYPES if options.to == "hf" else ()
    if options.dtype and options.dtype not in fitting:
        raise MiaoError(
            f"--to {options.to} has no --dtype {options.dtype}",
            fix=f"choose one of {', '.join(fitting)}",
        )


@contextmanager
def _source(
    origin: Origin, options: argparse.Namespace, out: Path
) -> Iterator[tuple[Path, list[Finding]]]:
    """The directory to read: the model's own, or a temporary one with the adapter merged."""
    if not options.merge_lora:
        yield origin.directory, []
        return
    from miao.export.adapter import adapter_base, merge_adapter, require_adapter

    adapter = options.merge_lora
    path = local_directory(adapter)
    require_adapter(path)
    say(f"  merging {path} (trained on {adapter_base(path) or 'a model that it does not name'})")
    with tempfile.TemporaryDirectory(prefix=".merged.", dir=out.parent) as temporary:
        merged = Path(temporary) / origin.name
        yield merged, [merge_adapter(origin.directory, path, merged)]


def _write_hf(
    origin: Origin,
    source: Path,
    written: Path,
    merged: list[Finding],
    options: argparse.Namespace,
) -> list[str]:
    from miao.export.huggingface import write_huggingface
    from miao.export.parity.in_transformers import check_with_transformers, transformers_version
    from miao.export.parity.reference import make_reference

    dtype = options.dtype or "bfloat16"
    exported = write_huggingface(source, written, dtype)
    if exported.rounding:
        say(f"  {dtype} moves logits by up to {exported.rounding:.2g} from those of float32")
    findings, program = list(merged), f"transformers {transformers_version()}"
    if options.no_check:
        warn("not checked: --no-check")
    elif transformers_version() is None:
        warn(f"not checked: transformers is not installed ({install_hint('hf')})")
    else:
        reference = make_reference(exported.model, exported.tokenizer)
        del exported  # before another copy of the weights is read
        with by_product(f"the comparison in {program}"):
            findings += check_with_transformers(written, reference)
    _judge(findings, program, written)
    _write_card(_card(origin, source, dtype, options), findings, program, written)
    _mark(written, origin, options, {"dtype": dtype}, {program: findings})
    return []


def _write_page(
    origin: Origin, source: Path, written: Path, merged: list[Finding], options: argparse.Namespace
) -> list[str]:
    """One file, or a folder for a static host."""
    from miao.export.page import check_page, write_folder, write_page
    from miao.page.contents import PageType
    from miao.page.node import has_node

    dtype: PageType = "float16" if options.dtype == "float16" else "int8"
    card = replace(_card(origin, source, dtype, options), name=options.title or origin.name)
    words = (options.greeting or "", options.theme or ())
    findings = list(merged)
    unchecked = "--no-check" if options.no_check else "" if has_node() else "no Node.js here"
    with tempfile.TemporaryDirectory(prefix=".check.", dir=written.parent) as temporary:
        page = written / f"{origin.name}.html"
        if options.to == "folder":
            page = Path(temporary) / "page.html"
            write_folder(source, written, card, dtype, *words)
        if options.to == "page" or not unchecked:
            write_page(source, page, card, dtype, *words, kind=options.to)
        if unchecked:
            warn(f"not checked: {unchecked}")
        else:
            with by_product("the comparison in Node.js"):
                findings += check_page(page, source, dtype)
    _judge(findings, "Node.js", written)
    _mark(written, origin, options, {"dtype": dtype}, {"Node.js": findings})
    return []


def _write_gguf(
    origin: Origin,
    source: Path,
    written: Path,
    merged: list[Finding],
    options: argparse.Namespace,
) -> list[str]:
    """Every type by itself: one that fails is returned, and takes none of the others with it."""
    from miao.export.gguf.file import count_parameters, write_gguf
    from miao.export.gguf.in_llama_cpp import check_with_llama_cpp, has_llama_cpp
    from miao.export.parity.reference import Reference, reference_of

    kinds = list(dict.fromkeys(options.quantize or ["f16"]))
    card = _card(origin, source, ", ".join(kinds), options)
    checks: dict[str, list[Finding]] = {"transformers": merged} if merged else {}
    failed: list[MiaoError] = []
    files: list[str] = []
    _judge(merged, "transformers", written)
    reference: Reference | None = None
    if options.no_check:
        warn("not checked: --no-check")
    elif not has_llama_cpp():
        warn(
            "not checked: llama-cpp-python is not installed; `pip install llama-cpp-python` "
            "builds it, and the same command then compares"
        )
    else:
        with by_product("the comparison in llama.cpp"):
            reference = reference_of(source)
    with _with_card(source, card, written) as described:
        for kind in kinds:
            file = f"{origin.name}-{kind.upper()}.gguf"
            try:
                with ProgressLine(f"writing {kind}", count_parameters(described)) as line:
                    facts = write_gguf(
                        described, written / file, kind, line.advance, name=card.name
                    )
            except MiaoError as error:
                failed.append(error)
                continue
            files.append(file)
            say(f"  {file}: {facts.architecture}, {facts.size_bytes / 2**20:.1f} MiB")
            for note in facts.notes:
                warn(note)
            if facts.fallbacks:
                warn(f"{len(facts.fallbacks)} tensors stay f16: their rows are no multiple of 32")
            _write_modelfile(written, file, described, None if file == files[0] else kind)
            if reference is not None:
                with by_product(f"the comparison of {file} in llama.cpp"):
                    checks[file] = check_with_llama_cpp(written / file, kind, reference)
                _judge(checks.get(file, []), f"llama.cpp ({file})", written)
    if not files:
        raise failed[0]
    shown = [
        replace(finding, what=f"{program}: {finding.what}")
        for program, findings in checks.items()
        for finding in findings
    ]
    program = "llama.cpp" if reference else "transformers"
    _write_card(replace(card, files=files), shown, program, written)
    _mark(written, origin, options, {"files": files}, checks)
    return [error.what for error in failed]


def _write_modelfile(written: Path, file: str, source: Path, kind: str | None) -> None:
    from miao.export.ollama import write_modelfile

    target = written / (f"Modelfile.{kind}" if kind else "Modelfile")
    reason = None
    with by_product(target.name):
        reason = write_modelfile(written / file, source, target)
    if reason and not kind:
        warn(f"the Modelfile has no TEMPLATE: {reason}; the one inside the GGUF counts")


def _write_card(card: Card, findings: list[Finding], program: str, written: Path) -> None:
    from miao.export.card import card_text

    with by_product("the model card"):
        card = replace(card, findings=findings, checked_with=program if findings else "")
        write_text(written / "README.md", card_text(card))


def _judge(findings: list[Finding], program: str, written: Path) -> None:
    """Prints what was found; what differs ends the export."""
    from miao.export.parity.compare import print_findings, require_passed

    if findings:
        print_findings(f"compared in {program}", findings)
    try:
        require_passed(findings, written, program)
    except MiaoError as error:
        raise FailedCheck(error.what, fix=error.fix) from error


def _card(origin: Origin, source: Path, dtype: str, options: argparse.Namespace) -> Card:
    from miao.export.card import describe

    return describe(origin, source, dtype, options.model, options.license, options.merge_lora)


@contextmanager
def _with_card(source: Path, card: Card, beside: Path) -> Iterator[Path]:
    """The source directory with this card: a GGUF carries the license and languages of its card."""
    with tempfile.TemporaryDirectory(prefix=".card.", dir=beside.parent) as temporary:
        directory = Path(temporary)
        for file in source.iterdir():
            if file.is_file() and is_model_file(file.name) and file.name != "README.md":
                link(file.resolve(), directory / file.name)
        _write_card(card, [], "", directory)
        yield directory


def _mark(
    written: Path,
    origin: Origin,
    options: argparse.Namespace,
    what: dict[str, Any],
    checks: dict[str, list[Finding]],
) -> None:
    write_json(
        written / MARK,
        {
            "miao": __version__,
            "model": origin.name,
            "stage": origin.stage,
            "to": options.to,
            **what,
            "checks": {
                program: {finding.what: finding.measured for finding in findings}
                for program, findings in checks.items()
                if findings
            },
        },
    )


def _say_end(out: Path, origin: Origin, options: argparse.Namespace) -> None:
    files = [out] if out.is_file() else sorted(out.iterdir())
    sizes = {file.name: file.stat().st_size for file in files}
    say(f"  wrote {out} ({sum(sizes.values()) / 2**20:.1f} MiB): {', '.join(sizes)}")
    if options.to == "gguf":
        command = ["ollama", "create", origin.ollama_name, "-f", str(out / "Modelfile")]
        say_next(shlex.join(command))
    elif options.to == "folder":
        say("  put the files of this folder on any static host; to try it here:")
        say_next(shlex.join(["python", "-m", "http.server", "--directory", str(out)]))
    elif options.to == "page":
        page = out if is_page_name(out) else out / f"{origin.name}.html"
        say(f"  open {page} in a browser, or send it to somebody")
    else:
        to = f"hf:OWNER/{origin.name}"
        say_next(
            shlex.join(["miao", "chat", str(out)]),
            shlex.join(["miao", "push", str(out), "--to", to]),
        )
