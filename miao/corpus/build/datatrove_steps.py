"""The same phases as steps of datatrove, on many machines: local, Slurm and Ray executors.

Every phase of `Stage` is an executor that waits for the one before; its tasks are dealt out to the
ranks. Nothing is made otherwise than by the built-in runner, so the records are the same, to the
bit. Inputs, workplace and output may be of any file system that fsspec knows (`s3://bucket/raw`);
of this machine's, all machines must see them. What a killed task has done stays done.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from miao.corpus.build.output import Output
from miao.corpus.build.pipeline import CorpusReport, write_report
from miao.corpus.build.stages import Stage, given_paths
from miao.corpus.folder import Folder
from miao.corpus.steps import once
from miao.errors import MiaoError, install_hint
from miao.recipe import CorpusOptions

try:
    from datatrove.pipeline.base import PipelineStep
except ImportError as error:
    raise MiaoError("datatrove is not installed", fix=install_hint("datatrove")) from error

Kind = Literal["local", "slurm", "ray"]


def datatrove_executors(
    options: CorpusOptions,
    work: str,
    output: str,
    tasks: int,
    executor: Kind = "local",
    seed: int = 42,
    form: Output = "jsonl",
    **settings: Any,
) -> list[Any]:
    """An executor for each phase; running the last runs them all, in order.

    Args:
        options: `paths`, `conversations` and `preferences` say what is read, the others how.
        work: a folder for what passes between the phases. It may be deleted afterwards.
        output: the folder for the corpus, laid out as `miao corpus build` does.
        tasks: of the phases that have many; a multiple of them is dealt out evenly.
        form: jsonl or parquet.
        settings: for the executor's class: `workers=8`, or Slurm's `time`, `partition`, ...

    Raises:
        MiaoError: none of the user's own records are named, or what is named is not there.
    """
    stages = [
        Stage(stage, options, seed, form, f"{work}/{stage}", f"{output}/{stage}")
        for stage, paths in given_paths(options).items()
        if paths
    ]
    if not stages:
        raise MiaoError("no text to build from", fix="name it in options.paths and so on")
    made: list[Any] = []
    for name in _in_order([list(stage.phases) for stage in stages]):
        mine = [stage for stage in stages if name in stage.phases]
        count = 1 if mine[0].phases[name].count is once else tasks
        step = PhaseStep(mine, name)
        made.append(make_executor(executor, name, [step], count, made[-1:], work, settings))
    report = ReportStep(stages, options, seed, output)
    return [*made, make_executor(executor, "report", [report], 1, made[-1:], work, settings)]


def _in_order(lists: Sequence[list[str]]) -> list[str]:
    """All names, each list's in its order."""
    names: list[str] = []
    for one in lists:
        at = 0
        for name in one:
            if name not in names:
                names.insert(at, name)
            at = names.index(name) + 1
    return names


def make_executor(
    kind: Kind,
    name: str,
    pipeline: list[Any],
    tasks: int,
    before: Sequence[Any],
    work: str,
    settings: dict[str, Any],
) -> Any:
    """One of datatrove's executors, that waits for the one before, if there is one."""
    common = {"tasks": tasks, "logging_dir": f"{work}/logs/{name}", **settings}
    if before:
        common["depends"] = before[0]
    if kind == "local":
        from datatrove.executor import LocalPipelineExecutor

        return LocalPipelineExecutor(pipeline, **common)
    if kind == "slurm":
        from datatrove.executor import SlurmPipelineExecutor

        return SlurmPipelineExecutor(pipeline, job_name=f"miao-{name}", **common)
    if kind == "ray":
        from datatrove.executor import RayPipelineExecutor

        return RayPipelineExecutor(pipeline, **common)
    raise MiaoError(f"there is no executor '{kind}'", fix="known are local, slurm, ray")


class PhaseStep(PipelineStep):
    """A rank's share of the tasks of a phase, of every stage that has it."""

    type = "miao"

    def __init__(self, stages: list[Stage], phase: str):
        super().__init__()
        self.stages, self.phase, self.name = stages, phase, phase

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        for stage in self.stages:
            for task in range(rank, stage.phases[self.phase].count(), world_size):
                with self.track_time():
                    stage.do(self.phase, task)
                self.stat_update("tasks")
        yield from data or ()


class ReportStep(PipelineStep):
    """The manifest and what goes with it. One task."""

    type = "miao"
    name = "report"

    def __init__(self, stages: list[Stage], options: CorpusOptions, seed: int, output: str):
        super().__init__()
        self.stages, self.options, self.seed, self.output = stages, options, seed, output

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        folder, report = Folder(self.output), CorpusReport()
        with folder.write("problems.jsonl") as problems:
            for stage in self.stages:
                report.add(stage.stage, json.loads(json.dumps(stage.result())))
                with stage.folder.open("problems.jsonl") as file:
                    while part := file.read(1 << 20):
                        problems.write(part)
        write_report(folder, report, self.options, self.seed)
        yield from data or ()
