"""The kernel's dirty log, with a real process that writes."""

import mmap
import os
import subprocess
import sys

import pytest

from host_migrator.dirty_log import KernelDirtyLog, kernel_log_missing
from host_migrator.errors import DirtyLogLost
from vdev.memory import GuestMemory, MemfdBacking, PageMarks, Region

missing = kernel_log_missing()
pytestmark = [
    pytest.mark.process,
    pytest.mark.kernel_dirty_log,
    pytest.mark.skipif(missing is not None, reason=f"no kernel dirty log here: {missing}"),
]

WRITER = """
import mmap, os, sys
import numpy as np
from vdev.memory.write_protect import register_for_kernel_log
maps = []
for fd, size in zip(map(int, sys.argv[1::2]), map(int, sys.argv[2::2])):
    mapping = mmap.mmap(fd, size)
    address = int(np.frombuffer(mapping, np.uint8).ctypes.data)
    maps.append((mapping, register_for_kernel_log(address, size)))
    print(address)
print("ready", flush=True)
for line in sys.stdin:
    act, number, page = line.split()
    mapping = maps[int(number)][0]
    if act == "write":
        mapping[int(page) * 4096 + 100] = 1
    elif act == "read":
        mapping[int(page) * 4096 + 100]
    else:
        fd = os.memfd_create("file")
        os.write(fd, bytes(8192))
        os.preadv(fd, [memoryview(mapping)[int(page) * 4096:][:8192]], 0)
    print("done", flush=True)
"""


class Writer:
    """A process that has the memory mapped and registered, and writes when told."""

    def __init__(self, memory):
        arguments = [str(value) for region in memory.regions for value in (region.backing.fd, region.size)]
        fds = [region.backing.fd for region in memory.regions]
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=fds,
        )
        self.pid = self.process.pid
        self.addresses = [int(self.process.stdout.readline()) for _ in fds]
        assert self.process.stdout.readline() == "ready\n"

    def __call__(self, act, region, page):
        self.process.stdin.write(f"{act} {region} {page}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def end(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


@pytest.fixture
def memory():
    regions = [Region(0, MemfdBacking(64 * 4096)), Region(1 << 30, MemfdBacking(32 * 4096))]
    yield GuestMemory(regions, PageMarks(96))
    for region in regions:
        region.backing.close()


@pytest.fixture
def writer(memory):
    writer = Writer(memory)
    yield writer
    writer.end()


@pytest.fixture
def log(memory, writer):
    log = KernelDirtyLog(writer.pid, writer.addresses, memory, memory.page_marks)
    yield log
    log.stop()


def taken(log):
    return sorted(page for ranges in log.take() for page in ranges.to_pages().tolist())


def test_stores_of_the_other_process_are_seen_once_each_with_dense_page_numbers(log, writer):
    writer("write", 0, 9)
    log.start()
    assert taken(log) == []
    writer("write", 0, 3)
    writer("write", 0, 4)
    writer("write", 1, 5)
    assert taken(log) == [3, 4, 64 + 5]
    assert taken(log) == []
    writer("write", 0, 3)
    assert taken(log) == [3]


def test_reading_makes_nothing_dirty(log, writer):
    log.start()
    writer("read", 0, 3)
    assert taken(log) == []


def test_a_system_call_that_fills_guest_memory_is_seen(log, writer):
    log.start()
    writer("preadv", 1, 10)
    assert taken(log) == [74, 75]


def test_what_the_host_wrote_comes_from_its_marks(log, memory):
    log.start()
    memory.write(5 * 4096, b"device")
    assert taken(log) == [5]


def test_an_untouched_page_that_the_guest_writes_first_is_seen(log, writer, memory):
    log.start()
    assert memory.regions[0].backing.resident_size() == 0
    writer("write", 0, 60)
    assert taken(log) == [60]


def test_more_ranges_than_one_system_call_returns_all_come():
    size = 3 * 8192 * 4096
    region = Region(0, MemfdBacking(size))
    memory = GuestMemory([region])
    from vdev.memory.write_protect import register_for_kernel_log

    watch = register_for_kernel_log(region.backing.host_address, size)
    log = KernelDirtyLog(os.getpid(), [region.backing.host_address], memory, None)
    try:
        log.start()
        region.backing.data[:: 2 * 4096] = 1
        assert taken(log) == list(range(0, 3 * 8192, 2))
        assert taken(log) == []
    finally:
        log.stop()
        os.close(watch)
        region.backing.close()


def test_a_process_that_is_gone_is_an_error_with_its_number(memory):
    writer = Writer(memory)
    log = KernelDirtyLog(writer.pid, writer.addresses, memory, None)
    log.start()
    writer.end()
    with pytest.raises(DirtyLogLost, match=str(writer.pid)):
        taken(log)
    log.stop()
    with pytest.raises(DirtyLogLost, match=str(writer.pid)):
        log.start()


def test_the_probe_leaves_no_file_descriptor_open():
    before = len(os.listdir("/proc/self/fd"))
    assert kernel_log_missing() is None
    assert len(os.listdir("/proc/self/fd")) == before
    assert mmap.PAGESIZE == 4096
