"""Other people's disks driven by our driver, and our disk driven by another driver than Linux's."""

import hashlib
import json
import pathlib
import random
import subprocess

import pytest
import trio
from peers import parts
from peers.back_end import served_block, serving
from peers.daemon import daemon
from peers.have import have

from spec.device import Feature
from vdev.run.drive import DriveOptions
from vdev.run.drive_exercise import ExerciseOptions, exercise_block

pytestmark = pytest.mark.process

MIB = 1 << 20
DISK_SIZE = 32 * MIB
REQUEST_COUNT = 10_000


def storage_daemon(tree, disk, socket, queue_count):
    """The command line of a qemu-storage-daemon that serves a file as a vhost-user block device."""
    return [
        *tree.command("usr/bin/qemu-storage-daemon"),
        *("--blockdev", f"driver=file,node-name=disk,filename={disk},discard=unmap"),
        "--export",
        f"type=vhost-user-blk,id=export,node-name=disk,writable=on,num-queues={queue_count},"
        f"addr.type=unix,addr.path={socket}",
    ]


@pytest.mark.peer_storage_daemon
@pytest.mark.parametrize("tree", [parts.BOOKWORM, parts.BACKPORTS], ids=["QEMU 7.2", "QEMU 11.1"])
def test_10000_random_requests_leave_qemus_disk_as_our_driver_says(tree, tmp_path):
    disk, wanted, socket = tmp_path / "disk", tmp_path / "wanted", tmp_path / "s"
    disk.write_bytes(random.Random(1).randbytes(DISK_SIZE))
    command = have(lambda: storage_daemon(tree, disk, socket, queue_count=2))
    compare = have(lambda: tree.command("usr/bin/qemu-img"))
    with daemon(command, socket, tmp_path / "log"), wanted.open("wb") as file:
        options = ExerciseOptions(REQUEST_COUNT, seed=11, depth=16, queue_count=2, span=DISK_SIZE)
        report = exercise_block(DriveOptions(str(socket)), options, file)
    exercise = report["exercise"]
    assert exercise["mismatched_sectors"] == []
    assert exercise["reads"] + exercise["writes"] >= REQUEST_COUNT
    assert min(exercise["reads"], exercise["writes"]) >= REQUEST_COUNT // 3
    assert report["capacity_bytes"] == exercise["span_bytes"] == wanted.stat().st_size == DISK_SIZE
    # Another program reads both files: identical is what its status 0 says.
    compared = subprocess.run(
        [*compare, "compare", "-f", "raw", "-F", "raw", str(disk), str(wanted)], capture_output=True, timeout=60
    )
    assert (compared.returncode, compared.stdout) == (0, b"Images are identical.\n")


@pytest.fixture
def blkio():
    """The command that drives a disk with libblkio; its arguments are those of ``peers/blkio_driver.py``."""
    python = have(lambda: parts.TRIXIE.command("usr/bin/python3"))
    library = have(lambda: parts.TRIXIE.find("usr/lib/x86_64-linux-gnu/libblkio.so.1"))
    program = pathlib.Path(parts.__file__).with_name("blkio_driver.py")
    return ["env", f"PYTHONHOME={parts.TRIXIE.root / 'usr'}", *python, str(program), str(library)]


@pytest.mark.peer_libblkio
@pytest.mark.parametrize("depth", [1, 32])
async def test_libblkio_reads_from_our_disk_what_it_wrote(depth, blkio, tmp_path):
    content = random.Random(2).randbytes(8 * MIB)
    (tmp_path / "disk").write_bytes(content)
    disk = served_block(tmp_path / "disk", Feature.EVENT_IDX, Feature.INDIRECT_DESC)
    command = [*blkio, str(tmp_path / "s"), "12", "3000", str(depth)]
    async with serving(disk, tmp_path / "s"):
        with trio.fail_after(60):
            done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        assert disk.failed_count == 0
    disk.close()
    report = json.loads(done.stdout)
    assert report["capacity"] == len(content)
    assert report["first"] == hashlib.sha256(content).hexdigest()
    assert report["last"] == hashlib.sha256((tmp_path / "disk").read_bytes()).hexdigest()
    assert sum(report["counts"].values()) == 3000
    assert min(report["counts"].values()) > 50
    assert disk.request_count >= 3000
