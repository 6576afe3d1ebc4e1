"""A guest's driver and the host's device joined in one process, for tests of both."""

import struct

import numpy as np

from guest_agent.allocator import BuddyAllocator
from guest_agent.drivers.balloon import BALLOON_DRIVER_FEATURES, BalloonDriver, HintBehaviour
from guest_agent.marked_ram import MarkedRam
from guest_agent.mmio import MmioDriver
from guest_agent.page_database import Owner, PageDatabase
from guest_agent.ram_layout import BootPage
from guest_agent.virtqueue import make_driver_queue
from spec.balloon import CONFIG, BalloonQueue, HintAnswer, QueueNumbering, StatisticTag, queue_numbers
from spec.device import Feature, feature_mask
from spec.mmio import Register
from vdev.device import Device
from vdev.devices.balloon import BalloonDevice
from vdev.events import Event, EventStream
from vdev.memory import GuestMemory, PageMarks
from vdev.mmio import MmioRegisters

BASE = 0xFEB0_0000
RAM_SIZE = 64 << 20
RINGS = {
    "split": 0,
    "packed": feature_mask(Feature.RING_PACKED),
    "packed-in-order": feature_mask(Feature.RING_PACKED, Feature.IN_ORDER),
    "split-in-order": feature_mask(Feature.IN_ORDER),
}


class Ring:
    """Which ring the drivers below may use; the fixture `each_ring` changes it."""

    allowed = RINGS["split"]

    @classmethod
    def masked(cls, features):
        """Return `features` without the rings that are not to be used."""
        return features & ~RINGS["packed-in-order"] | features & cls.allowed


class Wire:
    """The guest's exits and the device's interrupts, as plain calls.

    With `defer_kicks` a write to QueueNotify waits until `deliver_kicks`, as with an ioeventfd.
    """

    def __init__(self, device: Device, *, defer_kicks: bool = False):
        self.events = EventStream(lambda: 0.0)
        self.registers = MmioRegisters(device, events=self.events.emitter("host"))
        self.device = device
        self.defer_kicks = defer_kicks
        self.kicks: list[int] = []
        self.kick_count = 0
        self.interrupt_count = 0
        device.interrupt = self._interrupt

    def _interrupt(self):
        self.interrupt_count += 1

    def read(self, address, size):
        return self.registers.read(address - BASE, size)

    def write(self, address, size, value):
        if address == BASE + Register.QUEUE_NOTIFY:
            self.kick_count += 1
            if self.defer_kicks:
                self.kicks.append(value)
                return
        self.registers.write(address - BASE, size, value)

    def deliver_kicks(self):
        kicks, self.kicks = self.kicks, []
        for value in kicks:
            self.registers.write(Register.QUEUE_NOTIFY, 4, value)


class LyingWire(Wire):
    """Answers some registers by itself, and hides some writes from the device."""

    def __init__(self, device, answers=None, hidden=()):
        super().__init__(device)
        self.answers = answers or {}
        self.hidden = hidden

    def read(self, address, size):
        register = address - BASE
        return self.answers[register] if register in self.answers else super().read(address, size)

    def write(self, address, size, value):
        if address - BASE not in self.hidden:
            super().write(address, size, value)


def recorded_events():
    """Return an emitter, and the list that its events end up in."""
    stream, seen = EventStream(lambda: 0.0), []
    stream.subscribe(lambda record: seen.append(record.event))
    return stream.emitter("test"), seen


def of_type(seen: list[Event], kind: type[Event]) -> list:
    return [event for event in seen if isinstance(event, kind)]


class Guest:
    """RAM with the guest's real allocator, and one area for a driver."""

    def __init__(self, size=RAM_SIZE, poison_value=None, queue_size=128, memory=None):
        self.memory = GuestMemory.private(size) if memory is None else memory
        self.memory.page_marks = PageMarks(self.memory.page_count)
        self.ram = MarkedRam(self.memory)
        self.boot = BootPage.create(self.ram, poison_value)
        self.poison_value = poison_value
        self.allocator = BuddyAllocator.create(self.boot, PageDatabase(self.ram, self.boot["database_address"]))
        pages = BalloonDriver.area_size(queue_size) >> 12
        order = (pages - 1).bit_length()
        self.area_address = self.memory.address_of(self.allocator.allocate(order, Owner.DRIVER))

    def held(self, owner):
        """Return how many pages `owner` holds."""
        return int((1 << self.allocator.blocks_of(owner).orders).sum())


class Hints:
    """Takes hints for a test: `pages` has them, one by one, and `on_take` says how many are new.

    With `keeps` each batch of buffers stays in hand. `ends` counts answers that ended.
    """

    def __init__(self, on_take=lambda ranges: ranges.page_count, *, keeps=False):
        self.pages: list[int] = []
        self.on_take = on_take
        self.keeps = keeps
        self.ends = 0
        self.batch_count = 0

    def take(self, ranges):
        self.pages.extend(ranges.to_pages().tolist())
        return self.on_take(ranges)

    def answer_ended(self):
        self.ends += 1

    def batch_taken(self):
        self.batch_count += 1
        return not self.keeps


class BalloonPair:
    """A balloon device and its driver, started, with an empty ring each."""

    def __init__(
        self,
        *,
        features=BALLOON_DRIVER_FEATURES,
        numbering=QueueNumbering.FIXED,
        queue_size=128,
        poison_value=None,
        defer_kicks=False,
        listen=False,
        size=RAM_SIZE,
        memory=None,
        behaviour=None,
        interval_field=False,
    ):
        emitter, self.seen = recorded_events()
        self.guest = Guest(size, poison_value, queue_size, memory)
        self.memory = self.guest.memory
        self.events = {"events": emitter} if listen else {}
        self.numbering = numbering
        behaviour = HintBehaviour() if behaviour is None else behaviour
        self.device = BalloonDevice(
            self.memory,
            numbering=numbering,
            hint_answer=behaviour.answer,
            refresh_interval_field=interval_field,
            **self.events,
        )
        self.wire = Wire(self.device, defer_kicks=defer_kicks)
        self.statistics = {int(StatisticTag.FREE_MEMORY): 1, int(StatisticTag.TOTAL_MEMORY): 2}
        self.driver = BalloonDriver.start(
            MmioDriver.probe(self.wire, BASE),
            self.memory,
            self.guest.allocator,
            self.guest.area_address,
            statistics=lambda: self.statistics,
            wanted_features=Ring.masked(features),
            queue_size=queue_size,
            numbering=numbering,
            poison_value=poison_value,
            hint_behaviour=behaviour,
        )
        self.settle()

    def settle(self, limit=10_000):
        """Let both act until neither has anything to do."""
        for _ in range(limit):
            if self.wire.interrupt_count:
                self.wire.interrupt_count = 0
                self.driver.handle_interrupt()
            if self.driver.work():
                continue
            if self.wire.kicks:
                self.wire.deliver_kicks()
                continue
            if not self.wire.interrupt_count:
                return
        raise AssertionError("device and driver never come to rest")

    def hints(self, wanted=True):
        """Make the device's sink collect pages; return the list that they end up in."""
        hints = Hints()
        self.device.hinting.sink = hints if wanted else None
        return hints.pages


def u64(*values):
    return np.array(values, np.uint64)


class BareBalloon:
    """A balloon device whose driver is the test itself: it posts what a well-behaved driver would not."""

    def __init__(
        self,
        *,
        features=BALLOON_DRIVER_FEATURES,
        listen=True,
        memory=None,
        poison_value=None,
        size=16 << 20,
        hint_answer=HintAnswer.LIST,
    ):
        emitter, self.seen = recorded_events()
        self.memory = GuestMemory.private(size) if memory is None else memory
        self.device = BalloonDevice(self.memory, hint_answer=hint_answer, **({"events": emitter} if listen else {}))
        self.wire = Wire(self.device)
        self.registers = MmioDriver(self.wire, BASE)
        self.registers.acknowledge_device()
        # The driver knows more than this device has.
        features = Ring.masked(features) & self.device.offered_features
        if hint_answer is HintAnswer.BITMAP:
            features &= ~feature_mask(Feature.IN_ORDER)
        self.registers.accept_features(features)
        if poison_value is not None:
            self.registers.write_config(CONFIG, "poison_val", poison_value)
        first = self.memory.address_of(0)
        self.queues = {}
        for role, number in queue_numbers(features, QueueNumbering.FIXED).items():
            queue = make_driver_queue(self.memory, number, 64, first + 0x8000 * role, features)
            self.registers.set_up_queue(number, queue.addresses)
            self.queues[role] = queue
        self.registers.drive()
        self._next_buffer = first + 0x40000
        self.hints = self.device.hinting.sink = Hints()

    @property
    def pages(self):
        """The pages of the hints that counted."""
        return self.hints.pages

    def buffer(self, data):
        """Store `data` somewhere in RAM; return it as a segment."""
        address, self._next_buffer = self._next_buffer, self._next_buffer + max(len(data), 16)
        self.memory.write(address, data)
        return address, len(data)

    def post(self, role, *data, writable=()):
        """Add one buffer; the device sees it with the next `publish`."""
        return self.queues[role].add([self.buffer(part) for part in data], writable, 0)

    def publish(self, role):
        self.registers.publish(self.queues[role])

    def send(self, role, *data, writable=()):
        """Post one buffer and let the device handle it."""
        head = self.post(role, *data, writable=writable)
        self.publish(role)
        return head

    def echo(self, command_id):
        self.send(BalloonQueue.FREE_PAGE, command_id.to_bytes(4, "little"))

    def hint(self, *segments):
        self.send(BalloonQueue.FREE_PAGE, writable=segments)

    @property
    def is_broken(self):
        return self.registers.needs_reset


def break_used_ring(memory, queue):
    """Make the device's side of a driver's queue say something that cannot be."""
    if queue.features >> Feature.RING_PACKED & 1:
        # Every descriptor is used in this lap, and names a buffer that does not exist.
        flags = 0x8080 if queue.notification_data() >> 31 else 0
        memory.write(queue.addresses.descriptor, (bytes(12) + struct.pack("<HH", 0xFFFF, flags)) * queue.size)
    else:
        memory.write(queue.addresses.device + 2, (900).to_bytes(2, "little"))


def frames(*numbers):
    """Return page frame numbers as the bytes of an inflate or deflate request."""
    return np.array(numbers, "<u4").tobytes()
