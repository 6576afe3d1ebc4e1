"""How a served device looks, on stderr: a table redrawn in place on a terminal, a line for each change elsewhere."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, Any, Protocol

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vdev.cli.sizes import format_count, format_duration, format_size
from vdev.cli.streams import silence
from vdev.run.serve import Snapshot
from vdev.vhost_user.statistics import QueueStatistics

__all__ = ["LinePanel", "LivePanel", "Panel", "open_panel", "render_snapshot"]

_REDRAW_INTERVAL = 0.5
_CLOCK_INTERVAL = 1.0
"""Seconds between two drawings: with news, and where only time has passed."""
_QUEUE_LIMIT = 8
"""Queues that get a line; what is below a terminal's last line would not be seen."""

_HINTS = {
    "STOP": "held by the guest",
    "REQUESTED": "asked for",
    "START": "coming in",
    "DONE": "given back",
}
"""State of the hints -> what becomes of the hinted pages."""


class Panel(Protocol):
    """Somebody who is shown a served device."""

    def show(self, snapshot: Snapshot) -> None:
        """Show this moment."""
        ...


@contextmanager
def open_panel() -> Iterator[Panel]:
    """Yield the panel that suits stderr."""
    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield LinePanel(sys.stderr)
        return
    with LivePanel(console) as panel:
        yield panel


class LinePanel:
    """A line for each thing that changed: who is connected, what was negotiated, rings, errors. Counts are no news."""

    def __init__(self, file: IO[str]) -> None:
        self._file: IO[str] | None = file
        self._said: dict[str, str] = {}

    def show(self, snapshot: Snapshot) -> None:
        """Write what is new. A reader who has gone away is written to no more."""
        if self._file is None:
            return
        facts = _facts(snapshot)
        news = [text for name, text in facts.items() if text and self._said.get(name) != text]
        self._said = facts
        try:
            for text in news:
                print(f"{format_duration(snapshot.elapsed):>8}  {text}", file=self._file, flush=True)
        except OSError:
            silence(self._file)
            self._file = None


def _facts(snapshot: Snapshot) -> dict[str, str]:
    statistics = snapshot.statistics
    facts = {
        "connected": f"front end {statistics.front_end_count} is connected"
        if statistics.is_connected
        else f"{snapshot.device} waits for a front end at {snapshot.socket_path}",
        "features": f"features: {', '.join(snapshot.features)}" if snapshot.features else "",
        "error": f"error: {statistics.last_violation}" if statistics.last_violation else "",
    }
    for queue in statistics.queues:
        name = f"queue {_queue_title(snapshot, queue.number)}"
        if queue.size:
            facts[name] = f"{name}: {queue.size} descriptors, {_queue_state(queue)}"
        if queue.last_error:
            facts[f"{name} error"] = f"{name}: {queue.last_error}"
    return facts


class LivePanel:
    """A table that is redrawn in place, and stays as it was at the end.

    To draw takes some 15 ms, in which the device does nothing: so it is drawn at most twice a second.
    """

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)
        self._latest: Snapshot | None = None
        self._drawn: Snapshot | None = None

    def __enter__(self) -> "LivePanel":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._latest is not None and self._latest is not self._drawn:
            self._draw(self._latest)
        self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Redraw, if it is time to; what is shown last is drawn in any case."""
        self._latest = snapshot
        if self._drawn is None or snapshot.elapsed - self._drawn.elapsed >= self._interval(snapshot, self._drawn):
            self._draw(snapshot)

    def _interval(self, snapshot: Snapshot, drawn: Snapshot) -> float:
        is_news = replace(snapshot, elapsed=drawn.elapsed) != drawn
        return _REDRAW_INTERVAL if is_news else _CLOCK_INTERVAL

    def _draw(self, snapshot: Snapshot) -> None:
        self._live.update(render_snapshot(snapshot), refresh=True)
        self._drawn = snapshot


def render_snapshot(snapshot: Snapshot) -> Group:
    """Return the panel: who is there, what was agreed, the device type's figures, errors, a line for each queue."""
    heading = Text.assemble(
        (snapshot.device, "bold"), f" at {snapshot.socket_path}, served for {format_duration(snapshot.elapsed)}"
    )
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _rows(snapshot):
        facts.add_row(name, value)
    queues = snapshot.statistics.queues
    return Group(heading, facts, _queues(snapshot)) if queues else Group(heading, facts)


def _rows(snapshot: Snapshot) -> Iterator[tuple[str, Text | str]]:
    statistics = snapshot.statistics
    if statistics.is_connected:
        who = Text.assemble((f"number {statistics.front_end_count}", "bold green"), f", {statistics.phase}")
        yield "front end", who
        yield "features", ", ".join(snapshot.features) or "none yet"
        if snapshot.features:
            left = [name for name in snapshot.offered_features if name not in snapshot.features]
            yield "not taken", Text(", ".join(left) or "none", style="dim")
        yield from _device_facts(snapshot.figures)
    else:
        yield "front end", Text("none yet" if not statistics.front_end_count else "gone", style="bold yellow")
        yield "offered", ", ".join(snapshot.offered_features)
    yield "errors", _errors(snapshot)


def _errors(snapshot: Snapshot) -> Text:
    statistics = snapshot.statistics
    count = statistics.front_end_violation_count + statistics.driver_violation_count
    if not count:
        return Text("none")
    return Text(f"{format_count(count)}, the last: {statistics.last_violation}", style="red")


def _queues(snapshot: Snapshot) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("queue", no_wrap=True)
    for name in ("size", "kicks", "calls", "chains"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state", overflow="fold")
    queues = snapshot.statistics.queues
    for queue in queues[:_QUEUE_LIMIT]:
        state = Text(queue.last_error, style="red") if queue.last_error else Text(_queue_state(queue))
        table.add_row(
            _queue_title(snapshot, queue.number), str(queue.size or "-"), *map(format_count, _counts(queue)), state
        )
    if rest := queues[_QUEUE_LIMIT:]:
        sums = (format_count(sum(column)) for column in zip(*map(_counts, rest), strict=True))
        served_count = sum(queue.is_served for queue in rest)
        table.add_row(f"{len(rest)} more", "", *sums, f"{served_count} served")
    return table


def _counts(queue: QueueStatistics) -> tuple[int, int, int]:
    return queue.kick_count, queue.call_count, queue.chain_count


def _queue_title(snapshot: Snapshot, number: int) -> str:
    name = snapshot.queue_names[number] if number < len(snapshot.queue_names) else ""
    return f"{number} {name}".rstrip()


def _queue_state(queue: QueueStatistics) -> str:
    return "served" if queue.is_served else queue.state


def _device_facts(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not figures:
        return
    yield "balloon", f"{format_size(figures['actual_size'])} of {format_size(figures['target_size'])} asked for"
    if figures["hinted_blocks"] or figures["hints"] == "REQUESTED":
        blocks = f"{format_size(figures['hinted_size'])} in {format_count(figures['hinted_blocks'])} blocks"
        yield "hints", f"{blocks}, {_HINTS[figures['hints']]}"
    if figures["reported_size"]:
        yield "reported", f"{format_size(figures['reported_size'])} of free pages so far"
    statistics = figures["statistics"]
    if "free_memory" in statistics and "total_memory" in statistics:
        yield "memory", f"{format_size(statistics['free_memory'])} free of {format_size(statistics['total_memory'])}"
