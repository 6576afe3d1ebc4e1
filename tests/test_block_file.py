"""The file behind a disk: its errors become statuses and events, and what cannot be a disk is refused."""

import os
import resource

import numpy as np
import pytest
from block_setup import DATA, SECTOR, disk_pair
from device_setup import of_type

from spec.block import RequestStatus
from vdev.devices.block import BlockFile
from vdev.errors import UserError
from vdev.events import RequestFailed, ViolationFound


def noise(size, seed=1):
    return np.random.default_rng(seed).bytes(size)


# Errors of the file


def test_a_full_disk_fails_the_write_with_a_status_and_an_event():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with disk_pair() as pair:
        os.ftruncate(pair.file.fd, 100 * SECTOR)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100 * SECTOR, before[1]))
        try:
            assert not pair.write(99, b"a" * SECTOR).failed
            assert pair.write(100, b"a" * SECTOR).status is RequestStatus.IOERR
            # The first sector still fits, so the call is cut short before it fails.
            assert pair.write(99, b"b" * 2 * SECTOR).status is RequestStatus.IOERR
            assert pair.read(99, SECTOR) == b"b" * SECTOR
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        (first, second) = of_type(pair.seen, RequestFailed)
        assert first == second == RequestFailed("block", 0, "OUT", "File too large")
        assert pair.device.failed_count == 2
        assert pair.device.running


def test_dev_full_is_a_disk_without_room():
    fd = os.open("/dev/full", os.O_RDWR)
    with disk_pair(BlockFile(fd, 64 * SECTOR)) as pair:
        assert pair.write(3, b"a" * SECTOR).status is RequestStatus.IOERR
        assert pair.read(3, SECTOR) == bytes(SECTOR)
        assert [event.reason for event in of_type(pair.seen, RequestFailed)] == ["No space left on device"]


def test_a_file_that_became_shorter_fails_the_read():
    with disk_pair() as pair:
        os.ftruncate(pair.file.fd, 10 * SECTOR)
        assert pair.do(pair.driver.submit_read, 9, [(DATA, 2 * SECTOR)]).status is RequestStatus.IOERR
        assert "ends at byte 5120" in of_type(pair.seen, RequestFailed)[0].reason


def test_a_descriptor_that_is_gone_is_the_hosts_trouble_and_not_the_drivers():
    with disk_pair() as pair:
        os.close(pair.file.fd)
        for submit, arguments in (
            (pair.driver.submit_read, (0, [(DATA, SECTOR)])),
            (pair.driver.submit_flush, ()),
            (pair.driver.submit_discard, ([(0, 1)],)),
            (pair.driver.submit_write_zeroes, ([(0, 1)],)),
        ):
            assert pair.do(submit, *arguments).status is RequestStatus.IOERR
        assert not of_type(pair.seen, ViolationFound)
        assert [event.reason for event in of_type(pair.seen, RequestFailed)] == ["Bad file descriptor"] * 4
        pair.file.fd = -1


# Opening files


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, "No such file.*make the disk first"),
        (lambda path: path.mkdir() or path, "neither a file nor a block device|Is a directory; name a file"),
        (lambda path: path.write_bytes(b"x" * 1000) and path, "1000 bytes, not whole sectors.*truncate -s %512"),
        (lambda path: path.touch() or path, "is empty; give it a size first"),
        (lambda path: os.mkfifo(path) or path, "neither a file nor a block device"),
        (lambda path: "/dev/full", "neither a file nor a block device"),
    ],
)
@pytest.mark.parametrize("read_only", [False, True])
def test_what_cannot_be_a_disk_is_refused_in_one_line(tmp_path, make, message, read_only):
    opened = len(os.listdir("/proc/self/fd"))
    with pytest.raises(UserError, match=message) as refusal:
        BlockFile.open(make(tmp_path / "disk"), read_only=read_only)
    assert "\n" not in str(refusal.value)
    assert len(os.listdir("/proc/self/fd")) == opened


def test_a_file_without_permission_says_what_to_do(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match="Permission denied to write; ask for a read-only disk"):
        BlockFile.open(tmp_path / "disk")
    with pytest.raises(UserError, match=r"Permission denied$"):
        BlockFile.open(tmp_path / "disk", read_only=True)


def test_a_file_on_the_file_system_is_a_disk(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(noise(64 * SECTOR))
    with disk_pair(BlockFile.open(path)) as pair:
        assert pair.driver.capacity == 64
        assert not pair.write(63, b"z" * SECTOR).failed
        assert not pair.do(pair.driver.submit_write_zeroes, [(0, 9)]).failed
        assert not pair.do(pair.driver.submit_discard, [(8, 8)]).failed
    assert path.read_bytes()[-SECTOR:] == b"z" * SECTOR
    assert path.read_bytes()[: 9 * SECTOR] == bytes(9 * SECTOR)
