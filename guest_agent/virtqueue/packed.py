"""The driver's side of a packed virtqueue (virtio 1.4, "Packed Virtqueues")."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from guest_agent.virtqueue.area_queue import AreaQueue
from guest_agent.virtqueue.packed_area import PackedNote, PackedQueueArea
from guest_agent.virtqueue.packed_descriptors import PackedDescriptors
from guest_agent.virtqueue.packed_used import PackedUsed
from guest_agent.virtqueue.queue import Used, UsedBatch
from spec.device import Feature
from spec.packed_ring import EventFlag, event_reached, is_position, position
from vdev.errors import DeviceViolation
from vdev.events import SILENT, ChainsMadeAvailable, Emitter
from vdev.memory.order import store_fence

__all__ = ["PackedDriverQueue"]

_SMALL_BATCH = 8
"""Below so many buffers one by one is quicker than numpy (benchmarks/bench_packed_ring.py)."""


class PackedDriverQueue(AreaQueue):
    """One packed virtqueue, seen from the driver; see `DriverQueue` for what each method promises.

    A buffer's head is its id.
    """

    area_class = PackedQueueArea
    _area: PackedQueueArea
    small_batch: int | None = None
    """From so many used buffers on they are taken with numpy; None: from where that is quicker on."""

    def __init__(self, area: PackedQueueArea, number: int, events: Emitter = SILENT) -> None:
        super().__init__(area, number, events)
        in_order = bool(area.features >> Feature.IN_ORDER & 1)
        indirect = bool(area.features >> Feature.INDIRECT_DESC & 1)
        self._descriptors = PackedDescriptors(area, indirect=indirect, in_order=in_order)
        self._used = PackedUsed(area, self._descriptors, number, in_order=in_order)

    @property
    def free_count(self) -> int:
        """Descriptors that are free."""
        return self._descriptors.free_count

    # Available buffers

    def add(
        self,
        readable: Sequence[tuple[int, int]],
        writable: Sequence[tuple[int, int]],
        token: int,
        *,
        indirect: bool | None = None,
    ) -> int:
        """Place a buffer; returns its id."""
        return self._descriptors.place(readable, writable, token, indirect)

    def add_batch(
        self,
        addresses: npt.NDArray[np.uint64],
        sizes: npt.NDArray[np.uint64],
        *,
        writable: bool,
        tokens: npt.NDArray[np.uint64],
    ) -> int:
        """Place buffers of one descriptor each, as many as fit; returns how many."""
        return self._descriptors.place_batch(addresses, sizes, writable, tokens)

    def publish(self) -> None:
        """Make all buffers added since the last call visible at once: the flags of the first descriptor go last."""
        notes = self._notes
        place, end = notes[PackedNote.PUBLISHED], notes[PackedNote.NEXT_AVAILABLE]
        count = (end - place) % (2 * self.size)
        if not count:
            return
        added = self._descriptors.added() if self._events.listening else []
        store_fence()
        self._descriptors.show()
        # Nobody waits for an event that is more than a lap back.
        notes[PackedNote.UNKICKED_COUNT] = min(notes[PackedNote.UNKICKED_COUNT] + count, self.size)
        self._area.mark_notes()
        if self._events.listening:
            self._events.emit(ChainsMadeAvailable(self.number, tuple(added)))

    # Used buffers

    def has_used(self) -> bool:
        """Say whether the device has given back a buffer that was not collected."""
        return self._used.is_there()

    def collect(self) -> Used | None:
        """Take the next used buffer back, or None."""
        if not self._used.is_there():
            return None
        used = self._used.take()
        self._arm_calls()
        self._tell_collected([used.head])
        return used

    def collect_batch(self, limit: int | None = None) -> UsedBatch:
        """Take all used buffers back, or the first `limit`; those behind a violation are left."""
        wanted = self.size if limit is None else min(limit, self.size)
        batches: list[UsedBatch] = []
        try:
            while wanted > 0 and self._used.is_there():
                batches.append(self._take_some(wanted))
                wanted -= len(batches[-1].tokens)
                self._arm_calls()
        except DeviceViolation:
            if not batches:
                raise
            # It is in front now, and the next call raises it.
        batch = batches[0] if len(batches) == 1 else _joined(batches)
        self._tell_collected(batch.heads.tolist())
        return batch

    def _take_some(self, limit: int) -> UsedBatch:
        """Take at least one used buffer."""
        small = self.small_batch or _SMALL_BATCH
        if limit >= small and self._used.looks_many(small):
            many = self._used.take_many(limit)
            if many is not None:
                return many
        taken = [self._used.take()]
        while len(taken) < min(limit, small) and self._used.is_there():
            try:
                taken.append(self._used.take())
            except DeviceViolation:
                break  # It is in front now, and the next call raises it.
        return UsedBatch(
            np.array([used.token for used in taken], np.uint64),
            np.array([used.written_size for used in taken], np.int64),
            np.array([used.head for used in taken], np.int64),
        )

    # Notification suppression

    def should_kick(self) -> bool:
        """Say whether the device wants to be told of what was published since the last look."""
        count = self._notes[PackedNote.UNKICKED_COUNT]
        if not count:
            return False
        self._full_fence()
        event, flag = self._area.device_event()
        if flag > EventFlag.DESC:
            raise self._event_violation("the reserved event flags 3")
        wanted = flag == EventFlag.ENABLE
        if flag == EventFlag.DESC:
            if not self._event_idx:
                raise self._event_violation("event flags DESC, but EVENT_IDX was not negotiated")
            if not is_position(event, self.size):
                raise self._event_violation(f"an event at descriptor {event & 0x7FFF} of {self.size}")
            wanted = event_reached(event, position(self._notes[PackedNote.PUBLISHED], self.size), count, self.size)
        self._notes[PackedNote.UNKICKED_COUNT] = 0
        self._area.mark_notes()
        return wanted

    def _event_violation(self, message: str) -> DeviceViolation:
        return DeviceViolation(
            "Event Suppression Structure Format", message, queue=self.number, address=self.addresses.device
        )

    def notification_data(self) -> int:
        """Return the number in bits 0 to 15, the next available position in bits 16 to 31 ("Driver Notifications")."""
        return self.number | position(self._notes[PackedNote.PUBLISHED], self.size) << 16

    def disable_calls(self) -> None:
        """Advise the device that calls are not needed."""
        self._notes[PackedNote.CALLS_ENABLED] = 0
        self._area.mark_notes()
        self._area.store_driver_event(0, EventFlag.DISABLE)

    def enable_calls(self) -> bool:
        """Ask for a call at the next used buffer; true when there are some already."""
        self._notes[PackedNote.CALLS_ENABLED] = 1
        self._area.mark_notes()
        if self._event_idx:
            self._arm_calls()
        else:
            self._area.store_driver_event(0, EventFlag.ENABLE)
            self._full_fence()
        return self.has_used()

    def _arm_calls(self) -> None:
        if self._event_idx and self._notes[PackedNote.CALLS_ENABLED]:
            event = position(self._notes[PackedNote.NEXT_USED], self.size)
            self._area.store_driver_event(event, EventFlag.DESC)
            self._full_fence()


def _joined(batches: list[UsedBatch]) -> UsedBatch:
    if not batches:
        return UsedBatch(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))
    return UsedBatch(
        np.concatenate([batch.tokens for batch in batches]),
        np.concatenate([batch.written_sizes for batch in batches]),
        np.concatenate([batch.heads for batch in batches]),
    )
