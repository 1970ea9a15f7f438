"""The same text, the same time, the same size: whose model knows most at the end?

    python benchmarks/race.py --data zh.jsonl,3 en.jsonl,1 --budget 360
    python benchmarks/race.py --data ... --nanochat DIR --minimind DIR --peer-python venv/bin/python
    python benchmarks/race.py --data ... --shape 27m --budget 1200 --seeds 2 --clock cpu

Arms: Miao; the Hugging Face Trainer on transformers' Qwen3 class, on the same packed rows; nanochat
and MiniMind by their own scripts in a checkout that you name, each with a batch for this budget and
with its own defaults (`-default`), compiled or not (`-eager`). Every arm's speed is measured first,
then it trains once so that its schedule ends at the budget. Compiling counts, tokenising does not;
both are shown. With `--work` a second call makes only what is not done yet. The measure
is bits per byte of the same held-out documents by one script (document_bits.py), each model with
the start token of its own training, with the standard error over documents; differences are paired.
A checkout's tokenizer is its own: nanochat trains one of the same size on the same text, MiniMind
brings one of 6,400 tokens. `--clock cpu` counts CPU seconds over threads, for a machine that is
shared.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from arms import environment
from common import ROOT, Worker, parser_for, report
from document_bits import Row, bits_per_byte, standard_error
from material import built_shards, shape
from peers import Peer, fresh_compiler_cache

sys.path.insert(0, str(ROOT))

from miao.corpus.read.readers import read_objects
from miao.files import read_json, read_jsonl, write_json, write_jsonl

PEERS = ("nanochat", "minimind")
ARMS = ("miao", "miao-compiled", "hf", "hf-compiled", *PEERS)
PATIENCE = 36_000.0
PROBE_STEPS = 2000
COURSE = ("data", "characters", "heldout_bytes", "shape", "budget", "clock", "precision",
          "seq_len", "batch_tokens", "threads", "rates", "decay")  # fmt: skip
"""What outcomes must share to be compared."""
PEER_SHAPES = {"1m": (3, 192), "6m": (6, 256), "27m": (8, 512), "tiny": (2, 64)}
"""Layers and width there whose matrices come nearest to Miao's shape."""


@dataclass
class Outcome:
    """One arm, one seed."""

    arm: str
    seed: int
    speed: float = 0.0
    """Tokens per second once it runs."""
    start: float = 0.0
    """Seconds before the second step: compiling, allocating."""
    seconds: float = 0.0
    tokens: int = 0
    bits: float = 0.0
    error: float = 0.0
    curve: list[list[float]] = field(default_factory=list)
    """Seconds, tokens, bits per byte."""
    documents: list[Row] = field(default_factory=list)
    failed: str = ""


@dataclass
class Course:
    """What all arms share."""

    options: argparse.Namespace
    work: Path
    train: list[str]
    heldout: list[str]
    heldout_file: Path
    fields: dict[str, Any]
    material: Any


def main() -> int:
    options = arguments()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="miao-race-") as name:
        work = Path(options.work or name)
        work.mkdir(parents=True, exist_ok=True)
        course = prepared(options, work)
        outcomes = finished(work, options)
        for seed, arm in itertools.product(range(options.seeds), arms_of(options)):
            if any((o.arm, o.seed) == (arm, seed) for o in outcomes):
                continue
            print(f"{arm}, seed {seed}", flush=True)
            outcomes.append(run_arm(course, arm, seed))
            print(f"  {described(outcomes[-1])}", flush=True)
            write_jsonl(work / "outcomes.jsonl", map(asdict, outcomes))
    rows = summary(outcomes)
    columns = ["arm", "bits/byte", "error", "x best peer", "tokens", "tokens/s", "start s"]
    columns += ["seconds", "to best peer's end s", "seeds"]
    curves = [asdict(o) | {"documents": None} for o in outcomes]
    facts = {"shape": options.shape, "data": options.data, "clock": options.clock}
    report("race", options, "cpu", columns, rows, budget=options.budget, curves=curves, **facts)
    return 0


def finished(work: Path, options: argparse.Namespace) -> list[Outcome]:
    """What an earlier call has left in its `--work`, but for what failed."""
    course = {key: str(value) for key, value in vars(options).items() if key in COURSE}
    file = work / "course.json"
    if file.exists() and (before := read_json(file)) != course:
        others = ", ".join(key for key in COURSE if before[key] != course[key])
        raise SystemExit(f"{work} holds a race with another {others}: name another --work")
    write_json(file, course)
    path = work / "outcomes.jsonl"
    made = [Outcome(**record) for record in read_jsonl(path)] if path.exists() else []
    return [outcome for outcome in made if not outcome.failed]


def arguments() -> argparse.Namespace:
    parser = parser_for(__doc__)
    parser.add_argument("--data", nargs="*", default=[], help="FILE or FILE,SHARE (texts)")
    parser.add_argument("--characters", type=float, default=60e6, help="of text to read, in all")
    parser.add_argument("--heldout-bytes", type=float, default=200e3, help="of text to measure on")
    parser.add_argument("--shape", default="6m", help="1m, 6m, 27m")
    parser.add_argument("--budget", type=float, help="seconds of training of each (360)")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--arms", default="miao,hf,nanochat,nanochat-default,minimind,"
                        "minimind-default", help=f"of {', '.join(ARMS)}")  # fmt: skip
    parser.add_argument("--nanochat", type=Path, help="a checkout of karpathy/nanochat")
    parser.add_argument("--minimind", type=Path, help="a checkout of jingyaogong/minimind")
    parser.add_argument("--peer-python", default=sys.executable, help="with what they need")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--batch-tokens", type=int, default=4096, help="of a step, but of -default")
    parser.add_argument("--rates", default="3e-3,2e-2", help="Miao's: AdamW, Muon")
    parser.add_argument("--decay", type=float, default=0.5, help="share of Miao's schedule")
    parser.add_argument("--hf-rate", type=float, default=2e-3, help="of their AdamW")
    parser.add_argument("--points", type=int, default=8, help="of each curve")
    parser.add_argument("--probe", type=float, default=30.0, help="seconds to measure a speed")
    parser.add_argument("--work", type=Path, help="keep tokenizers, checkpoints and logs here")
    options = parser.parse_args()
    if options.quick:
        options.shape, options.seq_len, options.batch_tokens = "tiny", 64, 512
        options.budget, options.probe, options.points = options.budget or 3.0, 1.0, 2
        options.characters, options.heldout_bytes = 2e5, 4e3
    options.budget = options.budget or 360.0
    return options


def arms_of(options: argparse.Namespace) -> Iterator[str]:
    for arm in options.arms.split(","):
        project, *settings = arm.split("-")
        known = {"default", "eager"} if project in PEERS else {"compiled"}
        if project not in {name.split("-")[0] for name in ARMS} or set(settings) - known:
            raise SystemExit(f"there is no arm {arm!r}; arms: {', '.join(ARMS)}"
                             " (peers also -default, -eager)")  # fmt: skip
        if project in PEERS and getattr(options, project) is None:
            print(f"{arm}: not run (name a checkout with --{project} DIR)")
            continue
        yield arm


def prepared(options: argparse.Namespace, work: Path) -> Course:
    """Texts, shuffled and split by document; Miao's tokenizer and shards, timed."""
    file, train = work / "heldout.jsonl", work / "train.jsonl"
    texts, heldout = split_texts(options, train, file)
    fields = shape(options.shape, options.seq_len)
    began = time.perf_counter()
    material = built_shards(work, "documents", fields["vocab_size"], [str(train)], options.quick)
    print(f"tokenizer and shards: {time.perf_counter() - began:.0f} s", flush=True)
    return Course(options, work, texts, heldout, file, fields, material)


def split_texts(
    options: argparse.Namespace, train: Path, heldout: Path
) -> tuple[list[str], list[str]]:
    """Texts to train on and texts held out, shuffled and split by document; written, too."""
    texts = sorted(set(read_texts(options)))
    random.Random(0).shuffle(texts)
    kept: list[str] = []
    while sum(len(text.encode()) for text in kept) < options.heldout_bytes:
        # whole sentences of a long document would need a reader; its first 4,000 characters do
        kept.append(texts.pop()[:4000])
    write_jsonl(heldout, ({"text": text} for text in kept))
    write_jsonl(train, ({"text": text} for text in texts))
    return texts, kept


def read_texts(options: argparse.Namespace) -> Iterator[str]:
    """Documents of each file until its share of the characters is there; none: the built-in."""
    if not options.data:
        from miao.corpus.seedbed import stories

        written = 0
        for document in stories.documents(random.Random(0)):
            yield document.text
            written += len(document.text)
            if written >= options.characters:
                return
    files = [(name.rpartition(",")[0], float(name.rpartition(",")[2])) if "," in name
             else (name, 1.0) for name in options.data]  # fmt: skip
    total = sum(share for _, share in files)
    for name, share in files:
        left = options.characters * share / total
        for _, record in read_objects(Path(name)):
            yield record["text"]
            left -= len(record["text"])
            if left <= 0:
                break


def run_arm(course: Course, arm: str, seed: int) -> Outcome:
    """Measures an arm's speed, then trains it for the budget. One that fails harms no other."""
    outcome = Outcome(arm, seed)
    try:
        if arm.startswith(PEERS):
            run_peer(course, outcome)
        else:
            run_worker(course, outcome)
    except (RuntimeError, OSError) as error:
        outcome.failed = str(error)
    return outcome


def run_worker(course: Course, outcome: Outcome) -> None:
    """Miao, and the Trainer: a process that trains when asked and measures itself."""
    options = course.options
    muon = [float(rate) for rate in options.rates.split(",")]
    ours = outcome.arm.startswith("miao")
    spec = {
        "arm": "miao" if ours else "hf-packed", "config": course.fields,
        "data": course.material.train, "tokenizer": course.material.tokenizer,
        "precision": options.precision, "compile": outcome.arm.endswith("-compiled"),
        "seq_len": options.seq_len, "batch_tokens": options.batch_tokens, "seed": outcome.seed,
        "documents": str(course.heldout_file), "cpu_clock": options.clock == "cpu",
        "learning_rate": options.hf_rate,
        "options": {"learning_rate": muon[0], "muon_learning_rate": muon[1],
                    "decay": options.decay} if ours else {"warmup_steps": 0.02},
    }  # fmt: skip
    env = environment() | {
        "OMP_NUM_THREADS": str(options.threads),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }
    script, log = Path(__file__).parent / "arms.py", course.work / f"{outcome.arm}.log"
    probe = Worker(script, spec, log, env | fresh_compiler_cache(course.work))
    first = probe.ask(PATIENCE, steps=2)
    then = probe.ask(PATIENCE, seconds=options.probe)
    probe.close()
    outcome.speed, outcome.start = then["tokens"] / then["seconds"], first["seconds"]
    budget = (options.budget - outcome.start) * outcome.speed
    if budget < 10 * options.batch_tokens:
        raise RuntimeError("the budget is over before ten steps")
    env |= fresh_compiler_cache(course.work)
    worker = Worker(script, spec | {"budget": budget}, log, env)
    tokens = budget / options.points
    while not (reply := worker.ask(PATIENCE, tokens=tokens, heldout=True)).get("finished"):
        outcome.seconds += reply["seconds"]
        outcome.tokens = reply["all_tokens"]
        outcome.documents = [(bits, size) for bits, size in reply["documents"]]
        note(outcome)
        # the last piece ends with the run, not a step behind it
        tokens = max(1.0, min(tokens, budget - outcome.tokens - options.batch_tokens))
    worker.close()


def run_peer(course: Course, outcome: Outcome) -> None:
    """Their script, from a shell's point of view."""
    options = course.options
    depth, width = PEER_SHAPES[options.shape]
    peer = Peer(
        outcome.arm, getattr(options, outcome.arm.split("-")[0]).resolve(), course.work,
        options.peer_python, depth, width, course.fields["vocab_size"], options.seq_len,
        options.batch_tokens, options.precision, options.threads,
    )  # fmt: skip
    train = list(course.train)
    random.Random(outcome.seed).shuffle(train)
    peer.prepare(train, course.heldout)
    now = clock_of(options)
    probe = list(peer.run(PROBE_STEPS, 1, now, options.probe))
    outcome.start = probe[0]["seconds"]
    if len(probe) < 2:
        raise RuntimeError("made one step and no second")
    per_step = (probe[-1]["seconds"] - probe[0]["seconds"]) / max(1, len(probe) - 1)
    steps = int((options.budget - outcome.start) / per_step) + 1
    if steps < 10:
        raise RuntimeError("the budget is over before ten steps")
    points = list(peer.run(steps, options.points, now, float("inf")))
    saved = [point for point in points if "checkpoint" in point]
    outcome.speed = peer.tokens_per_step / per_step
    for point, rows in zip(
        saved, peer.score([p["checkpoint"] for p in saved], course.heldout_file), strict=True
    ):
        outcome.seconds, outcome.tokens = point["seconds"], point["tokens"]
        outcome.documents = [(bits, int(size)) for bits, size in rows]
        note(outcome)


def clock_of(options: argparse.Namespace) -> Callable[[int], float]:
    """Seconds of a process, and of all that it started."""
    if options.clock == "wall":
        return lambda pid: time.perf_counter()
    import psutil  # type: ignore[import-untyped]

    def seconds(pid: int) -> float:
        root = psutil.Process(pid)
        used = [root.cpu_times(), *(child.cpu_times() for child in root.children(recursive=True))]
        return sum(t.user + t.system + t.children_user + t.children_system for t in used) / float(
            options.threads
        )

    return seconds


def note(outcome: Outcome) -> None:
    outcome.bits = bits_per_byte(outcome.documents)
    outcome.error = standard_error(outcome.documents)
    outcome.curve.append([outcome.seconds, outcome.tokens, outcome.bits])


def described(outcome: Outcome) -> str:
    if outcome.failed:
        return f"failed: {outcome.failed}"
    return (
        f"{outcome.bits:.3f} +- {outcome.error:.3f} bits/byte after {outcome.seconds:.0f} s, "
        f"{outcome.tokens:,} tokens at {outcome.speed:,.0f}/s"
    )


def summary(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """A row for each arm: means over seeds; beside the best peer of each seed."""
    rows = []
    for arm in dict.fromkeys(outcome.arm for outcome in outcomes):
        mine = [o for o in outcomes if o.arm == arm]
        if failures := [o for o in mine if o.failed]:
            rows.append(
                {"arm": arm, "bits/byte": f"failed: {failures[0].failed.strip().splitlines()[-1]}"}
            )
            continue
        row: dict[str, Any] = {
            "arm": arm,
            "bits/byte": f"{sum(o.bits for o in mine) / len(mine):.4f}",
            "error": sum(o.error for o in mine) / len(mine),
            "tokens": sum(o.tokens for o in mine) // len(mine),
            "tokens/s": sum(o.speed for o in mine) / len(mine),
            "start s": sum(o.start for o in mine) / len(mine),
            "seconds": sum(o.seconds for o in mine) / len(mine),
            "seeds": len(mine),
        }
        if arm.startswith("miao"):
            against = [(o, best_peer(outcomes, o.seed)) for o in mine]
            if pairs := [(o, p) for o, p in against if p is not None]:
                ratio = sum(o.bits / p.bits for o, p in pairs) / len(pairs)
                spread = max(standard_error(o.documents, p.documents) / p.bits for o, p in pairs)
                row["x best peer"] = f"{ratio:.3f} ± {spread:.3f} ({pairs[0][1].arm})"
                reached = [reaching(o, p.bits) for o, p in pairs]
                if all(reached):
                    row["to best peer's end s"] = sum(filter(None, reached)) / len(reached)
        rows.append(row)
    return rows


def best_peer(outcomes: list[Outcome], seed: int) -> Outcome | None:
    others = [o for o in outcomes if o.seed == seed and not o.arm.startswith("miao")]
    return min((o for o in others if not o.failed), key=lambda o: o.bits, default=None)


def reaching(outcome: Outcome, bits: float) -> float | None:
    """Seconds until a curve is as low, between two points in a straight line."""
    before = None
    for seconds, _, value in outcome.curve:
        if value <= bits:
            if before is None:
                return float(seconds)
            share = (before[1] - bits) / (before[1] - value)
            return float(before[0] + share * (seconds - before[0]))
        before = (seconds, value)
    return None


if __name__ == "__main__":
    sys.exit(main())
