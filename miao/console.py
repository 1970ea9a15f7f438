"""What the user sees: messages, tables, and one progress line for every long piece of work."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from miao.errors import Interrupted, MiaoError, activation_hint
from miao.language import translated

console = Console(highlight=False, soft_wrap=True)
PLAIN_INTERVAL = 15.0
"""Seconds between progress lines where there is no terminal (a log file, CI)."""


def say(text: str = "", *, as_is: bool = False) -> None:
    """Prints plain text, in the user's language but for what is said `as_is` (a model's answer)."""
    console.print(escape(text if as_is else translated(text)))


def headline(text: str) -> None:
    """Prints the start of a stage."""
    console.print(f"\n[bold green]●[/] [bold]{escape(translated(text))}[/]")


def warn(text: str) -> None:
    """Prints something the user should know, once."""
    console.print(f"[yellow]! {escape(translated(text))}[/]")


@contextmanager
def by_product(what: str) -> Iterator[None]:
    """Around what only stands beside a result (a card, a page, a Modelfile): where it cannot be
    made, that is said with the reason, and the result stays (`MIAO_DEBUG=1` raises)."""
    try:
        yield
    except Exception as error:
        if isinstance(error, Interrupted) or os.environ.get("MIAO_DEBUG"):
            raise
        reason = error if isinstance(error, MiaoError) else f"{type(error).__name__}: {error}"
        warn(f"{what} could not be made, all else is as it should be: {reason}")


def say_next(*commands: str) -> None:
    """Prints commands to try next, before them the one that activates their environment."""
    activate = activation_hint()
    if commands:
        say("  next:")
        for command in [activate] * bool(activate) + list(commands):
            say(f"    {command}")


def print_table(title: str, columns: list[str], rows: list[list[str]], right_from: int = 1) -> None:
    """Prints a table whose columns from `right_from` on are numbers."""
    title = translated(title)
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim")
    for number, column in enumerate(map(translated, columns)):
        table.add_column(escape(column), justify="right" if number >= right_from else "left")
    for row in rows:
        table.add_row(*(escape(translated(cell) if " " in cell else cell) for cell in row))
    console.print(table)


class _Beside(ProgressColumn):
    """What stands beside the bar: translated when it is drawn, not at every step."""

    def render(self, task: Task) -> Text:
        return Text(translated(task.fields["text"]))


class ProgressLine:
    """A bar with elapsed time and ETA; a plain line now and then where there is no terminal.

    Args:
        total: the amount of work, in any unit; 0: unknown.
        done: how much of it was done before (a resumed run).
    """

    def __init__(self, what: str, total: float, done: float = 0):
        self.what, self.total, self.done = translated(what), total, done
        self._began, self._began_at, self._said = time.monotonic(), done, time.monotonic()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            _Beside(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(
            escape(self.what), total=total or None, completed=int(done), text=""
        )

    def __enter__(self) -> ProgressLine:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def advance(self, amount: float = 1, text: str = "") -> None:
        """Moves the bar on; `text` stands beside it."""
        self.done += amount
        self._progress.update(self._task, advance=amount, text=text)
        now = time.monotonic()
        if not console.is_terminal and now - self._said > PLAIN_INTERVAL:
            self._said = now
            share = f" {min(self.done / self.total, 1):.0%}" if self.total else ""
            eta = f" ETA {self._eta(now)}" if self.total else ""
            say(f"  {self.what}{share} {translated(text)}{eta}".rstrip())

    def _eta(self, now: float) -> str:
        moved = self.done - self._began_at
        if not self.total or moved <= 0:
            return "?"
        return duration((self.total - self.done) * (now - self._began) / moved)


def duration(seconds: float) -> str:
    """`4:05` or `1:02:03`."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def count(number: float) -> str:
    """`950`, `12.3K`, `4.0M`, `1.5B`."""
    for scale, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(number) >= scale:
            return f"{number / scale:.1f}{suffix}"
    return f"{number:.0f}"
