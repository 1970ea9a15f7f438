"""Checkpoints of a model that is spread: every process writes its own rows, and none has it all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from errno import ENOSPC
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from miao.errors import MiaoError
from miao.files import is_full_disk, sha256_of, sync_directory, write_json, write_text
from miao.model.directory import write_safetensors
from miao.train.distributed.parallel import Parallel
from miao.train.safety.checkpoint import CHECKSUMS, OPTIMIZER, STATE, CheckpointStore, remove
from miao.train.safety.parts import part_name, write_part


class SpreadStore(CheckpointStore):
    """In `step-00000123/` each process's `shard-*.safetensors`; `optimizer.safetensors` has what
    belongs to all. The main process puts the directory in its place when all have written theirs.
    """

    def __init__(self, directory: Path, parallel: Parallel, keep_last: int):
        super().__init__(directory, parallel, keep_last)
        self.side = self.world.side()

    def save(
        self, state: dict[str, Any], tensors: dict[str, Tensor], permanent: bool = False
    ) -> None:
        self._join()
        found = list(self.parallel.parts())
        firsts = {name: first for name, _, first in found}
        part = self._to_host("", ((name, tensor) for name, tensor, _ in found), everyone=True)
        rest = self._to_host("rest.", iter((tensors | self._draws()).items()))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        content = self._described(state, permanent)
        written = partial(self._written, content, part, firsts, rest)
        self._begin(self._write_part, state["step"], written)

    def _write_part(self, step: int, written: Callable[[Path], dict[str, str]]) -> None:
        target = self.directory / f"step-{step:08d}"
        temporary = self.directory / f".{target.name}.parts.tmp"
        try:
            sums, failed = written(temporary), None
        except Exception as error:
            sums, failed = {}, (is_full_disk(error), str(error))
        try:
            told = self.side.gather((sums, failed))
            for is_full, text in (failed for _, failed in told if failed is not None):
                raise MiaoError(text, where=target) from (
                    OSError(ENOSPC, text) if is_full else None
                )
            if self.writes:
                sums = {name: value for given, _ in told for name, value in given.items()}
                write_json(temporary / CHECKSUMS, sums)
                if target.exists():
                    remove(target)
                os.replace(temporary, target)
                sync_directory(self.directory)
                self._prune()
            self.newest_step = step
        except Exception as error:  # told to the loop, which decides
            self._error = error
            if self.writes:
                shutil.rmtree(temporary, ignore_errors=True)

    def _written(
        self,
        content: str,
        part: dict[str, Tensor],
        firsts: dict[str, int],
        rest: dict[str, Tensor],
        directory: Path,
    ) -> dict[str, str]:
        """Writes what is this process's; the checksums."""
        names = [part_name(self.world.rank)]
        directory.mkdir(parents=True, exist_ok=True)
        write_part(directory / names[0], part, firsts)
        if self.writes:
            write_safetensors(rest, directory / OPTIMIZER)
            write_text(directory / STATE, content + "\n")
            names += [OPTIMIZER, STATE]
        for name in names:
            with open(directory / name, "rb") as file:
                os.fsync(file.fileno())
        return {name: sha256_of(directory / name) for name in names}
