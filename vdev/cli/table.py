"""What came of a migration, for a person."""

from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vdev.cli.sizes import format_bandwidth, format_count, format_duration, format_size
from vdev.run.report import Outcome, Report

__all__ = ["render_report"]

PAGE_SIZE = 4096
_NARROWEST = 52
_SHOWN_ROUND_COUNT = 12

_HELD = {
    "nothing": "no page",
    "until-queued": "pages until they are queued",
    "until-used": "pages until they are used",
}
_IN_WORDS = {
    Outcome.COMPLETED: "the guest goes on at the destination",
    Outcome.MISMATCHED: "the guest was moved, but found pages that are not what it wrote",
    Outcome.DESTINATION_LOST: "the guest goes on at the source",
    Outcome.GUEST_DIED: "the guest itself died",
    Outcome.IN_DOUBT: "the destination has everything, but its last word did not arrive; look there",
    Outcome.FAILED: "the guest goes on at the source",
    Outcome.FAILED: "the migration could not go on; the guest goes on at the source",
    Outcome.INTERRUPTED: "the migration was stopped from the keyboard",
}


def render_report(report: Report, console: Console) -> str:
    """Return the report as text for `console`: its width, its colours if it has any.

    The report of a destination, which knows no strategy, is shorter: what only the source knows is left out.
    """
    if console.width < _NARROWEST:
        # Let the terminal wrap: a long line does less harm than a missing digit.
        console.width = _NARROWEST
    style = "bold green" if report.exit_status == 0 else "bold red"
    with console.capture() as capture:
        console.print(Text.assemble((report.outcome.value, style), ": ", _IN_WORDS[report.outcome]))
        if report.error:
            console.print(Text(report.error, style="red"))
        for table in [_facts(report), _pages(report), *([_rounds(report)] if report.rounds else [])]:
            console.print()
            console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def _facts(report: Report) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("guest", _verdict(report))
    if report.strategy:
        overrun = "" if report.converged else ", past the limit: the guest wrote faster than the link carries"
        table.add_row("downtime", f"{format_duration(report.downtime_seconds)}{overrun}")
        table.add_row("total time", format_duration(report.total_seconds))
    table.add_row("on the wire", _wire(report))
    if report.strategy:
        over = "" if report.transport == "mmio" else f" over {report.transport}"
        table.add_row("strategy", f"{report.strategy}, {report.ring} ring{over}, {report.dirty_log} dirty log")
        if report.answer is not None:
            table.add_row("answer", f"{report.answer}; the guest holds {_HELD.get(report.guest_holds or '', '')}")
    hints = _list(report.hints)
    if hints:
        table.add_row("hints", hints)
    if report.hints.get("violation"):
        table.add_row("device", Text(f"needs a reset: {report.hints['violation']}", style="red"))
    if report.memory:
        table.add_row("memory", _list(report.memory))
    return table


def _verdict(report: Report) -> Text:
    verified = report.verified
    if not verified.pages:
        return Text("gave no verdict", style="red")
    checked = f"checked {format_count(verified.pages)} pages at the {report.verified_at}"
    resumed = f"{format_count(verified.resumed_operations)} operations since it resumed"
    if verified.mismatched:
        return Text(f"{checked}: {format_count(verified.mismatched)} wrong; {resumed}", style="red")
    return Text.assemble(f"{checked}: ", ("none lost, none stale", "green"), f"; {resumed}")


def _wire(report: Report) -> str:
    sending = sum(figures.seconds for figures in report.rounds)
    speed = f", {format_bandwidth(report.wire_bytes / sending)}" if sending > 0 else ""
    return f"{format_size(report.wire_bytes)}{speed}"


def _list(figures: Mapping[str, object]) -> str:
    """Return the figures that are not 0 in words; a key's last word is its unit."""
    words = []
    for key, figure in figures.items():
        name, _, unit = key.replace("_", " ").rpartition(" ")
        if isinstance(figure, int) and figure:
            words.append(f"{name} {format_size(figure) if unit == 'bytes' else f'{format_count(figure)} {unit}'}")
    return ", ".join(words)


def _table(*headers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="dim", padding=(0, 1), pad_edge=False)
    for number, header in enumerate(headers):
        table.add_column(header, justify="left" if number == 0 else "right", no_wrap=True)
    return table


def _pages(report: Report) -> Table:
    pages = report.pages
    table = _table("pages", "count", "size", "of RAM")
    rows = {"guest RAM": pages.total, "sent": pages.sent, "zero": pages.zero}
    if report.strategy:
        rows |= {"skipped by hints": pages.skipped, "resent": pages.resent}
    for name, count in rows.items():
        share = f"{100 * count / pages.total:.1f} %" if pages.total else ""
        table.add_row(name, format_count(count), format_size(count * PAGE_SIZE), share)
    return table


def _rounds(report: Report) -> Table:
    table = _table("round", "pages", "bytes", "time", "throughput")
    rounds = list(enumerate(report.rounds, 1))
    hidden_count = len(rounds) - _SHOWN_ROUND_COUNT
    for number, figures in rounds:
        if hidden_count > 0 and number == _SHOWN_ROUND_COUNT // 2 + 1:
            table.add_row(f"({hidden_count} more)")
        if hidden_count > 0 and _SHOWN_ROUND_COUNT // 2 < number <= _SHOWN_ROUND_COUNT // 2 + hidden_count:
            continue
        speed = format_bandwidth(figures.bytes / figures.seconds) if figures.seconds > 0 else ""
        table.add_row(
            str(number),
            format_count(figures.pages),
            format_size(figures.bytes),
            format_duration(figures.seconds),
            speed,
        )
    return table
