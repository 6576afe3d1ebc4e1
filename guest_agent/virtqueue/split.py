"""The driver's side of a split virtqueue (virtio 1.4, "Split Virtqueues")."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from guest_agent.virtqueue.area import Note, QueueArea
from guest_agent.virtqueue.area_queue import AreaQueue
from guest_agent.virtqueue.descriptors import Descriptors
from guest_agent.virtqueue.queue import Used, UsedBatch
from guest_agent.virtqueue.split_used import SplitUsed
from spec.device import Feature
from spec.split_ring import (
    AvailableFlag,
    UsedFlag,
    event_reached,
)
from vdev.events import SILENT, ChainsMadeAvailable, Emitter
from vdev.memory.order import store_fence

__all__ = ["SplitDriverQueue"]

# Plain names: to look an attribute up costs as much as to look at the note itself.
_CALLS_ENABLED = Note.CALLS_ENABLED
_LAST_USED = Note.LAST_USED
_NEXT_AVAILABLE = Note.NEXT_AVAILABLE
_PUBLISHED = Note.PUBLISHED
_UNKICKED_COUNT = Note.UNKICKED_COUNT

_SMALL_BATCH = 8
"""Below so many buffers one by one is quicker than numpy (benchmarks/bench_split_ring.py)."""

_COUNT_LIMIT = 0x1_0000
"""A count that has got here covers every value a 16-bit index can have, and need not go on."""

_FLAGS, _IDX = 0, 1
"""16-bit words of both rings; the rest of a ring stands where its size puts it."""

# Plain integers: an IntFlag operation costs as much as the rest of a descriptor.
_NO_INTERRUPT, _NO_NOTIFY = int(AvailableFlag.NO_INTERRUPT), int(UsedFlag.NO_NOTIFY)


class SplitDriverQueue(AreaQueue):
    """One split virtqueue, seen from the driver; see `DriverQueue` for what each method promises."""

    area_class = QueueArea
    _area: QueueArea
    small_batch: int | None = None
    """From so many used buffers on they are taken with numpy; None: from where that is quicker on."""

    def __init__(self, area: QueueArea, number: int, events: Emitter = SILENT) -> None:
        super().__init__(area, number, events)
        in_order = bool(area.features >> Feature.IN_ORDER & 1)
        indirect = bool(area.features >> Feature.INDIRECT_DESC & 1)
        self._descriptors = Descriptors(area, indirect=indirect, in_order=in_order)
        self._used = SplitUsed(area, self._descriptors, number, in_order=in_order)

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
        """Place a buffer; returns its head."""
        head = self._descriptors.place(readable, writable, token, indirect)
        place = self._notes[_NEXT_AVAILABLE] & (self.size - 1)
        self._area.available[self._area.available_ring_word + place] = head
        self._note_added(place, 1)
        return head

    def add_batch(
        self,
        addresses: npt.NDArray[np.uint64],
        sizes: npt.NDArray[np.uint64],
        *,
        writable: bool,
        tokens: npt.NDArray[np.uint64],
    ) -> int:
        """Place buffers of one descriptor each, as many as fit; returns how many."""
        heads = self._descriptors.place_batch(addresses, sizes, writable, tokens)
        if len(heads):
            places = self._ring_places(self._notes[_NEXT_AVAILABLE], len(heads))
            self._area.available_ring[places] = heads
            self._note_added(int(places[0]), len(heads))
        return len(heads)

    def _note_added(self, place: int, count: int) -> None:
        self._area.mark_available_entries(place, count)
        notes = self._notes
        notes[_NEXT_AVAILABLE] = (notes[_NEXT_AVAILABLE] + count) & 0xFFFF
        self._area.mark_notes()

    def publish(self) -> None:
        """Make all buffers added since the last call visible at once."""
        notes, area = self._notes, self._area
        index, published = notes[_NEXT_AVAILABLE], notes[_PUBLISHED]
        count = (index - published) & 0xFFFF
        if not count:
            return
        store_fence()
        area.store_available_word(_IDX, index)
        notes[_PUBLISHED] = index
        notes[_UNKICKED_COUNT] = min(notes[_UNKICKED_COUNT] + count, _COUNT_LIMIT)
        area.mark_notes()
        if self._events.listening:
            heads = area.available_ring[self._ring_places(published, count)]
            self._events.emit(ChainsMadeAvailable(self.number, tuple(heads.tolist())))

    # Used buffers

    def has_used(self) -> bool:
        """Say whether the device has given back a buffer that was not collected."""
        return self._used.is_there()

    def collect(self) -> Used | None:
        """Take the next used buffer back, or None."""
        if not self._used.pending_count():
            return None
        used = self._used.take()
        self._arm_calls(self._notes[_LAST_USED])
        if self._events.listening:
            self._tell_collected([used.head])
        return used

    def collect_batch(self, limit: int | None = None) -> UsedBatch:
        """Take all used buffers back, or the first `limit`; those behind a violation are left."""
        count = self._pending_count_and_arm(self.size if limit is None else limit)
        batch = self._used.take_many(count) if count >= (self.small_batch or _SMALL_BATCH) else None
        if batch is None:
            # Either there are few of them, or one in front that only this way can take, or name.
            batch = self._used.take_one_by_one(count)
        self._tell_collected(batch.heads.tolist())
        return batch

    def _pending_count_and_arm(self, limit: int) -> int:
        """Return how many buffers to take, such that whatever is used behind them calls."""
        count = min(self._used.pending_count(), limit)
        while count > 0 and self._event_idx and self._notes[_CALLS_ENABLED]:
            self._arm_calls((self._notes[_LAST_USED] + count) & 0xFFFF)
            before, count = count, min(self._used.pending_count(), limit)
            if count <= before:
                break
        return count

    # Notification suppression

    def should_kick(self) -> bool:
        """Say whether the device wants to be told of what was published since the last look."""
        count = self._notes[_UNKICKED_COUNT]
        if not count:
            return False
        self._notes[_UNKICKED_COUNT] = 0
        self._area.mark_notes()
        self._full_fence()
        if self._event_idx:
            return event_reached(self._area.used[self._area.avail_event_word], self._notes[_PUBLISHED], count)
        return not self._area.used[_FLAGS] & _NO_NOTIFY

    def notification_data(self) -> int:
        """Return the number in bits 0 to 15, the available index in bits 16 to 31 ("Driver Notifications")."""
        return self.number | self._notes[_PUBLISHED] << 16

    def disable_calls(self) -> None:
        """Advise the device that calls are not needed."""
        self._notes[_CALLS_ENABLED] = 0
        self._area.mark_notes()
        if self._event_idx:
            # The flags must stay 0; an event just behind is farthest from being reached.
            self._area.store_available_word(self._area.used_event_word, (self._notes[_LAST_USED] - 1) & 0xFFFF)
        else:
            self._area.store_available_word(_FLAGS, _NO_INTERRUPT)

    def enable_calls(self) -> bool:
        """Ask for a call at the next used buffer; true when there are some already."""
        self._notes[_CALLS_ENABLED] = 1
        self._area.mark_notes()
        if self._event_idx:
            self._area.store_available_word(self._area.used_event_word, self._notes[_LAST_USED])
        else:
            self._area.store_available_word(_FLAGS, 0)
        self._full_fence()
        return self.has_used()

    def _arm_calls(self, index: int) -> None:
        if self._event_idx and self._notes[_CALLS_ENABLED]:
            self._area.store_available_word(self._area.used_event_word, index)
            self._full_fence()

    def _ring_places(self, index: int, count: int) -> npt.NDArray[np.int64]:
        return np.arange(index, index + count) & (self.size - 1)
