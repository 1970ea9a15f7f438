"""The corpus workshop side by side with its peers: seconds of CPU, MB/s, memory, recall.

    python benchmarks/corpus.py TEXT.jsonl[.xz] [MORE ...] [--megabytes 20] [--only minhash,...]
        [--exam ceval/val]

- pipeline: a file cleaned, without equal documents, to a file: Miao, and datatrove with its own
  steps for the same edits (NFC, control characters, line ends).
- minhash: signatures alone. near: near-duplicates among all texts.
- planted: recall and precision on copies with edits (give Chinese text for these three); lengths:
  recall by the length of the text, and of copies in traditional characters.
- overlap: with --exam, a set of multiple choice: which share of its questions is found in the
  texts when it is put there, by length and edits, and which texts hold one as they are.
- memory: the whole stage on so many megabytes, and on ten times as many.

Each measurement runs in a process of its own, in turns, and the best of --rounds counts; CPU
seconds are compared, since other programs may share the machine. A peer that is not installed is
left out and named.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from miao.corpus.build.pipeline import build_corpus
from miao.corpus.dedup.chunks import ChunkBuilder, ChunkFile, Groups
from miao.corpus.dedup.contamination import EvaluationIndex
from miao.corpus.dedup.duplicates import KEPT, Duplicates
from miao.corpus.dedup.minhash import grams_of, signatures, similarity
from miao.corpus.folder import Folder
from miao.corpus.ngrams import TextView, views_of
from miao.corpus.read.convert import to_prompt
from miao.corpus.read.formats import read_records
from miao.corpus.read.readers import read_objects
from miao.corpus.read.sources import find_files
from miao.corpus.records import Document
from miao.recipe import CorpusOptions
from miao.recipe.cleaning import ContaminationOptions, DedupOptions

PERMUTATIONS, BANDS, ROWS = 126, 42, 3
THRESHOLD = 0.4


@dataclass(frozen=True)
class Sample:
    """The same texts in a file and in memory."""

    path: Path
    texts: list[str]


def draw(paths: list[str], megabytes: float) -> Iterator[str]:
    """The first texts of all files, of each in proportion to its size."""
    readers = {path: read_records([path], "document") for path in paths}
    sizes = {path: Path(path).stat().st_size for path in paths}
    taken = dict.fromkeys(paths, 0)
    while readers and sum(taken.values()) < megabytes * 1e6:
        path = min(readers, key=lambda path: taken[path] / sizes[path])
        if (record := next(readers[path], None)) is None:
            del readers[path]
            continue
        taken[path] += len(record.text.encode())
        yield record.text


def write_sample(path: Path, texts: Iterator[str] | list[str]) -> int:
    """Writes texts as JSON lines; their bytes."""
    size = 0
    with path.open("w", encoding="utf-8") as file:
        for text in texts:
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            size += len(text.encode())
    return size


def pipeline_miao(sample: Sample) -> int:
    """The default rules and exact duplicates."""
    with tempfile.TemporaryDirectory() as work:
        options = CorpusOptions(paths=[str(sample.path)], workers=1, heldout=0.0)
        report = build_corpus(options, 1, Path(work) / "corpus", stages=["pretrain"])
        return report.accounts["pretrain"].train


def pipeline_datatrove(sample: Sample) -> int:
    """The same edits by ftfy, a filter by length, and datatrove's three steps for exact copies."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import exact_dedup
    from datatrove.pipeline.filters import LambdaFilter
    from datatrove.pipeline.formatters import FTFYFormatter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter

    def content(document: Any) -> bytes:
        return bytes(document.text.encode())

    content.__annotations__["return"] = bytes  # looked at by datatrove
    config = exact_dedup.ExactDedupConfig(content_getter=content)
    edits = FTFYFormatter(
        unescape_html=False,
        fix_encoding=False,
        decode_inconsistent_utf8=False,
        fix_line_breaks=True,
        normalization="NFC",
    )
    folder, name = str(sample.path.parent), sample.path.name
    with tempfile.TemporaryDirectory() as work:
        clean = JsonlWriter(f"{work}/clean", "${rank}.jsonl", compression=None)
        out = JsonlWriter(f"{work}/out", "${rank}.jsonl", compression=None)
        steps: list[list[Any]] = [
            [
                JsonlReader(folder, glob_pattern=name),
                edits,
                LambdaFilter(lambda document: len(document.text) > 0),
                clean,
                exact_dedup.ExactDedupSignature(f"{work}/signatures", config),
            ],
            [exact_dedup.ExactFindDedups(f"{work}/signatures", f"{work}/copies", config)],
            [
                JsonlReader(f"{work}/clean"),
                exact_dedup.ExactDedupFilter(f"{work}/copies", config),
                out,
            ],
        ]
        for number, step in enumerate(steps):
            LocalPipelineExecutor(step, tasks=1, logging_dir=f"{work}/log{number}").run()
        with open(f"{work}/out/00000.jsonl", "rb") as lines:
            return sum(1 for _ in lines)


def minhash_miao(sample: Sample) -> int:
    together = [sample.texts[at : at + 50] for at in range(0, len(sample.texts), 50)]
    return sum(len(signatures(*grams_of(views_of(texts), 3))) for texts in together)


def minhash_datasketch(sample: Sample) -> int:
    return sum(_sketch(text) is not None for text in sample.texts)


def minhash_rensa(sample: Sample) -> int:
    from rensa import RMinHash

    for text in sample.texts:
        sketch = RMinHash(num_perm=PERMUTATIONS, seed=1)
        sketch.update([text[i : i + 3] for i in range(max(len(text) - 2, 1))])
    return len(sample.texts)


def near_miao(sample: Sample) -> int:
    return len(dropped_of(sample.texts))


def near_datasketch(sample: Sample) -> int:
    """Each text that is similar enough to an earlier one that stayed."""
    from datasketch import MinHashLSH

    index = MinHashLSH(num_perm=PERMUTATIONS, params=(BANDS, ROWS))
    sketches: dict[int, Any] = {}
    dropped = 0
    for number, text in enumerate(sample.texts):
        sketch = _sketch(text)
        if any(sketch.jaccard(sketches[key]) >= THRESHOLD for key in index.query(sketch)):
            dropped += 1
            continue
        sketches[number] = sketch
        index.insert(number, sketch)
    return dropped


def _sketch(text: str) -> Any:
    from datasketch import MinHash

    sketch = MinHash(num_perm=PERMUTATIONS)
    sketch.update_batch([text[i : i + 3].encode() for i in range(max(len(text) - 2, 1))])
    return sketch


RUNS: dict[str, dict[str, Callable[[Sample], int]]] = {
    "pipeline": {"miao": pipeline_miao, "datatrove": pipeline_datatrove},
    "minhash": {"miao": minhash_miao, "datasketch": minhash_datasketch, "rensa": minhash_rensa},
    "near": {"miao": near_miao, "datasketch": near_datasketch},
}


def _timed(work: Callable[[Sample], int], sample: Sample, small: Sample, answer: Any) -> None:
    try:
        work(small)  # imports and tables
        began = time.process_time()
        result = work(sample)
        seconds = time.process_time() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        answer.send((seconds, result, peak, None))
    except Exception as error:  # a peer's failure is a finding, not an end
        answer.send((0.0, 0, 0, f"{type(error).__name__}: {error}"))


def measure(
    work: Callable[[Sample], int], sample: Sample, small: Sample
) -> tuple[float, int, int, str | None]:
    """CPU seconds, what came out, peak MiB, and what went wrong."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_timed, args=(work, sample, small, theirs))
    process.start()
    answer: tuple[float, int, int, str | None] = ours.recv()
    process.join()
    return answer


def side_by_side(sample: Sample, small: Sample, rounds: int, only: set[str]) -> None:
    megabytes = sum(len(text.encode()) for text in sample.texts) / 1e6
    for name, works in RUNS.items():
        if only and name not in only:
            continue
        best: dict[str, tuple[float, int, int]] = {}
        for turn in range(rounds):
            for who in list(works)[:: 1 if turn % 2 == 0 else -1]:
                seconds, result, peak, problem = measure(works[who], sample, small)
                if problem:
                    print(f"{name:10s} {who:12s} not run: {problem[:120]}", flush=True)
                else:
                    best[who] = min(best.get(who, (seconds, result, peak)), (seconds, result, peak))
        for who, (seconds, result, peak) in best.items():
            ratio = seconds / best["miao"][0] if "miao" in best else float("nan")
            speed = f"{megabytes / seconds:7.2f} MB/s of CPU, {ratio:5.2f}x miao's time"
            print(f"{name:10s} {who:12s} {speed}, {peak} MiB, result {result:,}", flush=True)


def edited(rng: random.Random, text: str, rate: float, pool: str) -> str:
    out = []
    for character in text:
        if rng.random() >= rate:
            out.append(character)
        else:
            new = rng.choice(pool)
            out += rng.choice([[new], [], [character, new]])
    return "".join(out)


def planted(texts: list[str], count: int = 500) -> None:
    """Recall and precision on copies of real Chinese text with 1 to 20 % of characters edited, for
    several thresholds."""
    rng = random.Random(0)
    pool = "".join(texts[:50])
    sample = list(dict.fromkeys(text[:600] for text in texts if len(text) > 100))[: 2 * count]
    thresholds = (THRESHOLD, 0.5, 0.6, 0.7, 0.8)
    before = {threshold: set(dropped_of(sample, threshold)) for threshold in thresholds}
    for rate in (0.01, 0.02, 0.05, 0.1, 0.15, 0.2):
        copies = [edited(rng, text, rate, pool) for text in sample[:count]]
        for threshold in thresholds:
            dropped = dropped_of([*sample, *copies], threshold)
            found = {place for place in dropped if place >= len(sample)}
            wrong = {place for place in dropped if place < len(sample)} - before[threshold]
            recall = len(found) / len(copies)
            precision = len(found) / max(len(found) + len(wrong), 1)
            scores = f"recall {recall:.1%}, precision {precision:.1%}"
            print(f"planted, {rate:4.0%} edited, threshold {threshold}: {scores}", flush=True)


def lengths(texts: list[str], count: int = 200) -> None:
    """Recall of edited copies by the length of real texts, at the default threshold; replaced: each
    edit puts another character in the place of one."""
    rng, pool = random.Random(0), "".join(texts[:50])
    changes: dict[str, Callable[[str], str]] = {
        f"{rate:.0%} {how}": partial(change, rng, rate=rate, pool=pool)
        for rate in (0.02, 0.05, 0.1)
        for how, change in (("edited", edited), ("replaced", replaced))
    } | {"traditional": _traditional}
    threshold = DedupOptions().near_threshold
    for low, high in ((60, 150), (150, 400), (400, 1000), (1000, 8000)):
        some = [text for text in texts if low <= len(text) < high][:count]
        made = signatures(*grams_of(views_of(some), 3))
        row = []
        for name, change in changes.items():
            copies = signatures(*grams_of(views_of([change(text) for text in some]), 3))
            row.append(f"{name} {(similarity(made, copies) >= threshold).mean():.1%}")
        print(f"lengths, {low}-{high} characters ({len(some)}): {', '.join(row)}", flush=True)


def replaced(rng: random.Random, text: str, rate: float, pool: str) -> str:
    return "".join(rng.choice(pool) if rng.random() < rate else c for c in text)


def _traditional(text: str) -> str:
    from opencc import OpenCC

    return str(OpenCC("s2t").convert(text))


def overlap(texts: list[str], exam: str, count: int = 150) -> None:
    """Recall by the length of the question (in characters of Chinese, words of English), and what
    the texts themselves are said to hold."""
    index = EvaluationIndex(ContaminationOptions(paths=[exam]))
    rng, pool = random.Random(1), "".join(texts[:50])
    began, hits = time.process_time(), 0
    for text in texts:
        if found := index.overlap(TextView(text)):
            hits += 1
            if hits <= 20:
                print(f"  a text as it is holds {found.share:.0%} of {found.text[:70]!r}")
    speed = sum(map(len, texts)) / 1e6 / (time.process_time() - began)
    print(f"overlap: {hits} of {len(texts):,} texts, {speed:.1f} million characters/s", flush=True)
    items: list[tuple[str, str, str]] = []
    for file in find_files([exam]):
        for line, value in read_objects(file):
            question = "\n".join(message.content for message in to_prompt(value))
            stem = str(value["question"])
            items.append((f"{file}:{line}", stem, question))
    sizes = [len(TextView(stem).tokens) for _, stem, _ in items]
    changes: dict[str, Callable[[str], str]] = {"verbatim": str, "traditional": _traditional}
    for rate in (0.05, 0.1, 0.2):
        changes[f"{rate:.0%} edited"] = partial(edited, rng, rate=rate, pool=pool)
    for form in ("with options", "alone"):
        for low, high in ((0, 10), (10, 22), (22, 40), (40, 80), (80, 10**6)):
            some = [item for item, size in zip(items, sizes, strict=True) if low <= size < high]
            row = []
            for name, change in changes.items():
                right = 0
                for place, stem, question in some[:count]:
                    around = rng.choice(texts)[:800]
                    leak = change(question if form == "with options" else stem)
                    found = index.overlap(TextView(f"{around[:400]}\n{leak}\n{around[400:]}"))
                    right += found is not None and found.place == place
                row.append(f"{name} {right / max(len(some[:count]), 1):.0%}")
            print(f"overlap, {form}, {low}-{high} ({len(some)}): {', '.join(row)}", flush=True)


def dropped_of(texts: list[str], threshold: float = THRESHOLD) -> list[int]:
    options = CorpusOptions(dedup=DedupOptions(near=True, near_threshold=threshold))
    options.clean.enabled = False
    with tempfile.TemporaryDirectory() as work:
        builder = ChunkBuilder(options)
        for text in texts:
            builder.add(Document(text))
        folder = Folder(work)
        ChunkFile(folder, "all").write(builder)
        Groups.write(folder, ["all"], [len(texts)], [1])
        duplicates = Duplicates(Groups(folder), options.dedup, folder / "found")
        for phase in duplicates.phases():
            for task in range(phase.count()):
                phase.run(task)
        return [place for place, state in enumerate(duplicates.dropped(0)) if state != KEPT]


def flat_memory(paths: list[str], megabytes: float, workers: int) -> None:
    """Seconds of each step, and peak memory of each process, for so much text and ten times as
    much; what there is not is said."""
    for times in (1, 10):
        with tempfile.TemporaryDirectory() as work:
            path = Path(work) / "in.jsonl"
            size = write_sample(path, draw(paths, megabytes * times)) / 1e6
            if size < 0.95 * megabytes * times:
                print(f"only {size:.0f} MB of text to be had")
            process = multiprocessing.Process(
                target=_build, args=(path, Path(work) / "corpus", workers)
            )
            process.start()
            process.join()
            timing = json.loads((Path(work) / "corpus" / "timing.json").read_text())
            steps = ", ".join(
                f"{step['name']} {step['seconds']:.1f} s ({size / step['seconds']:.2f} MB/s)"
                for step in timing["steps"]
            )
            print(f"{size:8.1f} MB in: {steps}; peak {timing['peak_memory_mib']} MiB", flush=True)


def _build(path: Path, target: Path, workers: int) -> None:
    options = CorpusOptions(paths=[str(path)], dedup=DedupOptions(near=True), workers=workers)
    build_corpus(options, 1, target, stages=["pretrain"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", nargs="+", help="files of documents")
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="processes, for memory")
    parser.add_argument(
        "--only", default="", help="pipeline, minhash, near, planted, lengths, overlap, memory"
    )
    parser.add_argument("--exam", help="an evaluation set of multiple choice, for overlap")
    options = parser.parse_args()
    only = set(filter(None, options.only.split(",")))
    if only != {"memory"}:
        with tempfile.TemporaryDirectory() as work:
            texts = list(draw(options.text, options.megabytes))
            samples = [
                Sample(Path(work) / name / "in.jsonl", some)
                for name, some in (("all", texts), ("few", texts[:3]))
            ]
            for sample in samples:
                sample.path.parent.mkdir()
                size = write_sample(sample.path, sample.texts)
                print(f"{len(sample.texts):,} texts, {size / 1e6:.1f} MB", flush=True)
            side_by_side(samples[0], samples[1], options.rounds, only)
        if not only or "planted" in only:
            planted(texts)
        if not only or "lengths" in only:
            lengths(texts)
        if options.exam and (not only or "overlap" in only):
            overlap(texts, options.exam)
    if not only or "memory" in only:
        flat_memory(options.text, options.megabytes, options.workers)


if __name__ == "__main__":
    main()
