"""`vdev serve` and `vdev control` as a user types them: refusals, the panel, a class of one's own, a whole run."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from cli_setup import CommandLine
from rich.console import Console

from guest_agent.vhost_user import VhostUserTransport
from spec.balloon import BalloonFeature
from spec.device import DeviceId, Feature, feature_mask
from vdev.cli.panel import LinePanel, LivePanel, render_snapshot
from vdev.devices.entropy import EntropyDevice
from vdev.devices.kind import Carrier
from vdev.devices.registry import device_kind
from vdev.errors import UserError
from vdev.memory import GuestMemory, MemfdBacking, Region
from vdev.run.device_class import load_device_class
from vdev.run.serve import Snapshot
from vdev.run.withheld_features import withhold_features
from vdev.vhost_user.statistics import BackEndStatistics, QueueStatistics


@pytest.fixture
def vdev(capsys):
    return CommandLine(capsys)


NOWHERE = "/nowhere/at/all.sock"

REFUSALS = {
    "serve": "Missing command (try 'vdev serve --help')",
    "serve toaster --socket /tmp/s": "No such command 'toaster'",
    "serve entropy": "Missing option '--socket'",
    f"serve entropy --socket {NOWHERE}": f"cannot listen at {NOWHERE}: No such file or directory",
    "serve entropy --socket /etc/passwd": "cannot listen at /etc/passwd: Address already in use",
    "serve block --socket /tmp/s": "Missing option '--file'",
    "serve block --socket /tmp/s --file /nowhere": "'/nowhere' does not exist",
    "serve block --socket /tmp/s --file /tmp": "/tmp",
    "serve block --socket /tmp/s --file /etc/passwd --queues 0": "x>=1",
    "serve balloon --socket /tmp/s --numbering odd": "'fixed', 'compact'",
    "serve ./nothing.py:Mine --socket /tmp/s": "there is no file nothing.py",
    "serve no_such_module:Mine --socket /tmp/s": "there is no module 'no_such_module'",
    "serve json:Mine --socket /tmp/s": "json has no class 'Mine' that is a vdev.device.Device",
    "serve vdev.devices.entropy:Device_ --socket /tmp/s": "it has EntropyDevice",
    "serve entropy --socket /tmp/s --without STATS_VQ": "entropy offers no feature 'STATS_VQ'; leave out any of INDIR",
    "serve balloon --socket /tmp/s --without STATS_VQ --without x": "any of MUST_TELL_HOST, STATS_VQ, DEFLATE_ON_OOM,",
    "serve balloon --socket /tmp/s --without VERSION_1": "cannot do without VERSION_1: its driver would take it for",
    f"control {NOWHERE} status": "is `vdev serve` running?",
    f"control {NOWHERE} inflate lots": "not a size like 512MiB or 1GiB",
    f"control {NOWHERE} fly": "No such command 'fly'",
    f"control {NOWHERE} hints": "Missing command",
    "control": "Missing argument 'SOCKET'",
}


@pytest.mark.parametrize("line", REFUSALS)
def test_what_cannot_be_served_or_asked_is_refused_in_one_line(vdev, line):
    finished = vdev(line)
    assert finished.status == 2
    assert REFUSALS[line] in finished.stderr
    assert len(finished.stderr.splitlines()) == 1, finished.stderr
    assert finished.stdout == ""


# A class of one's own


def test_a_class_is_found_in_a_file_and_in_a_module(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from vdev.devices.entropy import EntropyDevice\n\n\nclass Mine(EntropyDevice):\n    name = 'mine'\n"
    )
    memory = GuestMemory.private(1 << 20)
    assert load_device_class(f"{path}:Mine")(memory).name == "mine"
    assert isinstance(load_device_class("vdev.devices.entropy:EntropyDevice")(memory, {}), EntropyDevice)
    with pytest.raises(UserError, match=r"mine\.py has no class 'Other' .*; it has Mine"):
        load_device_class(f"{path}:Other")


def test_what_the_users_code_raises_is_left_to_the_user(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("import no_such_module_at_all\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        load_device_class(f"{path}:Mine")


# Features that are left out


def test_a_feature_that_is_left_out_is_not_offered_and_takes_its_queue_with_it():
    memory = GuestMemory.private(1 << 20)
    device = device_kind("balloon").make(memory, carrier=Carrier.VHOST_USER)
    before = device.offered_features
    assert [device.queue_name(number) for number in range(5)] == [
        "inflate",
        "deflate",
        "statistics",
        "free page",
        "reporting",
    ]
    withhold_features(device, ("STATS_VQ", "ring-packed"))
    assert device.offered_features == before & ~feature_mask(BalloonFeature.STATS_VQ, Feature.RING_PACKED)
    assert [device.queue_name(number) for number in range(5)] == ["inflate", "deflate", "free page", "reporting", ""]
    with pytest.raises(UserError, match="offers no feature 'RING_PACKED'; leave out any of MUST_TELL_HOST, DEFLATE"):
        withhold_features(device, ("RING_PACKED",))
    # Another device of the kind offers it still.
    assert device_kind("balloon").make(memory, carrier=Carrier.VHOST_USER).offered_features == before


# The panel


def a_queue(number, **changes):
    values = {
        "number": number,
        "size": 256,
        "state": "started, enabled",
        "is_served": True,
        "kick_count": 12,
        "call_count": 3,
        "chain_count": 14000,
        "last_error": None,
    }
    return QueueStatistics(**(values | changes))


def a_snapshot(**changes):
    statistics = BackEndStatistics(
        is_connected=True,
        front_end_count=1,
        phase="running",
        features=1 << 32,
        protocol_features=1,
        queues=(a_queue(0), a_queue(1, size=0, state="stopped, disabled", is_served=False)),
        request_count=20,
        front_end_violation_count=0,
        driver_violation_count=0,
        last_violation=None,
    )
    values = {
        "device": "entropy",
        "device_id": 4,
        "socket_path": "/tmp/e.sock",
        "elapsed": 1.5,
        "statistics": statistics,
        "features": ("VERSION_1",),
        "offered_features": ("VERSION_1", "EVENT_IDX"),
        "protocol_features": ("MQ",),
    }
    return Snapshot(**(values | changes))


def in_another_state(snapshot, **changes):
    return replace(snapshot, statistics=replace(snapshot.statistics, **changes))


def shown(snapshot, width=100):
    console = Console(file=io.StringIO(), width=width)
    console.print(render_snapshot(snapshot))
    return console.file.getvalue()


def test_the_panel_says_who_is_there_what_was_agreed_and_what_each_queue_did():
    text = shown(a_snapshot())
    assert text.startswith("entropy at /tmp/e.sock, served for 1.50 s\n")
    assert "front end  number 1, running" in text
    assert "not taken  EVENT_IDX" in text
    assert "VERSION_1" in text
    assert [line.split() for line in text.splitlines() if line.split()[:1] == ["0"]] == [
        ["0", "256", "12", "3", "14,000", "served"]
    ]
    assert [line.split() for line in text.splitlines() if line.split()[:1] == ["1"]] == [
        ["1", "-", "12", "3", "14,000", "stopped,", "disabled"]
    ]


def test_the_panel_and_the_lines_call_queues_by_the_devices_names_for_them():
    snapshot = a_snapshot(queue_names=("inflate", ""))
    assert re.search(r"^ +0 inflate +256 ", shown(snapshot), re.MULTILINE)
    file = io.StringIO()
    LinePanel(file).show(snapshot)
    assert "queue 0 inflate: 256 descriptors, served" in file.getvalue()


def test_the_panel_names_the_last_error_and_the_queue_that_has_one():
    snapshot = in_another_state(
        a_snapshot(),
        queues=(a_queue(0, last_error="head 9 in a table of 8"),),
        driver_violation_count=2,
        last_violation="driver's fault: head 9 in a table of 8",
    )
    text = shown(snapshot)
    assert "2, the last: driver's fault: head 9 in a table of 8" in text
    assert text.count("head 9 in a table of 8") == 2


def test_the_panel_of_nobody_says_what_is_offered():
    text = shown(in_another_state(a_snapshot(features=(), protocol_features=()), is_connected=False, queues=()))
    assert "front end  gone" in text
    assert "offered    VERSION_1, EVENT_IDX" in text
    assert "queue" not in text


def test_lines_tell_only_what_is_new():
    file = io.StringIO()
    panel = LinePanel(file)
    waiting = in_another_state(a_snapshot(features=()), is_connected=False, queues=())
    busy = in_another_state(a_snapshot(), queues=(a_queue(0, kick_count=99),))
    failed = in_another_state(a_snapshot(), queues=(a_queue(0, last_error="a loop"),), last_violation="a loop")
    for snapshot in (waiting, waiting, a_snapshot(), busy, failed, waiting):
        panel.show(snapshot)
    assert [line.split(maxsplit=2)[2].strip() for line in file.getvalue().splitlines()] == [
        "entropy waits for a front end at /tmp/e.sock",
        "front end 1 is connected",
        "features: VERSION_1",
        "queue 0: 256 descriptors, served",
        "error: a loop",
        "queue 0: a loop",
        "entropy waits for a front end at /tmp/e.sock",
    ]


def test_a_terminal_gets_the_panel_redrawn():
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with LivePanel(console) as panel:
        panel.show(a_snapshot())
        panel.show(in_another_state(a_snapshot(), front_end_count=2))
    written = console.file.getvalue()
    assert 0 < written.index("number 1") < written.index("number 2")


def test_the_panel_is_drawn_at_most_twice_a_second_and_at_the_end():
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    at = [a_snapshot(elapsed=tenth / 10) for tenth in range(30)]
    with LivePanel(console) as panel:
        for number, snapshot in enumerate(at):
            panel.show(in_another_state(snapshot, request_count=number) if number < 10 else snapshot)
    drawn = re.findall(r"served for ([0-9.]+ \w+)", console.file.getvalue())
    # News every 0.1 s up to 0.9 s, and from then on only time.
    assert list(dict.fromkeys(drawn)) == ["0 us", "500 ms", "1.00 s", "2.00 s", "2.90 s"]


def test_more_queues_than_a_terminal_has_lines_are_added_up():
    queues = tuple(a_queue(number, is_served=number < 10) for number in range(12))
    lines = shown(in_another_state(a_snapshot(), queues=queues)).splitlines()
    assert [line.split() for line in lines if "more" in line] == [
        ["4", "more", "48", "12", "56,000", "2", "served"],
    ]
    assert sum("14,000" in line for line in lines) == 8


# Whole


@pytest.mark.process
def test_a_device_is_served_asked_and_ended(tmp_path):
    path = tmp_path / "entropy.sock"
    command = [sys.executable, "-m", "vdev", "serve", "entropy", "--socket", str(path), "--without", "EVENT_IDX"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert "waits for a front end" in server.stderr.readline()
            status = asked(path)
            assert status["connected"] is False
            assert "RING_PACKED" in status["offered_features"]
            assert "EVENT_IDX" not in status["offered_features"]
            memory = GuestMemory([Region(0, MemfdBacking(1 << 20))])
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(path))
            transport = VhostUserTransport(memory, connection, device_id=DeviceId.ENTROPY)
            transport.acknowledge_device()
            transport.negotiate(1 << 32, required=(32,))
            assert "front end 1 is connected" in server.stderr.readline()
            status = asked(path)
            assert (status["connected"], status["features"]) == (True, ["VERSION_1"])
            assert re.search(r"^  number +size +state .*\n  0 +0 +stopped, ", in_words(path), re.MULTILINE)
            transport.close()
            end = time.monotonic() + 30
            while asked(path)["connected"]:
                assert time.monotonic() < end
            server.send_signal(signal.SIGINT)
            assert server.wait(30) == 0
            assert os.listdir(tmp_path) == []
            assert "Traceback" not in server.stderr.read()
        finally:
            server.kill()


def asked(path):
    """The status in JSON, which may be asked for at either end of the line."""
    ends = [["--json", str(path), "status"], [str(path), "status", "--json"]]
    answers = [json.loads(run_control(*line)) for line in ends]
    assert answers[0].keys() == answers[1].keys()
    return answers[1]


def in_words(path):
    return run_control(str(path), "status")


def run_control(*line):
    command = [sys.executable, "-m", "vdev", "control", *line]
    return subprocess.run(command, capture_output=True, check=True, timeout=60, text=True).stdout
