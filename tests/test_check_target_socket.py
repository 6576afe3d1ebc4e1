"""Whoever listens at a socket is judged, also one that dies, hangs, or ends with its driver; nothing of it is left."""

import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from spec.vhost_user import FrontEndRequest
from vdev.check import target_process, target_socket
from vdev.check.target import ConnectionClosed, TargetGone
from vdev.check.target_probe import offer_of
from vdev.check.target_socket import SocketTarget
from vdev.check.verdict import TargetHung
from vdev.errors import UserError
from vdev.vhost_user.framing import encode

pytestmark = pytest.mark.process

PROGRAM = Path(__file__).with_name("check_target_process.py")
PATIENCE = 10.0
IMPATIENCE = 0.2


def command(behaviour, *, program=PROGRAM):
    return f"{shlex.join([sys.executable, '-S', str(program)])} {{socket}} {behaviour}"


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "device.sock")


@pytest.fixture
def start(path, monkeypatch):
    """Makes the target with a behaviour; afterwards nothing is left in its directory."""
    monkeypatch.setattr(target_process, "_END_SECONDS", IMPATIENCE)
    made = []

    def make(behaviour="serve", *, patience=PATIENCE, **options):
        made.append(SocketTarget(path, **{"spawn": command(behaviour), **options}, patience=patience))
        return made[-1]

    yield make
    for target in made:
        pid = target.pid
        target.close()
        assert pid is None or not Path(f"/proc/{pid}").exists()
    assert list(Path(path).parent.iterdir()) == []


def set_owner(target):
    """Send the message that the process misbehaves at, and leave."""
    with target.connect() as connection:
        connection.sendall(encode(FrontEndRequest.SET_OWNER))


def test_a_process_is_started_for_the_first_driver_and_serves_the_next(start):
    target = start()
    assert target.pid is None
    assert offer_of(target).features == 1 << 32
    pid = target.pid
    assert target.settle() is None
    assert offer_of(target).features == 1 << 32
    assert target.pid == pid


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL"])
def test_a_death_by_signal_is_a_crash_that_is_named(start, name):
    target = start(f"signal={name}")
    set_owner(target)
    ending = target.settle()
    assert ending.is_crash
    assert name in ending.why


def test_a_panic_is_a_crash_and_its_last_words_are_kept(start):
    target = start("panic")
    set_owner(target)
    ending = target.settle()
    assert ending.is_crash
    assert ending.last_words.endswith("panicked at src/main.rs:7:5: no descriptor")


@pytest.mark.parametrize(("status", "is_crash"), [(1, False), (2, False), (101, True), (134, True), (139, True)])
def test_a_status_is_a_crash_only_if_no_program_gives_it_on_purpose(start, status, is_crash):
    target = start(f"exit={status}")
    assert offer_of(target)
    assert target.settle() is None
    set_owner(target)
    assert target.settle().is_crash is is_crash


def test_who_ended_is_started_again_with_the_next_driver(start):
    target = start("exit=1")
    assert offer_of(target)
    assert target.settle() is None
    first = target.pid
    set_owner(target)
    assert "status 1" in target.settle().why
    assert target.settle() is None
    assert offer_of(target).features == 1 << 32
    assert target.pid not in (None, first)


@pytest.mark.parametrize("behaviour", ["once", "once=3"])
def test_who_always_ends_with_its_driver_is_started_again_without_a_word(start, behaviour):
    target = start(behaviour)
    for _ in range(3):
        assert offer_of(target).features == 1 << 32
        assert target.settle() is None
        assert target.pid is None


def test_who_usually_ends_with_status_0_and_then_by_a_signal_has_crashed(start):
    target = start("once")
    assert offer_of(target)
    assert target.settle() is None
    with target.connect():
        os.kill(target.pid, signal.SIGBUS)
    assert "SIGBUS" in target.settle().why


def test_who_dies_while_a_driver_is_at_work_has_crashed_and_is_started_again(start):
    target = start("signal=SIGSEGV")
    assert offer_of(target)
    assert target.settle() is None
    set_owner(target)
    with pytest.raises(ConnectionClosed):  # taken by the one who is dying, or not at all
        offer_of(target)
    assert "SIGSEGV" in target.settle().why
    assert target.settle() is None
    assert offer_of(target).features == 1 << 32


def test_who_ends_with_its_driver_is_started_again_for_the_second_driver_of_one_case(start):
    target = start("once")
    for _ in range(3):
        assert offer_of(target).features == 1 << 32
        assert target.settle() is None
    for _ in range(3):
        assert offer_of(target).features == 1 << 32
    assert target.settle() is None


def test_who_ended_for_bad_input_in_a_case_is_noted_after_it(start):
    target = start("exit=7")
    assert offer_of(target)
    assert target.settle() is None
    set_owner(target)
    os.waitid(os.P_PID, target.pid, os.WEXITED | os.WNOWAIT)
    assert offer_of(target).features == 1 << 32
    ending = target.settle()
    assert (ending.is_crash, ending.why) == (False, "its process ended with status 7")
    assert target.settle() is None


def test_a_process_dies_with_whoever_started_it(path):
    program = (
        "import sys; from vdev.check.target_socket import SocketTarget\n"
        "target = SocketTarget(sys.argv[1], spawn=sys.argv[2])\n"
        "connection = target.connect(); print(target.pid, flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", program, path, command("serve")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        pid = int(process.stdout.readline())
        pidfd = os.pidfd_open(pid)
        process.kill()
    try:
        assert select.select([pidfd], [], [], PATIENCE)[0], "it lives on"
    finally:
        os.close(pidfd)


def test_who_does_not_answer_hangs_within_the_limit(start):
    target = start("silent", patience=IMPATIENCE)
    started = time.monotonic()
    with pytest.raises(TargetHung, match=r"GET_FEATURES within 0\.2 s"):
        offer_of(target)
    assert time.monotonic() - started < 10
    target.restart()
    assert target.pid is None


def test_who_hangs_in_one_session_is_found_by_the_next_and_started_again(start):
    target = start("hang", patience=IMPATIENCE)
    set_owner(target)
    first = target.pid
    with pytest.raises(TargetHung):
        target.settle()
    assert target.restart()
    assert offer_of(target).features == 1 << 32
    assert target.pid != first


def test_a_stopped_process_hangs_and_is_ended_all_the_same(start):
    target = start(patience=IMPATIENCE)
    offer_of(target)
    os.kill(target.pid, signal.SIGSTOP)
    with pytest.raises(TargetHung):
        target.settle()


def test_who_ignores_the_request_to_end_is_killed(start):
    offer_of(start("deaf"))


def test_what_the_command_started_ends_with_it(start, path):
    inner = command("serve").replace("{socket}", path)
    target = start(spawn=f"sh -c {shlex.quote(f'{inner} & wait')}")
    with target.connect() as connection:
        target.close()
        connection.settimeout(PATIENCE)
        assert connection.recv(1) == b""


def test_without_a_socket_one_is_made_in_a_directory_of_its_own():
    with closing(SocketTarget(spawn=command("serve"), patience=PATIENCE)) as target:
        assert offer_of(target).features == 1 << 32
        directory = Path(target.place).parent
    assert not directory.exists()


# Refusals, a line each


@pytest.mark.parametrize(
    ("spawn", "words"),
    [
        ("/does/not/exist {socket}", "cannot run /does/not/exist: No such file"),
        ("'unbalanced", "No closing quotation"),
        ("  ", "there is no command"),
        (command("serve", program="/does/not/exist.py"), "ended with status 2 before it listened"),
        ("/", "cannot run /: Permission denied"),
    ],
)
def test_a_command_that_cannot_serve_is_refused(start, spawn, words):
    with pytest.raises(UserError, match=words) as refusal:
        offer_of(start(spawn=spawn))
    assert "\n" not in str(refusal.value)


def test_a_command_that_never_listens_is_given_up(start, monkeypatch):
    monkeypatch.setattr(target_socket, "START_SECONDS", IMPATIENCE)
    with pytest.raises(UserError, match="nobody listens"):
        offer_of(start(spawn="sleep 3600"))


def test_a_socket_at_which_somebody_listens_is_not_taken(start, path):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        with pytest.raises(UserError, match="somebody listens"):
            start()
    os.unlink(path)


def test_a_socket_that_a_dead_process_left_is_taken(start, path):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
    assert offer_of(start()).features == 1 << 32


def test_a_file_that_is_no_socket_is_left_alone(start, path):
    Path(path).write_text("precious")
    with pytest.raises(UserError, match="is no socket"):
        start()
    assert Path(path).read_text() == "precious"
    os.unlink(path)


@pytest.mark.parametrize("place", ["/does/not/exist/s", "x" * 200])
def test_a_path_that_cannot_be_is_refused(place):
    for spawn in (None, command("serve")):
        with pytest.raises(UserError), closing(SocketTarget(place, spawn=spawn)) as target:
            target.connect()


def test_without_socket_and_command_there_is_nobody():
    with pytest.raises(UserError, match="SOCKET"):
        SocketTarget()


# Somebody else's process


class Other:
    """A process that we did not start."""

    def __init__(self, path, behaviour):
        self.owner = SocketTarget(path, spawn=command(behaviour), patience=PATIENCE)
        offer_of(self.owner)
        self.target = SocketTarget(path, patience=IMPATIENCE)


def test_who_refuses_connections_that_it_used_to_take_has_crashed(path):
    other = Other(path, "signal=SIGSEGV")
    with closing(other.owner):
        assert offer_of(other.target).features == 1 << 32
        assert other.target.settle() is None
        set_owner(other.target)
        ending = other.target.settle()
        assert ending.is_crash
        assert "refuses connections" in ending.why
        assert not other.target.restart()
        with pytest.raises(TargetGone):
            other.target.connect()


def test_who_ends_with_its_first_driver_is_not_called_crashed(path):
    words = [sys.executable, "-S", str(PROGRAM), path, "once"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"listening\n"
        target = SocketTarget(path, patience=IMPATIENCE)
        assert offer_of(target).features == 1 << 32
        with pytest.raises(TargetGone, match="give --spawn"):
            target.settle()


def test_somebody_elses_process_goes_on(path):
    other = Other(path, "serve")
    with closing(other.owner):
        offer_of(other.target)
        other.target.close()
        assert other.owner.settle() is None
