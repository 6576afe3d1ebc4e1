"""A split virtqueue, each byte of it the check's own to store (virtio 1.4, "Split Virtqueues")."""

from collections.abc import Sequence

from spec.device import Feature
from spec.layout import struct_of
from spec.split_ring import (
    AVAILABLE_ALIGNMENT,
    DESCRIPTOR,
    DESCRIPTOR_ALIGNMENT,
    USED_ALIGNMENT,
    USED_ELEMENT,
    AvailableFlag,
    DescriptorFlag,
    UsedFlag,
    available_ring_size,
    descriptor_table_size,
    event_reached,
    used_ring_size,
)
from vdev.check.bench.arena import Buffer, Place
from vdev.check.bench.control import RingAreas
from vdev.check.bench.raw_ring import RawRing
from vdev.check.bench.request import Request
from vdev.check.bench.ring import Posted, RingParts, Segment, Used
from vdev.check.evidence import Shown
from vdev.check.registry import RingFormat
from vdev.memory.order import full_fence, load_fence, store_fence

__all__ = ["SplitRing"]

_descriptor = struct_of(DESCRIPTOR)
_used_element = struct_of(USED_ELEMENT)
_NEXT, _WRITE, _INDIRECT = int(DescriptorFlag.NEXT), int(DescriptorFlag.WRITE), int(DescriptorFlag.INDIRECT)
_RING_OFFSET = 4
"""Bytes before the first entry of the available and of the used ring."""


class SplitRing(RawRing):
    """A queue of `size` descriptors, empty; its indices begin at `start`.

    Indices are free-running and 16 bits wide, as in the ring.
    """

    format = RingFormat.SPLIT

    def __init__(self, parts: RingParts, number: int, size: int, *, start: int = 0, place: Place = Place.LOW) -> None:
        super().__init__(parts, number, size)
        allocate = self._memory.allocate
        name = f"of queue {number}"
        table = allocate(
            descriptor_table_size(size), align=DESCRIPTOR_ALIGNMENT, what=f"descriptor table {name}", place=place
        )
        available = allocate(
            available_ring_size(size), align=AVAILABLE_ALIGNMENT, what=f"available ring {name}", place=place
        )
        used = allocate(used_ring_size(size), align=USED_ALIGNMENT, what=f"used ring {name}", place=place)
        self._table, self._available = self._memory.hold(table), self._memory.hold(available)
        self.areas = RingAreas(size, table.address, available.address, used.address)
        self._free = list(range(size))
        self._next_available = self._next_used = self._last_asked = start
        if start:
            self.store_available_index(start)
            self._memory.write(used.address + 2, _u16(start))

    # Raw access

    def store_descriptor(self, index: int, address: int, size: int, flags: int, following: int = 0) -> None:
        """Store one descriptor of the table; `following` is its `next`."""
        data = _descriptor.pack(address, size, flags, following)
        self._table.store(_descriptor.size * index, data)
        self._note_store("descriptor table", _descriptor.size * index, data)

    def descriptor(self, index: int) -> tuple[int, int, int, int]:
        """Return address, size, flags and next of a descriptor as they are now."""
        return _four(_descriptor.unpack(self._memory.read(self.areas.descriptor + 16 * index, 16)))

    def store_available(self, slot: int, head: int) -> None:
        """Store an entry of the available ring."""
        self._store_available(_RING_OFFSET + 2 * slot, head)

    def store_available_index(self, value: int) -> None:
        """Store the available index; what the ring will publish next is not changed by this."""
        self._store_available(2, value)

    def store_available_flags(self, value: int) -> None:
        """Store the available ring's flags."""
        self._store_available(0, value)

    def store_used_event(self, value: int) -> None:
        """Store `used_event`, which stands behind the available ring."""
        self._store_available(_RING_OFFSET + 2 * self.size, value)

    def _store_available(self, offset: int, value: int) -> None:
        data = _u16(value)
        self._available.store(offset, data)
        self._note_store("available ring", offset, data)

    @property
    def available_index(self) -> int:
        """What `publish` stored last, the start before that."""
        return self._next_available

    @property
    def next_used(self) -> int:
        """The used index up to which elements were collected."""
        return self._next_used

    @property
    def base(self) -> int:
        """What SET_VRING_BASE says if the ring goes on behind what was collected."""
        return self._next_used

    def used_index(self) -> int:
        """Return the used index as it is now."""
        return self._read_used(2)

    def used_element(self, slot: int) -> Used:
        """Return an element of the used ring as it is now."""
        data = self._memory.read(self.areas.device + _RING_OFFSET + _used_element.size * slot, _used_element.size)
        head, length = _used_element.unpack(data)
        return Used(head, length, slot)

    def used_flags(self) -> int:
        """Return the used ring's flags as they are now."""
        return self._read_used(0)

    def available_event(self) -> int:
        """Return `avail_event`, which stands behind the used ring, as it is now."""
        return self._read_used(_RING_OFFSET + _used_element.size * self.size)

    def _read_used(self, offset: int) -> int:
        return int.from_bytes(self._memory.read(self.areas.device + offset, 2), "little")

    # Chains

    def post(
        self,
        request: Request | None = None,
        *,
        segments: Sequence[Segment] | None = None,
        indirect: bool = False,
        cuts: Sequence[int] | None = None,
        head: int | None = None,
        place: Place = Place.LOW,
        offset_in_page: int | None = None,
    ) -> Posted:
        """See `Ring.post`. Raises ValueError if there are not enough free descriptors."""
        buffers: list[Buffer] = []
        if segments is None:
            if request is None:
                raise ValueError("neither a request nor segments were given")
            segments, buffers = self._make_segments(request, cuts or (), place, offset_in_page)
        table = None
        if indirect:
            content = b"".join(_entries(segments, range(len(segments))))
            table = self._memory.allocate(
                len(content), align=16, data=content, what=f"indirect table of queue {self.number}", place=place
            )
            self._memory.hold(table)
            buffers.append(table)
            slots = self._take(1, head)
            self.store_descriptor(slots[0], table.address, table.size, _INDIRECT)
        else:
            slots = self._take(len(segments), head)
            for index, data in zip(slots, _entries(segments, slots), strict=True):
                self._table.store(16 * index, data)
                self._note_store("descriptor table", 16 * index, data)
        posted = Posted(slots[0], tuple(segments), tuple(slots), request, table, tuple(buffers))
        self._posted.append(posted)
        return posted

    def _take(self, count: int, head: int | None) -> list[int]:
        if head is not None:
            self._free.remove(head)
            self._free.insert(0, head)
        if count > len(self._free):
            raise ValueError(f"queue {self.number} has {len(self._free)} free descriptors, and {count} are needed")
        slots, self._free = self._free[:count], self._free[count:]
        return slots

    def publish(self, count: int | None = None) -> None:
        """Store the heads of chains that were posted, and then the available index."""
        count = len(self._posted) if count is None else count
        for posted in self._posted[:count]:
            self.store_available(self._next_available % self.size, posted.head)
            self._outstanding[posted.head] = posted
            self._next_available = (self._next_available + 1) & 0xFFFF
        del self._posted[:count]
        store_fence()
        self.store_available_index(self._next_available)

    def kick(self) -> None:
        """Notify the device, whether it wants that or not."""
        full_fence()
        self._control.kick(self.number, self._next_available)

    def kicks_wanted(self) -> bool:
        """Say whether the device wants to be notified of what was published since this was last asked."""
        full_fence()
        before, self._last_asked = self._last_asked, self._next_available
        if self.has(Feature.EVENT_IDX):
            count = (self._next_available - before) & 0xFFFF
            return event_reached(self.available_event(), self._next_available, count)
        return not self.used_flags() & UsedFlag.NO_NOTIFY

    # What the device used

    def has_used(self) -> bool:
        """Say whether there is a used element that was not collected."""
        return self.used_index() != self._next_used

    def _collect(self, limit: int) -> list[Used]:
        found: list[Used] = []
        index = self.used_index()
        load_fence()
        while self._next_used != index and limit > 0:
            used = self.used_element(self._next_used % self.size)
            retired = self._retire(used.id, in_order=self.has(Feature.IN_ORDER))
            for posted in retired:
                self._free += posted.slots
            used = used._replace(buffers=max(1, len(retired)))
            self._next_used = (self._next_used + used.buffers) & 0xFFFF
            limit -= used.buffers
            self._note_used(used)
            found.append(used)
        return found

    # Calls

    def suppress_calls(self) -> None:
        """Tell the device that no used buffer is to be told."""
        if self.has(Feature.EVENT_IDX):
            self.store_used_event((self._next_used - 1) & 0xFFFF)
        else:
            self.store_available_flags(AvailableFlag.NO_INTERRUPT)
        full_fence()

    def allow_calls(self) -> None:
        """Tell the device that the next used buffer is to be told."""
        if self.has(Feature.EVENT_IDX):
            self.store_used_event(self._next_used)
        else:
            self.store_available_flags(0)
        full_fence()

    def call_at(self, position: int) -> None:
        """Tell the device to tell of the used element with this free-running index; needs EVENT_IDX."""
        self.store_used_event(position & 0xFFFF)
        full_fence()

    # Evidence

    def show_used(self, used: Used) -> Shown:
        """Return the bytes of a used element."""
        address = self.areas.device + _RING_OFFSET + _used_element.size * used.position
        return self._memory.show(address, _used_element.size, f"used element {used.position} of queue {self.number}")

    def show_descriptor(self, index: int) -> Shown:
        """Return the bytes of a descriptor."""
        return self._memory.show(self.areas.descriptor + 16 * index, 16, f"descriptor {index} of queue {self.number}")

    def show_areas(self) -> list[Shown]:
        """Return the bytes of all parts of the ring."""
        name = f"of queue {self.number}"
        return [
            self._memory.show(self.areas.descriptor, descriptor_table_size(self.size), f"descriptor table {name}"),
            self._memory.show(self.areas.driver, available_ring_size(self.size), f"available ring {name}"),
            self._memory.show(self.areas.device, used_ring_size(self.size), f"used ring {name}"),
        ]


def _entries(segments: Sequence[Segment], indices: Sequence[int]) -> list[bytes]:
    """Return the descriptors of a chain whose descriptors have these indices."""
    last = len(segments) - 1
    return [
        _descriptor.pack(
            segment.address,
            segment.size,
            (_WRITE if segment.writable else 0) | (_NEXT if place < last else 0),
            indices[place + 1] if place < last else 0,
        )
        for place, segment in enumerate(segments)
    ]


def _u16(value: int) -> bytes:
    return (value & 0xFFFF).to_bytes(2, "little")


def _four(fields: tuple[int, ...]) -> tuple[int, int, int, int]:
    address, size, flags, following = fields
    return address, size, flags, following
