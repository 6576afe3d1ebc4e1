"""How a guest with somebody else's balloon looks while it runs: a line redrawn on a terminal, calm lines elsewhere."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Protocol

from rich.console import Console
from rich.live import Live
from rich.text import Text

from vdev.cli.sizes import format_count, format_duration, format_size
from vdev.cli.streams import silence
from vdev.notify import EventfdDoorbell
from vdev.run.drive_balloon import BalloonSnapshot

__all__ = ["LineDisplay", "LiveDisplay", "describe_snapshot", "open_balloon_display", "stopping"]

_LINE_SECONDS = 1.0


class _Display(Protocol):
    def show(self, snapshot: BalloonSnapshot) -> None: ...


@contextmanager
def open_balloon_display() -> Iterator[_Display]:
    """Yield the display that suits stderr."""
    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield LineDisplay(sys.stderr)
        return
    with Live(console=console, auto_refresh=False) as live:
        yield LiveDisplay(live)


def describe_snapshot(snapshot: BalloonSnapshot) -> str:
    """Return what the balloon holds and what was given to its queues, in words."""
    parts = [f"balloon {format_size(snapshot.balloon_bytes)} of {format_size(snapshot.target_bytes)}"]
    for name, size in (("hinted", snapshot.hinted_bytes), ("reported", snapshot.reported_bytes)):
        if size:
            parts.append(f"{name} {format_size(size)}")
    parts += [f"{name.replace('_', ' ')} {format_count(n)}" for name, n in snapshot.requests.items() if n]
    return ", ".join(parts)


class LiveDisplay:
    """One line, redrawn in place."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, snapshot: BalloonSnapshot) -> None:
        """Redraw."""
        text = f"{format_duration(snapshot.elapsed):>8}  {describe_snapshot(snapshot)}"
        self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)


class LineDisplay:
    """At most one line a second, and only when something has changed."""

    def __init__(self, file: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._file: IO[str] | None = file
        self._clock = clock
        self._said = ""
        self._next_line = 0.0

    def show(self, snapshot: BalloonSnapshot) -> None:
        """Write a line if it is time to. A reader who has gone away is written to no more."""
        text, now = describe_snapshot(snapshot), self._clock()
        if self._file is None or text == self._said or now < self._next_line:
            return
        self._said, self._next_line = text, now + _LINE_SECONDS
        try:
            print(f"{format_duration(snapshot.elapsed):>8}  {text}", file=self._file, flush=True)
        except OSError:
            silence(self._file)
            self._file = None


@contextmanager
def stopping() -> Iterator[EventfdDoorbell]:
    """Yield a doorbell that Ctrl-C and SIGTERM ring, instead of what they do otherwise."""
    bell = EventfdDoorbell()
    before = {number: signal.signal(number, lambda *_: bell.ring()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield bell
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        bell.close()
