"""The entropy device and its driver, joined."""

import random

import pytest
from device_setup import BASE, Wire, of_type, recorded_events

from guest_agent.drivers.entropy import BUFFER_SIZE, ENTROPY_DRIVER_FEATURES, EntropyDriver
from guest_agent.mmio import MmioDriver
from guest_agent.transport import DeviceRefused
from guest_agent.virtqueue import make_driver_queue
from guest_agent.virtqueue.queue import NoQueueHere
from spec.device import Feature, feature_mask
from vdev.device import Device
from vdev.devices.entropy import EntropyDevice
from vdev.errors import DriverViolation
from vdev.events import ViolationFound
from vdev.memory import GuestMemory, PageMarks

AREA = 0x1_0000
RAM_SIZE = 1 << 20


class Pair:
    """A device and its driver, started."""

    def __init__(self, source=None, features=ENTROPY_DRIVER_FEATURES, defer_kicks=False):
        self.memory = GuestMemory.private(RAM_SIZE)
        self.memory.page_marks = PageMarks(self.memory.page_count)
        self.emitter, self.seen = recorded_events()
        self.source = source or random.Random(4).randbytes
        self.device = EntropyDevice(self.memory, source=self.source, events=self.emitter)
        self.wire = Wire(self.device, defer_kicks=defer_kicks)
        self.transport = MmioDriver.probe(self.wire, BASE)
        self.driver = EntropyDriver.start(
            self.transport, self.memory, AREA, wanted_features=features, events=self.emitter
        )

    def receive(self, size=BUFFER_SIZE):
        self.driver.ask(size)
        self.driver.handle_interrupt()
        self.driver.work()
        return self.driver.take()


class Bare:
    """A device whose driver is the test itself."""

    def __init__(self):
        self.memory = GuestMemory.private(RAM_SIZE)
        self.device = EntropyDevice(self.memory, source=random.Random(4).randbytes)
        self.transport = MmioDriver(Wire(self.device), BASE)
        self.transport.acknowledge_device()
        features = self.transport.negotiate(ENTROPY_DRIVER_FEATURES)
        self.queue = make_driver_queue(self.memory, 0, 16, AREA, features)
        self.transport.set_up_queue(0, self.queue.addresses)
        self.transport.drive()

    def send(self, readable, writable):
        self.queue.add(readable, writable, 0)
        self.transport.publish(self.queue)
        return self.queue.collect()


@pytest.mark.parametrize("features", [ENTROPY_DRIVER_FEATURES, feature_mask(Feature.VERSION_1)])
def test_the_driver_gets_what_the_source_gave_and_each_byte_once(features):
    pair = Pair(features=features)
    expected = random.Random(4)
    assert pair.receive(100) == expected.randbytes(100)
    assert pair.receive(7) == expected.randbytes(7)
    assert pair.receive() == expected.randbytes(BUFFER_SIZE)
    assert pair.driver.take() == b""
    assert pair.device.given_size == pair.driver.received_size == 107 + BUFFER_SIZE


def test_without_a_source_of_ones_own_it_is_the_operating_systems():
    memory = GuestMemory.private(RAM_SIZE)
    wire = Wire(EntropyDevice(memory))
    driver = EntropyDriver.start(MmioDriver.probe(wire, BASE), memory, AREA)
    driver.ask()
    driver.work()
    assert len(set(driver.take())) > 200


@pytest.mark.parametrize("given_size", [1, 3, 63])
def test_a_device_may_write_less_than_was_asked_for(given_size):
    pair = Pair(source=lambda size: bytes(range(1, min(size, given_size) + 1)))
    assert pair.receive(64) == bytes(range(1, given_size + 1))
    assert pair.driver.gave_up is None


def test_bytes_are_taken_in_pieces_and_wiped_from_ram():
    pair = Pair(source=lambda size: bytes([0xAA]) * size)
    pair.driver.ask(10)
    pair.driver.work()
    assert not pair.driver.ask()
    assert pair.memory.read(0, RAM_SIZE).count(b"\xaa") == 10
    assert [len(pair.driver.take(limit)) for limit in (4, 0, 100, 1)] == [4, 0, 6, 0]
    assert pair.memory.read(0, RAM_SIZE).count(b"\xaa") == 0
    assert pair.driver.ask()


def test_one_request_is_under_way_at_a_time():
    pair = Pair(defer_kicks=True)
    assert pair.driver.ask(8)
    assert not pair.driver.ask(8)
    assert not pair.driver.work()
    pair.wire.deliver_kicks()
    pair.driver.work()
    assert pair.driver.available_size == 8


@pytest.mark.parametrize("size", [0, -1, BUFFER_SIZE + 1])
def test_a_request_of_an_impossible_size_is_the_callers_mistake(size):
    with pytest.raises(ValueError, match="a request is for"):
        Pair().driver.ask(size)


def test_a_buffer_in_pieces_is_filled_as_one():
    bare = Bare()
    segments = [(0x8000, 5), (0x9000, 0), (0xA000, 11)]
    used = bare.send([], segments)
    assert used.written_size == 16
    assert b"".join(bare.memory.read(*segment) for segment in segments) == random.Random(4).randbytes(16)


def test_a_huge_buffer_gets_a_bounded_part():
    bare = Bare()
    assert bare.send([], [(0x8_0000, 0x8_0000)]).written_size == 4096


@pytest.mark.parametrize(
    ("readable", "writable", "message"),
    [
        ([(0x8000, 4)], [], "a device-readable buffer"),
        ([(0x8000, 4)], [(0x9000, 4)], "a device-readable buffer"),
        ([], [(0x8000, 0)], "without room"),
    ],
)
def test_a_buffer_that_cannot_be_filled_is_the_drivers_fault(readable, writable, message):
    bare = Bare()
    assert bare.send(readable, writable) is None
    assert bare.transport.needs_reset
    assert bare.device.violation.queue == 0
    with pytest.raises(type(bare.device.violation), match=message):
        raise bare.device.violation


class Miser(Device):
    """Gives buffers back without a byte."""

    device_id = 4
    name = "miser"
    queue_sizes = (8,)

    def handle_queue(self, number):
        for chain in self.chains(number):
            self.queues[number].push(chain.head, 0)


def test_a_device_that_gives_nothing_is_given_up():
    memory = GuestMemory.private(RAM_SIZE)
    emitter, seen = recorded_events()
    device = Miser(memory)
    driver = EntropyDriver.start(MmioDriver.probe(Wire(device), BASE), memory, AREA, events=emitter)
    driver.ask()
    driver.work()
    assert "without a byte" in driver.gave_up
    assert [event.side for event in of_type(seen, ViolationFound)] == ["device"]
    assert not driver.ask()
    assert not device.running


def test_a_device_that_needs_a_reset_is_given_up():
    pair = Pair(defer_kicks=True)
    pair.driver.ask()
    pair.device.needs_reset(DriverViolation("somewhere", "something"))
    pair.driver.work()
    assert "DEVICE_NEEDS_RESET" in pair.driver.gave_up


class NoQueue(EntropyDevice):
    queue_sizes = (0,)


def test_a_device_without_its_queue_is_refused():
    memory = GuestMemory.private(RAM_SIZE)
    with pytest.raises(DeviceRefused, match="without its queue"):
        EntropyDriver.start(MmioDriver.probe(Wire(NoQueue(memory)), BASE), memory, AREA)


def test_housekeeping_stirs_new_bytes_into_the_seed():
    pair = Pair()
    seeds = set()
    for _ in range(4):
        pair.driver.housekeep(0.0)
        pair.driver.work()
        seeds.add(pair.driver.seed)
    assert len(seeds) == 4
    again = Pair()
    for _ in range(4):
        again.driver.housekeep(0.0)
        again.driver.work()
    assert again.driver.seed == pair.driver.seed


def test_both_ends_go_on_after_a_move_with_a_request_under_way():
    pair = Pair(defer_kicks=True)
    pair.driver.ask(12)
    memory = GuestMemory.private(RAM_SIZE)
    for page in range(memory.page_count):
        if pair.memory.page_marks.marks[page]:
            memory.write(page << 12, pair.memory.read(page << 12, 4096))
    device = EntropyDevice(memory, source=random.Random(4).randbytes)
    device.restore(pair.device.save())
    driver = EntropyDriver.resume(MmioDriver(Wire(device), BASE), memory, AREA)
    device.handle_all_queues()
    driver.work()
    assert driver.take() == random.Random(4).randbytes(12)
    assert driver.features == pair.driver.features


def test_no_area_no_driver():
    with pytest.raises(NoQueueHere, match="no entropy driver's area"):
        EntropyDriver.resume(
            MmioDriver(Wire(EntropyDevice(GuestMemory.private(RAM_SIZE))), BASE), GuestMemory.private(RAM_SIZE), AREA
        )
