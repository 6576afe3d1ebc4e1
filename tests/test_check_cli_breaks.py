"""`vdev check` for somebody who gets it wrong, or whose device does: one line or a verdict, and an end."""

import shlex
import socket
import subprocess
import sys
import threading

import pytest
from cli_setup import CommandLine

from vdev.check.run import judge
from vdev.check.target_probe import answers
from vdev.check.target_socket import SocketTarget
from vdev.check.verdict import TargetHung, Verdict

ENTROPY = f"{shlex.quote(sys.executable)} -m vdev serve entropy --socket {{socket}}"
LIMIT = 120


@pytest.mark.parametrize("line", ["device /nowhere --patience", "driver --socket /nowhere/s --boot-patience"])
def test_a_patience_that_no_timer_can_hold_is_refused_in_one_line(capsys, line):
    done = CommandLine(capsys)(f"check {line} 99999999999999s --type entropy")
    assert (done.status, done.stdout) == (2, "")
    assert "more than a day" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_byte_now_and_then_is_no_answer():
    ours, theirs = socket.socketpair()
    is_over = threading.Event()

    def trickle():
        theirs.sendall(bytes([1, 0, 0, 0, 5, 0, 0, 0, 0, 15, 0, 0]))
        for _ in range(400):
            if is_over.wait(0.02):
                return
            theirs.sendall(b"\0")

    with ours, theirs:
        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            with pytest.raises(TargetHung, match="GET_FEATURES"):
                answers(ours, 0.2)
        finally:
            is_over.set()
            thread.join()


@pytest.mark.process
def test_a_report_that_standard_output_cannot_take_is_one_line():
    words = ["check", "device", "--type", "entropy", "--only", "used.names-the-buffer", "--spawn", ENTROPY]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vdev", *words], stdout=full, stderr=subprocess.PIPE, timeout=LIMIT, check=False
        )
    assert done.returncode == 2
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


OFFERS_ALL = """
import socket, sys
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen(4)
    while True:
        connection, _ = listener.accept()
        with connection:
            while header := connection.recv(12, socket.MSG_WAITALL):
                size = int.from_bytes(header[8:12], "little")
                connection.recv(size, socket.MSG_WAITALL) if size else b""
                if header[4] & 8 or header[0] in (1, 15):
                    connection.sendall(header[:4] + bytes([5, 0, 0, 0, 8, 0, 0, 0]) + b"\\xff" * 8)
"""


@pytest.mark.process
def test_a_device_that_offers_every_feature_there_is_gets_a_verdict(tmp_path):
    (tmp_path / "all.py").write_text(OFFERS_ALL)
    command = shlex.join([sys.executable, "-S", str(tmp_path / "all.py"), "{socket}"])
    target = SocketTarget(str(tmp_path / "s"), spawn=command, patience=0.5)
    report = judge(target, "entropy", only=["features.unoffered-are-refused"])
    assert [case.verdict for case in report.cases] == [Verdict.NOT_APPLICABLE]
