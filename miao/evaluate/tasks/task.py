"""A task is a data file: where its questions are, how they are asked, how answers are judged.

The tasks that come with Miao lie in `miao/evaluate/tasks/`; a user's own is a YAML file of the same
keys (docs/en/15-evaluation.md). Expressions and templates are Jinja in its sandbox.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from jinja2 import StrictUndefined, TemplateError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from miao.errors import MiaoError, did_you_mean
from miao.evaluate.tasks.generated import kinds
from miao.options import read_yaml

Scoring = Literal["letter", "option", "greedy", "ppl", "generate", "bits"]
Overflow = Literal["cut", "fewer"]
Compare = Literal["letter", "number", "text"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Source:
    """Files of one layout. `files` is a path or glob with {split} and {subject} in it; `columns`
    names those of a table without a header; `each` is an expression for the list of questions of
    one record; `fields` are expressions over a record (question, options, answer, id, ...).
    `columns: [first,
    second]`: two rows after another are one record of their cells. `keep`: an expression; other
    records are passed over. `generated`: a seed, where questions are made instead of read; subjects
    name their kinds.
    `wrong`: a question's field `right` gets up to so many others' right answers beside it as
    options, of those with an equal field `pool`."""

    files: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    each: str | None = None
    keep: str | None = None
    labels: str | None = None
    """A file of answers, line by line, for questions that come without."""
    generated: int | None = None
    wrong: int = 0
    built_in: bool = False
    """Files that come with Miao, beside the task's."""
    hub: str | None = None
    """hf:owner/name or modelscope:owner/name, where files of this layout are."""


@dataclass(frozen=True)
class Subject:
    """A part of a task, and the groups that it counts in."""

    name: str
    en: str = ""
    zh: str = ""
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class PromptStyle:
    """How a question is put. `description` stands once at the beginning, `question` is the
    question without its answer; `choice` is what may follow it, for each option (it sees `option`
    and `letter`). Delimiters stand before an answer and after each example."""

    question: str
    description: str = ""
    choice: str = "{{letter}}"
    target: str | None = None
    """What an example's answer reads like where that is more than the answer."""
    target_delimiter: str = " "
    fewshot_delimiter: str = "\n\n"
    examples_end: str = ""
    """Stands once more after the last example."""
    shots: int = 0
    scoring: Scoring = "letter"
    prior: bool = False
    """option: also score each choice where nothing stands before it."""
    overflow: Overflow = "cut"
    """A prompt that is too long: cut its beginning, or leave examples out."""
    max_new_tokens: int = 32
    until: list[str] = field(default_factory=list)
    extract: list[str] = field(default_factory=lambda: ["option"])
    """Names of extractors (miao/evaluate/tasks/extract.py) or patterns, tried in order."""
    compare: Compare = "letter"
    tolerance: float = 0.0
    """Numbers are equal when they differ by no more than this."""
    reproduces: str = ""
    """Whose prompt this is, word for word."""


@dataclass(frozen=True)
class Task:
    """One benchmark."""

    name: str
    path: Path
    title_en: str
    title_zh: str
    split: str
    sources: list[Source]
    styles: dict[str, PromptStyle]
    fewshot_split: str | None = None
    folders: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    subjects: dict[str, Subject] = field(default_factory=dict)
    submission: bool = False
    """Whether the unlabelled split's answers are handed in as {subject: {id: letter}}."""

    @property
    def needs_files(self) -> bool:
        return not any(s.built_in or s.generated is not None for s in self.sources)

    def style(self, name: str | None) -> tuple[str, PromptStyle]:
        """A style of prompts by its name (None: the task's first).

        Raises:
            MiaoError: the task has no such style.
        """
        if name is None:
            return next(iter(self.styles.items()))
        if name not in self.styles:
            raise MiaoError(
                f"the task {self.name} has no prompts in the style of {name}",
                where=self.path,
                fix=f"it has {', '.join(self.styles)}",
            )
        return name, self.styles[name]


def built_in_tasks() -> list[str]:
    """The names of the tasks that come with Miao."""
    folder = resources.files("miao.evaluate").joinpath("tasks")
    names = [entry.name for entry in folder.iterdir() if entry.name.endswith(".yaml")]
    return sorted(name.removesuffix(".yaml") for name in names)


def load_task(name: str) -> Task:
    """A built-in task by its name, or the task in a YAML file.

    Raises:
        MiaoError: no such task; a file that does not describe one, with the key that is wrong.
    """
    if name.endswith((".yaml", ".yml")):
        return read_task(Path(name))
    if name not in built_in_tasks():
        known = built_in_tasks()
        raise MiaoError(
            f"there is no task '{name}'",
            fix=did_you_mean(name, known) or f"tasks: {', '.join(known)}, or a YAML file of yours",
        )
    with resources.as_file(resources.files("miao.evaluate") / "tasks" / f"{name}.yaml") as path:
        return read_task(path)


def read_task(path: Path) -> Task:
    """Reads a task's file and compiles all of its expressions, so that mistakes show at once."""
    if not path.is_file():
        raise MiaoError("there is no such task file", where=path)
    values = read_yaml(path)
    title = values.pop("title", path.stem)
    titles = title if isinstance(title, dict) else {"en": str(title), "zh": str(title)}
    try:
        task = Task(
            name=path.stem,
            path=path,
            title_en=str(titles.get("en", path.stem)),
            title_zh=str(titles.get("zh", path.stem)),
            sources=[_make(Source, entry, path) for entry in _list(values.pop("sources"), path)],
            styles={
                str(name): _make(PromptStyle, entry, path)
                for name, entry in _mapping(values.pop("prompts"), path).items()
            },
            subjects={
                str(name): _subject(str(name), entry)
                for name, entry in _mapping(values.pop("subjects", {}), path).items()
            },
            **_known(Task, values, path),
        )
    except KeyError as error:
        raise MiaoError(f"the task lacks the key {error}", where=path) from error
    except TypeError as error:
        raise MiaoError(f"not a task: {error}", where=path, fix=_example()) from error
    _check(task)
    return task


def _check(task: Task) -> None:
    if not task.styles or not task.sources:
        raise MiaoError("a task needs sources and prompts", where=task.path, fix=_example())
    for source in task.sources:
        if source.generated is not None:
            unknown = [name for name in task.subjects if name not in kinds()]
            if unknown or not task.subjects:
                raise MiaoError(
                    f"subjects: {', '.join(unknown) or 'none'} cannot be generated",
                    where=task.path,
                    fix=f"known: {', '.join(kinds())}",
                )
            continue
        if not source.files:
            raise MiaoError("sources: the key files is missing", where=task.path, fix=_example())
        if not {"question", "id", "right"} & source.fields.keys():
            raise MiaoError("fields: the question is missing", where=task.path, fix=_example())
        for text in filter(None, [*source.fields.values(), source.each, source.keep]):
            expression(text, str(task.path))
    for name, style in task.styles.items():
        for key, allowed in (("scoring", Scoring), ("overflow", Overflow), ("compare", Compare)):
            if getattr(style, key) not in get_args(allowed):
                raise MiaoError(
                    f"prompts.{name}.{key}: {getattr(style, key)!r} is none of "
                    f"{', '.join(get_args(allowed))}",
                    where=task.path,
                )
        for text in (style.description, style.question, style.choice, style.target or ""):
            template(text, str(task.path))


def _make(kind: Any, entry: Any, path: Path) -> Any:
    return kind(**_known(kind, _mapping(entry, path), path))


def _known(kind: Any, values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    names = [entry.name for entry in dataclasses.fields(kind)]
    for key in values:
        if key not in names:
            raise MiaoError(
                f"there is no key '{key}' in a task",
                where=path,
                fix=did_you_mean(str(key), names) or f"known: {', '.join(names)}",
            )
    return dict(values)


def _mapping(value: Any, path: Path) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise MiaoError(f"a mapping was expected, not {value!r}", where=path, fix=_example())
    return value


def _list(value: Any, path: Path) -> list[Any]:
    if not isinstance(value, list):
        raise MiaoError(f"a list was expected, not {value!r}", where=path, fix=_example())
    return value


def _subject(name: str, entry: Any) -> Subject:
    """`[English, 中文, group, ...]`; English alone, or nothing, will do."""
    words = [str(word) for word in (entry if isinstance(entry, list) else [entry] if entry else [])]
    en, zh = (words + [name.replace("_", " ")] * 2)[:2]
    return Subject(name, en, zh, tuple(words[2:]))


def _example() -> str:
    return f"for examples see {resources.files('miao.evaluate') / 'tasks'}, and the docs, page 15"


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["regex_replace"] = lambda text, old, new="": re.sub(old, new, text)
    return environment


@cache
def _compiled(text: str, is_template: bool) -> Any:
    if is_template:
        return _environment().from_string(text).render
    return _environment().compile_expression(text, undefined_to_none=False)


def template(text: str, where: str) -> Callable[[Mapping[str, Any]], str]:
    """A Jinja template as a function of its variables; lm-eval's settings, so equal results."""
    return _guarded(text, where, True)


def expression(text: str, where: str) -> Callable[[Mapping[str, Any]], Any]:
    """A Jinja expression as a function of its variables, with a value of any type."""
    return _guarded(text, where, False)


def _guarded(text: str, where: str, is_template: bool) -> Callable[[Mapping[str, Any]], Any]:
    """Compiled once; `where` is for messages alone."""
    kind = "template" if is_template else "expression"
    try:
        compiled = _compiled(text, is_template)
    except TemplateError as error:
        what = f"not {'a' if is_template else 'an'} {kind}: {error}: {text!r}"
        raise MiaoError(what, where=where) from error

    def evaluate(variables: Mapping[str, Any]) -> Any:
        try:
            value = compiled(variables)
            if isinstance(value, StrictUndefined):
                raise UndefinedError(f"{text} is not there")
            return value
        except (TemplateError, TypeError, ValueError, AttributeError, LookupError) as error:
            raise MiaoError(
                f"the {kind} {text!r} does not fit the record: {error}",
                where=where,
                fix=f"the record has {', '.join(map(str, variables))}",
            ) from error

    return evaluate
