"""A device that gives back what it gets, and its driver, joined over the register file, for tests of both formats."""

import pytest
from device_setup import BASE, Wire, of_type, recorded_events

from guest_agent.mmio import MmioDriver
from guest_agent.virtqueue.factory import driver_area_size, make_driver_queue
from spec.device import Feature, feature_mask
from spec.mmio import Register
from vdev.device import RING_FEATURES, Device
from vdev.events import ViolationFound
from vdev.memory import GuestMemory
from vdev.virtqueue.factory import make_device_queue

BUFFER = 0x1000
AREAS = 0x10_0000
PLAIN = feature_mask(Feature.VERSION_1, Feature.NOTIFICATION_DATA, Feature.RING_RESET)
SPLIT, PACKED = PLAIN, PLAIN | feature_mask(Feature.RING_PACKED)

every_format = pytest.mark.parametrize(
    "features",
    [
        pytest.param(ring | events, id=f"{name}{events_name}")
        for name, ring in (("split", SPLIT), ("packed", PACKED))
        for events_name, events in (("", 0), (" with event index", feature_mask(Feature.EVENT_IDX)))
    ],
)


class Echo(Device):
    """Gives buffers back at once, or those of a queue in `slow` when it is told to."""

    device_id = 40
    name = "echo"
    queue_sizes = (256, 256)
    offered_features = RING_FEATURES | feature_mask(Feature.RING_PACKED)

    def __init__(self, memory, **options):
        super().__init__(memory, make_queue=make_device_queue, **options)
        self.slow: set[int] = set()
        self.kept: dict[int, list[int]] = {}
        self.handled: list[int] = []

    def handle_queue(self, number):
        for chain in self.chains(number):
            self.handled.append(number)
            if number in self.slow:
                self.kept.setdefault(number, []).append(chain.head)
            else:
                self.queues[number].push(chain.head, 0)

    def give_back(self, number):
        for head in self.kept.pop(number, []):
            self.queues[number].push(head, 0)
        if number in self.queues:
            self.call_driver(number)

    def queue_stopped(self, number):
        self.kept.pop(number, None)


class NotedWire(Wire):
    """Notes what is written to QueueNotify."""

    def __init__(self, device, **options):
        super().__init__(device, **options)
        self.notified: list[int] = []

    def write(self, address, size, value):
        if address == BASE + Register.QUEUE_NOTIFY:
            self.notified.append(value)
        super().write(address, size, value)


class EchoPair:
    """An Echo and what drives it: two queues of `size` descriptors in the format that `features` asks for."""

    def __init__(self, features, size=4, **options):
        emitter, self.seen = recorded_events()
        self.features = features
        self.memory = GuestMemory.private(4 << 20)
        self.device = Echo(self.memory, events=emitter)
        self.wire = NotedWire(self.device, **options)
        self.driver = MmioDriver.probe(self.wire, BASE)
        self.driver.acknowledge_device()
        self.driver.accept_features(features)
        self.queues = {}
        for number in (0, 1):
            self.make_queue(number, size)
        self.driver.drive()

    def make_queue(self, number, size, place=None):
        """Make a fresh queue in one of the places for one, and tell the device."""
        address = AREAS + driver_area_size(256) * (number if place is None else place)
        self.queues[number] = make_driver_queue(self.memory, number, size, address, self.features)
        self.driver.set_up_queue(number, self.queues[number].addresses)

    def send(self, number=0, token=1):
        """Place one buffer, and kick if the device wants that."""
        self.queues[number].add([(BUFFER, 16)], [], token)
        self.driver.publish(self.queues[number])

    def take(self, number=0):
        """Return the tokens of what came back."""
        return self.queues[number].collect_batch().tokens.tolist()

    @property
    def complaints(self):
        return [event.message for event in of_type(self.seen, ViolationFound)]
