"""How a running migration looks: a bar on a terminal, calm lines anywhere else. Both on stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Protocol

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress

from vdev.cli.sizes import format_bandwidth, format_duration, format_size
from vdev.cli.streams import silence
from vdev.run.report import Progress

__all__ = ["Display", "LineDisplay", "LiveDisplay", "open_display"]

PAGE_SIZE = 4096
_LIVE_SECONDS = 0.1
_LINE_SECONDS = 1.0
_STAGE_WIDTH = 18


class Display(Protocol):
    """Somebody who is shown how the migration goes."""

    def show(self, progress: Progress) -> None:
        """Show this moment, if it is time to."""
        ...


@contextmanager
def open_display() -> Iterator[Display]:
    """Yield the display that suits stderr."""
    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield LineDisplay(sys.stderr)
        return
    with LiveDisplay(console) as display:
        yield display


def describe_stage(progress: Progress) -> str:
    """Return the phase as people call it."""
    if progress.phase == "rounds":
        return f"round {progress.round}"
    return "bulk stage" if progress.phase == "bulk" else progress.phase


def _carried(progress: Progress) -> str:
    return "loaded" if progress.phase == "loading" else "sent"


class LineDisplay:
    """A line when the stage changes, and at most one a second in between when something has moved."""

    def __init__(self, file: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._file: IO[str] | None = file
        self._clock = clock
        self._stage = ""
        self._figures = ""
        self._next_line = 0.0

    def show(self, progress: Progress) -> None:
        """Write a line if it is time to. A reader who has gone away is written to no more."""
        stage, figures, now = describe_stage(progress), _figures(progress), self._clock()
        if self._file is None:
            return
        if stage == self._stage and (now < self._next_line or figures == self._figures):
            return
        self._stage, self._figures, self._next_line = stage, figures, now + _LINE_SECONDS
        elapsed = format_duration(progress.elapsed) if progress.elapsed else ""
        try:
            print(f"{elapsed:>8}  {stage}{figures}", file=self._file, flush=True)
        except OSError:
            silence(self._file)
            self._file = None


def _figures(progress: Progress) -> str:
    if not (progress.wire_bytes or progress.remaining_count):
        return ""
    parts = [
        f"{format_size(progress.wire_bytes)} {_carried(progress)}",
        f"{format_size(progress.remaining_count * PAGE_SIZE)} to go",
    ]
    if progress.skipped_count:
        parts.append(f"{format_size(progress.skipped_count * PAGE_SIZE)} skipped")
    if progress.bytes_per_second:
        parts.append(format_bandwidth(progress.bytes_per_second))
    return f": {', '.join(parts)}"


class LiveDisplay:
    """One line with a bar that is redrawn in place, and is gone at the end."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage = ""
        self._next_redraw = 0.0
        columns = (
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:3.0f} %"),
            TextColumn("{task.fields[figures]}", style="dim"),
        )
        self._progress = RichProgress(*columns, console=console, transient=True, auto_refresh=False, expand=True)
        self._task = self._progress.add_task("starting", total=None, figures="")

    def __enter__(self) -> "LiveDisplay":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, progress: Progress) -> None:
        """Redraw if it is time to."""
        stage, now = describe_stage(progress), self._clock()
        if stage == self._stage and now < self._next_redraw:
            return
        self._stage, self._next_redraw = stage, now + _LIVE_SECONDS
        self._progress.update(
            self._task,
            description=f"{stage:<{_STAGE_WIDTH}}" if self._progress.console.width >= 60 else stage,
            total=progress.total_count,
            completed=progress.total_count - progress.remaining_count,
            figures=self._figures(progress),
            refresh=True,
        )

    def _figures(self, progress: Progress) -> str:
        """Return as many figures as the terminal has room for, each of a fixed width so that nothing jumps."""
        parts = [f"{format_size(progress.wire_bytes):>8} {_carried(progress)}"]
        if progress.phase != "loading":
            parts.append(f"{format_size(progress.skipped_count * PAGE_SIZE):>8} skipped")
        parts.append(f"{format_bandwidth(progress.bytes_per_second):>10}")
        part_count = max(0, self._progress.console.width - 40) // 17
        return "  ".join(parts[:part_count])
