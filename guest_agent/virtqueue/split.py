"""The driver's side of a split virtqueue (virtio 1.4, "Split Virtqueues")."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from guest_agent.virtqueue.area import Note, QueueArea, offset_of
from guest_agent.virtqueue.queue import DriverAddresses, QueueFull, Used, UsedBatch
from spec.device import Feature
from spec.layout import dtype_of, struct_of
from spec.split_area import split_area
from spec.split_ring import (
    DESCRIPTOR,
    USED_ELEMENT,
    AvailableFlag,
    DescriptorFlag,
    UsedFlag,
    available_ring,
    event_reached,
    used_ring,
)
from vdev.errors import DeviceViolation
from vdev.events import SILENT, ChainsMadeAvailable, Emitter, UsedCollected
from vdev.memory import PAGE_SIZE, GuestMemory
from vdev.memory.order import full_fence, load_fence, store_fence

__all__ = ["SplitDriverQueue"]

_LIMIT_64 = (1 << 64) - 1
_CHAIN_SIZE_LIMIT = 1 << 32
_COUNT_LIMIT = 0x1_0000
"""A count that has got here covers every value a 16-bit index can have, and need not go on."""

_FLAGS, _IDX = 0, 1
"""16-bit words of both rings; the rest of a ring stands where its size puts it."""

# Plain integers: an IntFlag operation costs as much as the rest of a descriptor.
_NEXT, _WRITE, _INDIRECT = int(DescriptorFlag.NEXT), int(DescriptorFlag.WRITE), int(DescriptorFlag.INDIRECT)
_NO_INTERRUPT, _NO_NOTIFY = int(AvailableFlag.NO_INTERRUPT), int(UsedFlag.NO_NOTIFY)

_DESCRIPTOR_SIZE: int = DESCRIPTOR.sizeof()
_USED_SIZE: int = USED_ELEMENT.sizeof()
_pack_descriptor = struct_of(DESCRIPTOR).pack_into
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
        self._indirect = bool(area.features >> Feature.INDIRECT_DESC & 1) and area.indirect_capacity > 0
        self._available_ring_word = offset_of(dtype_of(available_ring(area.size)), "ring") // 2
        self._used_event_word = offset_of(dtype_of(available_ring(area.size)), "used_event") // 2
        self._used_ring_offset = offset_of(dtype_of(used_ring(area.size)), "ring")
        self._avail_event_word = offset_of(dtype_of(used_ring(area.size)), "avail_event") // 2

    @staticmethod
    def area_size(size: int, indirect_capacity: int = 0) -> int:
        """Return the bytes of guest RAM, a multiple of the page size, that a queue of `size` descriptors takes.

        `indirect_capacity` is the most entries an indirect table can have; every descriptor gets such a table.
        """
        return -(-split_area(size, indirect_capacity).size // PAGE_SIZE) * PAGE_SIZE

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
    def free_count(self) -> int:
        """Descriptors that are free."""
        return self._notes[Note.FREE_COUNT]

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
        segments = [(address, size, 0) for address, size in readable]
        segments += [(address, size, _WRITE) for address, size in writable]
        use_indirect = self._choose_indirect(len(segments), indirect)
        writable_size = sum(size for _, size in writable)
        self._check_buffer(segments, token)
        free_count = self._notes[Note.FREE_COUNT]
        needed_count = 1 if use_indirect else len(segments)
        if needed_count > free_count:
            raise QueueFull(f"queue {self.number}: {needed_count} descriptors needed, {free_count} free")

        area = self._area
        slots: list[int] = area.free[free_count - needed_count : free_count][::-1].tolist()
        head = slots[0]
        if use_indirect:
            table_offset = area.layout.indirect_table_size * head
            self._store_chain(area.indirect_tables, table_offset, segments, range(len(segments)))
            table_size = len(segments) * _DESCRIPTOR_SIZE
            area.mark(area.layout.indirect + table_offset, table_size)
            table_address = area.address + area.layout.indirect + table_offset
            _pack_descriptor(area.table, _DESCRIPTOR_SIZE * head, table_address, table_size, _INDIRECT, 0)
        else:
            self._store_chain(area.table, 0, segments, slots)
            area.links[slots[:-1]] = slots[1:]
        area.tokens[head] = token
        area.writable_sizes[head] = writable_size
        area.descriptor_counts[head] = needed_count
        area.mark_slots(slots)

        place = self._notes[Note.NEXT_AVAILABLE] & (self.size - 1)
        area.available[self._available_ring_word + place] = head
        self._mark_available(place, 1)
        self._note_added(1, needed_count)
        return head

    def _choose_indirect(self, segment_count: int, wish: bool | None) -> bool:
        if wish is None:
            return self._indirect and 1 < segment_count <= self._area.indirect_capacity
        if wish and not (self._indirect and segment_count <= self._area.indirect_capacity):
            raise ValueError(f"queue {self.number}: no indirect table for {segment_count} segments")
        return wish

    def _check_buffer(self, segments: list[tuple[int, int, int]], token: int) -> None:
        if not segments:
            raise ValueError("a buffer needs a segment")
        if len(segments) > self.size:
            raise ValueError(f"{len(segments)} segments in a queue of {self.size}")
        for address, size, _ in segments:
            if not (0 <= address <= _LIMIT_64 and 0 <= size < _CHAIN_SIZE_LIMIT):
                raise ValueError(f"no descriptor can hold address {address:#x}, {size} bytes")
        if sum(size for _, size, _ in segments) > _CHAIN_SIZE_LIMIT:
            raise ValueError("a buffer of more than 2^32 bytes")
        if not 0 <= token <= _LIMIT_64:
            raise ValueError(f"token {token} is not a 64-bit number")

    @staticmethod
    def _store_chain(
        table: memoryview, offset: int, segments: list[tuple[int, int, int]], slots: Sequence[int]
    ) -> None:
        last = len(segments) - 1
        for position, (address, size, flags) in enumerate(segments):
            place = offset + _DESCRIPTOR_SIZE * slots[position]
            if position < last:
                _pack_descriptor(table, place, address, size, flags | _NEXT, slots[position + 1])
            else:
                _pack_descriptor(table, place, address, size, flags, 0)

    def add_batch(
        self,
        addresses: npt.NDArray[np.uint64],
        sizes: npt.NDArray[np.uint64],
        *,
        writable: bool,
        tokens: npt.NDArray[np.uint64],
    ) -> int:
        """Place buffers of one descriptor each, as many as fit; returns how many."""
        if not len(addresses) == len(sizes) == len(tokens):
            raise ValueError(f"{len(addresses)} addresses, {len(sizes)} sizes and {len(tokens)} tokens")
        free_count = self._notes[Note.FREE_COUNT]
        count = min(len(addresses), free_count)
        if not count:
            return 0
        sizes = sizes[:count]
        if int(sizes.max()) >= _CHAIN_SIZE_LIMIT:
            raise ValueError(f"no descriptor can hold {int(sizes.max())} bytes")
        area = self._area
        slots = area.free[free_count - count : free_count][::-1].astype(np.int64)
        records = np.zeros(count, area.records.dtype)
        records["addr"] = addresses[:count]
        records["len"] = sizes
        records["flags"] = _WRITE if writable else 0
        area.records[slots] = records
        area.tokens[slots] = tokens[:count]
        area.writable_sizes[slots] = sizes if writable else 0
        area.descriptor_counts[slots] = 1
        area.mark_slots(slots)
        places = self._ring_places(self._notes[Note.NEXT_AVAILABLE], count)
        area.available_ring[places] = slots
        self._mark_available(int(places[0]), count)
        self._note_added(count, count)
        return count

    def _note_added(self, chain_count: int, descriptor_count: int) -> None:
        notes = self._notes
        notes[Note.FREE_COUNT] -= descriptor_count
        notes[Note.NEXT_AVAILABLE] = (notes[Note.NEXT_AVAILABLE] + chain_count) & 0xFFFF
        self._area.mark_notes()

    def publish(self) -> None:
        """Make all buffers added since the last call visible at once."""
        notes, area = self._notes, self._area
        index, published = notes[Note.NEXT_AVAILABLE], notes[Note.PUBLISHED]
        count = (index - published) & 0xFFFF
        if not count:
            return
        store_fence()
        area.available[_IDX] = index
        notes[Note.PUBLISHED] = index
        notes[Note.UNKICKED_COUNT] = min(notes[Note.UNKICKED_COUNT] + count, _COUNT_LIMIT)
        area.mark(area.layout.available, 2 * _IDX + 2)
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
        return used

    def _take(self) -> Used:
        load_fence()
        area, last_used = self._area, self._notes[Note.LAST_USED]
        place = last_used & (self.size - 1)
        head, written_size = _unpack_used(area.used_bytes, self._used_ring_offset + _USED_SIZE * place)
        if head >= self.size:
            raise DeviceViolation(
                _USED_RING, f"id {head} in a table of {self.size}", queue=self.number, descriptor=head
            )
        count = int(area.descriptor_counts[head])
        if not count or head in self._unpublished_heads():
            raise DeviceViolation(_USED_RING, "an id that the device does not hold", queue=self.number, descriptor=head)
        writable_size = int(area.writable_sizes[head])
        if written_size > writable_size:
            raise DeviceViolation(
                _USED_RING,
                f"{written_size} bytes written into {writable_size} writable ones",
                queue=self.number,
                descriptor=head,
            )
        used = Used(int(area.tokens[head]), written_size, head)
        self._free_chains(np.array([head]), np.array([count]))
        if self._events.listening:
            self._events.emit(UsedCollected(self.number, (head,)))
        return used

    def collect_batch(self, limit: int | None = None) -> UsedBatch:
        """Take all used buffers back, or the first `limit`; those behind a violation are left."""
        area, last_used = self._area, self._notes[Note.LAST_USED]
        count = self._pending_count_and_arm(self.size if limit is None else limit)
        load_fence()
        entries = area.used_ring[self._ring_places(last_used, count)]
        heads, written_sizes = entries["id"].astype(np.int64), entries["len"].astype(np.int64)
        count = _prefix(heads < self.size)
        heads, written_sizes = heads[:count], written_sizes[:count]
        descriptor_counts = area.descriptor_counts[heads].astype(np.int64)
        clean = (descriptor_counts > 0) & (written_sizes <= area.writable_sizes[heads].astype(np.int64))
        clean &= self._is_first(heads)
        unpublished = self._unpublished_heads()
        if unpublished:
            clean &= ~np.isin(heads, unpublished)
        count = _prefix(clean)
        if not count and len(entries):
            used = self._take()
            return UsedBatch(np.array([used.token], np.uint64), np.array([used.written_size]), np.array([used.head]))
        heads = heads[:count]
        batch = UsedBatch(area.tokens[heads], written_sizes[:count], heads)
        if count:
            self._free_chains(heads, descriptor_counts[:count])
            if self._events.listening:
                self._events.emit(UsedCollected(self.number, tuple(heads.tolist())))
        return batch

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
        while count and self._event_idx and self._notes[Note.CALLS_ENABLED]:
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

    def _free_chains(self, heads: npt.NDArray[np.int64], descriptor_counts: npt.NDArray[np.int64]) -> None:
        area, notes = self._area, self._notes
        area.descriptor_counts[heads] = 0
        area.mark_slots(heads)
        first = free_count = notes[Note.FREE_COUNT]
        slots, left = heads, descriptor_counts
        while len(slots):
            area.free[free_count : free_count + len(slots)] = slots
            free_count += len(slots)
            longer = left > 1
            slots, left = area.links[slots[longer]].astype(np.int64), left[longer] - 1
        area.mark(area.free_offset + 2 * first, 2 * (free_count - first))
        notes[Note.FREE_COUNT] = free_count
        notes[Note.LAST_USED] = (notes[Note.LAST_USED] + len(heads)) & 0xFFFF
        area.mark_notes()

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
            return event_reached(self._area.used[self._avail_event_word], self._notes[Note.PUBLISHED], count)
        return not self._area.used[_FLAGS] & _NO_NOTIFY

    def disable_calls(self) -> None:
        """Advise the device that calls are not needed."""
        self._notes[Note.CALLS_ENABLED] = 0
        self._area.mark_notes()
        if self._event_idx:
            # The flags must stay 0; an event just behind is farthest from being reached.
            self._store_used_event((self._notes[Note.LAST_USED] - 1) & 0xFFFF)
        else:
            self._store_available_flags(_NO_INTERRUPT)

    def enable_calls(self) -> bool:
        """Ask for a call at the next used buffer; true when there are some already."""
        self._notes[Note.CALLS_ENABLED] = 1
        self._area.mark_notes()
        if self._event_idx:
            self._store_used_event(self._notes[Note.LAST_USED])
        else:
            self._store_available_flags(0)
        full_fence()
        return self.has_used()

    def _arm_calls(self, index: int) -> None:
        if self._event_idx and self._notes[Note.CALLS_ENABLED]:
            self._store_used_event(index)
            full_fence()

    def _store_used_event(self, index: int) -> None:
        self._area.available[self._used_event_word] = index
        self._area.mark(self._area.layout.available + 2 * self._used_event_word, 2)

    def _store_available_flags(self, flags: int) -> None:
        self._area.available[_FLAGS] = flags
        self._area.mark(self._area.layout.available, 2)

    # Ring arithmetic

    def _mark_available(self, place: int, count: int) -> None:
        before_wrap = min(count, self.size - place)
        ring = self._area.layout.available + 2 * self._available_ring_word
        self._area.mark(ring + 2 * place, 2 * before_wrap)
        self._area.mark(ring, 2 * (count - before_wrap))

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
