"""How what a check found is written: the table, files, and the exit status."""

import json
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TextIO

from rich.console import Console
from rich.text import Text

from vdev.check.fail_on import FailOn
from vdev.check.report.json_report import report_to_json
from vdev.check.report.junit import report_to_junit
from vdev.check.report.page import report_page
from vdev.check.report.text import Line, report_lines
from vdev.check.result import Report
from vdev.check.verdict import Verdict
from vdev.cli.one_line import INTERRUPTED_STATUS, USAGE_STATUS, complain
from vdev.cli.parameters import check_writable
from vdev.cli.streams import silence
from vdev.errors import UserError

__all__ = ["Outputs", "describe_broken", "print_lines", "show_report", "terminated_as_interrupted"]

BROKEN_STATUS = 1
UNFINISHED_STATUS = 3

_STYLES = {"title": "bold red", "good": "bold green", "fatal": "bold red", "header": "dim", "end": "bold"}
_STDOUT = Path("-")
_MOST_WIDTH = 120


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where the report goes beside the terminal."""

    json_path: Path | None = None
    junit_path: Path | None = None
    html_path: Path | None = None

    def check(self) -> None:
        """Raise BadParameter or UserError for a place that cannot be written, or is named twice."""
        named = {"--json": self.json_path, "--junit": self.junit_path, "--html": self.html_path}
        seen: dict[Path, str] = {}
        for option, path in named.items():
            if path is None or (path == _STDOUT and option == "--json"):
                continue
            if path == _STDOUT:
                raise UserError(f"{option} needs a file name")
            if path in seen:
                raise UserError(f"{seen[path]} and {option} name the same file; give two names")
            seen[path] = option
            check_writable(path, option)

    def write(self, report: Report) -> None:
        """Write the files. Raises UserError for one that cannot be written."""
        texts: tuple[tuple[Path | None, Callable[[], str]], ...] = (
            (self.json_path, lambda: json.dumps(report_to_json(report), indent=2) + "\n"),
            (self.junit_path, lambda: report_to_junit(report)),
            (self.html_path, lambda: report_page(report)),
        )
        for path, make in texts:
            if path == _STDOUT:
                _write(make())
            elif path is not None:
                try:
                    path.write_text(make(), encoding="utf-8")
                except OSError as error:
                    raise UserError(f"cannot write {path}: {error.strerror}") from error


def show_report(command: str, report: Report, outputs: Outputs, fail_on: FailOn) -> int:
    """Write files and table, and return the exit status."""
    width = min(Console().width, _MOST_WIDTH)
    print_lines(report_lines(report, width=width), on_stderr=outputs.json_path == _STDOUT)
    try:
        outputs.write(report)
    except UserError as error:
        complain(command, str(error))
        return USAGE_STATUS
    if report.interrupted:
        complain(command, report.stopped)
        return INTERRUPTED_STATUS
    if fail_on.of(report):
        return BROKEN_STATUS
    return UNFINISHED_STATUS if report.stopped else 0


def print_lines(lines: Iterable[Line], *, on_stderr: bool = False) -> None:
    """Print lines, with colours where there are some. A reader who has gone away is no failure.

    Raises UserError for any other.
    """
    file = sys.stderr if on_stderr else sys.stdout
    console = Console(file=file, highlight=False)
    # Rich flushes the file at the end of a capture, too.
    with _told_in_a_line(file):
        with console.capture() as capture:
            for line in lines:
                console.print(Text(line.text, _STYLES.get(line.kind, "")), soft_wrap=True)
        file.write(capture.get())
        file.flush()


def describe_broken(counts: Mapping[Verdict, int]) -> list[str]:
    """Return in a few words what was found so far that is not good."""
    grave = (Verdict.FAIL, Verdict.CRASHED, Verdict.HUNG)
    return [f"{counts[verdict]} {verdict.value}" for verdict in grave if counts.get(verdict)]


def _write(text: str) -> None:
    with _told_in_a_line(sys.stdout):
        sys.stdout.write(text)
        sys.stdout.flush()


@contextmanager
def _told_in_a_line(file: TextIO) -> Iterator[None]:
    """Pardon a reader who has gone away. Raises UserError for any other failure of `file`."""
    try:
        yield
    except BrokenPipeError:
        silence(file)
    except OSError as error:
        silence(file)
        raise UserError(f"cannot write to {file.name.strip('<>')}: {error.strerror}") from error


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Have SIGTERM do what Ctrl-C does: whoever is told to end leaves no process behind."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
