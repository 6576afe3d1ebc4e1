"""A command line without a machine behind it: what is typed, what is written, which status."""

import shlex
from dataclasses import dataclass

from vdev.cli.main import vdev
from vdev.cli.one_line import run_command
from vdev.run.report import Outcome, PageCounts, Progress, Report, RoundFigures, Verified


@dataclass
class Finished:
    status: int
    stdout: str
    stderr: str


class CommandLine:
    """Runs `vdev` in this process and catches what it writes."""

    def __init__(self, capsys) -> None:
        self._capsys = capsys

    def __call__(self, line: str) -> Finished:
        """Run `vdev LINE`."""
        self._capsys.readouterr()
        status = run_command(vdev, "vdev", shlex.split(line))
        written = self._capsys.readouterr()
        return Finished(status, written.out, written.err)


def make_report(**changes) -> Report:
    values = {
        "outcome": Outcome.COMPLETED,
        "strategy": "command-id",
        "ring": "split",
        "dirty_log": "kernel",
        "pages": PageCounts(total=262_144, sent=61_203, zero=12_000, skipped=188_941, resent=1_203),
        "wire_bytes": 412 << 20,
        "total_seconds": 1.234,
        "downtime_seconds": 0.0123,
        "rounds": [RoundFigures(60_000, 234 << 20, 0.12), RoundFigures(1_203, 4 << 20, 0.003)],
        "verified": Verified(pages=12_345, mismatched=0, resumed_operations=1_200),
        "hints": {"applied_pages": 188_941, "refused_hints": 3, "violation": None},
        "memory": {"source_resident_bytes": 512 << 20, "reported_pages": 0},
    }
    return Report(**(values | changes))


def make_progress(phase="bulk", round_number=1, **changes) -> Progress:
    values = {
        "phase": phase,
        "round": round_number,
        "remaining_count": 1000,
        "total_count": 4000,
        "sent_count": 2000,
        "skipped_count": 1000,
        "wire_bytes": 8 << 20,
        "bytes_per_second": 1e9,
        "elapsed": 0.5,
    }
    return Progress(**(values | changes))
