"""What a run leaves behind: a table for a person, JSON for a program, a status for a script."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from io import StringIO

import pytest
from cli_setup import CommandLine, make_progress, make_report
from rich.console import Console

from vdev.cli import migrate as migrate_module
from vdev.cli.table import render_report
from vdev.errors import GuestAddressError, UserError
from vdev.events import PhaseChanged
from vdev.run.report import Outcome, PageCounts, RoundFigures, Verified
from vdev.trace import read_json_lines


@pytest.fixture
def vdev(capsys):
    return CommandLine(capsys)


@pytest.fixture
def ends_with(monkeypatch):
    """Let `vdev migrate` end with a report, or with an error."""

    def set_end(end, seen=None):
        def run(options, events, on_progress):
            if seen is not None:
                seen.append(options)
            emitter = events.emitter("migrator")
            if emitter.listening:
                emitter.emit(PhaseChanged("set-up", "bulk"))
            on_progress(make_progress())
            if isinstance(end, BaseException):
                raise end
            return end

        monkeypatch.setattr(migrate_module, "_run_processes", run)

    return set_end


def table_of(report, **console) -> str:
    return render_report(report, Console(file=StringIO(), highlight=False, **({"width": 80} | console)))


def test_json_on_stdout_is_the_report_and_nothing_else(vdev, ends_with):
    report = make_report()
    ends_with(report)
    finished = vdev("migrate --json -")
    assert json.loads(finished.stdout) == json.loads(json.dumps(report.to_json()))
    assert "completed" in finished.stderr
    assert finished.status == 0


def test_json_in_a_file_leaves_the_table_on_stdout(vdev, ends_with, tmp_path):
    ends_with(make_report())
    finished = vdev(f"migrate --json {tmp_path}/report.json")
    assert json.loads((tmp_path / "report.json").read_text())["outcome"] == "completed"
    assert "skipped by hints" in finished.stdout


def test_the_trace_holds_what_was_emitted(vdev, ends_with, tmp_path):
    ends_with(make_report())
    vdev(f"migrate --trace {tmp_path}/t.jsonl")
    (record,) = read_json_lines(tmp_path / "t.jsonl")
    assert (record.actor, record.event) == ("migrator", PhaseChanged("set-up", "bulk"))


def test_what_was_typed_reaches_the_run(vdev, ends_with, tmp_path):
    seen = []
    ends_with(make_report(), seen)
    vdev(
        f"migrate --ram 64MiB --workload files --files {tmp_path} --rate 20 --strategy none --dirty-log cooperative"
        " --max-bandwidth 100MiB/s --downtime-limit 50ms --seed 7 --to tcp:localhost:4444 --inflate 4MiB"
        f" --free-page-reporting --no-ioeventfd --trace {tmp_path}/t"
    )
    (options,) = seen
    assert options == migrate_module.MigrateOptions(
        ram_size=64 << 20,
        workload="files",
        files=tmp_path,
        rate=20,
        strategy="none",
        dirty_log="cooperative",
        max_bandwidth=100 << 20,
        downtime_limit=0.05,
        seed=7,
        to="tcp:localhost:4444",
        inflate_size=4 << 20,
        free_page_reporting=True,
        ioeventfd=False,
    )


@pytest.mark.parametrize("outcome", [end for end in Outcome if end is not Outcome.INTERRUPTED])
def test_the_exit_status_is_the_outcomes(vdev, ends_with, outcome):
    ends_with(make_report(outcome=outcome))
    finished = vdev("migrate")
    assert finished.status == outcome.exit_status
    assert finished.stdout.startswith(f"{outcome.value}: ")


def test_an_interrupted_run_is_one_line_and_a_report_for_programs(vdev, ends_with):
    ends_with(make_report(outcome=Outcome.INTERRUPTED, error="interrupted; the guest was ended"))
    finished = vdev("migrate --json -")
    assert finished.status == 130
    assert finished.stderr.splitlines()[-1] == "vdev migrate: interrupted; the guest was ended"
    assert json.loads(finished.stdout)["outcome"] == "interrupted"


def test_a_broken_device_is_named():
    table = table_of(make_report(hints={"violation": "driver's fault: the chain loops"}))
    assert "needs a reset: driver's fault: the chain loops" in table


def test_a_mismatched_page_is_never_status_0(vdev, ends_with):
    ends_with(make_report(verified=Verified(pages=10, mismatched=1, resumed_operations=5)))
    finished = vdev("migrate")
    assert finished.status == 1
    assert "1 wrong" in finished.stdout


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (
            UserError("nobody listens at tcp:x:1; start vdev receive"),
            2,
            "nobody listens at tcp:x:1; start vdev receive",
        ),
        (GuestAddressError(16, 4, "outside RAM"), 2, "guest address 0x10, 4 bytes: outside RAM"),
        (ExceptionGroup("nursery", [UserError("no\nroom")]), 2, "no room"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (BaseExceptionGroup("nursery", [KeyboardInterrupt(), UserError("x")]), 130, "interrupted"),
    ],
)
def test_what_ends_a_run_is_said_in_one_line(vdev, ends_with, error, status, line, tmp_path):
    ends_with(error)
    finished = vdev(f"migrate --json {tmp_path}/report.json")
    assert finished.status == status
    assert finished.stdout == ""
    assert finished.stderr.splitlines()[-1] == f"vdev migrate: {line}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bug", [ZeroDivisionError(), ExceptionGroup("nursery", [UserError("x"), ZeroDivisionError()])])
def test_a_bug_keeps_its_traceback(vdev, ends_with, bug):
    ends_with(bug)
    with pytest.raises(type(bug)):
        vdev("migrate")


def test_a_report_that_could_not_be_written_is_never_status_0(vdev, ends_with, tmp_path):
    ends_with(make_report())
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    for option in ("--json", "--trace"):
        finished = vdev(f"migrate {option} {full}")
        assert finished.status == 2
        assert "No space left on device" in finished.stderr.splitlines()[-1]


def test_the_table_says_what_a_person_asks(vdev):
    table = table_of(make_report(verified=Verified(12_345, 0, 1_200)))
    for expected in (
        "completed: the guest goes on at the destination",
        "checked 12,345 pages at the destination: none lost, none stale",
        "1,200 operations since it resumed",
        "12.3 ms",
        "1.23 s",
        "412 MiB, 3.27 GiB/s",
        "command-id, split ring, kernel dirty log",
        "applied 188,941 pages, refused 3 hints",
        "source resident 512 MiB\n",
        "skipped by hints   188,941    738 MiB    72.1 %",
    ):
        assert expected in table


def test_the_table_names_a_transport_that_is_not_the_usual_one(vdev):
    table = table_of(make_report(ring="packed", transport="vhost-user"))
    assert "command-id, packed ring over vhost-user, kernel dirty log" in table


def test_a_lost_migration_says_why_and_where_the_guest_is():
    report = make_report(
        outcome=Outcome.DESTINATION_LOST, error="the link was cut in round 2", verified_at="source", rounds=[]
    )
    table = table_of(report)
    assert "the guest goes on at the source" in table
    assert "the link was cut in round 2" in table
    assert "pages at the source" in table


def test_a_report_of_nothing_can_be_shown():
    table = table_of(
        make_report(outcome=Outcome.GUEST_DIED, pages=PageCounts(), verified=Verified(), rounds=[], hints={}, memory={})
    )
    assert "gave no verdict" in table


def test_a_guest_that_outran_the_link_is_named():
    assert "past the limit" in table_of(make_report(converged=False))
    assert "past the limit" not in table_of(make_report())


def test_a_destination_shows_what_it_knows_and_no_more():
    table = table_of(make_report(strategy="", dirty_log="", rounds=[]))
    assert "checked 12,345 pages" in table
    assert not re.search("downtime|strategy|skipped|resent|round", table)


def test_many_rounds_are_cut_in_the_middle():
    table = table_of(make_report(rounds=[RoundFigures(1000 - n, 4096 * (1000 - n), 0.001) for n in range(40)]))
    assert "(28 more)" in table
    assert [line.split()[0] for line in table.splitlines()[-13:]] == [*"123456", "(28", *map(str, range(35, 41))]


def test_no_digit_is_lost_on_a_narrow_terminal():
    assert "188,941" in table_of(make_report(), width=20)


def test_colour_is_for_terminals_that_want_it(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;32mcompleted" in table_of(make_report(), force_terminal=True, color_system="standard")
    assert "\x1b[" not in table_of(make_report())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;32m" not in table_of(make_report(), force_terminal=True, color_system="standard")


PROGRAM = """
import trio
from cli_setup import make_progress, make_report
from vdev.cli import migrate
from vdev.cli.main import main

def run(options, events, on_progress):
    for number in range(3):
        on_progress(make_progress("rounds", number))
    if options.seed == 13:
        trio.run(trio.sleep_forever)
    return make_report()

migrate._run_processes = run
main()
"""


def start(*args: str, environment=None, **streams) -> subprocess.Popen:
    """Start a `vdev` whose migrations are made up, with streams of its own."""
    variables = os.environ | {"PYTHONPATH": os.path.dirname(__file__)} | (environment or {})
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *args], env=variables, **streams)


@pytest.mark.parametrize("args", [["migrate"], ["migrate", "--json", "-"]])
def test_a_reader_who_leaves_early_gets_no_traceback(args):
    read_end, write_end = os.pipe()
    os.close(read_end)
    run = start(*args, stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    _, errors = run.communicate()
    assert run.returncode == 0
    assert b"Traceback" not in errors
    assert b"BrokenPipe" not in errors


def test_a_lost_stderr_does_not_stop_the_run():
    read_end, write_end = os.pipe()
    os.close(read_end)
    run = start("migrate", "--json", "-", stdout=subprocess.PIPE, stderr=write_end)
    os.close(write_end)
    output, _ = run.communicate()
    assert run.returncode == 0
    assert json.loads(output)["outcome"] == "completed"


def test_a_terminal_that_knows_ascii_only_is_no_reason_to_fail():
    run = start("migrate", stdout=subprocess.PIPE, stderr=subprocess.PIPE, environment={"PYTHONIOENCODING": "ascii"})
    output, _ = run.communicate()
    assert run.returncode == 0
    assert b"skipped by hints" in output


def read_terminal(descriptor: int) -> str:
    """Read a pseudo-terminal until its other end is closed."""
    parts = []
    with contextlib.suppress(OSError):  # EIO: nobody holds the other end any more
        while part := os.read(descriptor, 4096):
            parts.append(part)
    os.close(descriptor)
    return b"".join(parts).decode()


def test_a_terminal_sees_the_bar_then_the_table_and_keeps_its_cursor():
    terminal, end = pty.openpty()
    run = start("migrate", stdout=end, stderr=end, environment={"TERM": "xterm", "COLUMNS": "80"})
    os.close(end)
    written = read_terminal(terminal)
    assert run.wait() == 0
    bar, table = written.split("completed", 1)
    assert "round 2" in bar
    assert bar.rindex("\x1b[?25h") > bar.rindex("\x1b[?25l")
    assert "skipped by hints" in table


def test_ctrl_c_ends_the_run_with_one_line(tmp_path):
    run = start("migrate", "--seed", "13", "--json", f"{tmp_path}/report.json", stderr=subprocess.PIPE)
    while b"round 2" not in run.stderr.readline():
        pass
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate()
    assert errors == b"vdev migrate: interrupted\n"
    assert run.returncode == 130
    assert list(tmp_path.iterdir()) == []


def test_one_loop_and_one_seed_write_the_same_trace_twice(vdev, tmp_path):
    for suffix in ("jsonl", "pftrace"):
        first, second = tmp_path / f"1.{suffix}", tmp_path / f"2.{suffix}"
        for path in (first, second):
            assert vdev(f"migrate --in-one-loop --ram 4MiB --seed 7 --trace {path}").status == 0
        assert first.read_bytes() == second.read_bytes()
        assert first.stat().st_size > 10_000
