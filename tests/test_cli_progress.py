"""A running migration is shown calmly: a bar on a terminal, a line now and then anywhere else."""

from io import StringIO

import pytest
from cli_setup import make_progress
from rich.console import Console

from vdev.cli.progress import LineDisplay, LiveDisplay


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_a_line_is_written_for_each_stage_and_once_a_second():
    file, clock = StringIO(), Clock()
    display = LineDisplay(file, clock)
    for millisecond in range(10, 2500, 10):
        clock.time = millisecond / 1000
        display.show(make_progress("bulk", 1, elapsed=clock.time, wire_bytes=millisecond))
    display.show(make_progress("rounds", 2, elapsed=clock.time))
    lines = file.getvalue().splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["10.0", "ms", "bulk"],
        ["1.01", "s", "bulk"],
        ["2.01", "s", "bulk"],
        ["2.49", "s", "round"],
    ]


def test_a_line_says_what_was_sent_skipped_and_is_left():
    file = StringIO()
    LineDisplay(file).show(make_progress())
    assert file.getvalue() == "  500 ms  bulk stage: 8.00 MiB sent, 3.91 MiB to go, 3.91 MiB skipped, 954 MiB/s\n"


def test_nothing_is_repeated_while_nothing_moves():
    file, clock = StringIO(), Clock()
    display = LineDisplay(file, clock)
    for second in range(100):
        clock.time = second
        display.show(make_progress("waiting", wire_bytes=0, remaining_count=0, elapsed=second))
    assert file.getvalue() == "          waiting\n"


def test_the_destination_loads_where_the_source_sends():
    file = StringIO()
    LineDisplay(file).show(make_progress("loading", skipped_count=0))
    assert "8.00 MiB loaded, 3.91 MiB to go, 954 MiB/s" in file.getvalue()


class BrokenPipe(StringIO):
    def write(self, text):
        raise BrokenPipeError


def test_a_display_nobody_reads_falls_silent():
    display = LineDisplay(BrokenPipe())
    display.show(make_progress("bulk"))
    display.show(make_progress("rounds"))


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
def test_the_live_display_is_one_line_at_any_width(width):
    file, clock = StringIO(), Clock()
    console = Console(file=file, force_terminal=True, width=width, color_system=None)
    with LiveDisplay(console, clock) as display:
        display.show(make_progress())
        clock.time = 1.0
        display.show(make_progress(remaining_count=0))
    drawn = file.getvalue().split("\r")
    assert "75 %" in file.getvalue()
    assert "100 %" in file.getvalue()
    assert file.getvalue().count("\n") == 1
    assert all(len(line.split("\x1b")[0]) <= width for line in drawn)


def test_the_live_display_is_redrawn_ten_times_a_second_at_most():
    file, clock = StringIO(), Clock()
    with LiveDisplay(Console(file=file, force_terminal=True, width=80, color_system=None), clock) as display:
        display.show(make_progress(remaining_count=1000))
        clock.time = 0.05
        display.show(make_progress(remaining_count=2000))
    assert "75 %" in file.getvalue()
    assert " 50 %" not in file.getvalue()
