"""Where the files of tasks are: a folder as it is, or what a hub holds of them, downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from miao.errors import MiaoError
from miao.evaluate.tasks.sets import TaskSet
from miao.evaluate.tasks.task import Task, load_task
from miao.hubs import is_hub_name


def task_data(data: str, task: Task, splits: Sequence[str | None], subjects: Sequence[str]) -> Path:
    """A folder as it is; of a name on a hub, the files of the task downloaded."""
    if not task.needs_files:
        return Path()
    if not is_hub_name(data):
        path = Path(data)
        if not path.is_dir():
            raise MiaoError(
                "there is no such folder of benchmark files",
                where=data,
                fix=f"name it with --data; {task.title_en} looks for "
                + " or ".join(source.files for source in task.sources),
            )
        return path
    from miao.hubs.datasets import download_dataset, list_dataset, parse_dataset_name

    name = parse_dataset_name(data)
    listing = list_dataset(name)
    patterns = [
        source.files.replace("{split}", source.splits.get(split, split)).replace("{subject}", name)
        for source in task.sources
        for split in splits
        for name in subjects or ["*"]
        if split
    ]
    files = [file for file in listing.files if any(fnmatchcase(file, p) for p in patterns)]
    if not files:
        raise MiaoError(
            f"this data set has no files of the task {task.name}",
            where=data,
            fix=f"it looks for {', '.join(dict.fromkeys(patterns))}; download and unpack it "
            "yourself, and name the folder",
        )
    path = download_dataset(name, listing, files)[0]
    return path.parents[len(PurePosixPath(files[0]).parts) - 1]


def set_data(data: str, chosen: TaskSet) -> Path:
    """The folder of a set's files; none is needed where all of its tasks come with Miao."""
    tasks = [load_task(name) for name in chosen.limits]
    needing = [task for task in tasks if task.needs_files]
    found = [
        task_data(data, task, [task.split, task.fewshot_split], chosen.subjects(task.name))
        for task in needing
    ]
    return found[0] if found else Path()
