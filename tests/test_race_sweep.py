"""A sweep judges each combination once, writes down what it knows at once, and goes on where it was cut."""

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import pytest
from race_findings import loss_of_filter_on_ready, verdict_of

from vdev.errors import UserError
from vdev.race import executors
from vdev.race import sweep as sweep_module
from vdev.race.combination import DIMENSIONS, Bound, Combination
from vdev.race.combinations import default_combinations
from vdev.race.executors import open_executor
from vdev.race.journal import Journal
from vdev.race.judge import Question
from vdev.race.sweep import heading_of, sweep
from vdev.run.options import STRATEGIES

COMBINATIONS = [Combination("none"), Combination("filter-on-ready"), Combination("command-id")]
QUESTION = Question(COMBINATIONS[0], Bound())
HEADING = heading_of("1.2.3", QUESTION)


@pytest.fixture
def asked(monkeypatch):
    """The combinations that were put to a lab which answers at once."""
    asked = []

    def judge(question, on_progress):
        on_progress(0, 0, 0)
        asked.append(question.combination)
        finding = replace(loss_of_filter_on_ready(), combination=question.combination, bound=question.bound)
        return verdict_of(finding, loss=finding if question.combination.strategy == "filter-on-ready" else None)

    monkeypatch.setattr(sweep_module, "judge", judge)
    return asked


def run(path, *, resume=False, combinations=COMBINATIONS, heading=HEADING, on_progress=lambda progress: None):
    with Journal(path, heading, resume=resume) as journal, ThreadPoolExecutor(2) as executor:
        return sweep(combinations, QUESTION, executor, journal, on_progress), journal


def test_verdicts_come_in_the_order_of_the_combinations_and_progress_is_told(tmp_path, asked):
    seen = []
    verdicts, _ = run(tmp_path / "journal", on_progress=seen.append)
    assert [verdict.combination for verdict in verdicts] == COMBINATIONS
    assert [(progress.done_count, progress.total_count) for progress in seen] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert (seen[-1].broken_count, seen[-1].state_count) == (1, 3 * 1234)


def test_a_sweep_goes_on_where_it_was_interrupted(tmp_path, asked):
    path = tmp_path / "deep" / "journal"

    def interrupt(progress):
        if progress.done_count == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(path, on_progress=interrupt)
    known = {json.loads(line)["combination"]["strategy"] for line in path.read_text().splitlines()[1:]}
    asked.clear()
    verdicts, _ = run(path, resume=True)
    assert {combination.strategy for combination in asked} == set(STRATEGIES_HERE) - known
    assert [verdict.combination for verdict in verdicts] == COMBINATIONS


STRATEGIES_HERE = [combination.strategy for combination in COMBINATIONS]


def test_what_is_resumed_is_what_was_found(tmp_path, asked):
    first, _ = run(tmp_path / "journal")
    again, _ = run(tmp_path / "journal", resume=True)
    assert again == first
    assert len(asked) == 3


def test_without_resume_a_sweep_begins_anew(tmp_path, asked):
    run(tmp_path / "journal")
    run(tmp_path / "journal")
    assert len(asked) == 6


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_journal_that_was_cut_within_a_line_loses_that_line_only(tmp_path, asked, cut):
    path = tmp_path / "journal"
    run(path)
    path.write_bytes(path.read_bytes()[:-cut])
    asked.clear()
    verdicts, journal = run(path, resume=True)
    assert journal.was_cut
    assert len(asked) == 1
    assert [verdict.combination for verdict in verdicts] == COMBINATIONS
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_journal_that_was_cut_within_its_first_line_begins_anew(tmp_path, asked):
    path = tmp_path / "journal"
    run(path)
    path.write_bytes(path.read_bytes()[:20])
    run(path, resume=True)
    assert len(asked) == 6
    assert len(path.read_text().splitlines()) == 4


FOREIGN = {
    "another vdev's": ({"vdev": "1.2.4"}, 'is of a sweep with vdev "1.2.3", not "1.2.4"; leave out --resume'),
    "another bound's": ({"bound": Bound(pages=2).to_json()}, "is of a sweep with bound {"),
    "without reduction": ({"reduction": False}, "is of a sweep with reduction true, not false"),
    "another limit's": ({"max_states": 9}, "is of a sweep with max_states null, not 9"),
}


@pytest.mark.parametrize("why", FOREIGN)
def test_a_journal_is_not_resumed_if_it_is(why, tmp_path, asked):
    changes, message = FOREIGN[why]
    run(tmp_path / "journal")
    before = (tmp_path / "journal").read_bytes()
    with pytest.raises(UserError, match=re.escape(message)):
        run(tmp_path / "journal", resume=True, heading=HEADING | changes)
    assert (tmp_path / "journal").read_bytes() == before


@pytest.mark.parametrize(
    ("line", "content", "message"),
    [
        (0, b"once upon a time\n", "journal:1: this line is damaged"),
        (0, b'{"name": "another program"}\n', "is no journal of a sweep"),
        (0, b"[]\n", "is no journal of a sweep"),
        (2, b"\xff\xfe\n", "journal:3: this line is damaged"),
        (2, b"{}\n", "journal:3: no verdict"),
        (2, b"[1]\n", "journal:3: no verdict"),
    ],
)
def test_a_journal_with_a_foreign_line_is_refused_by_its_number(tmp_path, asked, line, content, message):
    path = tmp_path / "journal"
    run(path)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = content
    path.write_bytes(b"".join(lines))
    with pytest.raises(UserError, match=message) as caught:
        run(path, resume=True)
    assert "\n" not in str(caught.value)


def test_two_sweeps_do_not_write_one_journal(tmp_path):
    with (
        Journal(tmp_path / "journal", HEADING, resume=False),
        pytest.raises(UserError, match="another sweep is writing"),
    ):
        Journal(tmp_path / "journal", HEADING, resume=False)


@pytest.mark.parametrize(
    ("name", "why"),
    [("file/journal", "exists|Not a dir"), ("directory", "Is a directory"), ("null", "no regular file")],
)
def test_a_journal_that_cannot_be_kept_is_refused(tmp_path, name, why):
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    (tmp_path / "null").symlink_to("/dev/null")
    with pytest.raises(UserError, match=why):
        Journal(tmp_path / name, HEADING, resume=False)


def test_a_full_disk_ends_the_sweep_with_one_line(tmp_path, asked):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write .*journal: File too large"):
            run(tmp_path / "journal")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_worker_that_dies_is_named(tmp_path):
    class Broken:
        def submit(self, function, question):
            future = Future()
            future.set_exception(BrokenProcessPool("gone"))
            return future

    with (
        Journal(tmp_path / "journal", HEADING, resume=False) as journal,
        pytest.raises(UserError, match="a worker process of the sweep died; go on with --resume"),
    ):
        sweep(COMBINATIONS, QUESTION, Broken(), journal, lambda progress: None)


def test_the_sweep_has_every_strategy_with_what_matters_to_all_and_every_value():
    combinations = default_combinations()
    assert len(set(combinations)) == len({each.label for each in combinations}) == len(combinations)
    assert 250 <= len(combinations) <= 450
    for strategy in STRATEGIES:
        mine = [each for each in combinations if each.strategy == strategy]
        usual = {(each.answer, each.holds, each.dirty_log) for each in mine}
        assert len(usual) == 2 * 3 * 2
    for dimension, values in DIMENSIONS.items():
        assert {getattr(each, dimension) for each in combinations} == set(values)


@pytest.mark.parametrize("name", ["", "cloud", "dask", "dask:", "Local"])
def test_an_executor_that_means_nothing_is_refused(name):
    with pytest.raises(UserError, match="write local, or dask:ADDRESS"), open_executor(name):
        pass


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"pip install 'vdev\[dask\]'"), open_executor("dask:tcp://127.0.0.1:1"):
        pass


def test_local_workers_end_with_the_block():
    with open_executor("local", 2) as executor:
        pids = {executor.submit(os.getpid).result(timeout=60) for _ in range(8)}
    assert os.getpid() not in pids
    assert not any(is_alive(pid) for pid in pids)


def is_alive(pid):
    """Whether the process still runs; what has ended and waits for init to note it does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(pids):
    """The resource tracker of multiprocessing ends when it sees that its parent has."""
    deadline = time.monotonic() + 60
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_stop_that_nobody_gave_stops_nobody():
    executors.check_stop()


@pytest.mark.process
@pytest.mark.parametrize("press_count", [1, 4])
def test_ctrl_c_ends_a_sweep_in_one_line_and_leaves_no_process(press_count, tmp_path):
    command = [sys.executable, "-m", "vdev", "race", "--all", "--out", str(tmp_path / "out")]
    bound = ["--pages", "2", "--writes", "4", "--hints", "4", "--syncs", "4"]
    sweeping = subprocess.Popen(
        [*command, *bound], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 120
        while len(workers := children_of(sweeping.pid)) < 2 and sweeping.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for _ in range(press_count):
            os.killpg(sweeping.pid, signal.SIGINT)
            time.sleep(0.1)  # A person presses again while it is ending.
        out, error = sweeping.communicate(timeout=120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(sweeping.pid, signal.SIGKILL)
    assert sweeping.returncode == 130, error
    assert "Traceback" not in error
    assert error.splitlines()[-1].startswith("vdev race: interrupted; what was found is kept in")
    assert out == ""
    wait_until_gone(workers)


def children_of(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
