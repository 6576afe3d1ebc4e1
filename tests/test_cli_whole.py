"""The command as a user runs it: real processes, real RAM, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace

from vdev.trace import read_json_lines

pytestmark = pytest.mark.process

SMALL = ("--ram", "32MiB", "--rate", "2000")


class Started:
    """A `vdev` of our own, with a mark by which its offspring can be found. One that hangs is killed."""

    def __init__(self, directory: Path, *args: str) -> None:
        value = str(uuid.uuid4())
        self._mark = f"VDEV_TEST={value}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vdev", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"VDEV_TEST": value, "TMPDIR": str(directory)},
            cwd=directory,
        )
        self._watchdog = threading.Timer(60, self.process.kill)
        self._watchdog.start()

    def wait_line(self, word: str) -> str:
        """Return the first line on stderr that holds `word`."""
        for line in self.process.stderr:
            if word in line:
                return line
        raise AssertionError(f"vdev ended with {self.process.wait()} and never said {word!r}")

    def finish(self) -> tuple[int, str, str]:
        output, errors = self.process.communicate()
        self._watchdog.cancel()
        return self.process.returncode, output, errors

    def offspring(self) -> list[str]:
        """Return the command lines of processes that bear our mark."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and self._mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_text().replace("\0", " "))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # it ended while we looked, or is not ours
        return found


def vdev(directory: Path, *args: str) -> tuple[int, str, str]:
    return Started(directory, *args).finish()


def test_a_guest_is_moved_and_json_says_so(tmp_path):
    status, output, errors = vdev(tmp_path, "migrate", *SMALL, "--json", "-")
    report = json.loads(output)
    assert (status, report["outcome"]) == (0, "completed"), errors
    assert report["verified"]["mismatched"] == 0
    assert report["verified"]["resumed_operations"] > 0
    assert report["pages"]["skipped"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_trace_of_processes_has_a_track_for_each_actor(tmp_path):
    assert vdev(tmp_path, "migrate", *SMALL, "--trace", "t.pftrace")[0] == 0
    trace = Trace.FromString((tmp_path / "t.pftrace").read_bytes())
    names = {packet.track_descriptor.name for packet in trace.packet if packet.HasField("track_descriptor")}
    assert {"guest", "source", "migrator", "destination", "balloon", "phases", "remaining pages"} <= names
    tails = {flow for packet in trace.packet for flow in packet.track_event.flow_ids}
    heads = {flow for packet in trace.packet for flow in packet.track_event.terminating_flow_ids}
    assert tails & heads


def test_two_commands_move_a_guest_over_a_socket(tmp_path):
    receiver = Started(tmp_path, "receive", "--listen", "unix:here", "--exit-when-verified", "--json", "-")
    receiver.wait_line("waiting at unix:here")
    status, _, errors = vdev(tmp_path, "migrate", *SMALL, "--to", "unix:here")
    assert status == 0, errors
    status, output, errors = receiver.finish()
    assert status == 0, errors
    assert json.loads(output)["verified"]["mismatched"] == 0
    assert list(tmp_path.iterdir()) == []


def test_nobody_there_is_one_line(tmp_path):
    status, output, errors = vdev(tmp_path, "migrate", *SMALL, "--to", "unix:nobody")
    assert (status, output) == (2, "")
    assert errors.splitlines()[-1].startswith("vdev migrate: cannot connect to unix:nobody")


@pytest.mark.parametrize("moment", ["set-up", "bulk stage"])
def test_ctrl_c_leaves_no_process_and_no_file(tmp_path, moment):
    migration = Started(tmp_path, "migrate", *SMALL, "--max-bandwidth", "1MiB/s", "--trace", "t.jsonl")
    migration.wait_line(moment)
    migration.process.send_signal(signal.SIGINT)
    status, output, errors = migration.finish()
    assert (status, output) == (130, "")
    assert errors.splitlines()[-1].startswith("vdev migrate: interrupted")
    assert migration.offspring() == []
    assert [path.name for path in tmp_path.iterdir()] == ["t.jsonl"], "only the trace that was asked for"
    assert list(read_json_lines(tmp_path / "t.jsonl"))
