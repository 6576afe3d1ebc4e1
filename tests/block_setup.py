"""A disk and its driver joined in one process, for tests of both."""

import os
from contextlib import contextmanager

from device_setup import BASE, Wire, recorded_events

from guest_agent.drivers.block import BLOCK_DRIVER_FEATURES, BlockDriver
from guest_agent.mmio import MmioDriver
from guest_agent.virtqueue import make_driver_queue
from spec.block import REQUEST_HEADER, RequestStatus
from spec.device import Feature, feature_mask
from vdev.devices.block import BlockDevice, BlockFile
from vdev.memory import GuestMemory, PageMarks

SECTOR = 512
AREA = 0x10_0000
DATA = 0x40_0000
RAM_SIZE = 8 << 20
DISK_SECTORS = 4096
BARE_FEATURES = BLOCK_DRIVER_FEATURES | feature_mask(Feature.INDIRECT_DESC)


def memfd_disk(content=bytes(DISK_SECTORS * SECTOR), *, read_only=False):
    """A disk in memory."""
    fd = os.memfd_create("disk")
    os.pwrite(fd, content, 0)
    return BlockFile(fd, len(content), read_only=read_only)


def content_of(file):
    return os.pread(file.fd, file.size, 0)


def new_memory():
    memory = GuestMemory.private(RAM_SIZE)
    memory.page_marks = PageMarks(memory.page_count)
    return memory


def copy_marked(memory):
    """Other RAM, with the marked pages of `memory`."""
    copy = new_memory()
    for page in memory.page_marks.marks.nonzero()[0].tolist():
        copy.write(page << 12, memory.read(page << 12, 4096))
    return copy


class DiskPair:
    """A block device and its driver, started."""

    def __init__(
        self,
        file=None,
        *,
        features=BLOCK_DRIVER_FEATURES,
        queue_size=128,
        queue_count=1,
        device_queues=None,
        serial="disk of the test",
        defer_kicks=False,
        listen=True,
    ):
        self.file = memfd_disk() if file is None else file
        self.memory = new_memory()
        self.emitter, self.seen = recorded_events()
        self.options = {"serial": serial, "queue_count": device_queues or queue_count}
        events = {"events": self.emitter} if listen else {}
        self.device = BlockDevice(self.memory, self.file, **self.options, **events)
        self.wire = Wire(self.device, defer_kicks=defer_kicks)
        self.transport = MmioDriver.probe(self.wire, BASE)
        self.driver = BlockDriver.start(
            self.transport,
            self.memory,
            AREA,
            wanted_features=features,
            queue_size=queue_size,
            queue_count=queue_count,
            **events,
        )

    def close(self):
        self.device.close()

    def finish(self):
        """Let the device do everything that was submitted; return the completions."""
        self.driver.publish()
        self.wire.deliver_kicks()
        return self.driver.collect()

    def do(self, submit, *arguments, **options):
        """Do one request; return its completion."""
        submit(*arguments, token=1, **options)
        (completion,) = self.finish()
        return completion

    def write(self, sector, data, address=DATA):
        self.memory.write(address, data)
        return self.do(self.driver.submit_write, sector, [(address, len(data))])

    def read(self, sector, size, address=DATA):
        completion = self.do(self.driver.submit_read, sector, [(address, size)])
        assert not completion.failed
        return self.memory.read(address, size)

    def moved(self):
        """Both ends again, on a copy of RAM and the same file."""
        other = object.__new__(DiskPair)
        other.file, other.options = self.file, self.options
        other.memory = copy_marked(self.memory)
        other.seen = []
        other.device = BlockDevice(other.memory, self.file, **self.options)
        other.device.restore(self.device.save())
        other.wire = Wire(other.device)
        other.transport = MmioDriver(other.wire, BASE)
        other.driver = BlockDriver.resume(other.transport, other.memory, AREA)
        return other

    def moved_driver(self):
        """The driver again, on a copy of RAM."""
        return BlockDriver.resume(self.transport, copy_marked(self.memory), AREA)


@contextmanager
def disk_pair(*arguments, **options):
    pair = DiskPair(*arguments, **options)
    try:
        yield pair
    finally:
        pair.close()


class BareDisk:
    """A block device whose driver is the test itself: it frames requests as no driver would."""

    def __init__(self, file=None, *, features=BARE_FEATURES, size=64, queue_count=1):
        self.file = memfd_disk() if file is None else file
        self.memory = new_memory()
        self.emitter, self.seen = recorded_events()
        self.device = BlockDevice(self.memory, self.file, queue_count=queue_count, events=self.emitter)
        self.wire = Wire(self.device)
        self.transport = MmioDriver(self.wire, BASE)
        self.transport.acknowledge_device()
        self.features = self.transport.negotiate(features)
        self.queues = []
        for number in range(queue_count):
            area = AREA + 0x2_0000 * number
            queue = make_driver_queue(self.memory, number, size, area, self.features, indirect_capacity=size)
            self.transport.set_up_queue(number, queue.addresses)
            self.queues.append(queue)
        self.transport.drive()
        self._next = DATA

    def place(self, data):
        """Store `data` somewhere in RAM; return its address."""
        address, self._next = self._next, self._next + len(data) + 5
        self.memory.write(address, data)
        return address

    def send(self, readable, writable, *, number=0, indirect=None):
        """Send one chain; return the bytes that the device says it wrote, None if it did not answer."""
        queue = self.queues[number]
        queue.add(readable, writable, 7, indirect=indirect)
        self.transport.publish(queue)
        used = queue.collect()
        return None if used is None else used.written_size

    def request(self, kind, sector=0, *, to_write=b"", to_read=0, reserved=0):
        """Send one request in the usual framing; return its status, written size and what was read."""
        header = REQUEST_HEADER.build({"type": kind, "reserved": reserved, "sector": sector})
        at, status = self.place(header), self.place(b"\xee")
        data = self.place(to_write or bytes(to_read))
        written = self.send(
            [(at, 16), *([(data, len(to_write))] if to_write else [])],
            [*([(data, to_read)] if to_read else []), (status, 1)],
        )
        answer = self.memory.read(status, 1)[0]
        return (answer if answer == 0xEE else RequestStatus(answer)), written, self.memory.read(data, to_read)
