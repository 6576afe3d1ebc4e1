"""The block driver: requests go in with `submit_...`, and come back from `collect` (virtio 1.4, "Block Device")."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from guest_agent.drivers.block.area import INDIRECT_CAPACITY, SEGMENT_LIMIT, BlockArea
from guest_agent.drivers.block.parts import Limits, Part, Segments, split_ranges, split_transfer
from guest_agent.drivers.block.slots import PAYLOAD_SIZE, RequestSlots
from guest_agent.drivers.rings import attach_ring, make_ring, usable_queue_size
from guest_agent.transport import DeviceRefused, Transport
from guest_agent.virtqueue.queue import DriverQueue, QueueFull
from spec.block import (
    CONFIG,
    DATA_RANGE,
    ID_SIZE,
    SECTOR_SHIFT,
    BlockFeature,
    RangeFlag,
    RequestStatus,
    RequestType,
)
from spec.device import DeviceStatus, Feature, feature_mask
from spec.layout import dtype_of
from spec.mmio import Interrupt
from vdev.errors import DeviceViolation
from vdev.events import SILENT, Emitter, ViolationFound
from vdev.memory import GuestMemory

__all__ = ["BLOCK_DRIVER_FEATURES", "BlockDriver", "Completion"]

BLOCK_DRIVER_FEATURES = feature_mask(
    Feature.VERSION_1,
    Feature.EVENT_IDX,
    Feature.INDIRECT_DESC,
    Feature.RING_PACKED,
    Feature.IN_ORDER,
    Feature.NOTIFICATION_DATA,
    Feature.RING_RESET,
    BlockFeature.SIZE_MAX,
    BlockFeature.SEG_MAX,
    BlockFeature.RO,
    BlockFeature.BLK_SIZE,
    BlockFeature.FLUSH,
    BlockFeature.TOPOLOGY,
    BlockFeature.CONFIG_WCE,
    BlockFeature.MQ,
    BlockFeature.DISCARD,
    BlockFeature.WRITE_ZEROES,
)
"""Every feature that this driver knows how to use."""

_CLAUSE = "Block Device / Device Operation"
_RANGE = dtype_of(DATA_RANGE)
_NO_LIMIT = 0xFFFF_FFFF
_SIZE_LIMIT = 1 << 30
"""Bytes in a segment where the device names no limit."""
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


class BlockDriver:
    """Drives one block device. Make one with `start`, or with `resume` in a guest that was moved.

    A `submit_...` places one request, of which the device knows nothing before `publish`. All of them take a `token`
    (64 bits) that `collect` gives back, and the number of the queue. Data are (guest-physical address, bytes) segments
    in guest RAM, which belong to the device until the request is collected. A request that is larger than the device's
    limits becomes several.

    Every `submit_...` raises QueueFull, with nothing placed, while there is no room for all of it: collect first.
    It raises ValueError for what could never be done (beyond the disk's end, not whole sectors, more than the queue can
    hold, a feature that was not negotiated), and DeviceRefused after the device was given up.

    All state, also of requests under way, is in the driver's area of guest RAM.
    """

    def __init__(
        self,
        area: BlockArea,
        transport: Transport,
        queues: Sequence[DriverQueue],
        slots: Sequence[RequestSlots],
        events: Emitter,
    ) -> None:
        self.queues = tuple(queues)
        """The request queues in use, by number; look at `free_count`, or ask for calls."""
        self._area = area
        self._transport = transport
        self._slots = tuple(slots)
        self._events = events
        self._features = area["features"]
        self._limits = Limits(area["size_max"], area["seg_max"])
        self._is_indirect = bool(self._features >> Feature.INDIRECT_DESC & 1)
        # Looked at for each request, so read once: the area has them, too.
        self._capacity = area["capacity"]
        self._gave_up = area.reason

    @staticmethod
    def area_size(queue_size: int = 128, queue_count: int = 1) -> int:
        """Return the bytes of guest RAM, whole pages, that a driver with these most queues needs for itself."""
        return BlockArea.size(queue_size, queue_count)

    @classmethod
    def start(
        cls,
        transport: Transport,
        memory: GuestMemory,
        area_address: int,
        *,
        wanted_features: int = BLOCK_DRIVER_FEATURES,
        queue_size: int = 128,
        queue_count: int = 1,
        events: Emitter = SILENT,
    ) -> "BlockDriver":
        """Bring the device up, with at most `queue_count` queues of at most `queue_size` (a power of two) descriptors.

        Of `wanted_features` (a mask) those are used that the device offers; VERSION_1 is always wanted.

        Raises DeviceRefused if the device cannot do what the driver needs.
        """
        transport.acknowledge_device()
        wanted_features |= feature_mask(Feature.VERSION_1)
        features = transport.negotiate(wanted_features & BLOCK_DRIVER_FEATURES, required=(Feature.VERSION_1,))
        area = BlockArea.create(memory, area_address, queue_size)
        area["features"] = features
        config = transport.read_config(CONFIG)
        has_queues = features >> BlockFeature.MQ & 1
        area["queue_count"] = min(queue_count, config["num_queues"] if has_queues else 1)
        queues, slots = [], []
        for number in range(area["queue_count"]):
            size = usable_queue_size(queue_size, transport.queue_size_max(number))
            if size < 3:
                raise transport.fail(f"queue {number} has at most {size} descriptors: no room for a request")
            ring = area.ring_address(number)
            queues.append(make_ring(memory, number, size, ring, features, events, INDIRECT_CAPACITY))
            slots.append(RequestSlots.create(memory, area.slots_address(number), size))
            transport.set_up_queue(number, queues[number].addresses)
        if not queues:
            raise transport.fail("a block device without a queue")
        _note_limits(area, config, min(queue.size for queue in queues))
        driver = cls(area, transport, queues, slots, events)
        transport.drive()
        return driver

    @classmethod
    def resume(
        cls, transport: Transport, memory: GuestMemory, area_address: int, *, events: Emitter = SILENT
    ) -> "BlockDriver":
        """Go on where another object left the driver's area at `area_address`; no register is touched.

        Raises NoQueueHere if there is none.
        """
        area = BlockArea.find(memory, area_address)
        numbers = range(area["queue_count"])
        queues = [
            attach_ring(memory, number, area.ring_address(number), area["features"], events) for number in numbers
        ]
        slots = [
            RequestSlots(memory, area.slots_address(number), queue.size)
            for number, queue in zip(numbers, queues, strict=True)
        ]
        return cls(area, transport, queues, slots, events)

    # What is known of the disk

    @property
    def features(self) -> int:
        """The mask of negotiated features."""
        return self._features

    @property
    def capacity(self) -> int:
        """Sectors of 512 bytes, as the device last said."""
        return self._capacity

    @property
    def read_only(self) -> bool:
        """Whether the disk cannot be written."""
        return self._has(BlockFeature.RO)

    @property
    def can_flush(self) -> bool:
        """Whether there are flushes. Without them a write is on stable storage when it is completed."""
        return self._has(BlockFeature.FLUSH)

    @property
    def gave_up(self) -> str | None:
        """Why the device was given up, None while it is in use."""
        return self._gave_up

    def _has(self, feature: BlockFeature) -> bool:
        return bool(self._features >> feature & 1)

    def set_writeback(self, writeback: bool) -> None:
        """Let the device keep writes in a cache until a flush, or not. Raises ValueError without CONFIG_WCE."""
        self._need(BlockFeature.CONFIG_WCE)
        self._transport.write_config(CONFIG, "writeback", int(writeback))

    # Submitting

    def submit_read(self, sector: int, segments: Segments, token: int, queue: int = 0) -> None:
        """Read from `sector` on into `segments`."""
        parts = self._parts(sector, segments)
        self._submit(queue, RequestType.IN, parts, token)

    def submit_write(self, sector: int, segments: Segments, token: int, queue: int = 0) -> None:
        """Write what is in `segments` from `sector` on."""
        self._need_writable()
        parts = self._parts(sector, segments)
        self._submit(queue, RequestType.OUT, parts, token)

    def submit_flush(self, token: int, queue: int = 0) -> None:
        """Have all writes that are completed by now on stable storage."""
        self._need(BlockFeature.FLUSH)
        self._submit(queue, RequestType.FLUSH, [Part(0, (), 0)], token)

    def submit_get_id(self, token: int, queue: int = 0) -> None:
        """Ask for the disk's id, which comes in the completion's `data`."""
        self._submit(queue, RequestType.GET_ID, [Part(0, (), ID_SIZE)], token)

    def submit_discard(self, ranges: Sequence[tuple[int, int]], token: int, queue: int = 0) -> None:
        """Tell that nobody needs these (sector, count) ranges; what they read as afterwards is not said."""
        self._need(BlockFeature.DISCARD)
        self._submit_ranges(RequestType.DISCARD, ranges, 0, "discard", token, queue)

    def submit_write_zeroes(
        self, ranges: Sequence[tuple[int, int]], token: int, queue: int = 0, *, unmap: bool = False
    ) -> None:
        """Make these (sector, count) ranges read as zeros; `unmap` allows the device to give their storage back."""
        self._need(BlockFeature.WRITE_ZEROES)
        flags = int(RangeFlag.UNMAP) if unmap else 0
        self._submit_ranges(RequestType.WRITE_ZEROES, ranges, flags, "zeroes", token, queue)

    def publish(self) -> None:
        """Show the device everything that was submitted; kick each queue that wants to be told."""
        for queue in self.queues:
            self._transport.publish(queue)

    def _parts(self, sector: int, segments: Segments) -> list[Part]:
        parts = split_transfer(sector, segments, self._limits)
        last = parts[-1]
        self._check_bounds(sector, last.sector + (last.size >> SECTOR_SHIFT) - sector)
        return parts

    def _check_bounds(self, sector: int, count: int) -> None:
        if sector < 0 or count < 0 or sector + count > self._capacity:
            raise ValueError(f"{count} sectors from {sector} on are not on a disk of {self._capacity}")

    def _need(self, feature: BlockFeature) -> None:
        if not self._has(feature):
            raise ValueError(f"{feature.name} was not negotiated")

    def _need_writable(self) -> None:
        if self.read_only:
            raise ValueError("the disk is read-only")

    def _submit_ranges(
        self, kind: RequestType, ranges: Sequence[tuple[int, int]], flags: int, limit: str, token: int, queue: int
    ) -> None:
        self._need_writable()
        for sector, count in ranges:
            self._check_bounds(sector, count)
        groups = split_ranges(ranges, self._area[f"{limit}_sectors_max"], self._area[f"{limit}_ranges_max"])
        payloads = [np.array([(sector, count, flags) for sector, count in group], _RANGE).tobytes() for group in groups]
        if not payloads:
            raise ValueError("no sector at all")
        self._submit(queue, kind, [Part(0, (), len(payload)) for payload in payloads], token, payloads)

    def _submit(
        self, number: int, kind: RequestType, parts: Sequence[Part], token: int, payloads: Sequence[bytes] = ()
    ) -> None:
        if self._gave_up is not None:
            raise DeviceRefused(f"the block device was given up: {self._gave_up}")
        if not 0 <= token < 1 << 64:
            raise ValueError(f"token {token} is not a 64-bit number")
        queue, slots = self.queues[number], self._slots[number]
        self._check_room(queue, slots, parts)
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
                queue.add((header,), (*segments, status), slot)
            else:
                queue.add((header, *segments), (status,), slot)
            leader = slot if leader is None else leader
        slots.mark()

    def _check_room(self, queue: DriverQueue, slots: RequestSlots, parts: Sequence[Part]) -> None:
        needed = len(parts) if self._is_indirect else sum([len(part.segments or (0,)) + 2 for part in parts])
        if needed > queue.size:
            raise ValueError(f"a request that needs {needed} descriptors of a queue of {queue.size}")
        if needed > queue.free_count or len(parts) > slots.free_count:
            raise QueueFull(f"{needed} descriptors needed, {queue.free_count} free")

    # Collecting

    def collect(self, queue: int | None = None) -> list[Completion]:
        """Return the requests that are done, in the device's order, of one queue or of all.

        When there is none, the next one calls: wait for that, and come again.

        Raises DeviceViolation for what the device must not do, and has then given it up.
        """
        done: list[Completion] = []
        if self._gave_up is not None:
            return done
        numbers: Iterable[int] = range(len(self.queues)) if queue is None else (queue,)
        try:
            for number in numbers:
                self._collect_from(number, done)
        except DeviceViolation as violation:
            self._give_up(violation)
            raise
        return done

    def _collect_from(self, number: int, done: list[Completion]) -> None:
        queue, slots = self.queues[number], self._slots[number]
        while len((batch := queue.collect_batch()).tokens):
            for slot, written_size in zip(batch.tokens.tolist(), batch.written_sizes.tolist(), strict=True):
                status = slots.status(slot)
                needed_size = 1 if status else slots.data_size(slot) + 1
                if status not in _STATUSES or written_size < needed_size:
                    raise DeviceViolation(
                        _CLAUSE, f"a request came back with status {status} and {written_size} bytes", queue=number
                    )
                finished = slots.finish(slot, status)
                if finished is not None:
                    token, kind, worst, leader = finished
                    is_id = kind == RequestType.GET_ID
                    data = slots.load_payload(leader, ID_SIZE).rstrip(b"\0") if is_id else b""
                    done.append(Completion(token, _TYPES[kind], _STATUSES[worst], data))
            slots.mark()

    # What a guest asks of any driver

    def handle_interrupt(self) -> None:
        """Look why the device interrupted; who submitted something collects it."""
        if self.gave_up is None and self._transport.take_interrupt() & Interrupt.CONFIGURATION_CHANGE:
            self._area["config_pending"] = 1

    def work(self) -> bool:
        """Look at the device if it said that its configuration changed. There is never more to do at once."""
        if self.gave_up is None and self._area["config_pending"]:
            self._area["config_pending"] = 0
            try:
                self._look_at_device()
            except DeviceViolation as violation:
                self._give_up(violation)
        return False

    def housekeep(self) -> None:
        """Do nothing: everything that matters to a disk comes with an interrupt."""

    def _look_at_device(self) -> None:
        if self._transport.needs_reset:
            raise DeviceViolation(
                "Basic Facilities of a Virtio Device / Device Status Field", "the device set DEVICE_NEEDS_RESET"
            )
        self._area["capacity"] = self._capacity = self._transport.read_config(CONFIG)["capacity"]

    def _give_up(self, why: DeviceViolation) -> None:
        reason = str(why)
        if self._events.listening:
            self._events.emit(ViolationFound("block", "device", why.statement, why.message))
        try:
            self._transport.reset()
        except DeviceViolation as refusal:
            # It does not even reset. There is nothing more a driver could do to it.
            reason = f"{why}; {refusal}"
        self._transport.set_status(DeviceStatus.FAILED)
        self._area.reason = reason
        self._gave_up = self._area.reason


def _note_limits(area: BlockArea, config: dict[str, int], queue_size: int) -> None:
    features = area["features"]

    def limit(feature: BlockFeature, field: str, otherwise: int) -> int:
        return (config[field] or otherwise) if features >> feature & 1 else otherwise

    # An indirect table has no more entries than the queue, either.
    area["seg_max"] = min(limit(BlockFeature.SEG_MAX, "seg_max", 1), SEGMENT_LIMIT, queue_size - 2)
    area["size_max"] = min(limit(BlockFeature.SIZE_MAX, "size_max", _SIZE_LIMIT), _SIZE_LIMIT)
    area["capacity"] = config["capacity"]
    ranges_max = PAYLOAD_SIZE // _RANGE.itemsize
    for name, feature, prefix in (
        ("discard", BlockFeature.DISCARD, "max_discard"),
        ("zeroes", BlockFeature.WRITE_ZEROES, "max_write_zeroes"),
    ):
        area[f"{name}_sectors_max"] = limit(feature, f"{prefix}_sectors", _NO_LIMIT)
        area[f"{name}_ranges_max"] = min(limit(feature, f"{prefix}_seg", 1), ranges_max)
