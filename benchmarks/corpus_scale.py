"""The corpus workshop by the size of the text: CPU seconds and peak memory of every step, and what
they come to for 1 TB and 100 TB.

    python benchmarks/corpus_scale.py --gigabytes 0.25,1,4        # 20 GB takes some three hours
    python benchmarks/corpus_scale.py --calculate found.json      # again, from its figures

The text is made here, as fast as it is read: Zipf's law over words of frequent characters and over
English ones, documents as long as encyclopedias have them (log-normal), three bytes of four
Chinese; one document in ten is a copy of another anywhere in the data, one in seven a copy with an
edit, one in ten ends with the same notice. Any of them is made again from its number alone, so that
no size needs more memory than another.

The steps are the tasks that every runner does, here one after another in one process, on one core:
tasks of a step need nothing of each other. Resident memory is measured anew for each step (Linux).
What a step took is noted when it ends: a run that was killed goes on with the step that it was in.
With `--smaller 64` all that is cut (parts, chunks, groups, the shares of the keys) is cut so many
times smaller: what grows with the number of tasks then shows in little text.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from miao.corpus.build import cleaning
from miao.corpus.build.stages import Stage
from miao.corpus.dedup import chunks, duplicates
from miao.corpus.read import blocks
from miao.corpus.read.frequent import FREQUENT
from miao.corpus.steps import once
from miao.recipe import CorpusOptions

LENGTHS = {"zh": (6.51, 0.85), "en": (5.65, 0.44)}
"""Mean and deviation of the logarithm of a document's length: characters, words."""
CHINESE = 0.81
"""Documents of 100; three bytes of four."""
COPIES, EDITED, NOTICED = 0.1, 0.15, 0.1
FILE_BYTES = 256_000_000
GB = 1e9
ROOM = 4
"""Bytes of disk per byte of text, with the text, at most."""
HOUSE = {"cores": 64, "memory": 256, "price": 2.5}
"""A machine that is reckoned with: cores, GiB, dollars per hour."""


@cache
def words(language: str) -> tuple[Any, Any]:
    """20,000 words, and the sums of their shares by Zipf's and Mandelbrot's law."""
    rng = np.random.default_rng(0)
    letters = list(FREQUENT) if language == "zh" else list("etaoinshrdlucmfwypvbgk")
    sizes = rng.choice([1, 2, 2, 2, 3] if language == "zh" else [2, 3, 4, 5, 6, 7, 8], 20_000)
    made = ["".join(rng.choice(letters, size)) for size in sizes]
    shares = np.cumsum(1 / (np.arange(len(made)) + 2.7))
    return np.array(made, dtype=object), shares / shares[-1]


def document(number: int) -> str:
    """The text of this number: new, or what another number says."""
    rng = np.random.default_rng(number)
    kind = rng.random()
    if number and kind < COPIES + EDITED:
        text = document(int(rng.integers(number)))
        at = int(rng.integers(len(text)))
        return text if kind < COPIES else f"{text[:at]}{text[at + 6 :]}"
    language = "zh" if rng.random() < CHINESE else "en"
    made, shares = words(language)
    count = 8 + int(rng.lognormal(*LENGTHS[language]) / (2 if language == "zh" else 1))
    some = made[np.searchsorted(shares, rng.random(count))]
    mark, gap = ("。", "") if language == "zh" else (".", " ")
    sentences = [gap.join(some[at : at + 12]) + mark for at in range(0, count, 12)]
    paragraphs = [gap.join(sentences[at : at + 5]) for at in range(0, len(sentences), 5)]
    if rng.random() < NOTICED:
        paragraphs.append(
            "本站内容来自网络，版权归原作者所有，转载请注明出处，如有侵权请联系删除。"
        )
    return "\n".join(paragraphs)


def write_text(folder: Path, size: float) -> int:
    """Writes so many bytes as JSON lines; how many documents."""
    folder.mkdir()
    number = written = 0
    while written < size:
        end = min(size, written + FILE_BYTES)
        with open(folder / f"{written // FILE_BYTES:06.0f}.jsonl", "wb") as file:
            while written < end:
                line = json.dumps({"text": document(number)}, ensure_ascii=False) + "\n"
                written += file.write(line.encode())
                number += 1
    return number


def cut_smaller(times: int) -> None:
    blocks.PART_BYTES //= times
    cleaning.CHUNK_CHARACTERS //= times
    chunks.GROUP_CHARACTERS //= times
    duplicates.PART_BYTES //= times


def build(folder: Path, near: bool, smaller: int, done: list[str], answer: Any) -> None:
    """Sends what each phase took that is not done: [name, CPU seconds, seconds, MiB at most, tasks,
    whether it is one task whatever there is, bytes of disk at its end], and what came of the
    records."""
    cut_smaller(smaller)
    options = CorpusOptions(paths=[str(folder / "text")])
    options.dedup.near = near
    stage = Stage("pretrain", options, 0, "jsonl", str(folder / "work"))
    for phase in stage.phases.values():
        if phase.name in done:
            continue
        stage.folder.remove(f"done/{phase.name}")  # of one that was killed in the middle
        forget_peak()
        cpu, began, count = time.process_time(), time.monotonic(), phase.count()
        for task in range(count):
            stage.do(phase.name, task)
        seconds, disk = [time.process_time() - cpu, time.monotonic() - began], held(folder)
        for spent in phase.spent:
            (stage.folder / "duplicates").remove(spent)
        answer.send([phase.name, *seconds, peak(), count, phase.count is once, disk])
    accounts = stage.result()["accounts"]
    answer.send({name: accounts[name] for name in ("exact", "near", "train") if name in accounts})


def held(folder: Path) -> int:
    """Bytes of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """MiB at most since `forget_peak`."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    return int(line.split()[1]) / 1024


def measure(
    size: float, near: bool, smaller: int, folder: Path, keep: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """One size, in a process of its own; `keep` hears of it after every phase."""
    noted = folder / "figures.json"
    if noted.exists():
        found: dict[str, Any] = json.loads(noted.read_text())
    else:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        cpu = time.process_time()
        found = {"bytes": size, "documents": write_text(folder / "text", size), "phases": []}
        found["made"] = time.process_time() - cpu
        noted.write_text(json.dumps(found))
    done = [phase[0] for phase in found["phases"]]
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=build, args=(folder, near, smaller, done, theirs)
    )
    process.start()
    theirs.close()
    while isinstance(answer := ours.recv(), list):
        found["phases"].append(answer)
        noted.write_text(json.dumps(found))
        keep(found)
        print(f"{size / GB:g} GB {answer[0]:12} {answer[1]:8.1f} s of CPU, ", end="")
        print(f"{answer[3]:.0f} MiB, {answer[4]} tasks, {answer[6] / size:.2f} of its size on disk")
    process.join()
    found |= {"records": answer, "disk": held(folder / "work")}
    shutil.rmtree(folder)
    return found


def table(found: list[dict[str, Any]]) -> Iterator[str]:
    """A row for each step: seconds of CPU per GB and MiB at most, for each size."""
    sizes = [f"{one['bytes'] / GB:g} GB" for one in found]
    yield f"| CPU s/GB, MiB | {' | '.join(sizes)} |"
    yield "|---" * (len(sizes) + 1) + "|"
    for place, (name, *_) in enumerate(found[0]["phases"]):
        row = [one["phases"][place] if place < len(one["phases"]) else None for one in found]
        cells = [
            f"{phase[1] * GB / one['bytes']:.1f}, {phase[3]:.0f}" if phase else "not run"
            for one, phase in zip(found, row, strict=True)
        ]
        yield f"| {name} | {' | '.join(cells)} |"
    totals = [sum(p[1] for p in one["phases"]) * GB / one["bytes"] for one in found]
    yield f"| all | {' | '.join(f'{total:.0f} ({1000 / total:.2f} MB/s)' for total in totals)} |"


def calculation(found: list[dict[str, Any]], machines: int) -> Iterator[str]:
    """For 1 and 100 TB: hours and dollars on so many machines, each step by its own CPU seconds per
    byte at the largest size; what is one task is not divided."""
    largest = found[-1]
    divided = sum(p[1] for p in largest["phases"] if not p[5]) / largest["bytes"]
    single = sum(p[1] for p in largest["phases"] if p[5]) / largest["bytes"]
    yield "| text | machines | core hours | hours | of them one task alone | dollars | disk |"
    yield "|---|---|---|---|---|---|---|"
    for size in (1e12, 1e14):
        cores = machines * HOUSE["cores"]
        alone = single * size / 3600
        hours = divided * size / 3600 / cores + alone
        dollars = hours * machines * HOUSE["price"]
        disk = (1 + largest["disk"] / largest["bytes"]) * size / 1e12
        row = [f"{size / 1e12:g} TB", machines, f"{(divided + single) * size / 3600:,.0f}"]
        row += [f"{hours:,.1f}", f"{alone:,.1f}", f"{dollars:,.0f}", f"{disk:,.1f} TB"]
        yield f"| {' | '.join(map(str, row))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0] if __doc__ else "")
    parser.add_argument("--gigabytes", default="0.25,1,4", help="sizes (default 0.25,1,4)")
    parser.add_argument("--exact-only", action="store_true", help="no near-duplicates")
    parser.add_argument("--smaller", type=int, default=1, help="times that all is cut smaller")
    parser.add_argument("--work", type=Path, help="where (default: the system's temporary folder)")
    parser.add_argument("--json", type=Path, help="the figures, to be kept")
    parser.add_argument("--machines", type=int, default=16, help="of the calculation (default 16)")
    parser.add_argument("--calculate", type=Path, nargs="+", help="from figures that were kept")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    for path in options.calculate or []:
        found += json.loads(path.read_text())
    for size in [] if options.calculate else options.gigabytes.split(","):
        work = options.work or Path(tempfile.gettempdir())
        work.mkdir(parents=True, exist_ok=True)
        folder = work / f"miao-scale-{size}{'-exact' * options.exact_only}-{options.smaller}"
        if shutil.disk_usage(work).free < ROOM * float(size) * GB and not folder.exists():
            print(f"{size} GB: not run, there is no room for {ROOM:g} times as much")
            continue

        def keep(one: dict[str, Any]) -> None:
            if options.json:
                options.json.write_text(json.dumps([*found, one]))

        near = not options.exact_only
        one = measure(float(size) * GB, near, options.smaller, folder, keep)
        keep(one)
        found.append(one)
    if found:
        found.sort(key=lambda one: one["bytes"])
        whole = [one for one in found if "disk" in one]  # not killed
        print(
            "\n".join([*table(found), "", *(calculation(whole, options.machines) if whole else [])])
        )


if __name__ == "__main__":
    main()
