"""Kills a training run with SIGKILL at random moments, again and again, and resumes it each time;
at the end its weights, optimizer and curves must be those of a run never killed, to the bit.

    python benchmarks/torture.py --kills 50
    python benchmarks/torture.py --kills 20 --processes 2

Every second kill is aimed at a save: it comes a few milliseconds after the files of a checkpoint
have begun to appear. The run is the whole verb `miao pretrain` on a tiny mixture of experts, so
start, resume and the writing of the model are hit too. A run that ends before it can be killed is
compared, and the next one begins from nothing. Linux and macOS (it forks, to import torch once).

With `--processes` the run is one call of `torchrun --max-restarts`; any of its processes is killed
when it has trained as far as a new checkpoint, and torchrun alone starts them again (Linux).
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch._dynamo  # noqa: F401 - loaded here once, and every child has it

from miao.cli import main as miao
from miao.device import Peak
from miao.files import read_jsonl, sha256_of
from miao.train import stage as train_stage

RECIPE = """
name: tiny
device: cpu
corpus: {heldout: 0.05, seedbed: {characters: 30K, conversations: 20, preferences: 10}}
tokenizer: {vocab_size: 400}
model: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1,
        max_position_embeddings: 256, num_experts: 4, n_shared_experts: 1, scoring_func: sigmoid}
pretrain: {tokens: 20K, seq_len: 64, batch_tokens: 512, save_every: 0.04, keep_every: 0.4,
           log_every: 3, eval_every: 0.3, sample_every: 0, precision: fp32, compile: off}
evaluate: {enabled: false}
"""
TIMES = ("seconds", "tokens_per_second", "mfu", "mfu_palm", "mfu_bitbrain", "data_wait")
LONGEST = 1800.0
"""Seconds after which a run that does not end is taken to hang, however busy the machine is."""


@dataclass
class Tally:
    """What has happened."""

    kills: int = 0
    in_a_save: int = 0
    resumed: int = 0
    """Starts that went on from a checkpoint; equal weights alone could be those of a new run."""
    runs: int = 0
    differences: list[str] = field(default_factory=list)

    def finished(self, out: Path, truth: dict[str, Any]) -> None:
        """Counts a run, and what of it is not as in the undisturbed one."""
        self.runs += 1
        found = fingerprints(out / "tiny")
        self.differences += [
            f"run {self.runs}: {name}" for name in truth if truth[name] != found.get(name)
        ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=50, help="how many (default 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--processes", type=int, default=1, help="under torchrun (default 1: none)")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(*options.worker)
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and clean up
    with tempfile.TemporaryDirectory(prefix="miao-torture-") as directory:
        try:
            moments = random.Random(options.seed)
            if options.processes > 1:
                tally = torture_all(Path(directory), options.kills, moments, options.processes)
            else:
                tally = torture(Path(directory), options.kills, moments)
        except RuntimeError as error:
            for log in Path(directory).glob("*.log"):
                print(f"{log.name}: {log.read_text(encoding='utf-8')[-2000:]}")
            print(f"torture: {error}", file=sys.stderr)
            return 1
        finally:
            for child in children_of(os.getpid()):
                os.kill(child, signal.SIGTERM)
    seconds = time.monotonic() - began
    print(
        f"{tally.kills} kills survived, {tally.in_a_save} of them in the middle of a save; "
        f"{tally.resumed} times resumed; {tally.runs} runs finished; "
        f"{len(tally.differences)} differences; {seconds:.0f} s"
    )
    print(
        f"| `torture.py --kills {options.kills} --seed {options.seed} --processes "
        f"{options.processes}` | {tally.kills} "
        f"| {tally.in_a_save} | {tally.runs} | {len(tally.differences)} |"
    )
    for difference in tally.differences:
        print(f"  {difference}")
    return 1 if tally.differences else 0


def undisturbed(
    directory: Path, train: Callable[[Path, Path], None]
) -> tuple[Path, Path, dict[str, Any], float]:
    """The recipe, its shards, what a run leaves that nobody kills, and the seconds that it takes.

    Args:
        train: pretrains by a recipe in a folder, to the end.
    """
    recipe, base = directory / "tiny.yaml", directory / "base"
    recipe.write_text(RECIPE, encoding="utf-8")
    wait_for(begin("shards", recipe, base))
    whole = copy_of(base, directory / "whole")
    started = time.monotonic()
    train(recipe, whole)
    usual = time.monotonic() - started
    return recipe, base, fingerprints(whole / "tiny"), usual


def torture(directory: Path, kills: int, moments: random.Random) -> Tally:
    """Kills runs below `directory` until `kills` are reached and the last run is finished."""
    recipe, base, truth, usual = undisturbed(
        directory, lambda recipe, out: wait_for(begin("pretrain", recipe, out))
    )
    tally = Tally()
    while tally.kills < kills or tally.runs == 0:
        out = copy_of(base, directory / "killed")
        while not run_and_kill(recipe, out, usual, moments, tally, kills):
            pass
        tally.finished(out, truth)
        print(f"run {tally.runs} is finished after {tally.kills} kills", flush=True)
    log = out.with_suffix(".log").read_text(encoding="utf-8")
    tally.resumed = len(re.findall(r"resumed at step [1-9]", log))
    return tally


def torture_all(directory: Path, kills: int, moments: random.Random, processes: int) -> Tally:
    """Runs of several processes, of which one is killed now and then; torchrun starts all anew."""
    recipe, base, truth, usual = undisturbed(
        directory, lambda recipe, out: ended_well(launch(recipe, out, processes, 0), out)
    )
    tally = Tally()
    while tally.kills < kills:
        out = copy_of(base, directory / "killed")
        launched = launch(recipe, out, processes, kills)
        known: set[int] = set()
        checkpoints = out / "tiny" / "checkpoints" / "pretrain"
        last = ""
        while launched.poll() is None and tally.kills < kills:
            new = children_of(launched.pid) - known
            saved = max((path.name for path in checkpoints.glob("step-*[0-9]")), default="")
            if len(new) < processes or saved <= last:  # it starts, or has not trained yet
                time.sleep(0.005)
                continue
            # Until the next save, or in it: the moment is meant in seconds of a run of its own.
            until, aimed = time.monotonic() + moments.uniform(0, usual / 50), tally.kills % 2
            while time.monotonic() < until or (aimed and not half_written(checkpoints)):
                if launched.poll() is not None or time.monotonic() > until + usual:
                    break
                time.sleep(0.002)
            old = half_written(checkpoints)
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(moments.choice(sorted(new)), signal.SIGKILL)
                tally.kills += 1
                tally.in_a_save += bool(old)
            known |= new
            last = max((path.name for path in checkpoints.glob("step-*[0-9]")), default="")
        ended_well(launched, out)
        tally.finished(out, truth)
        tally.resumed += len(
            re.findall(r"resumed at step [1-9]", out.with_suffix(".log").read_text())
        )
        said = f"{tally.kills} kills, {len(tally.differences)} differences"
        print(f"run {tally.runs} is finished after {said}", flush=True)
    return tally


def launch(recipe: Path, out: Path, processes: int, restarts: int) -> subprocess.Popen[bytes]:
    """The verb under torchrun."""
    words = ["-m", "torch.distributed.run", "--standalone", "--monitor-interval", "0.2"]
    words += ["--nproc-per-node", str(processes), "--max-restarts", str(restarts)]
    words += [__file__, "--worker", "pretrain", str(recipe), str(out)]
    with out.with_suffix(".log").open("ab") as log:
        return subprocess.Popen([sys.executable, *words], stdout=log, stderr=log)


def ended_well(launched: subprocess.Popen[bytes], out: Path) -> None:
    """Waits for it.

    Raises:
        RuntimeError: it fails, or hangs.
    """
    try:
        code = launched.wait(LONGEST)
    except subprocess.TimeoutExpired as error:
        launched.terminate()
        raise RuntimeError("a run hangs") from error
    if code:
        raise RuntimeError(f"{out.name}: torchrun ended with {code}")


def children_of(process: int) -> set[int]:
    """Numbers of the processes that one has started (Linux)."""
    found = Path(f"/proc/{process}/task/{process}/children")
    return {int(word) for word in found.read_text().split()} if found.exists() else set()


def run_and_kill(
    recipe: Path, out: Path, usual: float, moments: random.Random, tally: Tally, kills: int
) -> bool:
    """One start of the run, killed at a random moment; True: it came to its end."""
    checkpoints = out / "tiny" / "checkpoints" / "pretrain"
    saved, log = list(checkpoints.glob("step-*")), out.with_suffix(".log")
    said = log.stat().st_size if log.exists() else 0
    if not _ends(recipe, out, usual, moments, tally, kills):
        return False
    news = log.read_bytes()[said:].decode()
    if saved and not re.search("resumed at step [1-9]|pretrain: done before", news):
        tally.differences.append(f"run {tally.runs + 1}: it began anew beside {len(saved)} saves")
    return True


def _ends(
    recipe: Path, out: Path, usual: float, moments: random.Random, tally: Tally, kills: int
) -> bool:
    checkpoints = out / "tiny" / "checkpoints" / "pretrain"
    old = half_written(checkpoints)
    child = begin("pretrain", recipe, out)
    if tally.kills >= kills:
        wait_for(child)
        return True
    aimed = tally.kills % 2 == 1
    skipped = moments.randrange(4) if aimed else 0
    moment = time.monotonic() + (LONGEST if aimed else moments.uniform(0, usual))
    seen: set[str] = set()
    while time.monotonic() < moment:
        if ended(child):
            return True
        new = half_written(checkpoints) - old - seen if aimed else set()
        seen |= new
        if len(seen) > skipped:
            moment = time.monotonic() + moments.uniform(0, 0.03)
            aimed = False
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        return True
    tally.kills += 1
    tally.in_a_save += bool(half_written(checkpoints) - old)
    return False


def begin(verb: str, recipe: Path, out: Path) -> int:
    """Runs a verb in a child process; its number."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        log = os.open(out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = work(verb, str(recipe), str(out))
    finally:
        sys.stdout.flush()
        os._exit(code)


def work(verb: str, recipe: str, out: str) -> int:
    """Runs a verb in this process; its exit code."""
    random.seed(0)  # nothing in training draws from these two, but a checkpoint has them
    np.random.seed(0)
    # The peak is for MFU only, and measuring it takes longer than this run.
    train_stage.peak_flops = lambda device, dtype: Peak(1e11, "measured")  # type: ignore[assignment]
    return miao([verb, recipe, "--out_dir", out])


def ended(child: int) -> bool:
    """Whether a child is done.

    Raises:
        RuntimeError: with an error.
    """
    number, status = os.waitpid(child, os.WNOHANG)
    if number and status:
        raise RuntimeError(f"a run failed by itself: status {status}")
    return bool(number)


def wait_for(child: int) -> None:
    """Waits for a child.

    Raises:
        RuntimeError: it fails, or hangs.
    """
    end = time.monotonic() + LONGEST
    while not ended(child):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            raise RuntimeError("a run hangs")
        time.sleep(0.01)


def half_written(checkpoints: Path) -> set[str]:
    """Names of the saves that have begun and not ended."""
    try:
        return {name for name in os.listdir(checkpoints) if name.endswith(".tmp")}
    except FileNotFoundError:
        return set()


def copy_of(base: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(base, target)
    return target


def fingerprints(run: Path) -> dict[str, Any]:
    """Checksums of the weights and of all that the last checkpoint has, and the logged curves."""
    checkpoints = sorted((run / "checkpoints" / "pretrain").glob("step-*"))
    files = [run / "models" / "pretrain" / "model.safetensors"]
    files += [checkpoints[-1] / name for name in ("model.safetensors", "optimizer.safetensors")]
    found: dict[str, Any] = {str(f.relative_to(run)): sha256_of(f) for f in files}
    found["names of the checkpoints"] = [path.name for path in checkpoints]
    found["metrics.jsonl"] = [
        {name: value for name, value in line.items() if name not in TIMES}
        for line in read_jsonl(run / "metrics.jsonl")
    ]
    return found


if __name__ == "__main__":
    sys.exit(main())
