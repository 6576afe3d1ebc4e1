"""`vdev drive` as a user types it: disks read and changed, random bytes, a guest with a balloon, what goes wrong."""

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from cli_setup import CommandLine
from front_end_setup import MIB, balloon_device, open_fd_count, serving
from scripted_back_end import Answer, R, ScriptedBackEnd, reply

from vdev.cli.drive_display import LineDisplay
from vdev.devices.block import BlockDevice, BlockFile
from vdev.devices.entropy import EntropyDevice
from vdev.memory import GuestMemory
from vdev.run.drive_balloon import BalloonSnapshot

pytestmark = pytest.mark.usefixtures("no_garbage_of_others")

DISK_SIZE = 4 * MIB


@pytest.fixture
def vdev(capsys):
    return CommandLine(capsys)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(np.random.default_rng(5).bytes(DISK_SIZE))
    return path


@pytest.fixture
def disk(image, tmp_path):
    file = BlockFile.open(image)
    with serving(BlockDevice(GuestMemory.absent(), file, queue_count=2, serial="vdev-disk")) as served:
        yield served.listen(tmp_path / "disk.sock")
    file.close()


@pytest.fixture
def entropy(tmp_path):
    with serving(EntropyDevice(GuestMemory.absent())) as served:
        yield served.listen(tmp_path / "entropy.sock")


class Balloon:
    def __init__(self, served, path):
        self.served, self.path = served, path


@pytest.fixture
def balloon(tmp_path):
    with serving(balloon_device()) as served:
        yield Balloon(served, served.listen(tmp_path / "balloon.sock"))


class TestBlock:
    def test_without_a_request_it_says_what_the_disk_is(self, vdev, disk):
        finished = vdev(f"drive block {disk}")
        assert finished.status == 0
        assert "4.00 MiB" in finished.stdout
        assert "FLUSH" in finished.stdout
        report = json.loads(vdev(f"drive block {disk} --id --json -").stdout)
        assert (report["capacity_bytes"], report["read_only"], report["id"]) == (DISK_SIZE, False, "vdev-disk")
        assert report["limits"]["num_queues"] == 2
        assert report["done"] == {}

    @pytest.mark.parametrize("ring", ["split", "packed"])
    def test_what_is_read_is_what_is_on_the_disk(self, vdev, disk, image, tmp_path, ring):
        output = tmp_path / "part"
        for offset, size in ((0, 512), (1024, 777 * 512), (0, DISK_SIZE), (DISK_SIZE - 512, 512)):
            finished = vdev(f"drive block {disk} --read {offset} {size} --output {output} --ring {ring} --json -")
            assert json.loads(finished.stdout)["ring"] == ring
            assert output.read_bytes() == image.read_bytes()[offset:][:size]

    def test_what_is_changed_is_changed_there_and_nowhere_else(self, vdev, disk, image, tmp_path):
        before = bytearray(image.read_bytes())
        data = tmp_path / "data"
        data.write_bytes(os.urandom(MIB + 512))
        output = tmp_path / "back"
        finished = vdev(
            f"drive block {disk} --write 64KiB {data} --write-zeroes 3MiB 4KiB --flush"
            f" --read 64KiB {MIB + 512} --output {output} --json -"
        )
        assert finished.status == 0
        assert json.loads(finished.stdout)["done"] == {
            "written_bytes": MIB + 512,
            "zeroed_bytes": 4096,
            "flushed": True,
            "read_bytes": MIB + 512,
        }
        before[64 << 10 :][: MIB + 512] = b""
        expected = bytearray(image.read_bytes())
        assert output.read_bytes() == data.read_bytes() == bytes(expected[64 << 10 : (64 << 10) + MIB + 512])
        assert bytes(expected[3 * MIB : 3 * MIB + 4096]) == bytes(4096)
        assert bytes(expected[: 64 << 10]) == bytes(before[: 64 << 10])
        assert bytes(expected[3 * MIB + 4096 :]) == bytes(before[-(MIB - 4096) :])

    def test_a_discard_is_done(self, vdev, disk):
        finished = vdev(f"drive block {disk} --discard 1MiB 64KiB --json -")
        assert json.loads(finished.stdout)["done"] == {"discarded_bytes": 64 << 10}

    @pytest.mark.parametrize("options", ["", "--ring packed", "--queues 2 --depth 32", "--depth 1 --queue-size 4"])
    def test_an_exercise_leaves_the_disk_as_its_copy_is(self, vdev, disk, image, tmp_path, options):
        output = tmp_path / "copy"
        finished = vdev(f"drive block {disk} --exercise 400 --seed 3 {options} --output {output} --json -")
        report = json.loads(finished.stdout)["exercise"]
        assert finished.status == 0
        assert report["reads"] + report["writes"] >= 400
        assert min(report["reads"], report["writes"]) > 100
        assert report["mismatched_sectors"] == []
        assert output.read_bytes() == image.read_bytes()

    def test_an_exercise_finds_a_disk_that_lies(self, vdev, disk, image, monkeypatch):
        from vdev.run import drive_exercise

        run = drive_exercise._Exercise.run

        def run_and_spoil(exercise):
            run(exercise)
            with image.open("r+b") as file:
                file.seek(512 * 1000)
                file.write(bytes(512))

        monkeypatch.setattr(drive_exercise._Exercise, "run", run_and_spoil)
        finished = vdev(f"drive block {disk} --exercise 50 --json -")
        assert finished.status == 1
        assert json.loads(finished.stdout)["exercise"]["mismatched_sectors"] == [960]

    def test_a_read_only_disk_is_exercised_by_reads_alone(self, vdev, image, tmp_path):
        file = BlockFile.open(image, read_only=True)
        with serving(BlockDevice(GuestMemory.absent(), file)) as served:
            path = served.listen(tmp_path / "ro.sock")
            report = json.loads(vdev(f"drive block {path} --exercise 100 --json -").stdout)
            assert report["exercise"]["writes"] == 0
            assert "read-only" in vdev(f"drive block {path} --write 0 {image}").stderr
            assert "cannot write zeroes" in vdev(f"drive block {path} --write-zeroes 0 512").stderr
        file.close()


class TestEntropy:
    @pytest.mark.parametrize("ring", ["split", "packed"])
    def test_it_gives_as_many_bytes_as_are_asked_for(self, vdev, entropy, tmp_path, ring):
        output = tmp_path / "random"
        finished = vdev(f"drive entropy {entropy} --bytes 100KiB --output {output} --ring {ring} --json -")
        report = json.loads(finished.stdout)
        data = output.read_bytes()
        assert len(data) == report["bytes"] == 100 << 10
        assert data.hex().startswith(report["begins_with"])
        assert len(set(data)) == 256

    def test_they_go_to_stdout_with_the_table_beside_it(self, entropy):
        command = [sys.executable, "-m", "vdev", "drive", "entropy", entropy, "--bytes", "1000", "--output", "-"]
        finished = subprocess.run(command, capture_output=True, timeout=60, check=True)
        assert len(finished.stdout) == 1000
        assert b"1,000 B" in finished.stderr or b"1000 B" in finished.stderr


class TestBalloon:
    def test_a_guest_fills_it_and_checks_its_memory(self, vdev, balloon):
        balloon.served.do(balloon.served.device.set_target, 1000)
        finished = vdev(f"drive balloon {balloon.path} --seconds 1.5 --ram 32MiB --json -")
        report = json.loads(finished.stdout)
        assert finished.status == 0
        assert report["balloon_bytes"] == report["target_bytes"] == 1000 * 4096
        assert report["requests"]["inflate"] >= 4
        assert report["requests"]["statistics"] >= 1
        assert report["verified"]["mismatched"] == 0
        assert report["verified"]["pages"] > 1000
        assert "balloon 3.91 MiB of 3.91 MiB" in finished.stderr

    def test_it_lives_until_it_is_interrupted(self, balloon):
        command = [sys.executable, "-m", "vdev", "drive", "balloon", balloon.path, "--ram", "16MiB", "--json", "-"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert "balloon 0 B" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            stdout, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert json.loads(stdout)["verified"]["mismatched"] == 0

    def test_a_back_end_that_goes_away_is_named(self, vdev, tmp_path):
        with serving(balloon_device()) as served:
            path = served.listen(tmp_path / "balloon.sock")
            timer = threading.Timer(1.0, served.stop)
            timer.start()
            finished = vdev(f"drive balloon {path} --seconds 60 --ram 16MiB")
            timer.join()
        assert finished.status == 3
        assert f"vdev drive balloon: {path}: the back end closed the connection" in finished.stderr

    def test_its_line_says_what_changed_and_no_more(self):
        now = [0.0]
        file = io.StringIO()
        display = LineDisplay(file, lambda: now[0])
        for elapsed, size in ((0.0, 0), (0.5, 4096), (1.1, 8192), (2.2, 8192)):
            now[0] = elapsed
            display.show(BalloonSnapshot(elapsed, 8192, size, 0, 0, 7, {"inflate": size // 4096, "free_page": 0}))
        assert file.getvalue().splitlines() == [
            "    0 us  balloon 0 B of 8.00 KiB",
            "  1.10 s  balloon 8.00 KiB of 8.00 KiB, inflate 2",
        ]


NOWHERE = "/nowhere/at/all.sock"
REFUSALS = {
    f"drive block {NOWHERE}": "there is no such socket; start one",
    "drive block /etc/passwd": "nobody listens there",
    f"drive block /{'x' * 200}": "longer than 107 bytes",
    f"drive block {NOWHERE} --read 0 512": "add --output FILE",
    f"drive block {NOWHERE} --output /tmp/x": "--output gets what --read reads",
    f"drive block {NOWHERE} --exercise 5 --flush": "--exercise works alone",
    f"drive block {NOWHERE} --exercise 0": "x>=1",
    f"drive block {NOWHERE} --read 0 many --output x": "not a size like",
    f"drive block {NOWHERE} --write 0 /nowhere": "'/nowhere' does not exist",
    f"drive block {NOWHERE} --read 0 512 --output - --json -": "name the same place",
    f"drive block {NOWHERE} --read 0 512 --output /nowhere/x": "cannot write /nowhere/x",
    f"drive block {NOWHERE} --ring square": "'split', 'packed'",
    f"drive entropy {NOWHERE} --bytes 0": "asks for nothing",
    f"drive entropy {NOWHERE} --timeout 5": "a time with its unit",
    f"drive balloon {NOWHERE} --ram 1MiB": "too little for a guest",
    f"drive balloon {NOWHERE} --numbering odd": "'fixed', 'compact'",
    "drive": "Missing command",
    "drive toaster": "No such command 'toaster'",
    "drive block": "Missing argument 'SOCKET'",
}


@pytest.mark.parametrize("line", REFUSALS)
def test_what_cannot_be_done_is_refused_in_one_line(vdev, line):
    finished = vdev(line)
    assert finished.status == 2
    assert finished.stdout == ""
    assert REFUSALS[line] in finished.stderr
    assert finished.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("block {entropy}", "is no block device: {entropy} has no configuration space"),
        ("block {balloon}", "is no block device: it allows no data in a request"),
        ("balloon {entropy}", "has fewer than 2 queues: it is no balloon"),
        ("entropy {disk} --timeout 5s", "is it an entropy device?"),
        ("block {disk} --read 0 100 --output /dev/null", "not whole sectors of 512 bytes"),
        ("block {disk} --read 4MiB 512 --output /dev/null", "beyond the disk's end at 4194304"),
        ("block {disk} --discard 0 0", "give more than 0 bytes"),
        ("block {disk} --exercise 5 --queues 3", "the device has 2 queues"),
    ],
)
def test_another_kind_of_device_or_place_is_refused_in_one_line(vdev, disk, entropy, balloon, line, message):
    names = {"disk": disk, "entropy": entropy, "balloon": balloon.path}
    before = open_fd_count()
    finished = vdev("drive " + line.format(**names))
    assert finished.status in (2, 3)
    assert message.format(**names) in finished.stderr
    assert finished.stderr.count("\n") == 1
    # The served device is in this process, too, and may still be closing its end.
    assert open_fd_count() <= before + 16


def test_something_else_that_listens_is_no_back_end(vdev, tmp_path):
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def greet():
            connection, _ = listener.accept()
            with connection, contextlib.suppress(ConnectionResetError):
                connection.sendall(b"220 mail.example.org ESMTP ready\r\n")
                connection.recv(1000)

        thread = threading.Thread(target=greet)
        thread.start()
        finished = vdev(f"drive entropy {path} --timeout 10s")
        thread.join()
    assert finished.status == 2
    assert f"what listens at {path} is no vhost-user back end" in finished.stderr


def test_one_that_never_answers_is_no_back_end(vdev, tmp_path):
    path = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        finished = vdev(f"drive entropy {path} --timeout 200ms")
    assert finished.status == 2
    assert "did not answer GET_FEATURES within 0.2 s" in finished.stderr


def test_the_help_tells_every_exit_status(vdev):
    for command in ("block", "entropy", "balloon"):
        text = vdev(f"drive {command} --help").stdout
        assert all(f" {status}  " in text for status in (0, 1, 2, 3, 130)), Path(command)


def test_a_disk_says_in_its_configuration_that_it_is_none(vdev, tmp_path):
    changes = {R.GET_CONFIG: lambda _: Answer(reply(R.GET_CONFIG, b""))}
    path = tmp_path / "short.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        served = []

        def serve():
            served.append(ScriptedBackEnd(listener.accept()[0], changes))

        thread = threading.Thread(target=serve)
        thread.start()
        finished = vdev(f"drive block {path} --timeout 10s")
        thread.join()
        served[0].join()
    assert finished.status == 2
    assert f"the device at {path} is no block device: the device has no block_config" in finished.stderr
