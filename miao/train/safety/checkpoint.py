"""Checkpoints: written whole or not at all, checksummed, enough to go on to the bit.

A save costs the training loop one copy to the host's memory; a thread writes that copy. The files
of `step-00000123/`: `model.safetensors`, `optimizer.safetensors` (its buffers, random states and
sums since the last log line), `state.json`, and `checksums.json` of the three. However many
processes train, the tensors are whole and the main process writes them, or they are in parts
(`spread.py`) that any number of processes reads; the random states are those of every process.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from miao.errors import MiaoError
from miao.files import (
    atomic_directory,
    free_space,
    read_json,
    sha256_of,
    write_json,
    write_text,
)
from miao.model.directory import Named, read_safetensors, write_safetensors
from miao.recipe import StageOptions, of_budget
from miao.rundir import list_checkpoints, step_of
from miao.train.distributed.parallel import Parallel, own_weights
from miao.train.safety.parts import MODEL, Stored, stored_parts

OPTIMIZER, STATE = "optimizer.safetensors", "state.json"
CHECKSUMS = "checksums.json"
Loaded = tuple[dict[str, Any], dict[str, Tensor]]
"""A checkpoint's state and the further tensors that were saved with it."""
Content = tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]


class CheckpointStore:
    """The checkpoints of one stage.

    Args:
        keep_last: the newest so many stay; of the older ones only permanent ones do.
    """

    def __init__(self, directory: Path, parallel: Parallel, keep_last: int):
        self.directory, self.parallel, self.keep_last = directory, parallel, keep_last
        self.world, self.device = parallel.world, parallel.model.device
        self.writes = self.world.is_main
        self.newest_step = -1
        """Step of the newest checkpoint that is whole on disk."""
        self._host: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def save(
        self, state: dict[str, Any], tensors: dict[str, Tensor], permanent: bool = False
    ) -> None:
        """Copies everything to the host and begins to write `step-00000123/`. All processes call
        it together.

        At most one save is in flight: a call while another is being written waits for it (and
        then `failure` has what became of it).

        Args:
            state: JSON-like; must have "step". tensors: more to keep; not named like an optimizer
                buffer. permanent: never removed to make room for newer ones.
        """
        self._join()
        step: int = state["step"]
        model, buffers = self._snapshot(tensors)
        if not self.writes:
            self.newest_step = step
            return
        self._begin(self._write, step, self._described(state, permanent), model, buffers)

    def _begin(self, write: Callable[..., None], *arguments: Any) -> None:
        self._thread = threading.Thread(target=write, args=arguments, name="save", daemon=True)
        self._thread.start()

    def _described(self, state: dict[str, Any], permanent: bool) -> str:
        more = {"permanent": permanent, "optimizer_steps": self.parallel.optimizer.num_steps}
        return json.dumps(state | more | {"processes": self.world.size}, ensure_ascii=False)

    def save_small(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> bool:
        """Writes, before it returns, what there may still be room for: the weights without the
        optimizer's state, if need be as bfloat16. Older checkpoints all stay. All processes call
        it together, and learn whether it went well."""
        self._join()
        model, host = self._snapshot(tensors, small=True)
        if self.writes:
            for dtype in (torch.float32, torch.bfloat16):
                self._error = None
                weights = {name: tensor.to(dtype) for name, tensor in model.items()}
                content = {"small": str(dtype), "permanent": False, "optimizer_steps": 0}
                content |= {"processes": self.world.size}
                self._write(state["step"], json.dumps(state | content), weights, host, prune=False)
                if self._error is None:
                    break
        done = self.world.from_main(self._error is None)
        self._error = None
        return bool(done)

    def require_room(self, saves: bool, say: Callable[[str], None]) -> None:
        """Asks the disk before training whether the checkpoints and the model will fit; fewer are
        kept where not all do, which is said.

        Args:
            saves: whether there are checkpoints before the last.

        Raises:
            MiaoError: not even those that there must be at a time do.
        """
        optimizer, model = self.parallel.optimizer, self.parallel.model
        own = own_weights(model)  # by all alike: of a spread model it lets go of what was collected
        if not self.writes:
            return
        sizes = {name: p.numel() * 4 for name, p in model.named_parameters()}
        one = 4 * sum(p.numel() for p in own.values())
        one += sum(sizes[name.partition(".")[2]] for name in optimizer.buffer_names)
        room = free_space(self.directory) - sum(sizes.values())  # of the model at the end
        room += sum(file.stat().st_size for file in self.directory.glob("step-*/*"))
        fits = int(room / max(one, 1)) - saves
        if fits < 1:
            raise MiaoError(
                f"a checkpoint takes {one / 2**20:,.0f} MiB, the model at the end "
                f"{sum(sizes.values()) / 2**20:,.0f}, and "
                f"{free_space(self.directory) / 2**20:,.0f} MiB of disk are free",
                where=self.directory,
                fix="free some space, or choose another place with --out_dir",
            )
        if saves and fits < self.keep_last:
            say(f"the disk has room for {fits} checkpoints beside the newest, not {self.keep_last}")
            self.keep_last = fits

    def failure(self, wait: bool = False) -> Exception | None:
        """Why a save failed, once; None while it is being written (unless `wait`) or went well."""
        if wait:
            self._join()
        if self._thread is not None and self._thread.is_alive():
            return None
        error, self._error = self._error, None
        return error

    def resume(self, say: Callable[[str], None], before: int | None = None) -> Loaded | None:
        """Goes to the newest checkpoint that is whole (and of a step below `before`); damaged and
        half-written ones are named and passed over.

        Raises:
            MiaoError: there are checkpoints, but every one is damaged.
        """
        self._join()
        self._clear_leftovers(say)
        found = list_checkpoints(self.directory) if self.writes else []
        if before is not None:
            found = [path for path in found if step_of(path) < before]
        content = None
        for path in reversed(found):
            try:
                content = _read(path, verify=True)
                break
            except MiaoError as error:
                say(f"{error}; trying the checkpoint before it")
        if found and before is None and content is None:
            raise MiaoError(
                "no checkpoint can be read",
                where=self.directory,
                fix="delete this directory to train the stage from its beginning",
            )
        step = self.world.from_main(None if content is None else step_of(path))
        if step is None:
            return None
        self.newest_step = step
        return self._take(content or _read(self.directory / f"step-{step:08d}", verify=False))

    def resume_stable(
        self, say: Callable[[str], None], stage: str, options: StageOptions, budget: float
    ) -> Loaded | None:
        """`resume`; where the budget has changed since, from the newest checkpoint before wsd's
        decay of then began, if there is one."""
        found = newest = self.resume(say)
        old = newest[0].get("budget", budget) if newest else budget
        if options.schedule != "wsd" or old == budget or options.minutes is not None:
            return newest
        stable = old - of_budget(options.decay, old, f"{stage}.decay")
        while found and found[0]["tokens"] > stable:
            found = self.resume(say, before=found[0]["step"])
        if found is None:
            say("no checkpoint is left from before the rate fell: the newest one is gone on with")
            return self.resume(say)
        self.forget_after(found[0]["step"])
        return found

    def forget_after(self, step: int) -> None:
        """Removes the checkpoints of later steps: a path that was left."""
        if self.writes:
            for path in list_checkpoints(self.directory):
                if step_of(path) > step:
                    remove(path)

    def _snapshot(
        self, more: dict[str, Tensor], small: bool = False
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Weights and buffers, copied into host memory that is kept for the next save."""
        draws = self._draws()
        model = self._to_host("model.", self.parallel.weights())
        host = {} if small else self._to_host("optimizer.", self.parallel.buffers())
        host |= self._to_host("optimizer.", iter((more | draws).items()))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return model, host

    def _draws(self) -> dict[str, Tensor]:
        """The random states of every process."""
        states = self.world.gather_objects(random_states(self.device))
        return {
            _of_process(rank) + name: tensor
            for rank, state in enumerate(states)
            for name, tensor in state.items()
        }

    def _to_host(self, prefix: str, tensors: Named, everyone: bool = False) -> dict[str, Tensor]:
        copies: dict[str, Tensor] = {}
        for name, tensor in tensors:
            if not (self.writes or everyone):
                continue
            kept = self._host.get(prefix + name)
            if kept is None or kept.shape != tensor.shape or kept.dtype != tensor.dtype:
                pinned = tensor.device.type == "cuda"
                kept = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
                self._host[prefix + name] = kept
            copies[name] = kept.copy_(tensor.detach(), non_blocking=True)
        return copies

    def _write(
        self,
        step: int,
        content: str,
        model: dict[str, Tensor],
        buffers: dict[str, Tensor],
        prune: bool = True,
    ) -> None:
        try:
            target = self.directory / f"step-{step:08d}"
            with atomic_directory(target) as temporary:
                write_safetensors(model, temporary / MODEL)
                write_safetensors(buffers, temporary / OPTIMIZER)
                write_text(temporary / STATE, content + "\n")
                names = (MODEL, OPTIMIZER, STATE)
                write_json(
                    temporary / CHECKSUMS, {name: sha256_of(temporary / name) for name in names}
                )
            self.newest_step = step
            if prune:
                self._prune()
        except Exception as error:  # told to the loop, which decides
            self._error = error

    def _prune(self) -> None:
        for path in list_checkpoints(self.directory)[: -self.keep_last]:
            try:
                permanent = read_json(path / STATE)["permanent"]
            except (MiaoError, KeyError, TypeError):
                permanent = False
            if not permanent:
                remove(path)

    def _take(self, content: Content) -> Loaded:
        """Puts a checkpoint's content into the model and the optimizer."""
        state, weights, buffers = content
        own = own_weights(self.parallel.model)
        stored: dict[str, Stored] = {}
        if not weights:  # it is in parts
            stored = stored_parts(self.directory / f"step-{state['step']:08d}")
            shapes = {name: tensor.shape for name, tensor in stored.items()}
            weights = {
                name.removeprefix("model."): torch.empty(shape, device="meta")
                for name, shape in shapes.items()
                if name.startswith("model.")
            }
        if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in weights.items()}:
            raise MiaoError(
                "the checkpoints are of another model",
                where=self.directory,
                fix="restore the options of the model, or begin anew without --resume-with-changes",
            )
        for rank in range(state.get("processes", 1)):
            prefix = _of_process(rank) + "random."
            names = [name for name in buffers if name.startswith(prefix)]
            states = {name.removeprefix(_of_process(rank)): buffers.pop(name) for name in names}
            if rank == self.world.rank:
                set_random_states(states, self.device)
        if stored:
            self._take_parts(stored, state["optimizer_steps"])
            return state, buffers
        mine = {name for name in buffers if name.partition(".")[2] in own}
        self.parallel.load(
            weights, {name: buffers[name] for name in mine}, state["optimizer_steps"]
        )
        return state, {name: t for name, t in buffers.items() if name not in mine}

    def _take_parts(self, stored: dict[str, Stored], num_steps: int) -> None:
        keys = [name.partition(".")[2] for name in stored if name.startswith("optimizer.")]
        if self.parallel.in_parts:
            self.parallel.load_parts(lambda name: stored[name].rows, keys, num_steps)
            return
        weights = {
            name.removeprefix("model."): tensor.whole()
            for name, tensor in stored.items()
            if name.startswith("model.")
        }
        buffers = {key: stored[f"optimizer.{key}"].whole() for key in keys}
        self.parallel.load(weights, buffers, num_steps)

    def _clear_leftovers(self, say: Callable[[str], None]) -> None:
        if not self.writes:
            return
        for path in sorted(self.directory.glob(".step-*")):
            if path.name.endswith(".tmp"):
                say(f"the save of {path.name[1:14]} was cut short; its half-written files are gone")
            shutil.rmtree(path, ignore_errors=True)

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None


def _read(path: Path, verify: bool) -> Content:
    """A checkpoint's state, weights and further tensors.

    Raises:
        MiaoError: a file is missing, or (`verify`) its checksum is not the one written.
    """
    checksums = dict(read_json(path / CHECKSUMS))
    parts = [name for name in checksums if name.startswith("shard-")]
    for name in ([] if parts else [MODEL]) + [*parts, OPTIMIZER, STATE]:
        file = path / name
        if not file.exists() or (verify and sha256_of(file) != checksums.get(name)):
            raise MiaoError("this checkpoint file is missing or damaged", where=file)
    return (
        read_json(path / STATE),
        {} if parts else read_safetensors(path / MODEL),
        read_safetensors(path / OPTIMIZER),
    )


def _of_process(rank: int) -> str:
    return f"process{rank}." if rank else ""


def random_states(device: torch.device) -> dict[str, Tensor]:
    """Every generator that anything in training may draw from."""
    _, python, _ = random.getstate()
    legacy: Any = np.random.get_state(legacy=True)
    states = {
        "random.torch": torch.get_rng_state(),
        "random.python": torch.tensor(python, dtype=torch.int64),
        "random.numpy": torch.tensor([*legacy[1].tolist(), legacy[2]], dtype=torch.int64),
    }
    if device.type == "cuda":
        states["random.cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(tensors: dict[str, Tensor], device: torch.device) -> None:
    """Takes `random_states` out of `tensors` and puts them back in place."""
    states = {name: tensors.pop(name) for name in list(tensors) if name.startswith("random.")}
    torch.set_rng_state(states["random.torch"])
    random.setstate((3, tuple(states["random.python"].tolist()), None))
    *key, position = states["random.numpy"].tolist()
    np.random.set_state(("MT19937", np.array(key, dtype=np.uint32), position, 0, 0.0))
    if device.type == "cuda" and "random.cuda" in states:
        torch.cuda.set_rng_state(states["random.cuda"], device)


def remove(path: Path) -> None:
    """Takes a checkpoint away at one stroke, so that no half of it is ever found."""
    hidden = path.with_name(f".{path.name}.old.{os.getpid()}")
    os.replace(path, hidden)
    shutil.rmtree(hidden, ignore_errors=True)
