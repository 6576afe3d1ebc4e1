"""The driver's side of a split virtqueue (virtio 1.4, "Split Virtqueues")."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from guest_agent.virtqueue.area import Note, QueueArea
from guest_agent.virtqueue.descriptors import Descriptors
from guest_agent.virtqueue.in_order import sizes_in_order
from guest_agent.virtqueue.noted_area import whole_pages
from guest_agent.virtqueue.queue import DriverAddresses, Used, UsedBatch
from spec.device import Feature
from spec.layout import struct_of
from spec.split_area import NO_BATCH, split_area
from spec.split_ring import (
    USED_ELEMENT,
    AvailableFlag,
    UsedFlag,
    event_reached,
)
from vdev.errors import DeviceViolation
from vdev.events import SILENT, ChainsMadeAvailable, Emitter, UsedCollected
from vdev.memory import GuestMemory
from vdev.memory.order import full_fence, load_fence, store_fence

__all__ = ["SplitDriverQueue"]

_SMALL_BATCH = 8
"""Below so many buffers one by one is quicker than numpy (benchmarks/bench_split_ring.py)."""

_COUNT_LIMIT = 0x1_0000
"""A count that has got here covers every value a 16-bit index can have, and need not go on."""

_FLAGS, _IDX = 0, 1
"""16-bit words of both rings; the rest of a ring stands where its size puts it."""

# Plain integers: an IntFlag operation costs as much as the rest of a descriptor.
_NO_INTERRUPT, _NO_NOTIFY = int(AvailableFlag.NO_INTERRUPT), int(UsedFlag.NO_NOTIFY)

_USED_SIZE: int = USED_ELEMENT.sizeof()
_unpack_used = struct_of(USED_ELEMENT).unpack_from

_USED_RING = "The Virtqueue Used Ring"


class SplitDriverQueue:
    """One split virtqueue, seen from the driver; see `DriverQueue` for what each method promises.

    Make one with `create`, or go on with one that is in guest RAM already with `attach`. The object itself holds
    nothing that changes: two objects over one area are the same queue (of which one at a time may act).
    """

    def __init__(self, area: QueueArea, number: int, events: Emitter = SILENT) -> None:
        self.number = number
        self.size = area.size
        self.area_address = area.address
        self._area = area
        self._events = events
        self._notes = area.notes
        self._event_idx = bool(area.features >> Feature.EVENT_IDX & 1)
        self._in_order = bool(area.features >> Feature.IN_ORDER & 1)
        self._descriptors = Descriptors(
            area, indirect=bool(area.features >> Feature.INDIRECT_DESC & 1), in_order=self._in_order
        )

    @staticmethod
    def area_size(size: int, indirect_capacity: int = 0) -> int:
        """Return the bytes of guest RAM, a multiple of the page size, that a queue of `size` descriptors takes.

        `indirect_capacity` is the most entries an indirect table can have; every descriptor gets such a table.
        """
        return whole_pages(split_area(size, indirect_capacity).size)

    @classmethod
    def create(
        cls,
        memory: GuestMemory,
        number: int,
        size: int,
        area_address: int,
        features: int,
        events: Emitter = SILENT,
        *,
        indirect_capacity: int = 0,
    ) -> "SplitDriverQueue":
        """Return an empty queue in `area_size(size, indirect_capacity)` bytes from the page-aligned `area_address` on.

        `number` is the queue's, for errors and events; `features` is the mask of negotiated bits. Calls are enabled.

        Raises ValueError for an impossible size or address, GuestAddressError where the area is not in RAM.
        """
        return cls(QueueArea.create(memory, area_address, size, features, indirect_capacity), number, events)

    @classmethod
    def attach(
        cls, memory: GuestMemory, number: int, area_address: int, events: Emitter = SILENT
    ) -> "SplitDriverQueue":
        """Return the queue that `create` made at `area_address`, exactly as it stands. Stores nothing.

        Raises NoQueueHere.
        """
        return cls(QueueArea.find(memory, area_address), number, events)

    @property
    def addresses(self) -> DriverAddresses:
        """What the device is to be told."""
        return self._area.addresses

    @property
    def features(self) -> int:
        """The mask of negotiated bits that the queue was made with."""
        return self._area.features

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
        place = self._notes[Note.NEXT_AVAILABLE] & (self.size - 1)
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
            places = self._ring_places(self._notes[Note.NEXT_AVAILABLE], len(heads))
            self._area.available_ring[places] = heads
            self._note_added(int(places[0]), len(heads))
        return len(heads)

    def _note_added(self, place: int, count: int) -> None:
        self._area.mark_available_entries(place, count)
        self._notes[Note.NEXT_AVAILABLE] = (self._notes[Note.NEXT_AVAILABLE] + count) & 0xFFFF
        self._area.mark_notes()

    def publish(self) -> None:
        """Make all buffers added since the last call visible at once."""
        notes, area = self._notes, self._area
        index, published = notes[Note.NEXT_AVAILABLE], notes[Note.PUBLISHED]
        count = (index - published) & 0xFFFF
        if not count:
            return
        store_fence()
        area.store_available_word(_IDX, index)
        notes[Note.PUBLISHED] = index
        notes[Note.UNKICKED_COUNT] = min(notes[Note.UNKICKED_COUNT] + count, _COUNT_LIMIT)
        area.mark_notes()
        if self._events.listening:
            heads = area.available_ring[self._ring_places(published, count)]
            self._events.emit(ChainsMadeAvailable(self.number, tuple(heads.tolist())))

    # Used buffers

    def has_used(self) -> bool:
        """Say whether the device has given back a buffer that was not collected."""
        return self._area.used[_IDX] != self._notes[Note.LAST_USED]

    def collect(self) -> Used | None:
        """Take the next used buffer back, or None."""
        if not self._pending_count():
            return None
        used = self._take()
        self._arm_calls(self._notes[Note.LAST_USED])
        self._tell_collected([used.head])
        return used

    def _take(self) -> Used:
        area = self._area
        head, written_size = self._next_in_order() if self._in_order else self._used_entry()
        used = Used(area.token_words[head], written_size, head)
        self._descriptors.release(head)
        self._note_collected(1)
        return used

    def _used_entry(self) -> tuple[int, int]:
        """Return head and written size of the next used entry, checked."""
        load_fence()
        area = self._area
        place = self._notes[Note.LAST_USED] & (self.size - 1)
        head, written_size = _unpack_used(area.used_bytes, area.used_ring_offset + _USED_SIZE * place)
        if head >= self.size:
            raise DeviceViolation(
                _USED_RING, f"id {head} in a table of {self.size}", queue=self.number, descriptor=head
            )
        if not area.descriptor_count_words[head] or head in self._unpublished_heads():
            raise DeviceViolation(_USED_RING, "an id that the device does not hold", queue=self.number, descriptor=head)
        writable_size = area.writable_size_words[head]
        if written_size > writable_size:
            raise DeviceViolation(
                _USED_RING,
                f"{written_size} bytes written into {writable_size} writable ones",
                queue=self.number,
                descriptor=head,
            )
        return head, written_size

    def _next_in_order(self) -> tuple[int, int]:
        """Return head and written size of the oldest chain, for which the next used entry may speak, too."""
        notes = self._notes
        oldest = notes[Note.OLDEST_DESCRIPTOR]
        last, written_size = notes[Note.BATCH_HEAD], notes[Note.BATCH_WRITTEN_SIZE]
        if last == NO_BATCH:
            last, written_size = self._used_entry()
            if last == oldest:
                return last, written_size
            if last not in self._descriptors.oldest(self._pending_count()):
                message = "an id that idx does not cover, with IN_ORDER"
                raise DeviceViolation(_USED_RING, message, queue=self.number, descriptor=last)
            notes[Note.BATCH_HEAD], notes[Note.BATCH_WRITTEN_SIZE] = last, written_size
        if last == oldest:
            notes[Note.BATCH_HEAD] = NO_BATCH
            return last, written_size
        # One that was passed over counts as written completely.
        return oldest, self._area.writable_size_words[oldest]

    def collect_batch(self, limit: int | None = None) -> UsedBatch:
        """Take all used buffers back, or the first `limit`; those behind a violation are left."""
        area, last_used = self._area, self._notes[Note.LAST_USED]
        count = self._pending_count_and_arm(self.size if limit is None else limit)
        if count < _SMALL_BATCH:
            return self._take_one_by_one(count)
        if self._in_order:
            return self._collect_in_order(count)
        load_fence()
        entries = area.used_ring[self._ring_places(last_used, count)]
        heads, written_sizes = entries["id"].astype(np.int64), entries["len"].astype(np.int64)
        count = _prefix(heads < self.size)
        heads, written_sizes = heads[:count], written_sizes[:count]
        clean = (area.descriptor_counts[heads] > 0) & (written_sizes <= area.writable_sizes[heads].astype(np.int64))
        clean &= self._is_first(heads)
        unpublished = self._unpublished_heads()
        if unpublished:
            clean &= ~np.isin(heads, unpublished)
        count = _prefix(clean)
        if not count:
            return self._take_one_by_one(1)
        heads = heads[:count]
        batch = UsedBatch(area.tokens[heads], written_sizes[:count], heads)
        self._descriptors.release_batch(heads)
        self._note_collected(count)
        self._tell_collected(heads.tolist())
        return batch

    def _collect_in_order(self, count: int) -> UsedBatch:
        area, pending_count = self._area, self._pending_count()
        if self._notes[Note.BATCH_HEAD] != NO_BATCH or count < pending_count:
            return self._take_one_by_one(count)
        load_fence()
        heads = self._descriptors.oldest(count)
        entries = area.used_ring[self._ring_places(self._notes[Note.LAST_USED], count)]
        writable_sizes = area.writable_sizes[heads].astype(np.int64)
        written_sizes = sizes_in_order(
            heads,
            np.ones(count, np.bool_),
            entries["id"].astype(np.int64),
            entries["len"].astype(np.int64),
            writable_sizes,
        )
        if not len(written_sizes):
            return self._take_one_by_one(1)
        heads = heads[: len(written_sizes)]
        batch = UsedBatch(area.tokens[heads], written_sizes, heads)
        self._descriptors.release_batch(heads)
        self._note_collected(len(heads))
        self._tell_collected(heads.tolist())
        return batch

    def _take_one_by_one(self, count: int) -> UsedBatch:
        taken: list[Used] = []
        for _ in range(count):
            try:
                taken.append(self._take())
            except DeviceViolation:
                if taken:
                    break  # It is in front now, and the next call raises it.
                raise
        self._tell_collected([used.head for used in taken])
        return UsedBatch(
            np.array([used.token for used in taken], np.uint64),
            np.array([used.written_size for used in taken], np.int64),
            np.array([used.head for used in taken], np.int64),
        )

    def _pending_count(self) -> int:
        notes = self._notes
        count = (self._area.used[_IDX] - notes[Note.LAST_USED]) & 0xFFFF
        held_count = (notes[Note.PUBLISHED] - notes[Note.LAST_USED]) & 0xFFFF
        if count > held_count:
            raise DeviceViolation(
                _USED_RING,
                f"idx moved by {count}, but the device holds {held_count} chains",
                queue=self.number,
                address=self.addresses.device,
            )
        return count

    def _pending_count_and_arm(self, limit: int) -> int:
        """Return how many buffers to take, such that whatever is used behind them calls."""
        count = min(self._pending_count(), limit)
        while count > 0 and self._event_idx and self._notes[Note.CALLS_ENABLED]:
            self._arm_calls((self._notes[Note.LAST_USED] + count) & 0xFFFF)
            before, count = count, min(self._pending_count(), limit)
            if count <= before:
                break
        return count

    def _unpublished_heads(self) -> list[int]:
        published = self._notes[Note.PUBLISHED]
        count = (self._notes[Note.NEXT_AVAILABLE] - published) & 0xFFFF
        if not count:
            return []
        heads: list[int] = self._area.available_ring[self._ring_places(published, count)].tolist()
        return heads

    def _note_collected(self, count: int) -> None:
        self._notes[Note.LAST_USED] = (self._notes[Note.LAST_USED] + count) & 0xFFFF
        self._area.mark_notes()

    def _tell_collected(self, heads: list[int]) -> None:
        if self._events.listening and heads:
            self._events.emit(UsedCollected(self.number, tuple(heads)))

    # Notification suppression

    def should_kick(self) -> bool:
        """Say whether the device wants to be told of what was published since the last look."""
        count = self._notes[Note.UNKICKED_COUNT]
        if not count:
            return False
        self._notes[Note.UNKICKED_COUNT] = 0
        self._area.mark_notes()
        full_fence()
        if self._event_idx:
            return event_reached(self._area.used[self._area.avail_event_word], self._notes[Note.PUBLISHED], count)
        return not self._area.used[_FLAGS] & _NO_NOTIFY

    def notification_data(self) -> int:
        """Return the number in bits 0 to 15, the available index in bits 16 to 31 ("Driver Notifications")."""
        return self.number | self._notes[Note.PUBLISHED] << 16

    def disable_calls(self) -> None:
        """Advise the device that calls are not needed."""
        self._notes[Note.CALLS_ENABLED] = 0
        self._area.mark_notes()
        if self._event_idx:
            # The flags must stay 0; an event just behind is farthest from being reached.
            self._area.store_available_word(self._area.used_event_word, (self._notes[Note.LAST_USED] - 1) & 0xFFFF)
        else:
            self._area.store_available_word(_FLAGS, _NO_INTERRUPT)

    def enable_calls(self) -> bool:
        """Ask for a call at the next used buffer; true when there are some already."""
        self._notes[Note.CALLS_ENABLED] = 1
        self._area.mark_notes()
        if self._event_idx:
            self._area.store_available_word(self._area.used_event_word, self._notes[Note.LAST_USED])
        else:
            self._area.store_available_word(_FLAGS, 0)
        full_fence()
        return self.has_used()

    def _arm_calls(self, index: int) -> None:
        if self._event_idx and self._notes[Note.CALLS_ENABLED]:
            self._area.store_available_word(self._area.used_event_word, index)
            full_fence()

    # Ring arithmetic

    def _ring_places(self, index: int, count: int) -> npt.NDArray[np.int64]:
        return np.arange(index, index + count) & (self.size - 1)

    def _is_first(self, heads: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Say for each head whether no earlier one equals it."""
        order = np.arange(len(heads))
        seen_at = np.empty(self.size, np.int64)
        seen_at[heads[::-1]] = order[::-1]  # the last assignment stays
        return np.equal(seen_at[heads], order)


def _prefix(clean: npt.NDArray[np.bool_]) -> int:
    return len(clean) if clean.all() else int(np.argmin(clean))
