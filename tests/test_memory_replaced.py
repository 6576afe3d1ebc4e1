"""Guest RAM that is told late, and changed while a device works: as a vhost-user front end does."""

import gc
import os
import re
from pathlib import Path

import numpy as np
import pytest
from device_setup import BalloonPair

from spec.device import DeviceStatus
from vdev.devices.balloon import BalloonDevice
from vdev.errors import GuestAddressError
from vdev.memory import FileBacking, GuestMemory, MemfdBacking, PageRanges, PrivateBacking, Region

MIB = 1 << 20


def test_absent_ram_holds_no_address():
    memory = GuestMemory.absent()
    assert (memory.page_count, memory.size, memory.regions) == (0, 0, ())
    assert not memory.contains(0, 0)
    assert not memory.contains_many(np.array([0, 1 << 63], np.uint64), np.array([0, 1], np.uint64)).any()
    with pytest.raises(GuestAddressError, match="outside guest RAM"):
        memory.read(0, 1)


def test_regions_that_no_ram_can_have_change_nothing():
    memory = GuestMemory.private(MIB)
    before = memory.regions
    with pytest.raises(ValueError, match="overlap"):
        memory.replace_regions([Region(0, PrivateBacking(MIB)), Region(MIB // 2, PrivateBacking(MIB))])
    with pytest.raises(GuestAddressError, match=r"past 2\^64"):
        memory.replace_regions([Region((1 << 64) - 4096, PrivateBacking(MIB))])
    assert memory.regions == before


def test_part_of_a_file_is_mapped_and_given_back_at_its_offset():
    file = MemfdBacking(4 * MIB)
    file.data[:] = 7
    part = FileBacking(os.dup(file.fd), MIB, 2 * MIB)
    part.data[0] = 9
    assert file.data[2 * MIB] == 9
    before = file.resident_size()
    part.give_back(4096, 8192)
    assert before - file.resident_size() == 8192
    assert not file.data[2 * MIB + 4096 : 2 * MIB + 12288].any()
    assert file.data[2 * MIB + 12288] == 7
    part.close()
    part.close()
    assert part.fd == -1
    file.close()


def test_a_file_may_end_inside_its_last_page():
    fd = os.memfd_create("short")
    os.ftruncate(fd, 4096 + 100)
    backing = FileBacking(fd, 8192, 0)
    backing.data[4096:] = 5
    assert os.pread(fd, 8192, 4096) == bytes([5]) * 100
    backing.close()
    with pytest.raises(OSError, match="mmap of 8192 bytes"):
        FileBacking(fd, 8192, 0)


def test_a_mapping_goes_with_its_last_view():
    def mappings():
        with open("/proc/self/maps") as maps:
            return sum("short-lived" in line for line in maps)

    fd = os.memfd_create("short-lived")
    os.ftruncate(fd, 8192)
    backing = FileBacking(fd, 8192, 0)
    view = backing.data[4096:].view(np.uint64)
    backing.close()
    del backing
    gc.collect()
    assert mappings() == 1
    view[0] = 1
    del view
    gc.collect()
    assert mappings() == 0


def test_a_running_balloon_keeps_its_rings_and_its_pages_when_ram_is_mapped_anew():
    pair = BalloonPair()
    pair.device.set_target(40)
    pair.settle()
    assert pair.device.actual == 40
    addresses = pair.memory.addresses_of(np.flatnonzero(pair.device.inflation.inflated))
    [old] = pair.memory.regions
    # The same bytes, and a region below them: every page number moves.
    pair.device.replace_memory([Region(1 << 40, PrivateBacking(MIB)), old])
    assert pair.device.inflation.inflated_count == 40
    assert (pair.memory.addresses_of(np.flatnonzero(pair.device.inflation.inflated)) == addresses).all()
    pair.device.set_target(0)
    pair.settle()
    assert (pair.device.actual, pair.device.violation) == (0, None)


def test_a_ring_that_is_no_longer_in_ram_needs_a_reset():
    pair = BalloonPair()
    pair.device.replace_memory([Region(1 << 40, PrivateBacking(MIB))])
    assert pair.device.status & DeviceStatus.DEVICE_NEEDS_RESET
    assert pair.device.queues == {}
    assert "not wholly in RAM" in str(pair.device.violation)


def test_ranges_over_new_regions_are_numbered_anew():
    memory = GuestMemory.private(MIB)
    memory.replace_regions([Region(0, PrivateBacking(MIB)), Region(4 * MIB, PrivateBacking(MIB))])
    assert memory.page_count == 512
    ranges = memory.page_ranges_inside(np.array([4 * MIB], np.uint64), np.array([8192], np.uint64))
    assert (ranges.first.tolist(), ranges.end.tolist()) == ([256], [258])
    assert memory.give_back(PageRanges.of((255, 257))) == 0


def test_what_is_given_back_of_a_file_with_two_regions_counts_once():
    whole = MemfdBacking(8 * MIB)
    low, high = (FileBacking(os.dup(whole.fd), 4 * MIB, offset) for offset in (0, 4 * MIB))
    memory = GuestMemory([Region(0, low), Region(1 << 32, high)])
    memory.write(0, b"x" * MIB)
    memory.write(1 << 32, b"x" * MIB)
    assert memory.give_back(PageRanges.of((255, 257), (1024, 1026))) == 3 * 4096
    for backing in (low, high, whole):
        backing.close()


def peak_size():
    """The most memory that this process has had since the peak was reset, bytes."""
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1))


def test_a_balloon_of_immense_ram_costs_what_is_in_it():
    file = os.memfd_create("ram")
    os.ftruncate(file, 2 << 40)
    backing = FileBacking(file, 2 << 40, 0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak_size()
    memory = GuestMemory([Region(0, backing)])
    device = BalloonDevice(memory)
    device.replace_memory([Region(0, backing)])
    device.reset()
    memory.write(0, b"x" * 4096)
    assert memory.give_back(PageRanges.of((0, 1))) == 4096
    # A byte for each page would be 512 MiB, and as many again for each look at what is resident.
    assert peak_size() - before < 16 * MIB
    backing.close()
