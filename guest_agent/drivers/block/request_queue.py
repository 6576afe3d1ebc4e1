"""One queue of requests: its ring, and the slots in which the requests under way are kept."""

from collections.abc import Sequence
from typing import NamedTuple

from guest_agent.drivers.block.area import INDIRECT_CAPACITY, BlockArea
from guest_agent.drivers.block.parts import Part
from guest_agent.drivers.block.slots import RequestSlots
from guest_agent.virtqueue.factory import attach_driver_queue, make_driver_queue
from guest_agent.virtqueue.queue import DriverQueue, QueueFull
from spec.block import ID_SIZE, RequestStatus, RequestType
from spec.device import Feature
from vdev.errors import DeviceViolation
from vdev.events import Emitter

__all__ = ["Completion", "RequestQueue"]

_CLAUSE = "Block Device / Device Operation"

# To look a member up costs a tenth of calling the enumeration.
_TYPES = {int(kind): kind for kind in RequestType}
_STATUSES = {int(status): status for status in RequestStatus}


class Completion(NamedTuple):
    """A request that is done: the token it was submitted with, what it asked for, its status.

    Of several device requests that a submitted one became, the worst status counts. `data` is the device's id for
    GET_ID, without the zeros behind it, and empty otherwise.
    """

    token: int
    kind: RequestType
    status: RequestStatus
    data: bytes = b""

    @property
    def failed(self) -> bool:
        """Whether the device did not do it."""
        return self.status is not RequestStatus.OK


class RequestQueue:
    """The requests of one queue, which the area `features` say how to place. All state is in guest RAM."""

    def __init__(self, ring: DriverQueue, slots: RequestSlots, features: int) -> None:
        self.ring = ring
        self._slots = slots
        self._is_indirect = bool(features >> Feature.INDIRECT_DESC & 1)

    @classmethod
    def create(cls, area: BlockArea, number: int, size: int, events: Emitter) -> "RequestQueue":
        """Return an empty queue of `size` descriptors in its part of `area`."""
        features, address = area["features"], area.ring_address(number)
        ring = make_driver_queue(
            area.memory, number, size, address, features, events, indirect_capacity=INDIRECT_CAPACITY
        )
        return cls(ring, RequestSlots.create(area.memory, area.slots_address(number), size), features)

    @classmethod
    def attach(cls, area: BlockArea, number: int, events: Emitter) -> "RequestQueue":
        """Go on with the queue that `create` made. Raises NoQueueHere."""
        ring = attach_driver_queue(area.memory, number, area.ring_address(number), events)
        return cls(ring, RequestSlots(area.memory, area.slots_address(number), ring.size), area["features"])

    def submit(self, kind: RequestType, parts: Sequence[Part], token: int, payloads: Sequence[bytes] = ()) -> None:
        """Place one caller's request, which is one of the device's for each of `parts`.

        A part that has a size and no segments takes its data from `payloads`, or gets them in its slot's payload.

        Raises QueueFull, with nothing placed, and ValueError for what can never be placed.
        """
        if not 0 <= token < 1 << 64:
            raise ValueError(f"token {token} is not a 64-bit number")
        slots, ring = self._slots, self.ring
        self._check_room(parts)
        gives = kind is RequestType.IN or kind is RequestType.GET_ID
        leader: int | None = None
        for position, (sector, segments, size) in enumerate(parts):
            slot = slots.take(kind, sector, size if gives else 0, leader, token, len(parts))
            if not segments and size:
                segments = (slots.payload(slot, size),)
                if payloads:
                    slots.store_payload(slot, payloads[position])
            header, status = slots.header(slot), slots.status_byte(slot)
            if gives:
                ring.add((header,), (*segments, status), slot)
            else:
                ring.add((header, *segments), (status,), slot)
            leader = slot if leader is None else leader
        slots.mark()

    def _check_room(self, parts: Sequence[Part]) -> None:
        ring = self.ring
        needed = len(parts) if self._is_indirect else sum([len(part.segments or (0,)) + 2 for part in parts])
        if needed > ring.size:
            raise ValueError(f"a request that needs {needed} descriptors of a queue of {ring.size}")
        if needed > ring.free_count or len(parts) > self._slots.free_count:
            raise QueueFull(f"{needed} descriptors needed, {ring.free_count} free")

    def collect(self, done: list[Completion]) -> None:
        """Add to `done` what the device has done. Raises DeviceViolation for a status or a length that cannot be."""
        slots = self._slots
        while len((batch := self.ring.collect_batch()).tokens):
            for slot, written_size in zip(batch.tokens.tolist(), batch.written_sizes.tolist(), strict=True):
                status = slots.status(slot)
                needed_size = 1 if status else slots.data_size(slot) + 1
                if status not in _STATUSES or written_size < needed_size:
                    message = f"a request came back with status {status} and {written_size} bytes"
                    raise DeviceViolation(_CLAUSE, message, queue=self.ring.number)
                finished = slots.finish(slot, status)
                if finished is not None:
                    token, kind, worst, leader = finished
                    is_id = kind == RequestType.GET_ID
                    data = slots.load_payload(leader, ID_SIZE).rstrip(b"\0") if is_id else b""
                    done.append(Completion(token, _TYPES[kind], _STATUSES[worst], data))
            slots.mark()
