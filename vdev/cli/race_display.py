"""How a search looks while it runs, on stderr: a line that is redrawn on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from vdev.cli.streams import silence

__all__ = ["BarDisplay", "CalmDisplay", "RaceDisplay", "open_race_display"]

_LIVE_SECONDS = 0.1
_LINE_SECONDS = 5.0


class RaceDisplay(Protocol):
    """Somebody who is shown how far a search is."""

    def show(self, what: str, figures: str, done: int | None = None, total: int | None = None) -> None:
        """Show `done` of `total`, if it is time to; None where nobody knows the end."""
        ...


@contextmanager
def open_race_display() -> Iterator[RaceDisplay]:
    """Yield the display that suits stderr."""
    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield CalmDisplay(sys.stderr)
        return
    with BarDisplay(console) as display:
        yield display


class CalmDisplay:
    """At most a line in five seconds, the first after five."""

    def __init__(self, file: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._file: IO[str] | None = file
        self._clock = clock
        self._next_line = clock() + _LINE_SECONDS

    def show(self, what: str, figures: str, done: int | None = None, total: int | None = None) -> None:
        """Write a line if it is time to. A reader who has gone away is written to no more."""
        now = self._clock()
        if self._file is None or now < self._next_line:
            return
        self._next_line = now + _LINE_SECONDS
        count = "" if done is None else f" {done} of {total}"
        try:
            print(f"{what}{count}: {figures}", file=self._file, flush=True)
        except OSError:
            silence(self._file)
            self._file = None


class BarDisplay:
    """One line with a bar that is redrawn in place, and is gone at the end."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next_redraw = 0.0
        columns = (
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[figures]}", style="dim"),
        )
        self._progress = Progress(*columns, console=console, transient=True, auto_refresh=False, expand=True)
        self._task = self._progress.add_task("starting", total=None, figures="")

    def __enter__(self) -> "BarDisplay":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, what: str, figures: str, done: int | None = None, total: int | None = None) -> None:
        """Redraw if it is time to."""
        now = self._clock()
        if now < self._next_redraw:
            return
        self._next_redraw = now + _LIVE_SECONDS
        count = "" if done is None else f" {done} of {total}"
        self._progress.update(
            self._task,
            description=f"{what}{count}",
            total=total,
            completed=done or 0,
            figures=figures if self._progress.console.width >= 60 else "",
            refresh=True,
        )
