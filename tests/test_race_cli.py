"""`vdev race`: what is typed, what is told, which status."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_setup import CommandLine

from vdev.race.finding_json import verdict_from_json
from vdev.race.schedule_file import read_schedule, schedule_of


@pytest.fixture
def vdev(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return CommandLine(capsys)


REFUSALS = {
    "race": "give --strategy NAME, --replay FILE or --all",
    "race --strategy hope": "'hope' is not one of 'none', 'block-bulk'",
    "race --strategy": "requires an argument",
    "race --strategy none --answer maybe": "'maybe' is not one of 'list', 'bitmap'",
    "race --strategy none --guest-holds tight": "'until-queued', 'nothing', 'until-used'",
    "race --strategy none --dirty-log paper": "'get-and-clear', 'deferred-clear'",
    "race --strategy none --vcpus 3": "'2', '1'",
    "race --strategy none --mode lucky": "'exhaustive', 'random', 'pct'",
    "race --strategy none --pages 0": "a bound of 0 pages; give 1 to 64",
    "race --strategy none --writes -1": "a bound of -1 writes; give 0 to 64",
    "race --strategy none --syncs 1": "a bound of 1 syncs; give 2 to 16",
    "race --strategy none --cancels 2": "a bound of 2 cancels; give 0 to 1",
    "race --strategy none --pages many": "'many' is not a valid integer",
    "race --strategy none --seed 1": "--seed: every order is explored, nothing is chosen; add --mode random",
    "race --strategy none --runs 5 --depth 2": "--runs, --depth: every order is explored",
    "race --strategy none --mode random --depth 2": "random runs have no priorities; add --mode pct",
    "race --strategy none --mode random --max-states 5": "limit --mode random with --runs",
    "race --strategy none --mode pct --runs 0": "0 is not in the range x>=1",
    "race --strategy none --max-states 0": "0 is not in the range x>=1",
    "race --strategy none --resume": "--resume: that is for the whole table; add --all",
    "race --strategy none --executor local": "--executor: that is for the whole table; add --all",
    "race --strategy none --out here --markdown x.md": "--out, --markdown: that is for the whole table; add --all",
    "race --all --executor cloud": "nobody knows the executor 'cloud'; write local, or dask:ADDRESS",
    "race --all --mode random": "leave out --mode, --save and --html",
    "race --all --save x": "leave out --mode, --save and --html",
    "race --all --each-act": "--each-act: a table has no letters; leave out --all",
    "race --rings split --each-act": "--each-act: a ring race knows no pages",
    "race --all --strategy none --effect discard": "the table has no combination with none, discard",
    "race --all --out /proc/nowhere": "cannot keep a journal in /proc/nowhere/journal.jsonl",
    "race --replay x --all": "a schedule says itself what it is of",
    "race --replay x --strategy none": "a schedule says itself what it is of",
    "race --replay x --pages 2": "a schedule says itself what it is of",
    "race --replay nowhere": "cannot read nowhere: No such file or directory",
    "race --replay /": "cannot read /: Is a directory",
    f"race --replay {sys.executable}": "is no schedule of vdev's",
    "race --strategy none --save /nowhere/x": "No such file or directory",
    "race --strategy none --html /": "Is a directory",
    "race --strategy none --html -": "needs a file name",
    "race --strategy none --save same --html same": "--save and --html name the same file; give two names",
    "race none": "unexpected extra argument",
}


@pytest.mark.parametrize("line", REFUSALS)
def test_is_refused_with_one_line_that_says_what_to_do(line, vdev, tmp_path):
    finished = vdev(line)
    assert finished.status == 2
    assert finished.stdout == ""
    assert finished.stderr.startswith("vdev")
    assert finished.stderr.count("\n") == 1
    assert REFUSALS[line] in finished.stderr
    assert [path for path in tmp_path.iterdir() if path.name != "race-results"] == []


@pytest.mark.parametrize("line", ["race --help", "race", "race --strategy none --pages 0", "race --all --mode random"])
def test_help_and_refusals_load_no_heavy_library(line):
    program = (
        "import sys; from vdev.cli.main import vdev; from vdev.cli.one_line import run_command\n"
        f"run_command(vdev, 'vdev', {line.split()!r})\n"
        "heavy = {'numpy', 'trio', 'rich', 'construct', 'perfetto', 'xxhash', 'multiprocessing', 'distributed'}\n"
        "print('loaded:', *heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded:"


TINY = "--writes 1 --hints 1"


def test_a_loss_is_told_saved_drawn_and_written_as_json(vdev, tmp_path):
    files = "--save loss.schedule --html loss.html --json loss.json"
    finished = vdev(f"race --strategy filter-on-ready {TINY} {files}")
    assert finished.status == 1
    assert finished.stdout.startswith("filter-on-ready loses page 0 in 13 acts\n")
    assert "bound: 1 page, 1 write, 1 hint, 3 syncs\n" in finished.stdout
    assert "explored: " in finished.stdout.splitlines()[-1]
    verdict = verdict_from_json(json.loads((tmp_path / "loss.json").read_text()))
    assert read_schedule(tmp_path / "loss.schedule") == schedule_of(verdict.loss)
    assert "filter-on-ready loses page 0 in 13 acts</h1>" in (tmp_path / "loss.html").read_text()


def test_a_saved_loss_replays_as_it_was_found(vdev, tmp_path):
    found = vdev(f"race --strategy filter-on-ready {TINY} --save loss.schedule --html found.html")
    replayed = vdev("race --replay loss.schedule --save again.schedule --html again.html")
    assert replayed.status == 1
    assert replayed.stdout == "".join(found.stdout.splitlines(keepends=True)[:-1])
    assert (tmp_path / "again.schedule").read_text() == (tmp_path / "loss.schedule").read_text()
    assert (tmp_path / "again.html").read_text() == (tmp_path / "found.html").read_text()


def test_the_loss_of_the_thread_has_its_six_letters(vdev):
    told = vdev("race --strategy filter-on-ready --json loss.json --save loss.schedule").stdout
    assert re.findall(r"^([a-z])\)  (\w+)", told, re.MULTILINE) == [
        ("a", "migrator"),
        ("b", "vcpu"),
        ("c", "handler"),
        ("d", "vcpu"),
        ("e", "migrator"),
        ("f", "handler"),
    ]
    moments = json.loads(Path("loss.json").read_text())["loss"]["moments"]
    assert [moment["letter"] for moment in moments] == [*"aaabbbbcdef", None, None]
    each = vdev("race --replay loss.schedule --each-act").stdout
    assert re.findall(r"^([a-z])\)  ", each, re.MULTILINE) == list("abcdefghijklm")


def test_a_schedule_that_ends_otherwise_than_it_says_has_a_status_of_its_own(vdev, tmp_path):
    vdev(f"race --strategy filter-on-ready {TINY} --save loss.schedule")
    path = tmp_path / "loss.schedule"
    path.write_text(path.read_text().replace("lost: 0", "lost: nothing"))
    finished = vdev("race --replay loss.schedule")
    assert finished.status == 4
    assert finished.stderr == "vdev race: loss.schedule names no page as lost, the replay page 0\n"


def test_an_act_that_is_not_possible_at_its_place_is_named(vdev, tmp_path):
    (tmp_path / "x").write_text("vdev schedule 1\nstrategy: none\n\nmigrator: start\nhandler: pop\n")
    finished = vdev("race --replay x")
    assert finished.status == 2
    assert finished.stderr.startswith('vdev: x: act 2, "handler: pop", is not possible there; possible is ')
    assert finished.stderr.count("\n") == 1


def test_where_nothing_is_lost_states_and_bound_are_told(vdev):
    finished = vdev("race --strategy none --json report.json")
    assert finished.status == 0
    lines = finished.stdout.splitlines()
    assert lines[0] == "none loses no page"
    assert "bound: 1 page, 2 writes, 2 hints, 3 syncs" in lines
    assert lines[3].endswith("; that is all within the bound")
    assert f"{json.loads(Path('report.json').read_text())['state_count']:,} states" in lines[3]


def test_a_search_that_ended_at_its_limit_says_so(vdev):
    finished = vdev("race --strategy command-id --max-states 20")
    assert finished.status == 3
    assert finished.stdout.startswith("command-id loses no page so far\n")
    assert "and there are more within the bound" in finished.stdout


@pytest.mark.parametrize("json_option", ["", "--json -"])
@pytest.mark.parametrize("mode", ["random --runs 40 --seed 5", "pct --runs 40 --seed 5", "exhaustive"])
def test_a_run_is_byte_identical_twice(vdev, mode, json_option):
    command = f"race --strategy resubmit --guest-holds nothing --writes 1 --syncs 2 --mode {mode} {json_option}"
    once, again = vdev(command), vdev(command)
    assert once.stdout == again.stdout != ""
    assert once.status == again.status
    if json_option:
        report = json.loads(once.stdout)
        assert report["broken"] == (once.status == 1)
        assert report["seed"] == (None if mode == "exhaustive" else 5)


def test_json_on_stdout_stands_alone(vdev):
    finished = vdev("race --strategy none --json -")
    assert json.loads(finished.stdout)["combination"]["strategy"] == "none"
    assert "none loses no page" in finished.stderr


def test_an_option_of_another_strategy_is_refused(vdev):
    finished = vdev("race --strategy none --advance before-sync")
    assert (finished.status, finished.stderr.count("\n")) == (2, 1)


@pytest.mark.process
def test_the_table_is_explored_kept_and_resumed(vdev, tmp_path):
    line = f"race --all --strategy none --dirty-log get-and-clear {TINY} --out out"
    first = vdev(f"{line} --json - --markdown table.md")
    assert first.status == 0
    verdicts = json.loads(first.stdout)
    assert len(verdicts) == 6
    assert "0 of 6 combinations lose a page" in first.stderr
    assert "| list, nothing | safe in " in (tmp_path / "table.md").read_text()
    assert len((tmp_path / "out" / "journal.jsonl").read_text().splitlines()) == 7
    again = vdev(f"{line} --resume --json -")
    assert json.loads(again.stdout) == verdicts
    refused = vdev(f"{line} --resume --syncs 4")
    assert refused.status == 2
    assert "is of a sweep with bound" in refused.stderr


@pytest.mark.process
def test_each_broken_combination_of_the_table_has_a_schedule_that_replays(vdev, tmp_path):
    only = "--strategy filter-on-ready --answer list --dirty-log get-and-clear --guest-holds nothing --vcpus 2"
    finished = vdev(f"race --all {only} --effect skip --collects after-announcing {TINY} --out out")
    assert finished.status == 0
    (line,) = (line for line in finished.stdout.splitlines() if "BROKEN" in line)
    path = line.split()[-1]
    assert path == "out/filter-on-ready+nothing.schedule"
    assert vdev(f"race --replay {path}").status == 1


def test_every_exit_status_is_in_the_help(vdev):
    shown = vdev("race --help").stdout
    for status in (0, 1, 2, 3, 4, 130):
        assert re.search(rf"^ +{status}  [a-z]", shown, re.MULTILINE)
