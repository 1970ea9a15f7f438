"""The corpus workshop beyond one machine: real engines here, compared with the built-in runner.

    python benchmarks/corpus_cluster.py [--megabytes 3] [--only s3,ray,slurm] [--tasks 6]

Needs `pip install ray s3fs 'moto[server,s3]'` beside `.[datatrove]`.

- s3: inputs, workplace and output in a bucket of moto's server, a process of its own that is spoken
  to by HTTP; datatrove's local executor.
- ray: a Ray cluster of two nodes (two raylets), whose processes on one node are ended by SIGKILL
  while clean tasks run there; datatrove's Ray executor goes on with the other.
- slurm: the queue that `sbatch` knows here (Debian's slurm-wlm is enough); datatrove's Slurm
  executor, every phase an array of jobs that waits for the one before.

Documents, conversations and preferences made of templates go through all phases: cleaning,
duplicates near and exact, passages, mix, held-out. Every file must be the same to the byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from miao.corpus.build.datatrove_steps import Kind, datatrove_executors
from miao.corpus.build.pipeline import build_corpus
from miao.corpus.folder import Folder
from miao.corpus.read.frequent import FREQUENT
from miao.recipe import CorpusOptions
from miao.recipe.cleaning import CategoryOptions, DedupOptions, MixOptions

PORT = 5797
STAGES = ["pretrain", "sft", "dpo"]


def write_inputs(folder: Path, megabytes: float) -> None:
    """Records whose shares of copies, near-copies and repeated passages are those of crawls."""
    rng = random.Random(1)

    def text(length: int) -> str:
        return "".join(rng.choices(FREQUENT, k=length))

    notice = text(40)
    (folder / "docs").mkdir(parents=True)
    made: list[str] = []
    for number in range(8):
        rows, size = [], 0
        while size < megabytes * 1e6 / 8:
            kind = rng.random()
            if made and kind < 0.1:
                one = rng.choice(made)
            elif made and kind < 0.25:
                one = rng.choice(made)
                at = rng.randrange(len(one))
                one = one[:at] + text(6) + one[at + 6 :]
            else:
                one = text(int(rng.lognormvariate(6, 1)) + 20)
            one += f"\n\n{notice}" * (rng.random() < 0.1)
            made.append(one)
            rows.append({"text": one, "source": rng.choice(["web", "web", "wiki"])})
            size += 3 * len(one)
        _write(folder / "docs" / f"{number}.jsonl", rows)
    turns = [(text(9), text(60)) for _ in range(400)]
    chats: list[Any] = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in turns + turns[::9]
    ]
    _write(folder / "chats.jsonl", chats)
    _write(folder / "pairs.jsonl", [{"prompt": q, "chosen": a, "rejected": q} for q, a in turns])


def _write(path: Path, rows: list[Any]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


def options_for(place: str) -> CorpusOptions:
    return CorpusOptions(
        paths=[f"{place}/docs"],
        conversations=[f"{place}/chats.jsonl"],
        preferences=[f"{place}/pairs.jsonl"],
        dedup=DedupOptions(near=True, paragraphs=True, min_span=20),
        mix=MixOptions(
            pretrain={"web": CategoryOptions(weight=2), "wiki": CategoryOptions(weight=1)}
        ),
        heldout=0.05,
        workers=1,
    )


class SmallerParts(PipelineStep):
    """Makes as many tasks of small inputs as there are of large ones, in every process."""

    type = "benchmark"
    name = "smaller parts"

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        from miao.corpus.dedup import chunks, duplicates
        from miao.corpus.read import blocks

        blocks.PART_BYTES, chunks.GROUP_CHARACTERS = 200_000, 120_000
        duplicates.PART_BYTES = 200_000
        return data


def start(inputs: str, place: str, tasks: int, executor: Kind, **settings: Any) -> Any:
    """Runs all phases below a folder, in smaller parts; returns the last one's executor."""
    work, out, options = f"{place}/work", f"{place}/out", options_for(inputs)
    steps = datatrove_executors(options, work, out, tasks, executor, seed=1, **settings)
    for step in steps:
        step.pipeline.insert(0, SmallerParts())
    steps[-1].run()
    return steps[-1]


def digests(folder: Folder, names: list[str]) -> dict[str, str]:
    return {name: hashlib.sha256(folder.read(name)).hexdigest() for name in names}


def compare(what: str, place: str, ours: dict[str, str], seconds: float) -> bool:
    theirs = digests(Folder(place), list(ours))
    same = sum(ours[name] == theirs[name] for name in ours)
    named = set(json.loads(Folder(place).read("manifest.json"))["sha256"]) == set(ours)
    print(
        f"{what}: {same} of {len(ours)} files equal the built-in runner's, the same list: "
        f"{named}; {seconds:.0f} s",
        flush=True,
    )
    return same == len(ours) and named


def in_bucket(inputs: Path, tasks: int, ours: dict[str, str]) -> bool:
    import fsspec

    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(PORT)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{PORT}",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        system = fsspec.filesystem("s3")
        for attempt in range(60):
            try:
                system.mkdir("corpus")
                break
            except Exception:
                if attempt == 59:
                    raise
                time.sleep(1)
        system.put(f"{inputs}/", "corpus/raw/", recursive=True)
        began = time.monotonic()
        start("s3://corpus/raw", "s3://corpus", tasks, "local", workers=1)
        return compare("s3", "s3://corpus/out", ours, time.monotonic() - began)
    finally:
        server.terminate()
        server.wait()


def on_ray(inputs: Path, work: Path, tasks: int, ours: dict[str, str]) -> bool:
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    print(f"ray {ray.__version__}: {len(ray.nodes())} nodes", flush=True)
    done = work / "work" / "pretrain" / "done" / "clean"

    def kill() -> None:
        """When both nodes are at work: a task that is lost before it has begun is never started
        again by datatrove 0.10 (its placement fails in a thread, unseen)."""
        clean: list[int] = []
        while {0, 1} - {part % tasks for part in clean}:
            time.sleep(0.05)
            clean = [int(note.stem) for note in done.glob("0*.json")]
        cluster.remove_node(second, allow_graceful=False)
        print(f"a node killed after {len(clean)} parts were clean", flush=True)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    began = time.monotonic()
    try:
        start(str(inputs), str(work), tasks, "ray", workers=2, cpus_per_task=1, mem_per_cpu_gb=0.5)
        killer.join()
        alive = sum(node["Alive"] for node in ray.nodes())
        print(f"ray: {alive} of {len(ray.nodes())} nodes alive at the end", flush=True)
        return compare("ray", str(work / "out"), ours, time.monotonic() - began)
    finally:
        ray.shutdown()
        cluster.shutdown()


def on_slurm(inputs: Path, work: Path, tasks: int, ours: dict[str, str], partition: str) -> bool:
    began = time.monotonic()
    last = start(
        str(inputs), str(work), tasks, "slurm", time="01:00:00", partition=partition,
        mem_per_cpu_gb=1, slurm_logs_folder=str(work / "logs"),
    )  # fmt: skip
    while not (work / "out" / "manifest.json").exists():
        left = asked("squeue", "--noheader", "--format=%T %r", "--jobs", str(last.job_id))
        if not left or "DependencyNeverSatisfied" in left:
            logs = sorted((work / "logs").rglob("*.out"), key=lambda path: path.stat().st_mtime)
            print(f"slurm: not finished\n{logs[-1].read_text()[-2000:] if logs else left}")
            return False
        time.sleep(1)
    return compare("slurm", str(work / "out"), ours, time.monotonic() - began)


def asked(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, default=3, help="of documents")
    parser.add_argument("--tasks", type=int, default=6)
    parser.add_argument("--only", default="s3,ray")
    parser.add_argument("--partition", default="cpu", help="Slurm's (default: cpu)")
    parser.add_argument("--work", type=Path, help="a place that all of Slurm's machines see")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as directory:
        work, good = Path(directory), True
        write_inputs(work / "in", options.megabytes)
        build_corpus(options_for(str(work / "in")), 1, work / "built", stages=STAGES)
        files = [p for p in (work / "built").glob("*/*/*.jsonl")]
        names = sorted(path.relative_to(work / "built").as_posix() for path in files)
        ours = digests(Folder(str(work / "built")), names)
        if "s3" in options.only:
            good &= in_bucket(work / "in", options.tasks, ours)
        if "ray" in options.only:
            good &= on_ray(work / "in", work / "ray", options.tasks, ours)
        if "slurm" in options.only:
            good &= on_slurm(work / "in", work / "slurm", options.tasks, ours, options.partition)
    sys.exit(not good)


if __name__ == "__main__":
    main()
