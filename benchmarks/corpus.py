"""The corpus workshop side by side with its peers: seconds of CPU, MB/s, memory, recall.

    python benchmarks/corpus.py TEXT.jsonl[.xz] [--megabytes 20] [--only clean,minhash,...]

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
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from miao.corpus.chunks import ChunkBuilder
from miao.corpus.duplicates import KEPT
from miao.corpus.formats import read_records
from miao.corpus.minhash import signature
from miao.corpus.ngrams import TextView
from miao.corpus.pipeline import build_corpus
from miao.corpus.records import Document
from miao.recipe import CorpusOptions
from miao.recipe.cleaning import DedupOptions

PERMUTATIONS, BANDS, ROWS = 126, 42, 3


def load(path: str, megabytes: float) -> list[str]:
    texts: list[str] = []
    size = 0
    for record in read_records([path], "document"):
        texts.append(record.text)
        size += len(record.text.encode())
        if size >= megabytes * 1e6:
            break
    return texts


def clean_miao(texts: list[str]) -> int:
    """The default rules and the keys of exact duplicates."""
    builder = ChunkBuilder(CorpusOptions())
    kept = sum(builder.add(Document(text)) is not None for text in texts)
    return kept - len(builder.arrays()["keys"]) + len({*builder.lines})


def clean_datatrove(texts: list[str]) -> int:
    """The nearest that datatrove has without a tokenizer of words: text repair, masking of e-mail
    and network addresses, a filter by length, and exact keys."""
    from datatrove.data import Document as Theirs
    from datatrove.pipeline.filters import LambdaFilter
    from datatrove.pipeline.formatters import FTFYFormatter, PIIFormatter
    from datatrove.utils.hashing import HashConfig, create_hash_func

    repair, mask = FTFYFormatter(), PIIFormatter()
    rule = LambdaFilter(lambda document: len(document.text) > 0)
    hashed = create_hash_func(HashConfig(precision=64, hash_fc="sha1"))
    seen = set()
    for number, text in enumerate(texts):
        document = Theirs(mask.format(repair.format(text)), str(number))
        if rule.filter(document):
            seen.add(hashed(document.text))
    return len(seen)


def minhash_miao(texts: list[str]) -> int:
    return sum(signature(TextView(text), 3) is not None for text in texts)


def minhash_datasketch(texts: list[str]) -> int:
    from datasketch import MinHash

    for text in texts:
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch([text[i : i + 3].encode() for i in range(max(len(text) - 2, 1))])
    return len(texts)


def minhash_rensa(texts: list[str]) -> int:
    from rensa import RMinHash

    for text in texts:
        sketch = RMinHash(num_perm=PERMUTATIONS, seed=1)
        sketch.update([text[i : i + 3] for i in range(max(len(text) - 2, 1))])
    return len(texts)


RUNS: dict[str, dict[str, Callable[[list[str]], int]]] = {
    "clean + exact keys": {"miao": clean_miao, "datatrove": clean_datatrove},
    "minhash": {"miao": minhash_miao, "datasketch": minhash_datasketch, "rensa": minhash_rensa},
}


def _timed(work: Callable[[list[str]], int], texts: list[str], answer: Any) -> None:
    try:
        work(texts[:3])  # imports and tables
        began = time.process_time()
        result = work(texts)
        answer.send((time.process_time() - began, result, None))
    except Exception as error:  # a peer's failure is a finding, not an end
        answer.send((0.0, 0, f"{type(error).__name__}: {error}"))


def measure(work: Callable[[list[str]], int], texts: list[str]) -> tuple[float, int, str | None]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_timed, args=(work, texts, theirs))
    process.start()
    answer = ours.recv()
    process.join()
    return answer


def side_by_side(texts: list[str], rounds: int, only: set[str]) -> None:
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    for name, works in RUNS.items():
        if only and name.split()[0] not in only:
            continue
        best: dict[str, float] = {}
        for _ in range(rounds):
            for who, work in works.items():
                seconds, _, problem = measure(work, texts)
                if problem:
                    print(f"{name:20s} {who:12s} not run: {problem[:120]}")
                else:
                    best[who] = min(best.get(who, seconds), seconds)
        for who, seconds in best.items():
            ratio = seconds / best["miao"] if "miao" in best else float("nan")
            speed = f"{megabytes / seconds:8.2f} MB/s of CPU"
            print(f"{name:20s} {who:12s} {speed}, {ratio:5.2f}x miao's time")


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
    """Recall and precision on copies of real Chinese text with 1 to 20 % of characters edited."""
    rng = random.Random(0)
    pool = "".join(texts[:50])
    sample = list(dict.fromkeys(text[:600] for text in texts if len(text) > 100))[: 2 * count]
    for rate in (0.01, 0.02, 0.05, 0.1, 0.15, 0.2):
        copies = [edited(rng, text, rate, pool) for text in sample[:count]]
        dropped = dropped_of([*sample, *copies])
        before = dropped_of(sample)
        found = {place for place in dropped if place >= len(sample)}
        wrong = {place for place in dropped if place < len(sample)} - set(before)
        recall = len(found) / len(copies)
        precision = len(found) / max(len(found) + len(wrong), 1)
        print(f"planted, {rate:4.0%} edited: recall {recall:.1%}, precision {precision:.1%}")


def dropped_of(texts: list[str]) -> list[int]:
    from miao.corpus.chunks import ChunkFile
    from miao.corpus.duplicates import Duplicates

    options = CorpusOptions(dedup=DedupOptions(near=True))
    options.clean.enabled = False
    with tempfile.TemporaryDirectory() as work:
        builder = ChunkBuilder(options)
        for text in texts:
            builder.add(Document(text))
        chunk = ChunkFile(Path(work), 0)
        chunk.write(builder)
        duplicates = Duplicates([chunk], options.dedup, Path(work) / "found")
        duplicates.find()
        return [place for place, state in enumerate(duplicates.dropped) if state != KEPT]


def flat_memory(texts: list[str]) -> None:
    """Peak memory of the whole stage for the text, and for ten times as much."""
    for times in (1, 10):
        with tempfile.TemporaryDirectory() as work:
            path = Path(work) / "in.jsonl"
            with path.open("w", encoding="utf-8") as file:
                for turn in range(times):
                    for text in texts:
                        line = {"text": f"{turn}\n{text}"}
                        file.write(json.dumps(line, ensure_ascii=False) + "\n")
            process = multiprocessing.Process(target=_build, args=(path, Path(work) / "corpus"))
            process.start()
            process.join()
            size = path.stat().st_size / 1e6
            timing = json.loads((Path(work) / "corpus" / "timing.json").read_text())
            print(f"{size:8.1f} MB in: peak memory {timing['peak_memory_mib']} MiB")


def _build(path: Path, target: Path) -> None:
    options = CorpusOptions(paths=[str(path)], dedup=DedupOptions(near=True), workers=1)
    build_corpus(options, 1, target, stages=["pretrain"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("text", help="a file of documents")
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="clean, minhash, planted, memory")
    options = parser.parse_args()
    only = set(filter(None, options.only.split(",")))
    texts = load(options.text, options.megabytes)
    print(f"{len(texts):,} texts, {sum(len(t.encode()) for t in texts) / 1e6:.1f} MB")
    side_by_side(texts, options.rounds, only)
    if not only or "planted" in only:
        planted(texts)
    if not only or "memory" in only:
        flat_memory(texts)
    print(f"this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")


if __name__ == "__main__":
    sys.exit(main())
