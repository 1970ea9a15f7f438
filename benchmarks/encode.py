"""Tokenising, side by side.

    python benchmarks/encode.py --data texts.jsonl [more.jsonl ...]

- encode: fastokens against `tokenizers.encode_batch`, on the same texts, in turn; the ids compared.
- train: the two trainers, each in a process of its own: seconds and peak memory.
- files: `build_datasets` on the file and on ten times as much: MB/s, and peak memory, which must
  not grow.

Seconds are also given as processor time, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from common import ROOT, facts, parser_for

from miao.corpus.read.formats import read_records
from miao.shards import Job, TokenDataset, build_datasets
from miao.tokenizer import Tokenizer, train_tokenizer
from miao.tokenizer.bulk import BulkEncoder

BATCH = 512


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "part":
        print(json.dumps(PARTS[sys.argv[2]](json.loads(sys.argv[3]))))
        return
    parser = parser_for(__doc__)
    parser.add_argument("--data", nargs="+", help="files of documents (default: a built-in text)")
    parser.add_argument("--megabytes", type=float, default=16, help="so much text is encoded")
    parser.add_argument("--train-characters", type=float, default=10e6)
    parser.add_argument("--vocab-size", type=int, default=6400)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    options.data = [str(Path(path).resolve()) for path in options.data or []] or None
    if options.quick:
        options.megabytes, options.train_characters = 0.3, 1e5
        options.vocab_size, options.rounds = 500, 1
    with tempfile.TemporaryDirectory() as directory:
        result = measure(options, Path(directory))
    result |= {"facts": facts("cpu")}
    print(json.dumps(result, ensure_ascii=False, indent=2))
    if options.out:
        options.out.write_text(json.dumps(result, ensure_ascii=False, indent=2) + "\n")


def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """All three measurements; what is trained first, the others use."""
    sample = work / "sample.jsonl"
    with open(sample, "w", encoding="utf-8") as file:
        for text in first_texts(options.data, options.megabytes * 1e6):
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    common = {"work": str(work), "sample": str(sample), "data": options.data}
    result: dict[str, Any] = {"train": {}, "files": {}}
    for trainer in ("tokenizers", "rustbpe"):
        spec = common | {"trainer": trainer, "characters": options.train_characters}
        spec |= {"vocab_size": options.vocab_size}
        result["train"][trainer] = in_process("train", spec)
    result["encode"] = in_process("encode", common | {"rounds": options.rounds})
    for times in (1, 10):
        many = work / f"{times}.jsonl"
        lines = sample.read_text(encoding="utf-8").splitlines(keepends=True)
        with open(many, "w", encoding="utf-8") as file:
            for copy in range(times):  # each copy is another text, lest it be recognised
                file.writelines(line.replace('{"text": "', f'{{"text": "{copy} ') for line in lines)
        result["files"][f"x{times}"] = in_process("files", common | {"file": str(many)})
    return result


def in_process(part: str, spec: dict[str, Any]) -> dict[str, Any]:
    """One measurement in a fresh process, so that its peak of memory is its own."""
    words = [sys.executable, __file__, "part", part, json.dumps(spec)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT / "benchmarks")
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found = dict(json.loads(done.stdout.splitlines()[-1]))
    print(part, found, file=sys.stderr, flush=True)
    return found


def train(spec: dict[str, Any]) -> dict[str, Any]:
    """Trains on the first characters of the data."""
    texts = list(first_texts(spec["data"], 3 * spec["characters"], spec["characters"]))
    before = peak_mib()
    clock = Clock()
    tokenizer = train_tokenizer(texts, spec["vocab_size"], trainer=spec["trainer"])
    seconds = clock.read()
    tokenizer.save(Path(spec["work"]) / spec["trainer"])
    sizes = {"characters": sum(map(len, texts)), "MB": sum(len(t.encode()) for t in texts) / 1e6}
    return sizes | seconds | {"MiB_before": before, "peak_MiB": peak_mib()}


def encode(spec: dict[str, Any]) -> dict[str, Any]:
    """Both encoders on the same texts, in turn."""
    tokenizer = Tokenizer.from_directory(Path(spec["work"]) / "tokenizers")
    texts = [document.text for document in read_records([spec["sample"]], "document")]
    size = sum(len(text.encode()) for text in texts) / 1e6
    batches = [texts[at : at + BATCH] for at in range(0, len(texts), BATCH)]
    fast = BulkEncoder(tokenizer)
    backend = tokenizer._ordinary
    calls: dict[str, Callable[[list[str]], Any]] = {
        "tokenizers": lambda batch: backend.encode_batch(batch, add_special_tokens=False),
        "fastokens": lambda batch: fast.encode(batch),
    }
    times: dict[str, list[dict[str, float]]] = {name: [] for name in calls}
    for _ in range(spec["rounds"]):
        for name, call in calls.items():
            clock = Clock()
            for batch in batches:
                call(batch)
            times[name].append(clock.read())
    identical = all(fast.encode_batch(batch) == tokenizer.encode_batch(batch) for batch in batches)
    found: dict[str, Any] = {"MB": size, "texts": len(texts), "identical_ids": identical}
    found["fast"] = fast.is_fast or fast.slow_because
    for name, runs in times.items():
        for unit in ("seconds", "cpu_seconds"):
            best = min(run[unit] for run in runs)
            found[f"{name}_MB_per_{unit.removesuffix('s')}"] = round(size / best, 1)
    for unit in ("second", "cpu_second"):
        ratio = found[f"fastokens_MB_per_{unit}"] / found[f"tokenizers_MB_per_{unit}"]
        found[f"ratio_{unit}"] = round(ratio, 1)
    found["peak_MiB"] = peak_mib()
    return found


def files(spec: dict[str, Any]) -> dict[str, Any]:
    """A file to shards, in this process alone."""
    tokenizer = Tokenizer.from_directory(Path(spec["work"]) / "tokenizers")
    out = Path(spec["file"]).with_suffix("")
    before = peak_mib()
    clock = Clock()
    job = Job([spec["file"]], "document", "all", out)
    report = build_datasets([job], tokenizer, workers=1)
    seconds = clock.read()
    data = TokenDataset(out)
    found = {"MB": data.manifest.bytes / 1e6, "tokens": data.manifest.tokens}
    found |= seconds | {"shards": len(data.manifest.shards), "slow": report.slow_because}
    found["MB_per_second"] = round(found["MB"] / seconds["seconds"], 1)
    found["MB_per_cpu_second"] = round(found["MB"] / seconds["cpu_seconds"], 1)
    return found | {"MiB_before": before, "peak_MiB": peak_mib()}


class Clock:
    """Seconds since it was made: by the wall, and of all processors in this process."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        return {"seconds": round(wall, 2), "cpu_seconds": round(cpu, 2)}


def peak_mib() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak / (2**20 if sys.platform == "darwin" else 2**10))


def first_texts(
    paths: list[str] | None, num_bytes: float, characters: float = float("inf")
) -> Iterator[str]:
    """Texts of the files, taken in turn from each, up to a size."""
    if paths:
        sources = [read_records([path], "document") for path in paths]
    else:
        from miao.corpus.seedbed import Seedbed
        from miao.recipe import SeedbedOptions

        options = SeedbedOptions(characters=int(min(num_bytes / 2, 5e6)))
        sources = [Seedbed(options, 0).records("document")]
    while sources and num_bytes > 0 and characters > 0:
        for source in list(sources):
            some = [document.text for document in islice(source, 20)]
            if not some:
                sources.remove(source)
            for text in some:
                if num_bytes > 0 and characters > 0:
                    yield text
                num_bytes -= len(text.encode())
                characters -= len(text)


PARTS = {"train": train, "encode": encode, "files": files}

if __name__ == "__main__":
    main()
