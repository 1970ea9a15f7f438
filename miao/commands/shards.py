"""`miao shards stats | append | export`: token shards by themselves."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from miao.commands.tokenizer import load_tokenizer
from miao.console import ProgressLine, count, print_table, say, warn
from miao.corpus.records import KINDS, Kind
from miao.errors import MiaoError
from miao.language import Parser
from miao.options import read_yaml
from miao.shards.build import note_lines
from miao.shards.bulk import Job, build_datasets
from miao.shards.dataset import TokenDataset
from miao.shards.export import TensorOptions, export_tensors
from miao.shards.stats import ROW_LENGTHS, dataset_stats, find_datasets
from miao.tokenizer import Tokenizer


def main(words: Sequence[str]) -> int:
    """Runs `miao shards WORDS`: stats, append or export."""
    parser = Parser(prog="miao shards")
    verbs = parser.add_subparsers(dest="verb", required=True)
    stats = verbs.add_parser("stats", help="counts, lengths, use of the vocabulary")
    stats.add_argument("path", type=Path, help="a run, a shards directory or one dataset")
    stats.add_argument("--verify", action="store_true", help="compare every file's checksum")
    stats.add_argument("--json", action="store_true", help="for programs")
    _add_append(verbs)
    _add_export(verbs)
    options = parser.parse_args(words)
    {"stats": stats_command, "append": append_command, "export": export_command}[options.verb](
        options
    )
    return 0


def stats_command(options: argparse.Namespace) -> None:
    """Prints what is in every dataset below a path."""
    own = _own_lengths(options.path)
    found = [
        dataset_stats(path, tuple(sorted({*ROW_LENGTHS, *own})), options.verify)
        for path in find_datasets(options.path)
    ]
    if options.json:
        facts = [asdict(one) | {"bytes_per_token": one.bytes_per_token} for one in found]
        print(json.dumps(facts, ensure_ascii=False, indent=2))
        return
    columns = ["dataset", "sequences", "tokens", "learned", "bytes/token", "ids used"]
    rows = [
        [
            _name(one.directory, options.path),
            f"{one.sequences:,}",
            count(one.tokens),
            f"{one.trained_tokens / max(one.tokens, 1):.1%}",
            f"{one.bytes_per_token:.2f}",
            f"{one.used_ids:,}",
        ]
        for one in found
    ]
    print_table("what is in the shards", columns, rows)
    lengths = sorted({*own, *ROW_LENGTHS[:3]})
    columns = ["dataset", "median", "99%", "longest"]
    columns += [f"> {row}" for row in lengths]
    rows = [
        [
            _name(one.directory, options.path),
            *(f"{n:,}" for n in (one.median, one.p99, one.longest)),
            *(f"{one.longer_than[row] / max(one.sequences, 1):.1%}" for row in lengths),
        ]
        for one in found
    ]
    print_table("lengths in tokens, and how many are longer than a row", columns, rows)
    disk = sum(one.bytes_on_disk for one in found)
    files = sum(one.shards for one in found)
    say(f"{files} shards, {disk / 2**20:.1f} MiB, {' and '.join({one.dtype for one in found})}")
    if options.verify:
        say("all checksums are right")


def _own_lengths(path: Path) -> set[int]:
    """The row lengths of a run's own recipe."""
    recipe = read_yaml(path / "recipe.yaml") if (path / "recipe.yaml").is_file() else {}
    return {recipe[stage]["seq_len"] for stage in KINDS if "seq_len" in (recipe.get(stage) or {})}


def append_command(options: argparse.Namespace) -> None:
    """Tokenises files to the end of a dataset, or into a new one."""
    tokenizer = _tokenizer(options.tokenizer, options.directory)
    if tokenizer is None:
        raise MiaoError("with which tokenizer?", fix="--tokenizer DIR, or a run")
    directory: Path = options.directory
    manifest = directory / "manifest.json"
    if directory.exists() and not manifest.exists() and any(directory.iterdir()):
        raise MiaoError(
            "this directory holds something else", where=directory, fix="name a new directory"
        )
    before = TokenDataset(directory).manifest if manifest.exists() else None
    kind: Any = options.kind or (before.kind if before else "document")
    source = options.source or (before.source if before else directory.name)
    job = Job(
        options.paths,
        kind,
        source,
        directory,
        last_turn_only=options.last_turn_only,
        keep=True,
        meant=tuple(options.meant),
    )
    with ProgressLine("tokenising", job.size) as line:
        report = build_datasets(
            [job], tokenizer, options.workers, not options.plain_encoder, line.advance
        )
    after = report.manifests[0]
    old = (before.sequences, before.tokens) if before else (0, 0)
    sides = 2 if kind == "preference" else 1
    say(
        f"{directory}: {(after.sequences - old[0]) // sides:,} {kind}s more "
        f"({count(after.tokens - old[1])} tokens), {after.sequences // sides:,} in all"
    )
    for note in note_lines(report.notes, kind):
        warn(note)
    if report.reused:
        say(f"  {report.reused} parts had been tokenised before; the same text is not added twice")


def export_command(options: argparse.Namespace) -> None:
    """Writes datasets as tensors."""
    found = find_datasets(options.path)
    tokenizer = _tokenizer(options.tokenizer, options.path)
    boundary = tokenizer.document_boundary_id if tokenizer else -1
    several = len(found) > 1
    tensor_options = TensorOptions(options.max_length, options.split, options.bos, options.eos)
    rows = []
    for directory in found:
        data = TokenDataset(directory, verify=True)
        if tokenizer and data.manifest.tokenizer != tokenizer.fingerprint():
            raise MiaoError("these shards were cut by another tokenizer", where=directory)
        top = options.path / "shards" if (options.path / "shards").is_dir() else options.path
        out = options.out / directory.relative_to(top) if several else options.out
        with ProgressLine(f"writing {out}", len(data) // data.group_size) as line:
            manifest = export_tensors(data, out, tensor_options, boundary, advance=line.advance)
        if manifest.nothing_learned:
            warn(f"{out}: of {manifest.nothing_learned:,} examples, so cut, nothing is learned")
        rows.append(
            [str(out.relative_to(options.out) if several else out), manifest.kind]
            + [f"{n:,}" for n in (manifest.examples, manifest.tokens, manifest.trained_tokens)]
            + [f"{manifest.truncated:,}", str(len(manifest.files))]
        )
    columns = ["written", "kind", "examples", "tokens", "learned", "truncated", "files"]
    print_table(f"tensors in {options.out}", columns, rows, right_from=2)


def _tokenizer(name: str | None, path: Path) -> Tokenizer | None:
    """The tokenizer that is named, or that of the run that a path is in."""
    if name:
        return load_tokenizer(name)
    for parent in (path, *path.absolute().parents):
        if (parent / "tokenizer" / "tokenizer.json").exists():
            return load_tokenizer(str(parent / "tokenizer"))
    return None


def _name(directory: str, top: Path) -> str:
    path = Path(directory)
    try:
        return str(path.relative_to(top / "shards"))
    except ValueError:
        return path.name if path == top else str(path.relative_to(top))


def _add_append(verbs: Any) -> None:
    parser = verbs.add_parser("append", help="tokenise more files into a dataset, old or new")
    parser.add_argument("directory", type=Path, help="the dataset directory")
    parser.add_argument("paths", nargs="+", help="files, folders or globs of records")
    parser.add_argument("--tokenizer", help="directory or run (default: that of the run it is in)")
    parser.add_argument("--kind", choices=get_args(Kind), help="default: as before, or document")
    parser.add_argument("--source", help="the name it is counted under (default: the directory's)")
    parser.add_argument(
        "--last-turn-only", action="store_true", help="of a conversation learn the last turn only"
    )
    parser.add_argument("--workers", type=int, help="processes (default: one per core)")
    parser.add_argument(
        "--meant",
        nargs="+",
        default=[],
        help="control tokens that the text means where it spells them, such as '<|im_start|>'",
    )
    parser.add_argument("--plain-encoder", action="store_true", help="do not use fastokens")


def _add_export(verbs: Any) -> None:
    parser = verbs.add_parser("export", help="tensors for other training programs")
    parser.add_argument("path", type=Path, help="a run, a shards directory or one dataset")
    parser.add_argument("--to", required=True, choices=("tensors",))
    parser.add_argument("--out", type=Path, required=True, help="the directory to write")
    parser.add_argument("--max-length", type=int, default=2048, help="tokens of a row at most")
    parser.add_argument(
        "--split", action="store_true", help="split longer documents instead of cutting them off"
    )
    for name, where in (("bos", "before"), ("eos", "after")):
        parser.add_argument(
            f"--{name}",
            action=argparse.BooleanOptionalAction,
            help=f"the boundary token {where} each example (default: as the shards have it)",
        )
    parser.add_argument("--tokenizer", help="directory or run (default: that of the run it is in)")
