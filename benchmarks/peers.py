"""Other projects' trainers in a race: their own scripts, in a checkout that the caller names.

Nothing of them is here; an adapter sets paths, sizes and how long, reads where a run is from what
it prints, and loads what it saves to score it. As a script: scores checkpoints, in their Python.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))


def fresh_compiler_cache(work: Path) -> dict[str, str]:
    """Environment in which nothing is compiled yet, so that compiling counts in every run."""
    shutil.rmtree(work / "inductor", ignore_errors=True)
    return {"TORCHINDUCTOR_CACHE_DIR": str(work / "inductor")}


UNCOMPILED = """
import runpy, sys, torch
torch.compile = lambda model=None, **_: (lambda made: made) if model is None else model
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Runs a module as `python -m` does. (Switched off by PyTorch's own environment variable, functions
that must be one graph end with an error.)"""


@dataclass
class Peer:
    """One peer in one setting."""

    name: str
    """nanochat or minimind; with "-default", its own batch and row length; "-eager": uncompiled."""
    checkout: Path
    work: Path
    """Where its data, its runs and its scores lie."""
    python: str
    depth: int
    width: int
    vocab_size: int
    seq_len: int
    batch_tokens: int
    precision: str
    threads: int
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def project(self) -> str:
        return self.name.split("-")[0]

    @property
    def own_settings(self) -> bool:
        return "-default" in self.name

    @property
    def uncompiled(self) -> bool:
        return self.name.endswith("-eager")

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "NANOCHAT_BASE_DIR": str(self.work / "nanochat"),
            "NANOCHAT_DTYPE": {"fp32": "float32", "bf16": "bfloat16"}[self.precision],
            "PYTHONPATH": os.pathsep.join([str(self.checkout), os.environ.get("PYTHONPATH", "")]),
            "OMP_NUM_THREADS": str(self.threads),
            "WANDB_MODE": "disabled",
            "TOKENIZERS_PARALLELISM": "false",
        }

    def prepare(self, train: list[str], heldout: list[str]) -> None:
        """Its files, and for nanochat its tokenizer, from the same text."""
        if self.project == "nanochat":
            import pyarrow as pa
            from pyarrow import parquet

            folder = self.work / "nanochat" / "base_data_climbmix"
            folder.mkdir(parents=True, exist_ok=True)
            for name, texts in (("shard_00000", train), ("shard_06542", heldout)):
                table = pa.table({"text": texts})
                parquet.write_table(table, folder / f"{name}.parquet", row_group_size=1024)
            words = ["-m", "scripts.tok_train", f"--vocab-size={self.vocab_size}"]
            if not (self.work / "nanochat" / "tokenizer" / "token_bytes.pt").exists():
                with open(self.work / "nanochat-tokenizer.log", "wb") as log:
                    subprocess.run(
                        [self.python, *words], cwd=self.checkout, env=self.environment(),
                        check=True, stdout=log, stderr=log,
                    )  # fmt: skip
            return
        self.facts["texts"] = list(_pieces(train, int(1.6 * self.row_length)))

    @property
    def row_length(self) -> int:
        return 340 if self.project == "minimind" and self.own_settings else self.seq_len

    def command(self, steps: int, saves: int) -> tuple[list[str], Path]:
        """The command line of a run of so many steps, and the folder it runs in."""
        if self.project == "nanochat":
            # a row of their model: depth x aspect ratio, brought up to whole heads
            module = ["-c", UNCOMPILED] if self.uncompiled else ["-m"]
            words = [
                *module, "scripts.base_train", f"--depth={self.depth}", "--head-dim=64",
                f"--aspect-ratio={self.width // self.depth}", f"--max-seq-len={self.seq_len}",
                f"--num-iterations={steps}", "--window-pattern=L", "--eval-every=-1",
                "--core-metric-every=-1", "--sample-every=-1", "--device-type=cpu",
                f"--save-every={saves}", f"--model-tag={self.name}",
            ]  # fmt: skip
            if not self.own_settings:
                rows = self.batch_tokens // self.seq_len
                words += [f"--total-batch-size={self.batch_tokens}", f"--device-batch-size={rows}"]
                words += [f"--warmup-steps={max(1, steps // 50)}"]
            return [self.python, *words], self.checkout
        rows, passes = (32, 8) if self.own_settings else (self.batch_tokens // self.seq_len, 1)
        data = self.work / f"{self.name}.jsonl"
        texts = self.facts["texts"]
        with open(data, "w", encoding="utf-8") as file:
            for number in range(steps * rows * passes):
                file.write(json.dumps({"text": texts[number % len(texts)]}) + "\n")
        words = [
            "train_pretrain.py", f"--data_path={data}", "--epochs=1", f"--batch_size={rows}",
            f"--accumulation_steps={passes}", f"--hidden_size={self.width}", "--device=cpu",
            f"--num_hidden_layers={self.depth}", f"--max_seq_len={self.row_length}",
            "--num_workers=0", f"--log_interval={passes}", f"--save_interval={saves * passes}",
            f"--save_dir={self.work / self.name}",
        ]  # fmt: skip
        if not self.own_settings:
            words += ["--learning_rate=2e-3", f"--use_compile={int(not self.uncompiled)}"]
        return [self.python, *words], self.checkout / "trainer"

    def run(
        self, steps: int, points: int, clock: Callable[[int], float], until: float
    ) -> Iterator[dict[str, Any]]:
        """Trains; yields after each step `{"step", "seconds", "checkpoint"?}`: seconds since the
        model was there, compiling included. Stops the run `until` seconds after the
        first step."""
        saves = max(1, steps // points)
        words, folder = self.command(steps, saves)
        kept = self.work / f"{self.name}-checkpoints"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.rmtree(self.work / "nanochat" / "base_checkpoints" / self.name, ignore_errors=True)
        kept.mkdir(parents=True)
        log = open(self.work / f"{self.name}.log", "w", encoding="utf-8")  # noqa: SIM115
        env = self.environment() | {"PYTHONUNBUFFERED": "1"} | fresh_compiler_cache(self.work)
        process = subprocess.Popen(
            words, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=log
        )
        assert process.stdout is not None
        ready = {"nanochat": r"Total batch size", "minimind": r"Model Params"}[self.project]
        step_line = {
            "nanochat": r"^step (\d+)/",
            "minimind": r"^Epoch:\[1/1\]\((\d+)/",
        }[self.project]
        began, first = clock(process.pid), None
        pending: dict[str, Any] | None = None
        passes = 8 if self.project == "minimind" and self.own_settings else 1
        for line in process.stdout:
            log.write(line)
            log.flush()
            if re.search(ready, line):
                began = clock(process.pid)
            found = re.search(step_line, line)
            if found is None:
                continue
            step = int(found[1]) // passes + (self.project == "nanochat")
            if pending is not None:
                self._collect(pending, kept)
                yield pending
            last = clock(process.pid) - began
            first = last if first is None else first
            pending = {"step": step, "seconds": last, "tokens": step * self.tokens_per_step}
            if last - first >= until:
                process.kill()
                break
        process.wait()
        log.close()
        if pending is None:
            tail = (self.work / f"{self.name}.log").read_text(encoding="utf-8")[-1500:]
            raise RuntimeError(f"{self.name} made no step: {tail}")
        self._collect(pending, kept)
        yield pending

    @property
    def tokens_per_step(self) -> int:
        if self.own_settings and self.project == "minimind":
            return 32 * 8 * self.row_length
        if self.own_settings:
            log = (self.work / f"{self.name}.log").read_text(encoding="utf-8")
            found = re.search(r"Total batch size ([\d,]+)", log)
            return int(found[1].replace(",", "")) if found else 0
        return self.batch_tokens

    def _collect(self, point: dict[str, Any], kept: Path) -> None:
        """A checkpoint that was saved at this step, kept where the next does not replace it."""
        if self.project == "nanochat":
            folder = self.work / "nanochat" / "base_checkpoints" / self.name
            if (path := folder / f"model_{point['step']:06d}.pt").exists():
                point["checkpoint"] = str(path)
            return
        path = self.work / self.name / f"pretrain_{self.width}.pth"
        if path.exists():
            copy = kept / f"step-{point['step']}.pth"
            time.sleep(0.05)
            shutil.move(path, copy)
            point["checkpoint"] = str(copy)

    def score(self, checkpoints: list[str], heldout: Path) -> list[list[list[float]]]:
        """Bits and bytes of each document, for each checkpoint."""
        spec = {
            "project": self.project, "checkpoints": checkpoints, "heldout": str(heldout),
            "seq_len": self.seq_len, "checkout": str(self.checkout), "width": self.width,
            "depth": self.depth,
        }  # fmt: skip
        done = subprocess.run(
            [self.python, __file__, json.dumps(spec)], env=self.environment(), check=False,
            cwd=self.checkout, text=True, capture_output=True,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{self.name} cannot be scored: {done.stderr[-1500:]}")
        return list(json.loads(done.stdout.splitlines()[-1]))


def _pieces(texts: list[str], length: int) -> Iterator[str]:
    """Texts cut at this many characters, as a trainer wants them that drops what is longer."""
    for text in texts:
        for begin in range(0, len(text), length):
            yield text[begin : begin + length]


def main() -> None:
    """In the peer's Python: scores what it saved."""
    import torch
    from document_bits import document_bits, read_documents

    spec = json.loads(sys.argv[1])
    texts = read_documents(Path(spec["heldout"]))
    results = []
    for name in spec["checkpoints"]:
        path = Path(name)
        if spec["project"] == "nanochat":
            from nanochat.checkpoint_manager import build_model

            step = int(path.stem.split("_")[1])
            loaded = build_model(str(path.parent), step, torch.device("cpu"), "eval")
            model, tokenizer = loaded[0], loaded[1]
            encode, start, logits = tokenizer.encode, [tokenizer.get_bos_token_id()], model
        else:
            from model.model_minimind import MiniMindConfig, MiniMindForCausalLM
            from transformers import AutoTokenizer

            config = MiniMindConfig(
                hidden_size=spec["width"], num_hidden_layers=spec["depth"], use_moe=False
            )
            model = MiniMindForCausalLM(config)
            model.load_state_dict(torch.load(path, map_location="cpu"), strict=False)
            model.float().eval()
            tokenizer = AutoTokenizer.from_pretrained(Path(spec["checkout"]) / "model")
            start = [tokenizer.bos_token_id]

            def encode(text: str, tokenizer: Any = tokenizer) -> list[int]:
                return list(tokenizer(text, add_special_tokens=False).input_ids)

            def logits(ids: Any, model: Any = model) -> Any:
                return model(ids).logits

        results.append(document_bits(texts, encode, start, logits, spec["seq_len"]))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
