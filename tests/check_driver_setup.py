"""Our own drivers before the judge, in one process."""

from guest_agent.drivers.block import BlockDriver
from guest_agent.drivers.entropy import EntropyDriver
from guest_agent.drivers.rings import RING_DRIVER_FEATURES
from guest_agent.mmio import MmioDriver
from guest_agent.virtqueue import driver_area_size, make_driver_queue
from guest_agent.virtqueue.queue import QueueFull
from spec.device import DeviceId, Feature, feature_mask
from vdev.bus import MMIO_BASE
from vdev.check.driver.in_process import judge_in_process
from vdev.check.driver.judge import Judge
from vdev.check.verdict import Verdict
from vdev.device import Device
from vdev.devices.kind import Carrier

PACKED = feature_mask(Feature.RING_PACKED)
AREA = 0x1_0000
DATA = 0x10_0000
RAM_SIZE = 4 << 20
SECTOR = 512
INDIRECT_CAPACITY = 8


class Own:
    """A driver of ours, as the judge has it started, asked and stopped."""

    transport_class = MmioDriver
    driver = None

    @classmethod
    def start(cls, window, memory):
        """Return the driver; None where there is no device."""
        transport = cls.transport_class.probe(window, MMIO_BASE)
        return None if transport is None else cls(transport, memory)

    @property
    def gave_up(self):
        return self.driver.gave_up

    def handle_interrupt(self):
        self.driver.handle_interrupt()

    def stop(self):
        self.transport.reset()


class Entropy(Own):
    """The entropy driver, asking for more whenever it has what it asked for."""

    def __init__(self, transport, memory):
        self.transport = transport
        self.driver = EntropyDriver.start(transport, memory, AREA)

    def step(self):
        before = self.driver.received_size
        self.driver.work()
        self.driver.take()
        return self.driver.ask(64) or self.driver.received_size != before


class Disk(Own):
    """The block driver, reading, writing, flushing and discarding in turn, several at a time."""

    depth = 6

    def __init__(self, transport, memory):
        self.transport = transport
        self.driver = BlockDriver.start(transport, memory, AREA, queue_size=32)
        self.count = 0
        self.out_count = 0

    def step(self):
        self.driver.work()
        done = self.driver.collect()
        self.out_count -= len(done)
        added = 0
        while self.driver.gave_up is None and self.out_count < self.depth:
            try:
                self._submit(self.count)
            except QueueFull:
                break
            self.count += 1
            self.out_count += 1
            added += 1
        if added:
            self.driver.publish()
        return bool(done or added)

    def _submit(self, number):
        kind, sector = number % 4, number % 64
        data = [(DATA + 0x4000 * (number % 8) + 0x1000 * part, SECTOR) for part in range(1 + number % 3)]
        if kind == 1 and not self.driver.read_only:
            self.driver.submit_write(sector, data, number)
        elif kind == 2 and self.driver.can_flush:
            self.driver.submit_flush(number)
        elif kind == 3:
            self.driver.submit_get_id(number)
        else:
            self.driver.submit_read(sector, data, number)


class Sink(Device):
    """A device that takes any buffer, and says that it has written all of it."""

    device_id = DeviceId.ENTROPY
    name = "sink"
    queue_sizes = (16, 16)

    def handle_queue(self, number):
        for chain in self.chains(number):
            self.queues[number].push(chain.head, chain.writable_size)


def make_sink(memory, events):
    return Sink(memory, events=events)


class Rings(Own):
    """Posts buffers of every shape in two queues of a `Sink`, some at a time, and resets a queue now and then."""

    wanted = RING_DRIVER_FEATURES
    make_queue = staticmethod(make_driver_queue)
    size = 8
    depth = 4
    resets_every = 9
    shapes = ((0, 1), (2, 2), (1, 2), (3, 0), (1, 0), (0, 3))

    def __init__(self, transport, memory):
        self.transport, self.memory = transport, memory
        transport.acknowledge_device()
        self.features = transport.negotiate(
            self.wanted | feature_mask(Feature.VERSION_1), required=(Feature.VERSION_1,)
        )
        self.gave_up_why = None
        self.queues = [self.set_up(number) for number in range(2)]
        transport.drive()
        self.count = 0
        self.until_reset = self.resets_every
        self.out = [0, 0]

    @property
    def gave_up(self):
        return self.gave_up_why

    def set_up(self, number):
        indirect = INDIRECT_CAPACITY if self.features >> Feature.INDIRECT_DESC & 1 else 0
        area = AREA + number * driver_area_size(self.size, INDIRECT_CAPACITY)
        self.memory.write(area, bytes(driver_area_size(self.size, INDIRECT_CAPACITY)))
        queue = self.make_queue(self.memory, number, self.size, area, self.features, indirect_capacity=indirect)
        self.transport.set_up_queue(number, queue.addresses)
        return queue

    def handle_interrupt(self):
        self.transport.take_interrupt()

    def step(self):
        if self.transport.needs_reset:
            self.gave_up_why = "the device needs a reset"
            self.transport.reset()
            return False
        busy = [self._work(number) for number in range(2)]
        return any(busy)

    def _work(self, number):
        queue = self.queues[number]
        done = 0
        while queue.collect() is not None:
            done += 1
        self.out[number] -= done
        if self.features >> Feature.RING_RESET & 1 and self.until_reset <= 0:
            self.until_reset = self.resets_every
            self.reset_queue(number)
            return True
        added = 0
        while self.out[number] < self.depth and queue.free_count >= 4:
            self.post(queue, *self.shapes[self.count % len(self.shapes)])
            self.count += 1
            self.until_reset -= 1
            self.out[number] += 1
            added += 1
        if added:
            self.transport.publish(queue)
        return bool(done or added)

    def reset_queue(self, number):
        self.transport.reset_queue(number)
        self.out[number] = 0
        self.queues[number] = self.set_up(number)

    def post(self, queue, readable_count, writable_count):
        segments = [(DATA + 0x100 * (8 * (self.count % 64) + part), 0x40) for part in range(8)]
        queue.add(segments[:readable_count], segments[4 : 4 + writable_count], self.count)


def judge_own(own=Entropy, device_type="entropy", **options):
    """Return the results by name of a driver of ours."""
    if own is not None and issubclass(own, Rings):
        device_type, options = "generic", {"make_device": make_sink, **options}
    judge = Judge(device_type, Carrier.MMIO, **options)
    judge_in_process(judge, own.start, memory_size=RAM_SIZE, can_stop=lambda driver: driver.stop())
    return {case.name: case for case in judge.cases()}


def unkept(cases):
    """Return what is neither kept nor not applicable, with the reason."""
    fine = (Verdict.PASS, Verdict.NOT_APPLICABLE)
    return {name: f"{case.verdict.value}: {case.why}" for name, case in cases.items() if case.verdict not in fine}


def breaches(cases):
    """Return what was broken."""
    bad = (Verdict.FAIL, Verdict.HUNG, Verdict.CRASHED)
    return {name: f"{case.verdict.value}: {case.why}" for name, case in cases.items() if case.verdict in bad}
