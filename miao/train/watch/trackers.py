"""TensorBoard, Weights & Biases and SwanLab, beside metrics.jsonl and never instead of it.

Each stage is one curve, named `<run>-<stage>`, in `runs/<name>/trackers/`. A resumed run goes on
with its curve: its identity is kept there, and what is sent twice after a kill is equal to the bit.
"""

from __future__ import annotations

import importlib.util
import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from miao.console import warn
from miao.errors import MiaoError, install_hint
from miao.files import read_json, write_json
from miao.train.watch.metrics import MetricsLog

PROJECT = "miao"


@dataclass(frozen=True)
class Curve:
    """What a tracker must know of a stage's curve.

    Args:
        identity: the same for all parts of a run that is resumed.
        step: the last step logged before; -1 for a new curve.
    """

    run_name: str
    stage: str
    directory: Path
    config: dict[str, Any]
    offline: bool
    identity: str
    step: int

    @property
    def name(self) -> str:
        return f"{self.run_name}-{self.stage}"


class Tracker(Protocol):
    """An open curve somewhere."""

    def log(self, values: dict[str, float], step: int) -> None: ...

    def close(self) -> None: ...


class TensorBoardTracker:
    """Event files in `tensorboard/<stage>/`; points behind the resumed step are purged."""

    def __init__(self, curve: Curve):
        from torch.utils.tensorboard import SummaryWriter

        directory = curve.directory / "tensorboard" / curve.stage
        self.writer = SummaryWriter(str(directory), purge_step=curve.step + 1)

    def log(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class WandbTracker:
    """Weights & Biases; what it has already of a resumed run it ignores."""

    def __init__(self, curve: Curve):
        import wandb

        self.run = wandb.init(
            project=PROJECT,
            name=curve.name,
            group=curve.run_name,
            id=curve.identity,
            resume="allow",
            config=curve.config,
            dir=str(curve.directory),
            mode="offline" if curve.offline else None,
        )

    def log(self, values: dict[str, float], step: int) -> None:
        self.run.log(values, step=step)

    def close(self) -> None:
        self.run.finish()


class SwanLabTracker:
    """SwanLab; it can take up an old run only online, offline each part is a run of its own."""

    def __init__(self, curve: Curve):
        import swanlab

        where: dict[str, Any] = {"mode": "offline"}
        if not curve.offline:
            where = {"id": curve.identity, "resume": "allow"}
        self.swanlab = swanlab
        swanlab.init(
            project=PROJECT,
            name=curve.name,
            group=curve.run_name,
            config=curve.config,
            log_dir=str(curve.directory / "swanlab"),
            **where,
        )

    def log(self, values: dict[str, float], step: int) -> None:
        self.swanlab.log(values, step=step)

    def close(self) -> None:
        self.swanlab.finish()


KINDS: dict[str, Callable[[Curve], Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
    "swanlab": SwanLabTracker,
}


def require_trackers(names: list[str]) -> None:
    """Raises `MiaoError` with the command that installs what is missing."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise MiaoError(
            f"not installed: {', '.join(missing)}",
            where="trackers",
            fix=f"pip install {' '.join(missing)}   (or all of them: {install_hint('track')})",
        )


class TrackedLog(MetricsLog):
    """metrics.jsonl, and the same numbers to the trackers. A tracker that fails is named once and
    left alone from then on; training never stops for it. Close it by leaving its `with` block.

    Args:
        names: of `KINDS`; nothing is imported for an empty list.
        directory: `trackers/` of the run directory.
        config: the recipe, shown beside the curves.
        offline: nothing is sent; wandb and SwanLab keep files that can be sent later.
    """

    def __init__(
        self,
        path: Path,
        stage: str,
        names: list[str],
        directory: Path,
        run_name: str,
        config: dict[str, Any],
        offline: bool = False,
    ):
        super().__init__(path, stage)
        self.names, self.directory, self.run_name = names, directory, run_name
        self.config, self.offline = config, offline
        self.trackers: dict[str, Tracker] = {}

    def __enter__(self) -> TrackedLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name, tracker in list(self.trackers.items()):
            self._try(name, tracker.close)
        self.trackers = {}

    def write(self, **values: Any) -> None:
        super().write(**values)
        step = int(values["step"])
        numbers = {
            name: float(value)
            for name, value in values.items()
            if name not in ("step", "seconds") and _is_number(value)
        }
        numbers |= {f"{s['task']}/{s['category']}": s["value"] for s in values.get("scores", [])}
        for name, tracker in list(self.trackers.items()):
            self._try(name, lambda tracker=tracker: tracker.log(numbers, step))  # type: ignore[misc]

    def forget_after(self, step: int) -> None:
        """Also opens the curves: new ones for step -1, else those of before, from `step` on."""
        super().forget_after(step)
        if not self.names:
            return
        curve = Curve(
            self.run_name,
            self.stage,
            self.directory,
            self.config,
            self.offline,
            self._identity(new=step < 0),
            step,
        )
        opened, self.names = self.names, []
        for name in opened:
            self._try(name, lambda name=name: self._open(name, curve))  # type: ignore[misc]

    def _open(self, name: str, curve: Curve) -> None:
        self.trackers[name] = KINDS[name](curve)

    def _identity(self, new: bool) -> str:
        path = self.directory / f"{self.stage}.json"
        if new or not path.exists():
            write_json(path, {"id": uuid.uuid4().hex[:16]})
        return str(read_json(path)["id"])

    def _try(self, name: str, call: Callable[[], object]) -> None:
        try:
            call()
        except (Exception, SystemExit) as error:
            self.trackers.pop(name, None)
            text = str(error).strip().splitlines() or [type(error).__name__]
            warn(f"{name} fails and gets no more numbers; training goes on ({text[0]})")


def _is_number(value: Any) -> bool:
    if value is None or isinstance(value, bool | str | list | dict):
        return False
    return math.isfinite(float(value))
