"""`vdev check` for a person: what is typed, what is written, which status; and nothing is left behind."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from cli_setup import CommandLine

from vdev.check.coverage import read_mutants

PROGRAM = Path(__file__).with_name("check_target_process.py")
ENTROPY = f"{shlex.quote(sys.executable)} -m vdev serve entropy --socket {{socket}}"
ONE = "used.names-the-buffer"
LIMIT = 120


@pytest.fixture
def vdev(capsys):
    return CommandLine(capsys)


def spawned(behaviour):
    return f"{shlex.join([sys.executable, '-S', str(PROGRAM)])} {{socket}} {behaviour}"


def device(options, *, spawn=ENTROPY, kind="entropy", socket=""):
    return f"check device {socket} --type {kind} --spawn {shlex.quote(spawn)} {options}"


# Without a target


def test_the_numbers_are_printed_by_chapter_and_in_all(vdev):
    done = vdev("check --list")
    assert done.status == 0
    for words in ("Split Virtqueues", "virtio 1.4, in all", "vhost-user", "checks of devices", "proven"):
        assert words in done.stdout
    assert done.stderr == ""


def test_the_checks_of_a_type_are_listed_with_their_statements(vdev):
    done = vdev("check device --list --type entropy")
    assert done.status == 0
    assert f"{ONE}  (split, packed)" in done.stdout
    assert "    split.device.described.used-id" in done.stdout
    assert "block-" not in done.stdout
    assert "block-" in vdev("check device --list").stdout


def test_a_part_of_the_list_is_chosen_as_for_a_run(vdev):
    done = vdev(f"check device --list --only {ONE}")
    assert done.stdout.splitlines()[-1] == "2 cases of 1 checks"


def test_without_a_subcommand_it_says_what_there_is(vdev):
    done = vdev("check")
    assert done.status == 0
    assert "device" in done.stdout


def test_the_list_that_is_shipped_can_be_read():
    assert all(names for names in read_mutants().values())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("check device /nowhere", "say what device it is with --type"),
        ("check device --type entropy", "SOCKET"),
        ("check device /nowhere --type entropy", "nobody accepts at /nowhere"),
        ("check device /nowhere --type toaster", "'--type'"),
        ("check device /nowhere --type entropy --only nothing.*", "--only: no check"),
        ("check device /nowhere --type entropy --skip xyz", "--skip: no check"),
        ("check device /nowhere --type entropy --fail-on often", "--fail-on: 'often'"),
        ("check device /nowhere --type entropy --patience 3", "unit"),
        ("check device /nowhere --type entropy --html -", "--html needs a file name"),
        ("check device /nowhere --type entropy --html x --junit x", "name the same file"),
        ("check device /nowhere --type entropy --json /nowhere/x", "cannot write /nowhere/x"),
        ("check device --type entropy --spawn /does/not/exist", "cannot run /does/not/exist"),
        ("check device --type entropy --spawn 'x \"y'", "No closing quotation"),
        ("check device --type entropy --spawn false", "ended with status 1 before it listened"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(vdev, line, words):
    done = vdev(line)
    assert (done.status, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_rules_and_games_for_drivers_are_listed(vdev):
    done = vdev("check driver --list --type entropy")
    assert done.status == 0
    assert "game.late" in done.stdout
    assert "balloon." not in done.stdout
    assert vdev("check driver --list --only game.late").stdout.splitlines()[-1] == "1 rules and games"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("check driver --type entropy", "--socket"),
        ("check driver --socket /nowhere/s", "--type"),
        ("check driver --type entropy --socket /nowhere/s", "cannot listen at /nowhere/s"),
        ("check driver --type entropy --socket /nowhere/s --only nothing.at-all", "nothing.at-all"),
        ("check driver --type entropy --socket /nowhere/s --skip nothing.at-all", "nothing.at-all"),
        ("check driver --type entropy --socket /nowhere/s --file .", "--file is for block devices"),
    ],
)
def test_what_makes_no_sense_about_a_driver_is_refused_in_one_line(vdev, line, words):
    done = vdev(line)
    assert (done.status, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


# With a process


@pytest.mark.process
def test_our_own_device_passes_and_every_form_of_the_report_says_so(vdev, tmp_path):
    files = {name: tmp_path / f"report.{name}" for name in ("json", "junit", "html")}
    options = " ".join(f"--{name} {path}" for name, path in files.items())
    done = vdev(device(f"--only {ONE} {options}"))
    assert done.status == 0, done.stdout + done.stderr
    assert "2 statements kept, none broken" in done.stdout
    assert "2 cases in" in done.stdout
    report = json.loads(files["json"].read_text())
    assert report["counts"]["PASS"] == 2
    assert report["subject"]["type"] == "entropy"
    assert "VERSION_1" in report["subject"]["features"]
    assert ET.parse(files["junit"]).getroot().get("tests") == "2"
    assert "used-id" in files["html"].read_text()


@pytest.mark.process
def test_json_on_stdout_leaves_it_to_json(vdev):
    done = vdev(device(f"--only {ONE} --skip '*[packed]' --json -"))
    assert json.loads(done.stdout)["subject"]["skipped"] == "*[packed]"
    assert "kept, none broken" in done.stderr


@pytest.mark.process
def test_a_device_that_hangs_is_found_within_the_limit_and_given_up_on_by_status_1(vdev):
    started = time.monotonic()
    done = vdev(device(f"--only {ONE} --patience 200ms", spawn=spawned("hang")))
    assert done.status == 1
    assert "HUNG" in done.stdout
    assert time.monotonic() - started < LIMIT


@pytest.mark.process
def test_a_device_that_dies_is_crashed_with_its_last_words_and_a_command_that_does_it_again(vdev, tmp_path):
    socket = tmp_path / "device.sock"
    done = vdev(device(f"--only {ONE}", spawn=spawned("panic"), socket=socket))
    assert done.status == 1
    assert f"CRASHED  {ONE}[split]" in done.stdout
    assert "panicked" in done.stdout
    assert list(tmp_path.iterdir()) == []
    (repeat, *_) = [line.split("repeat")[1] for line in done.stdout.splitlines() if "repeat " in line]
    assert shlex.split(repeat)[-2:] == ["--only", f"{ONE}[split]"]
    assert f"CRASHED  {ONE}[split]" in vdev(repeat.strip().removeprefix("vdev ")).stdout


@pytest.mark.process
def test_what_counts_as_a_failure_is_chosen(vdev):
    assert vdev(device(f"--only {ONE} --fail-on none", spawn=spawned("panic"))).status == 0


@pytest.mark.process
def test_a_target_that_nobody_can_start_again_leaves_a_run_unfinished(vdev, tmp_path):
    socket = tmp_path / "device.sock"
    with subprocess.Popen(
        [sys.executable, "-S", str(PROGRAM), str(socket), "signal=SIGKILL"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"listening\n"
        line = (
            f"check device {socket} --type entropy --only {ONE} --only used.once-each --patience 300ms --fail-on none"
        )
        done = vdev(line)
    assert done.status == 3
    assert "1 CRASHED, 1 INCONCLUSIVE, 2 N/A" in done.stdout
    assert "not there any more" in done.stdout


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_shows_what_there_is_and_leaves_nothing(number, tmp_path):
    socket, log, hangs = (tmp_path / name for name in ("device.sock", "log", "hangs"))
    line = device("--patience 100s", spawn=spawned(f"hang={hangs}"), socket=socket)
    words = [sys.executable, "-m", "vdev", *shlex.split(line)]
    with log.open("wb") as file, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=file) as process:
        deadline = time.monotonic() + LIMIT
        while not hangs.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, number)
        output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, log.read_text()
    assert "interrupted after" in log.read_text()
    assert "Traceback" not in log.read_text() + output.decode()
    assert b"cases in" in output
    assert {path.name for path in tmp_path.iterdir()} == {"log", "hangs"}


GUEST = f"{shlex.quote(sys.executable)} -m vdev drive entropy {{socket}} --bytes 4MiB"


@pytest.mark.process
def test_our_own_driver_is_judged_and_nothing_is_left(vdev, tmp_path):
    socket = tmp_path / "judge.sock"
    done = vdev(
        f"check driver --type entropy --socket {socket} --spawn {shlex.quote(GUEST)}"
        " --only 'status.*' --only game.late[split] --skip status.steps --json -"
    )
    report = json.loads(done.stdout)
    assert report["side"] == "driver"
    assert report["counts"]["FAIL"] == report["counts"]["CRASHED"] == report["counts"]["HUNG"] == 0, done.stderr
    assert report["counts"]["PASS"] > 0
    assert not [case["name"] for case in report["cases"] if case["check"] == "status.steps"]
    assert done.status == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
def test_a_guest_that_does_not_come_is_named(vdev, tmp_path):
    socket = tmp_path / "judge.sock"
    done = vdev(f"check driver --type entropy --socket {socket} --spawn false")
    assert (done.status, done.stdout) == (2, "")
    assert "ended with status 1" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
def test_judging_a_driver_can_be_interrupted(tmp_path):
    socket, log = tmp_path / "judge.sock", tmp_path / "log"
    words = [sys.executable, "-m", "vdev", "check", "driver", "--type", "entropy", "--socket", str(socket)]
    with log.open("wb") as file, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=file) as process:
        deadline = time.monotonic() + LIMIT
        while not socket.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGINT)
        process.communicate(timeout=LIMIT)
    assert process.returncode == 130, log.read_text()
    assert "interrupted" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
