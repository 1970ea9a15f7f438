"""Does `miao grow` choose well? Its plan's choice beside other configurations, the same time each.

    python benchmarks/grow_choice.py --data zh.jsonl --minutes 2 --work DIR

Each differs from the choice in one thing: shape, vocabulary, batch, rates, or how often the text is
read (a part of it, four times). The time is the processor's, so that a busy machine changes nothing
but the wait: the speeds of all are measured first, side by side, and give the tokens that each one
trains on. Measured on the same held-out documents. Interrupt and continue at will; with everything
there it only prints the table (Markdown).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from common import ROOT, parser_for, table
from miniseries import Trial, prepared, run, trained

sys.path.insert(0, str(ROOT))

from miao import rules
from miao.device import keep_freed_memory
from miao.files import append_jsonl, read_json, read_jsonl, write_json
from miao.grow.found import BYTES_PER_TOKEN, Found, look
from miao.grow.machine import SEQ_LEN, measure, shape_config
from miao.grow.outcome import Earlier
from miao.grow.plan import SHAPES, ranked
from miao.train.distributed.world import World

ROUNDS, STEPS = 3, 24
"""Of the measurement of speeds; the fastest round counts."""


@dataclass(frozen=True)
class Choice(Trial):
    """A trial of one of the plan's shapes."""

    label: str = ""

    def config(self) -> dict[str, Any]:
        return asdict(shape_config(self.width, self.layers, self.vocab))


def main(words: Sequence[str] | None = None) -> int:
    parser = parser_for(__doc__)
    parser.add_argument("--data", nargs="+", required=True, help="FILE or FILE,SHARE (texts)")
    parser.add_argument("--characters", type=float, default=24e6, help="of text to read, in all")
    parser.add_argument("--heldout-bytes", type=float, default=160e3, help="of text to measure on")
    parser.add_argument("--minutes", type=float, default=2.0, help="of pretraining, for each")
    parser.add_argument("--work", type=Path, required=True, help="texts, shards, what was measured")
    parser.set_defaults(keep=False)
    options = parser.parse_args(words)
    options.work.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    seconds, record = 60 * options.minutes, options.work / "choices.jsonl"
    wanted = [Choice(**one) for one in planned(options, seconds)]
    done = {row["label"] for row in read_jsonl(record)}
    for choice in wanted:
        if choice.label not in done:
            append_jsonl(record, run(choice, options))
            print(f"{read_jsonl(record)[-1]['bits']:.4f}  {choice.label}", flush=True)
    print("\n".join(result(read_jsonl(record))))
    return 0


def planned(options: Any, seconds: float) -> list[dict[str, Any]]:
    """What is compared, with the tokens of each: decided once."""
    kept = options.work / "planned.json"
    if not kept.exists():
        found = look([name.partition(",")[0] for name in options.data], [], [])
        choices = list(alternatives(found, seconds, 0.5 if options.quick else 10.0))
        write_json(kept, [asdict(one) for one in with_tokens(choices, options, seconds)])
    rows: list[dict[str, Any]] = read_json(kept)
    return rows


def alternatives(found: Found, seconds: float, measuring: float) -> Iterator[Choice]:
    """The plan's choice, then those beside it."""
    with mock.patch.object(time, "perf_counter", time.process_time):
        speed = measure(measuring, World())
    best = ranked(found, speed, seconds, Earlier())[0]
    rates = rules.settings(best.inner, max(best.tokens, 1.0), best.tokens / best.times)
    batch, muon = max(rates.batch_tokens, 2 * SEQ_LEN), rates.muon_learning_rate
    plan = Choice(
        "grow", 1, vocab=best.vocabulary, seq_len=SEQ_LEN, batch=batch, adam=rates.learning_rate,
        muon=muon, decay=rates.decay, warmup=rates.warmup, weight_decay=rates.weight_decay,
        width=best.width, layers=best.blocks, label="the plan's choice",
    )  # fmt: skip
    yield plan
    shape, sizes = SHAPES.index((best.width, best.blocks)), sorted(BYTES_PER_TOKEN)
    first = max(shape - 2, 0)
    for width, layers in SHAPES[first : first + 5]:
        if (width, layers) != (plan.width, plan.layers):
            yield replace(plan, width=width, layers=layers, label=f"shape {width}×{layers}")
    entry = sizes.index(plan.vocab)
    for vocab in sizes[max(entry - 1, 0) : max(entry - 1, 0) + 3]:
        if vocab != plan.vocab:
            yield replace(plan, vocab=vocab, label=f"vocabulary {vocab:,}")
    for factor in (0.5, 2):
        yield replace(plan, batch=int(batch * factor), label=f"batch {int(batch * factor):,}")
        faster = {"adam": plan.adam * factor, "muon": muon * factor}
        yield replace(plan, **faster, label=f"rates × {factor:g}")
    unique = min(best.times, 1.0) * found.total("document", "characters") / 4
    yield replace(plan, unique=max(round(unique), 20_000), label="a quarter of it, four times")


def with_tokens(choices: Sequence[Choice], options: Any, seconds: float) -> list[Choice]:
    """The tokens that each comes to in the time: by the fastest of `ROUNDS` short trainings."""
    materials = [prepared(options, one.vocab, one.unique) for one in choices]
    costs = [float("inf")] * len(choices)
    for _ in range(1 if options.quick else ROUNDS):
        for number, (one, material) in enumerate(zip(choices, materials, strict=True)):
            tokens = (1 if options.quick else STEPS) * max(one.batch, 2048)
            used = trained(replace(one, tokens=tokens), material)[3]
            costs[number] = min(costs[number], used / tokens)
    return [
        replace(one, tokens=round(seconds / cost)) for one, cost in zip(choices, costs, strict=True)
    ]


def result(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Markdown: best first, and how far the plan's choice is off."""
    best = min(row["bits"] for row in rows)
    shown = [
        {
            "configuration": row["label"], "parameters": row["all_parameters"],
            "vocabulary": row["vocab"], "batch": row["batch"], "tokens": row["tokens"],
            "CPU s": row["cpu_seconds"], "bits per byte": f"{row['bits']:.4f} ± {row['error']:.4f}",
            "off": f"{row['bits'] / best - 1:+.1%}",
        }
        for row in sorted(rows, key=lambda row: row["bits"])
    ]  # fmt: skip
    yield from table(list(shown[0]), shown)
    plan = next(row["bits"] for row in rows if row["label"] == "the plan's choice")
    yield f"\nThe plan's choice is {plan / best - 1:.1%} off the best of {len(rows)}."


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    sys.exit(main())
