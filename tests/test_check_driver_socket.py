"""The judging device at a socket, with a driver of ours as the guest."""

import contextlib
import gc
import socket
import threading
import time

import pytest
from check_driver_setup import AREA, breaches
from front_end_setup import MIB, PATIENCE, open_fd_count, shared_memory

from guest_agent.drivers.entropy import EntropyDriver
from guest_agent.vhost_user import VhostUserTransport
from spec.device import DeviceId
from vdev.check.driver.serving import judge_driver
from vdev.check.verdict import Verdict
from vdev.errors import UserError, VdevError

GAMES = (
    "plain",
    "late",
    "out-of-order",
    "spurious-calls",
    "kick-later",
    "never",
    "no-kicks",
    "bare",
    "unknown-features",
)


class Guest(threading.Thread):
    """Comes to a socket again and again, and asks for random bytes until the judge has seen enough."""

    def __init__(self, path, most=10_000):
        super().__init__()
        self.most = most
        """So many requests it makes in a start."""
        self.path = str(path)
        self.is_done = threading.Event()
        self.start_count = 0
        self.error = None

    def run(self):
        while not self.is_done.is_set():
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.connect(self.path)
            except OSError:
                sock.close()
                time.sleep(0.005)
                continue
            self.start_count += 1
            try:
                self._drive(sock)
            except (VdevError, OSError) as error:
                self.error = error

    def _drive(self, sock):
        memory = shared_memory((0, MIB))
        transport = None
        try:
            transport = VhostUserTransport(memory, sock, device_id=DeviceId.ENTROPY, patience=PATIENCE)
            driver = EntropyDriver.start(transport, memory, AREA)
            asked = 0
            while transport.lost is None and driver.gave_up is None and not self.is_done.is_set():
                asked += asked < self.most and driver.ask(64)
                transport.wait_interrupt(0.05)
                driver.handle_interrupt()
                driver.work()
                driver.take()
        finally:
            (sock if transport is None else transport).close()
            for region in memory.regions:
                region.backing.close()


def judged_over_a_socket(path, **options):
    guest = Guest(path)
    guest.start()
    try:
        return judge_driver("entropy", path, again=True, boot_patience=PATIENCE, **options), guest
    finally:
        guest.is_done.set()
        guest.join(PATIENCE)


def test_a_driver_is_judged_in_one_start_after_the_other(tmp_path):
    report, guest = judged_over_a_socket(tmp_path / "judge", only=[f"*[{game}/*]" for game in GAMES])
    cases = {case.name: case for case in report.cases}
    assert breaches(cases) == {}
    assert guest.start_count >= 2
    assert {cases[f"game.late[{each}]"].verdict for each in ("split", "packed")} == {Verdict.PASS}


def test_without_another_start_the_second_one_is_not_applicable(tmp_path):
    guest = Guest(tmp_path / "judge")
    guest.start()
    try:
        report = judge_driver("entropy", tmp_path / "judge", only=["*[plain/*]"], boot_patience=PATIENCE)
    finally:
        guest.is_done.set()
        guest.join(PATIENCE)
    cases = {case.name: case for case in report.cases}
    assert cases["game.plain[packed]"].verdict is Verdict.NOT_APPLICABLE
    assert "--spawn" in cases["game.plain[packed]"].why


@pytest.mark.parametrize(("most", "verdict"), [(0, Verdict.INCONCLUSIVE), (2, Verdict.HUNG)])
def test_a_driver_that_stops_is_left_after_the_stated_time(tmp_path, most, verdict):
    guest = Guest(tmp_path / "judge", most)
    guest.start()
    try:
        only = ["game.late[split]"]
        report = judge_driver("entropy", tmp_path / "judge", only=only, patience=0.3, boot_patience=PATIENCE)
    finally:
        guest.is_done.set()
        guest.join(PATIENCE)
    (case,) = [case for case in report.cases if case.check == "game.late"]
    assert case.verdict is verdict
    assert "0.3 s" in case.why


def test_somebody_must_come(tmp_path):
    with pytest.raises(UserError, match=r"nobody connected within 0\.05 s"):
        judge_driver("entropy", tmp_path / "judge", boot_patience=0.05)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("first_words", [b"", b"\xff" * 4096])
def test_a_front_end_without_a_driver_is_not_waited_for_at_each_start(tmp_path, first_words):
    path = tmp_path / "judge"
    is_done = threading.Event()

    def front_end():
        while not is_done.is_set():
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
                sock.sendall(first_words)
                sock.recv(1)  # the judge ends the connection

    thread = threading.Thread(target=front_end)
    thread.start()
    try:
        with pytest.raises(UserError, match="no driver came"):
            judge_driver("entropy", path, again=True, boot_patience=0.3)
    finally:
        is_done.set()
        thread.join(PATIENCE)


def test_a_guest_that_ends_before_it_comes_is_named(tmp_path):
    with pytest.raises(UserError, match="and no front end came"):
        judge_driver("entropy", tmp_path / "judge", spawn="false", boot_patience=PATIENCE)
    assert not list(tmp_path.iterdir())


def test_nothing_stays_open(tmp_path):
    gc.collect()
    before = open_fd_count()
    judged_over_a_socket(tmp_path / "judge", only=["*[plain/*]"])
    gc.collect()
    assert open_fd_count() <= before
