"""The block driver believes no device: what it checks, and what becomes of it then."""

import pytest
from block_setup import AREA, DATA, DISK_SECTORS, SECTOR, disk_pair, new_memory
from device_setup import BASE, Wire, of_type, recorded_events
from hypothesis import given
from hypothesis import strategies as st

from guest_agent.drivers.block import BlockDriver
from guest_agent.drivers.block.parts import Limits, split_ranges, split_transfer
from guest_agent.mmio import MmioDriver
from guest_agent.transport import DeviceRefused
from spec.block import CONFIG, BlockFeature
from spec.device import DeviceStatus, feature_mask
from vdev.device import RING_FEATURES, Device
from vdev.errors import DeviceViolation
from vdev.events import ViolationFound


class Liar(Device):
    """A disk that answers every request with one status byte and one length, whatever was asked."""

    device_id = 2
    name = "liar"
    queue_sizes = (64,)
    offered_features = RING_FEATURES | feature_mask(BlockFeature.FLUSH, BlockFeature.SEG_MAX)
    config_layout = CONFIG
    status_byte: bytes = b""
    written_size = 0

    def __init__(self, memory):
        super().__init__(memory)
        self.store_config(capacity=100, seg_max=4)

    def handle_queue(self, number):
        for chain in self.chains(number):
            if self.status_byte:
                status = chain.writable[-1]
                self.memory.write(status.address + status.size - 1, self.status_byte)
            self.queues[number].push(chain.head, self.written_size)


def started(device, memory, events=None):
    wire = Wire(device)
    options = {"events": events} if events else {}
    return BlockDriver.start(MmioDriver.probe(wire, BASE), memory, AREA, queue_size=64, **options)


LIES = {
    "no status": (b"", SECTOR + 1, "status 255"),
    "a status of none of the kinds": (b"\x03", SECTOR + 1, "status 3"),
    "success without the data": (b"\0", SECTOR, "status 0 and 512 bytes"),
    "nothing written": (b"\x01", 0, "status 1 and 0 bytes"),
}


@pytest.mark.parametrize(("status_byte", "written_size", "message"), LIES.values(), ids=LIES.keys())
def test_a_device_that_lies_is_named_and_given_up(status_byte, written_size, message):
    memory = new_memory()
    emitter, seen = recorded_events()
    device = Liar(memory)
    device.status_byte, device.written_size = status_byte, written_size
    driver = started(device, memory, emitter)
    driver.submit_read(0, [(DATA, SECTOR)], 1)
    driver.publish()
    with pytest.raises(DeviceViolation, match=message) as violation:
        driver.collect()
    assert violation.value.queue == 0
    assert message in driver.gave_up
    assert device.status == DeviceStatus.FAILED
    assert [event.side for event in of_type(seen, ViolationFound)] == ["device"]
    assert driver.collect() == []
    with pytest.raises(DeviceRefused, match="was given up"):
        driver.submit_flush(2)


def test_a_failure_needs_no_more_than_its_status():
    memory = new_memory()
    device = Liar(memory)
    device.status_byte, device.written_size = b"\x01", 1
    driver = started(device, memory)
    driver.submit_read(0, [(DATA, SECTOR)], 1)
    driver.publish()
    (completion,) = driver.collect()
    assert completion.failed


class Narrow(Liar):
    queue_sizes = (2,)


class Queueless(Liar):
    queue_sizes = (0,)


@pytest.mark.parametrize("kind", [Narrow, Queueless])
def test_a_queue_without_room_for_a_request_is_refused(kind):
    memory = new_memory()
    with pytest.raises(DeviceRefused, match="no room for a request"):
        started(kind(memory), memory)


def test_a_disk_that_grew_is_larger_after_the_interrupt():
    with disk_pair() as pair:
        pair.device.change_config(capacity=2 * DISK_SECTORS)
        assert pair.driver.capacity == DISK_SECTORS
        pair.driver.handle_interrupt()
        assert pair.driver.work() is False
        assert pair.driver.capacity == 2 * DISK_SECTORS
        assert pair.moved_driver().capacity == 2 * DISK_SECTORS


def test_a_part_that_fails_fails_the_whole():
    with disk_pair() as pair:
        pair.device.change_config(capacity=2 * DISK_SECTORS)  # and the file does not know
        pair.driver.handle_interrupt()
        pair.driver.work()
        size = 33 * (32 << 10)
        first = DISK_SECTORS - (32 << 10) // SECTOR * 32
        done = pair.do(pair.driver.submit_read, first, [(DATA, size)])
        assert done.failed
        assert pair.device.request_count == 2
        assert pair.device.failed_count == 1
        assert pair.driver.queues[0].free_count == pair.driver.queues[0].size


# Cutting into parts


@given(
    sizes=st.lists(st.integers(0, 3000), max_size=12),
    size_max=st.integers(1, 4096),
    seg_max=st.integers(1, 6),
)
def test_parts_are_the_same_bytes_in_the_same_order_within_the_limits(sizes, size_max, seg_max):
    surplus = -sum(sizes) % SECTOR
    segments = [(n << 16, size) for n, size in enumerate([*sizes, surplus or SECTOR])]
    limits = Limits(size_max, seg_max)
    try:
        parts = split_transfer(7, segments, limits)
    except ValueError as error:
        assert "do not hold a sector" in str(error)  # noqa: PT017
        assert size_max * seg_max < SECTOR or min(size for _, size in segments) < SECTOR
        return
    wanted = [address + offset for address, size in segments for offset in range(size)]
    got = [address + offset for part in parts for address, size in part.segments for offset in range(size)]
    assert got == wanted
    sector = 7
    for part in parts:
        assert part.sector == sector
        assert part.size == sum(size for _, size in part.segments)
        assert part.size % SECTOR == 0
        assert len(part.segments) <= seg_max
        assert max(size for _, size in part.segments) <= size_max
        sector += part.size // SECTOR


@given(
    ranges=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 50)), max_size=6),
    sectors_max=st.integers(1, 20),
    ranges_max=st.integers(1, 4),
)
def test_ranges_keep_their_sectors_within_the_limits(ranges, sectors_max, ranges_max):
    groups = split_ranges(ranges, sectors_max, ranges_max)
    wanted = [at for sector, count in ranges for at in range(sector, sector + count)]
    assert [at for group in groups for sector, count in group for at in range(sector, sector + count)] == wanted
    assert all(0 < len(group) <= ranges_max for group in groups)
    assert all(0 < count <= sectors_max for group in groups for _, count in group)
