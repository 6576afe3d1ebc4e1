"""The entropy driver: it asks the device for random bytes, and hands each byte out once (virtio 1.4, "Entropy
Device").
"""

import hashlib
import math

from construct import Bytes, Int32ul, Int64ul, Struct

from guest_agent.drivers.area import REASON, DriverArea
from guest_agent.drivers.driver import DriverKind, DriverOptions, Surroundings
from guest_agent.drivers.giving_up import check_needs_no_reset, give_up_device
from guest_agent.drivers.rings import RING_DRIVER_FEATURES, usable_queue_size
from guest_agent.transport import Transport
from guest_agent.virtqueue.factory import attach_driver_queue, driver_area_size, make_driver_queue
from guest_agent.virtqueue.queue import DriverQueue
from spec.device import Feature, feature_mask
from spec.entropy import REQUEST_QUEUE
from vdev.errors import DeviceViolation
from vdev.events import SILENT, Emitter
from vdev.memory import PAGE_SIZE, GuestMemory

__all__ = ["BUFFER_SIZE", "ENTROPY", "ENTROPY_DRIVER_FEATURES", "EntropyDriver"]

ENTROPY_DRIVER_FEATURES = RING_DRIVER_FEATURES
"""Every feature that this driver knows how to use; the device type has none of its own."""

BUFFER_SIZE = PAGE_SIZE
"""The most bytes that one request asks for."""

_CLAUSE = "Entropy Device / Device Operation"
_QUEUE_SIZE = 8
_STIRRED_SIZE = 64
_SEED_SIZE = 32

STATE = "entropy_driver_state" / Struct(
    "magic" / Int32ul,
    "asked_size" / Int32ul,  # of the request that the device holds; 0: it holds none
    "features" / Int64ul,
    "begin" / Int32ul,  # the bytes from here to `end` of the buffer were given by the device and not handed out
    "end" / Int32ul,
    "received_size" / Int64ul,  # random bytes that the device gave, all in all
    "seed" / Bytes(_SEED_SIZE),
    REASON,
)


class _Area(DriverArea):
    """State, buffer and ring, a page at least each."""

    name = "entropy"
    layout = STATE
    magic = int.from_bytes(b"VRNG", "little")

    @property
    def buffer_address(self) -> int:
        return self.address + PAGE_SIZE

    @property
    def ring_address(self) -> int:
        return self.buffer_address + BUFFER_SIZE


class EntropyDriver:
    """Drives one entropy device. Make one with `start`, or with `resume` in a guest that was moved.

    `ask` posts a request, `work` takes its answer, `take` hands the bytes out. All state is in guest RAM.
    """

    def __init__(self, transport: Transport, area: _Area, queue: DriverQueue, events: Emitter) -> None:
        self._transport = transport
        self._area = area
        self._queue = queue
        self._events = events

    @staticmethod
    def area_size() -> int:
        """Return the bytes of guest RAM, whole pages, that the driver needs for itself."""
        return PAGE_SIZE + BUFFER_SIZE + driver_area_size(_QUEUE_SIZE)

    @classmethod
    def start(
        cls,
        transport: Transport,
        memory: GuestMemory,
        area_address: int,
        *,
        wanted_features: int = ENTROPY_DRIVER_FEATURES,
        events: Emitter = SILENT,
    ) -> "EntropyDriver":
        """Bring the device up, with the driver's area of `area_size()` bytes at the page-aligned `area_address`.

        Raises DeviceRefused if the device cannot do what the driver needs.
        """
        transport.acknowledge_device()
        wanted_features |= feature_mask(Feature.VERSION_1)
        features = transport.negotiate(wanted_features, required=(Feature.VERSION_1,))
        size = usable_queue_size(_QUEUE_SIZE, transport.queue_size_max(REQUEST_QUEUE))
        if not size:
            raise transport.fail("an entropy device without its queue")
        memory.write(area_address, bytes(cls.area_size()))
        area = _Area(memory, area_address)
        queue = make_driver_queue(memory, REQUEST_QUEUE, size, area.ring_address, features, events)
        transport.set_up_queue(REQUEST_QUEUE, queue.addresses)
        area["features"] = features
        area["magic"] = _Area.magic
        transport.drive()
        return cls(transport, area, queue, events)

    @classmethod
    def resume(
        cls, transport: Transport, memory: GuestMemory, area_address: int, *, events: Emitter = SILENT
    ) -> "EntropyDriver":
        """Go on where another object left the driver's area at `area_address`; no register is touched.

        Raises NoQueueHere if there is none.
        """
        _Area.require(memory, area_address)
        area = _Area(memory, area_address)
        return cls(transport, area, attach_driver_queue(memory, REQUEST_QUEUE, area.ring_address, events), events)

    @property
    def features(self) -> int:
        """The mask of negotiated features."""
        return self._area["features"]

    @property
    def available_size(self) -> int:
        """Random bytes that `take` can hand out now."""
        return self._area["end"] - self._area["begin"]

    @property
    def received_size(self) -> int:
        """Random bytes that the device gave, all in all."""
        return self._area["received_size"]

    @property
    def seed(self) -> bytes:
        """What `housekeep` has stirred together: 32 bytes."""
        return self._area.load_bytes("seed")

    @property
    def gave_up(self) -> str | None:
        """Why the device was given up, None while it is in use."""
        return self._area.reason

    def ask(self, size: int = BUFFER_SIZE) -> bool:
        """Ask the device for up to `size` random bytes, at most BUFFER_SIZE.

        False if it is asked already, bytes are left to take, or the device was given up.
        """
        if not 0 < size <= BUFFER_SIZE:
            raise ValueError(f"a request is for 1 to {BUFFER_SIZE} bytes, not {size}")
        if self._area["asked_size"] or self.available_size or self.gave_up is not None:
            return False
        self._area["asked_size"] = size
        self._queue.add([], [(self._area.buffer_address, size)], 0)
        self._transport.publish(self._queue)
        return True

    def take(self, limit: int = BUFFER_SIZE) -> bytes:
        """Return up to `limit` random bytes that were not handed out before; none left, none returned.

        They are wiped from guest RAM, so that nobody gets them twice.
        """
        area = self._area
        begin, size = area["begin"], min(self.available_size, limit)
        data = area.memory.read(area.buffer_address + begin, size)
        area.memory.write(area.buffer_address + begin, bytes(size))
        area["begin"] = begin + size
        return data

    # What the guest asks of any driver

    def handle_interrupt(self) -> None:
        """Acknowledge the interrupt: `work` looks at the queue in any case."""
        if self.gave_up is None:
            self._transport.take_interrupt()

    def work(self) -> bool:
        """Take the device's answer. There is never more to do at once."""
        if not self._area["asked_size"] or self.gave_up is not None:
            return False
        try:
            if (used := self._queue.collect()) is not None:
                if not used.written_size:
                    raise DeviceViolation(_CLAUSE, "the device gave a buffer back without a byte", queue=REQUEST_QUEUE)
                for field, value in (("begin", 0), ("end", used.written_size), ("asked_size", 0)):
                    self._area[field] = value
                self._area["received_size"] += used.written_size
            else:
                check_needs_no_reset(self._transport)
        except DeviceViolation as violation:
            give_up_device(self._area, self._transport, violation, self._events)
        return False

    def housekeep(self, now: float) -> float:
        """Stir what the device gave into `seed`, and ask for more: what a system does for its random generator."""
        if self.available_size:
            seed = hashlib.blake2b(self.seed + self.take(), digest_size=_SEED_SIZE).digest()
            self._area.store_bytes("seed", seed)
        self.ask(_STIRRED_SIZE)
        return math.inf


def _start(transport: Transport, area_address: int, guest: Surroundings, options: DriverOptions) -> EntropyDriver:
    wanted = options.allowed(ENTROPY_DRIVER_FEATURES)
    return EntropyDriver.start(transport, guest.memory, area_address, wanted_features=wanted, events=guest.events)


def _resume(transport: Transport, area_address: int, guest: Surroundings) -> EntropyDriver:
    return EntropyDriver.resume(transport, guest.memory, area_address, events=guest.events)


ENTROPY = DriverKind(area_size=lambda options: EntropyDriver.area_size(), start=_start, resume=_resume)
