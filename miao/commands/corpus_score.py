"""`miao corpus score`: what a model or a classifier makes of each record, as columns beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import quantiles
from typing import Any, get_args

from miao.console import ProgressLine, headline, say, say_next
from miao.corpus.clean.classifier import Classifier
from miao.corpus.ngrams import TextView
from miao.corpus.read.formats import RecordCounts, convert_file
from miao.corpus.read.problems import stop
from miao.corpus.read.sources import find_sources
from miao.corpus.records import Kind, Record, text_of
from miao.errors import MiaoError
from miao.files import atomic_open
from miao.language import Parser

BATCH = 256  # records scored together
Scorer = Callable[[list[Any]], list[dict[str, float]]]


def main(words: Sequence[str]) -> int:
    """Writes the records with their scores, and says how these are spread."""
    parser = Parser(
        prog="miao corpus score",
        description="Writes records with new columns: from --model bits_per_byte (documents), "
        "answer_bits_per_byte and ifd (conversations: how little the questions help to foresee the "
        "answers; near 1: not at all), from --classifier quality. Filter by them afterwards.",
    )
    parser.add_argument("paths", nargs="+", help="files, folders, globs")
    parser.add_argument("--out", required=True, help="the .jsonl file to write")
    parser.add_argument("--kind", choices=get_args(Kind), default="document")
    parser.add_argument("--model", help="a run, or a directory with a model")
    parser.add_argument("--classifier", help="a directory of `miao corpus classifier`")
    parser.add_argument(
        "--tokens", type=int, default=1024, help="read by the model of each record (default 1024)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    options = parser.parse_args(words)
    if options.tokens < 2:
        raise MiaoError("--tokens must be 2 or more")
    if not (options.model or options.classifier):
        raise MiaoError("nothing to score by", fix="give --model RUN, --classifier DIR, or both")
    out = Path(options.out)
    if out.is_dir() or out.suffix != ".jsonl":
        raise MiaoError("--out names the .jsonl file to write", where=out)
    scorers: list[Scorer] = []
    if options.classifier:
        scorers.append(_by_classifier(options.classifier))
    if options.model:
        scorers.append(_by_model(options.model, options.device, options.tokens))
    headline(f"scores: {' '.join(options.paths)} to {out}")
    spread: dict[str, list[float]] = {}
    written = 0
    with atomic_open(out) as file, ProgressLine("scoring", 0) as line:
        records = _records(options.paths, options.kind, out)
        while batch := list(islice(records, BATCH)):
            columns = [scorer([record for record, _ in batch]) for scorer in scorers]
            for (record, value), *found in zip(batch, *columns, strict=True):
                scores = {name: score for part in found for name, score in part.items()}
                for name, score in scores.items():
                    spread.setdefault(name, []).append(score)
                whole = value if isinstance(value, dict) else record.to_json()
                file.write(json.dumps(whole | scores, ensure_ascii=False, default=str) + "\n")
            written += len(batch)
            line.advance(len(batch), f"{written:,} records")
    say(f"  {written:,} records in {out}")
    for name, values in spread.items():
        say(f"  {name}: {_spread(values)}")
    for name, values in list(spread.items())[:1]:
        low, *_, high = quantiles(values * 2, n=20)
        say_next(
            f"miao corpus build {out} --out DIR --corpus.clean.quality_column {name} "
            f"--corpus.clean.min_quality {low:.2f} --corpus.clean.max_quality {high:.2f}"
        )
    return 0


def _records(paths: list[str], kind: Kind, out: Path) -> Iterator[tuple[Record, Any]]:
    for path, source in find_sources(paths):
        if path.resolve() == out.resolve():
            raise MiaoError("--out is one of the files that are read", where=out)
        for record, _, value in convert_file(path, kind, source, stop, RecordCounts()):
            yield record, value


def _by_classifier(directory: str) -> Scorer:
    classifier = Classifier(directory)

    def score(records: list[Any]) -> list[dict[str, float]]:
        views = (TextView(text_of(record)) for record in records)
        return [{"quality": round(classifier.score(view), 4)} for view in views]

    return score


def _by_model(path: str, device: str, tokens: int) -> Scorer:
    from miao.device import choose_device
    from miao.evaluate.measure.record_scores import record_scores
    from miao.model import load_model
    from miao.rundir import find_model
    from miao.tokenizer import Tokenizer

    directory = find_model(path)
    tokenizer = Tokenizer.from_directory(directory)
    model = load_model(directory).to(choose_device(device))
    return lambda records: record_scores(model, tokenizer, records, tokens)


def _spread(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}"
    cuts = quantiles(values, n=20)
    shown = ((5, cuts[0]), (25, cuts[4]), (50, cuts[9]), (75, cuts[14]), (95, cuts[18]))
    return ", ".join(f"{share} % below {cut:.3f}" for share, cut in shown)
