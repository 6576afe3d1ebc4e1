"""What both commands do around a run: trace, progress, report, exit status."""

import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import click

from vdev.cli.one_line import INTERRUPTED_STATUS, USAGE_STATUS, complain, find_interrupt, find_refusal
from vdev.cli.parameters import check_writable
from vdev.cli.streams import silence
from vdev.errors import UserError
from vdev.events import EventStream
from vdev.run.report import Outcome, Progress, Report
from vdev.trace import TraceFile, open_trace

__all__ = ["Run", "json_option", "run_and_show", "trace_option"]

Run = Callable[[EventStream, Callable[[Progress], None]], Report]
"""What is run: given the event stream and the display's ear, it returns the report."""

STDOUT = Path("-")

json_option = click.option(
    "--json",
    "json_path",
    metavar="FILE|-",
    type=click.Path(path_type=Path),
    help="Write the report as JSON; with - nothing else goes to stdout.",
)
trace_option = click.option(
    "--trace",
    "trace_path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write every event: a Perfetto trace if FILE ends in .pftrace, JSON lines otherwise.",
)


def run_and_show(command: str, run: Run, *, json_path: Path | None, trace_path: Path | None) -> int:
    """Run with a progress display on stderr, show what came of it, and return the exit status.

    Raises BadParameter or UserError, before anything is started, for a file that cannot be written.
    """
    _check_files(json_path, trace_path)
    with contextlib.ExitStack() as stack:
        trace = None if trace_path is None else stack.enter_context(open_trace(trace_path))
        try:
            report = _run(run, trace)
        except BaseException as error:
            status = _explain(command, error)
            if status is None:
                raise
            return status
    status = report.exit_status
    if not _show(command, report, json_path):
        status = status or USAGE_STATUS
    if trace is not None and trace.problem:
        complain(command, trace.problem)
        status = status or USAGE_STATUS
    return status


def _check_files(json_path: Path | None, trace_path: Path | None) -> None:
    if trace_path == STDOUT:
        raise click.BadParameter("a trace needs a file name", param_hint="'--trace'")
    if json_path is not None and json_path != STDOUT:
        if json_path == trace_path:
            raise UserError("--json and --trace name the same file; give two names")
        check_writable(json_path, "--json")
    if trace_path is not None:
        check_writable(trace_path, "--trace")


def _run(run: Run, trace: TraceFile | None) -> Report:
    from vdev.cli.progress import open_display

    # The clock of every process of this machine; a run in one loop brings its own.
    events = EventStream(time.monotonic)
    if trace is not None:
        events.subscribe(trace)
    with open_display() as display:
        return run(events, display.show)


def _explain(command: str, error: BaseException) -> int | None:
    """Say in one line what ended the run, and return the exit status; None for a bug, which keeps its traceback."""
    if find_interrupt(error) is not None:
        complain(command, "interrupted")
        return INTERRUPTED_STATUS
    refusal = find_refusal(error)
    if refusal is None:
        return None
    complain(command, str(refusal))
    return USAGE_STATUS


def _show(command: str, report: Report, json_path: Path | None) -> bool:
    """Write table and JSON; return whether everything was written. Who interrupts has no use for a table."""
    from rich.console import Console

    from vdev.cli.table import render_report

    json_text = json.dumps(report.to_json(), indent=2) + "\n"
    table_file = sys.stderr if json_path == STDOUT else sys.stdout
    try:
        if report.outcome is Outcome.INTERRUPTED:
            complain(command, report.error or "interrupted")
        else:
            _write(table_file, render_report(report, Console(file=table_file, highlight=False)))
        if json_path == STDOUT:
            _write(sys.stdout, json_text)
        elif json_path is not None:
            json_path.write_text(json_text)
    except OSError as error:
        complain(command, f"cannot write the report: {error.strerror}")
        return False
    return True


def _write(file: IO[str], text: str) -> None:
    """Write and flush. A reader who has gone away knows why; only other failures raise OSError."""
    try:
        file.write(text)
        file.flush()
    except BrokenPipeError:
        silence(file)
