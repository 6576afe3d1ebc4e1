"""The entropy driver: it asks the device for random bytes, and hands each byte out once (virtio 1.4, "Entropy
Device").
"""

import hashlib

import numpy as np
from construct import Bytes, Int32ul, Int64ul, Struct

from guest_agent.drivers.driver import DriverKind, DriverOptions, Surroundings
from guest_agent.drivers.rings import attach_ring, make_ring, ring_area_size, usable_queue_size
from guest_agent.transport import Transport
from guest_agent.virtqueue.queue import DriverQueue, NoQueueHere
from spec.device import DeviceStatus, Feature, feature_mask
from spec.entropy import REQUEST_QUEUE
from vdev.errors import DeviceViolation
from vdev.events import SILENT, Emitter, ViolationFound
from vdev.memory import PAGE_SIZE, GuestMemory

__all__ = ["BUFFER_SIZE", "ENTROPY", "ENTROPY_DRIVER_FEATURES", "EntropyDriver"]

ENTROPY_DRIVER_FEATURES = feature_mask(
    Feature.VERSION_1,
    Feature.EVENT_IDX,
    Feature.INDIRECT_DESC,
    Feature.RING_PACKED,
    Feature.IN_ORDER,
    Feature.NOTIFICATION_DATA,
    Feature.RING_RESET,
)
"""Every feature that this driver knows how to use; the device type has none of its own."""

BUFFER_SIZE = PAGE_SIZE
"""The most bytes that one request asks for."""

_CLAUSE = "Entropy Device / Device Operation"
_MAGIC = int.from_bytes(b"VRNG", "little")
_QUEUE_SIZE = 8
_STIRRED_SIZE = 64
_SEED_SIZE = 32
_REASON_SIZE = 256

STATE = "entropy_driver_state" / Struct(
    "magic" / Int32ul,
    "asked_size" / Int32ul,  # of the request that the device holds; 0: it holds none
    "features" / Int64ul,
    "begin" / Int32ul,  # the bytes from here to `end` of the buffer were given by the device and not handed out
    "end" / Int32ul,
    "received_size" / Int64ul,  # random bytes that the device gave, all in all
    "seed" / Bytes(_SEED_SIZE),
    "reason" / Bytes(_REASON_SIZE),  # why the device was given up, UTF-8 padded with zeros; all zeros: it was not
)


class EntropyDriver:
    """Drives one entropy device. Make one with `start`, or with `resume` in a guest that was moved.

    `ask` posts a request, `work` takes its answer, `take` hands the bytes out. All state is in guest RAM.
    """

    def __init__(
        self, transport: Transport, memory: GuestMemory, area_address: int, queue: DriverQueue, events: Emitter
    ) -> None:
        self._transport = transport
        self._memory = memory
        self._address = area_address
        self._state = memory.view(area_address, STATE)
        self._buffer_address = area_address + PAGE_SIZE
        self._queue = queue
        self._events = events

    @staticmethod
    def area_size() -> int:
        """Return the bytes of guest RAM, whole pages, that the driver needs for itself."""
        return PAGE_SIZE + BUFFER_SIZE + ring_area_size(_QUEUE_SIZE)

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
        queue = make_ring(memory, REQUEST_QUEUE, size, _queue_address(area_address), features, events)
        transport.set_up_queue(REQUEST_QUEUE, queue.addresses)
        driver = cls(transport, memory, area_address, queue, events)
        driver._store("features", features)
        driver._store("magic", _MAGIC)
        transport.drive()
        return driver

    @classmethod
    def resume(
        cls, transport: Transport, memory: GuestMemory, area_address: int, *, events: Emitter = SILENT
    ) -> "EntropyDriver":
        """Go on where another object left the driver's area at `area_address`; no register is touched.

        Raises NoQueueHere if there is none.
        """
        state = memory.view(area_address, STATE)
        if state["magic"] != _MAGIC:
            raise NoQueueHere(f"no entropy driver's area at {area_address:#x}")
        features = int(state["features"])
        queue = attach_ring(memory, REQUEST_QUEUE, _queue_address(area_address), features, events)
        return cls(transport, memory, area_address, queue, events)

    @property
    def features(self) -> int:
        """The mask of negotiated features."""
        return int(self._state["features"])

    @property
    def available_size(self) -> int:
        """Random bytes that `take` can hand out now."""
        return int(self._state["end"] - self._state["begin"])

    @property
    def received_size(self) -> int:
        """Random bytes that the device gave, all in all."""
        return int(self._state["received_size"])

    @property
    def seed(self) -> bytes:
        """What `housekeep` has stirred together: 32 bytes."""
        return self._state["seed"].tobytes()

    @property
    def gave_up(self) -> str | None:
        """Why the device was given up, None while it is in use."""
        return self._state["reason"].tobytes().rstrip(b"\0").decode(errors="replace") or None

    def ask(self, size: int = BUFFER_SIZE) -> bool:
        """Ask the device for up to `size` random bytes, at most BUFFER_SIZE.

        False if it is asked already, bytes are left to take, or the device was given up.
        """
        if not 0 < size <= BUFFER_SIZE:
            raise ValueError(f"a request is for 1 to {BUFFER_SIZE} bytes, not {size}")
        if self._state["asked_size"] or self.available_size or self.gave_up is not None:
            return False
        self._store("asked_size", size)
        self._queue.add([], [(self._buffer_address, size)], 0)
        self._transport.publish(self._queue)
        return True

    def take(self, limit: int = BUFFER_SIZE) -> bytes:
        """Return up to `limit` random bytes that were not handed out before; none left, none returned.

        They are wiped from guest RAM, so that nobody gets them twice.
        """
        begin, size = int(self._state["begin"]), min(self.available_size, limit)
        data = self._memory.read(self._buffer_address + begin, size)
        self._memory.write(self._buffer_address + begin, bytes(size))
        self._store("begin", begin + size)
        return data

    # What the guest asks of any driver

    def handle_interrupt(self) -> None:
        """Acknowledge the interrupt: `work` looks at the queue in any case."""
        if self.gave_up is None:
            self._transport.take_interrupt()

    def work(self) -> bool:
        """Take the device's answer. There is never more to do at once."""
        if not self._state["asked_size"] or self.gave_up is not None:
            return False
        try:
            if (used := self._queue.collect()) is not None:
                if not used.written_size:
                    raise DeviceViolation(_CLAUSE, "the device gave a buffer back without a byte", queue=REQUEST_QUEUE)
                for field, value in (("begin", 0), ("end", used.written_size), ("asked_size", 0)):
                    self._store(field, value)
                self._store("received_size", self.received_size + used.written_size)
            elif self._transport.needs_reset:
                raise DeviceViolation(
                    "Basic Facilities of a Virtio Device / Device Status Field", "the device set DEVICE_NEEDS_RESET"
                )
        except DeviceViolation as violation:
            self._give_up(violation)
        return False

    def housekeep(self) -> None:
        """Stir what the device gave into `seed`, and ask for more: what a system does for its random generator."""
        if self.available_size:
            self._store("seed", np.void(hashlib.blake2b(self.seed + self.take(), digest_size=_SEED_SIZE).digest()))
        self.ask(_STIRRED_SIZE)

    def _give_up(self, why: DeviceViolation) -> None:
        reason = str(why)
        if self._events.listening:
            self._events.emit(ViolationFound("entropy", "device", why.statement, why.message))
        try:
            self._transport.reset()
        except DeviceViolation as refusal:
            # It does not even reset. There is nothing more a driver could do to it.
            reason = f"{why}; {refusal}"
        self._transport.set_status(DeviceStatus.FAILED)
        self._store("reason", np.void(reason.encode()[:_REASON_SIZE].ljust(_REASON_SIZE, b"\0")))

    def _store(self, field: str, value: int | np.void) -> None:
        self._state[field] = value
        self._memory.mark_written(self._address, STATE.sizeof())


def _queue_address(area_address: int) -> int:
    return area_address + PAGE_SIZE + BUFFER_SIZE


def _start(transport: Transport, area_address: int, guest: Surroundings, options: DriverOptions) -> EntropyDriver:
    wanted = options.allowed(ENTROPY_DRIVER_FEATURES)
    return EntropyDriver.start(transport, guest.memory, area_address, wanted_features=wanted, events=guest.events)


def _resume(transport: Transport, area_address: int, guest: Surroundings) -> EntropyDriver:
    return EntropyDriver.resume(transport, guest.memory, area_address, events=guest.events)


ENTROPY = DriverKind(area_size=lambda options: EntropyDriver.area_size(), start=_start, resume=_resume)
