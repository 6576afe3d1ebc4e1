"""The block driver: requests go in with `submit_...`, and come back from `collect` (virtio 1.4, "Block Device")."""

import math
from collections.abc import Sequence

import numpy as np

from guest_agent.drivers.block.area import BlockArea
from guest_agent.drivers.block.parts import Limits, Part, Segments, split_ranges, split_transfer
from guest_agent.drivers.block.request_queue import Completion, RequestQueue
from guest_agent.drivers.giving_up import check_needs_no_reset, give_up_device
from guest_agent.drivers.rings import RING_DRIVER_FEATURES, usable_queue_size
from guest_agent.transport import DeviceRefused, Transport
from spec.block import (
    CONFIG,
    DATA_RANGE,
    ID_SIZE,
    SECTOR_SHIFT,
    BlockFeature,
    RangeFlag,
    RequestType,
)
from spec.device import Feature, feature_mask
from spec.layout import dtype_of
from spec.mmio import Interrupt
from vdev.errors import DeviceViolation
from vdev.events import SILENT, Emitter
from vdev.memory import GuestMemory

__all__ = ["BLOCK_DRIVER_FEATURES", "BlockDriver", "Completion"]

BLOCK_DRIVER_FEATURES = RING_DRIVER_FEATURES | feature_mask(
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

_RANGE = dtype_of(DATA_RANGE)


_OPTIONAL_FIELDS = {
    BlockFeature.SIZE_MAX: ("size_max",),
    BlockFeature.SEG_MAX: ("seg_max",),
    BlockFeature.MQ: ("num_queues",),
    BlockFeature.DISCARD: ("max_discard_sectors", "max_discard_seg"),
    BlockFeature.WRITE_ZEROES: ("max_write_zeroes_sectors", "max_write_zeroes_seg"),
}
"""Feature -> the fields that are there with it, of those that this driver wants to know."""


def _config_fields(features: int) -> list[str]:
    """Return the fields of the configuration space that there are with these features."""
    optional = [name for bit, names in _OPTIONAL_FIELDS.items() if features >> bit & 1 for name in names]
    return ["capacity", *optional]


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
        requests: Sequence[RequestQueue],
        events: Emitter,
    ) -> None:
        self.queues = tuple(queue.ring for queue in requests)
        """The request queues in use, by number; look at `free_count`, or ask for calls."""
        self._area = area
        self._transport = transport
        self._requests = tuple(requests)
        self._events = events
        self._features = area["features"]
        self._limits = Limits(area["size_max"], area["seg_max"])
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
        config = transport.read_config(CONFIG, _config_fields(features))
        has_queues = features >> BlockFeature.MQ & 1
        area["queue_count"] = min(queue_count, config["num_queues"] if has_queues else 1)
        queues: list[RequestQueue] = []
        for number in range(area["queue_count"]):
            size = usable_queue_size(queue_size, transport.queue_size_max(number))
            if size < 3:
                raise transport.fail(f"queue {number} has at most {size} descriptors: no room for a request")
            queues.append(RequestQueue.create(area, number, size, events))
            transport.set_up_queue(number, queues[number].ring.addresses)
        if not queues:
            raise transport.fail("a block device without a queue")
        area.note_limits(config, min(queue.ring.size for queue in queues))
        driver = cls(area, transport, queues, events)
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
        queues = [RequestQueue.attach(area, number, events) for number in range(area["queue_count"])]
        return cls(area, transport, queues, events)

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
        self._requests[number].submit(kind, parts, token, payloads)

    # Collecting

    def collect(self, queue: int | None = None) -> list[Completion]:
        """Return the requests that are done, in the device's order, of one queue or of all.

        When there is none, the next one calls: wait for that, and come again.

        Raises DeviceViolation for what the device must not do, and has then given it up.
        """
        done: list[Completion] = []
        if self._gave_up is not None:
            return done
        try:
            for requests in self._requests if queue is None else (self._requests[queue],):
                requests.collect(done)
        except DeviceViolation as violation:
            self._give_up(violation)
            raise
        return done

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

    def housekeep(self, now: float) -> float:
        """Do nothing: everything that matters to a disk comes with an interrupt."""
        return math.inf

    def _look_at_device(self) -> None:
        check_needs_no_reset(self._transport)
        self._area["capacity"] = self._capacity = self._transport.read_config(CONFIG, ["capacity"])["capacity"]

    def _give_up(self, why: DeviceViolation) -> None:
        give_up_device(self._area, self._transport, why, self._events)
        self._gave_up = self._area.reason
