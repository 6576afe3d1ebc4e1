"""`vdev race --replay FILE --in-one-loop` and `--processes`: what is told, and which status."""

import json

import pytest
from cli_setup import CommandLine
from race_losses import read_losses

from vdev.race.combination import Bound, Combination
from vdev.race.schedule_file import Schedule, write_schedule
from vdev.race.verdict import Act

FILE = "loss.schedule"


@pytest.fixture
def vdev(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    combination, acts = read_losses()["filter-on-ready"]
    write_schedule(tmp_path / FILE, Schedule(combination, Bound(), acts, (0,)))
    return CommandLine(capsys)


@pytest.mark.parametrize("where", ["--in-one-loop", pytest.param("--processes", marks=pytest.mark.process)])
def test_the_guest_reports_the_loss_and_the_command_has_a_status_for_it(where, vdev):
    done = vdev(f"race --replay {FILE} {where}")
    assert (done.status, done.stderr) == (7, "")
    lines = done.stdout.splitlines()
    assert "made: handler: filter" in lines
    assert lines[-1] == "the guest at the destination: page 0 has version 0, version 1 was written"


def test_what_happened_is_told_as_json(vdev):
    done = vdev(f"race --replay {FILE} --in-one-loop --json -")
    told = json.loads(done.stdout)
    assert (done.status, told["lost"], told["made"][0]) == (7, [0], "migrator: start")
    assert told["verdict"]["stale"] == [[0, 0, 1]]


def test_a_schedule_that_loses_nothing_ends_well(vdev, tmp_path):
    acts = (Act("migrator", "start"), Act("vcpu 1", "write", 0))
    write_schedule(tmp_path / FILE, Schedule(Combination("none"), Bound(), acts))
    done = vdev(f"race --replay {FILE} --in-one-loop")
    assert done.status == 0
    assert done.stdout.endswith("the guest at the destination: nothing is lost, of 1 pages in use\n")


def test_a_schedule_that_ends_otherwise_than_it_says_has_the_status_of_that(vdev, tmp_path):
    acts = (Act("migrator", "start"),)
    write_schedule(tmp_path / FILE, Schedule(Combination("none"), Bound(), acts, (0,)))
    done = vdev(f"race --replay {FILE} --in-one-loop")
    assert done.status == 4
    assert "names page 0 as lost, the guest no page" in done.stderr


def test_acts_that_do_not_fit_are_refused_in_one_line(vdev, tmp_path):
    acts = (Act("migrator", "start"), Act("migrator", "stop"))
    write_schedule(tmp_path / FILE, Schedule(Combination("none"), Bound(), acts))
    done = vdev(f"race --replay {FILE} --in-one-loop")
    assert done.status == 2
    assert done.stderr.count("\n") == 1
    assert "act 2 of 2, 'migrator: stop': nobody is at it" in done.stderr


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("race --strategy none --in-one-loop", "add --replay FILE"),
        (f"race --replay {FILE} --in-one-loop --processes", "a schedule happens at one place"),
        (f"race --replay {FILE} --processes --html x.html", "leave out --save, --html and --each-act"),
        ("race --replay nowhere --processes", "cannot read nowhere"),
    ],
)
def test_options_that_do_not_go_together_are_refused(line, why, vdev):
    done = vdev(line)
    assert done.status == 2
    assert why in done.stderr
