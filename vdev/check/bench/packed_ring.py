"""A packed virtqueue, each byte of it the check's own to store (virtio 1.4, "Packed Virtqueues")."""

from collections.abc import Sequence

from spec.device import Feature
from spec.layout import struct_of
from spec.packed_ring import (
    EVENT_ALIGNMENT,
    EVENT_SIZE,
    EVENT_SUPPRESSION,
    FIRST_POSITION,
    PACKED_DESCRIPTOR,
    RING_ALIGNMENT,
    EventFlag,
    PackedFlag,
    event_reached,
    linear,
    position,
    ring_size,
)
from vdev.check.bench.arena import Buffer, Place
from vdev.check.bench.control import RingAreas
from vdev.check.bench.raw_ring import RawRing
from vdev.check.bench.request import Request
from vdev.check.bench.ring import Posted, RingParts, Segment, Used
from vdev.check.evidence import Shown
from vdev.check.registry import RingFormat
from vdev.memory.order import full_fence, load_fence, store_fence

__all__ = ["PackedRing"]

_descriptor = struct_of(PACKED_DESCRIPTOR)
_event = struct_of(EVENT_SUPPRESSION)
_NEXT, _WRITE, _INDIRECT = int(PackedFlag.NEXT), int(PackedFlag.WRITE), int(PackedFlag.INDIRECT)
_AVAIL, _USED = int(PackedFlag.AVAIL), int(PackedFlag.USED)


class PackedRing(RawRing):
    """A queue of `size` descriptors, empty. Both sides begin at the position `start`."""

    format = RingFormat.PACKED

    def __init__(
        self, parts: RingParts, number: int, size: int, *, start: int = FIRST_POSITION, place: Place = Place.LOW
    ) -> None:
        super().__init__(parts, number, size)
        allocate = self._memory.allocate
        name = f"of queue {number}"
        ring = allocate(ring_size(size), align=RING_ALIGNMENT, what=f"descriptor ring {name}", place=place)
        driver = allocate(EVENT_SIZE, align=EVENT_ALIGNMENT, what=f"driver event {name}", place=place)
        device = allocate(EVENT_SIZE, align=EVENT_ALIGNMENT, what=f"device event {name}", place=place)
        # As a lap before would have left it: what was used then does not look used now.
        offset, wrap = start & 0x7FFF, start >> 15
        for slot in range(size):
            if flags := self.used_flags(wrap if slot < offset else 1 - wrap):
                self._memory.write(ring.address + _descriptor.size * slot + 14, flags.to_bytes(2, "little"))
        self._driver_event = self._memory.hold(driver)
        self.areas = RingAreas(size, ring.address, driver.address, device.address)
        # Places count on through both values of the wrap counter (`spec.packed_ring.linear`).
        self._next_slot = self._published = self._last_asked = self._next_used = linear(start, size)
        self._free_count = size
        self._free_ids = list(range(size))
        self._head_flags: dict[int, int] = {}
        """Place of a head that is not published -> its flags."""

    # Raw access

    def store_descriptor(self, slot: int, address: int, size: int, id: int, flags: int) -> None:  # noqa: A002
        """Store one descriptor of the ring."""
        self._store(_descriptor.size * slot, _descriptor.pack(address, size, id, flags))

    def _store(self, offset: int, data: bytes) -> None:
        self._memory.write(self.areas.descriptor + offset, data)
        self._note_store("descriptor ring", offset, data)

    def store_flags(self, slot: int, flags: int) -> None:
        """Store the flags of one descriptor, and nothing else of it."""
        self._store(_descriptor.size * slot + 14, flags.to_bytes(2, "little"))

    def descriptor(self, slot: int) -> tuple[int, int, int, int]:
        """Return address, size, buffer id and flags of a descriptor as they are now."""
        data = self._memory.read(self.areas.descriptor + _descriptor.size * slot, _descriptor.size)
        address, size, buffer_id, flags = _descriptor.unpack(data)
        return address, size, buffer_id, flags

    def available_flags(self, wrap: int) -> int:
        """Return what AVAIL and USED are in a descriptor that is available at this wrap counter."""
        return _AVAIL if wrap else _USED

    def used_flags(self, wrap: int) -> int:
        """Return what AVAIL and USED are in a descriptor that is used at this wrap counter."""
        return _AVAIL | _USED if wrap else 0

    @property
    def slot(self) -> int:
        """Where the next chain goes."""
        return self.available_position & 0x7FFF

    @property
    def wrap(self) -> int:
        """The driver's wrap counter there."""
        return self.available_position >> 15

    @property
    def available_position(self) -> int:
        """Slot and wrap counter of the next chain, as one position."""
        return position(self._next_slot, self.size)

    @property
    def used_slot(self) -> int:
        """Where the device writes the next used descriptor."""
        return self.used_position & 0x7FFF

    @property
    def used_wrap(self) -> int:
        """The device's wrap counter there."""
        return self.used_position >> 15

    @property
    def used_position(self) -> int:
        """Slot and wrap counter of the next used descriptor, as one position."""
        return position(self._next_used, self.size)

    def device_event(self) -> tuple[int, int]:
        """Return position and flags of the device's event suppression structure as they are now."""
        where, flags = _event.unpack(self._memory.read(self.areas.device, EVENT_SIZE))
        return where, flags

    def wrote(self, used: Used) -> bool:
        """Say whether the flags of a used descriptor have WRITE."""
        return bool(self.descriptor(used.position & 0x7FFF)[3] & _WRITE)

    @property
    def base(self) -> int:
        """What SET_VRING_BASE says if the ring goes on behind what was collected, both sides at the same position."""
        return self.used_position | self.used_position << 16

    def store_driver_event(self, offset_wrap: int, flags: int) -> None:
        """Store the driver's event suppression structure."""
        data = _event.pack(offset_wrap, flags)
        self._driver_event.store(0, data)
        self._note_store("driver event", 0, data)

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
        """See `Ring.post`. Raises ValueError if there are not enough free descriptors or ids."""
        buffers: list[Buffer] = []
        if segments is None:
            if request is None:
                raise ValueError("neither a request nor segments were given")
            segments, buffers = self._make_segments(request, cuts or (), place, offset_in_page)
        table = None
        if indirect:
            content = b"".join(
                _descriptor.pack(part.address, part.size, 0, _WRITE if part.writable else 0) for part in segments
            )
            table = self._memory.allocate(
                len(content), align=16, data=content, what=f"indirect table of queue {self.number}", place=place
            )
            self._memory.hold(table)
            buffers.append(table)
            entries = [(table.address, table.size, _INDIRECT)]
        else:
            last = len(segments) - 1
            entries = [
                (part.address, part.size, (_WRITE if part.writable else 0) | (_NEXT if place < last else 0))
                for place, part in enumerate(segments)
            ]
        if len(entries) > self._free_count:
            raise ValueError(f"queue {self.number} has {self._free_count} free descriptors, {len(entries)} are needed")
        buffer_id = self._take_id(head)
        slots = self._store_chain(entries, buffer_id)
        posted = Posted(buffer_id, tuple(segments), slots, request, table, tuple(buffers))
        self._posted.append(posted)
        return posted

    def _take_id(self, wanted: int | None) -> int:
        if wanted is None and not self._free_ids:
            raise ValueError(f"queue {self.number} has no free buffer id")
        taken = self._free_ids[0] if wanted is None else wanted
        if taken in self._free_ids:
            self._free_ids.remove(taken)
        return taken

    def _store_chain(self, entries: Sequence[tuple[int, int, int]], buffer_id: int) -> tuple[int, ...]:
        slots = []
        for place, (address, size, flags) in enumerate(entries):
            where = position(self._next_slot, self.size)
            slot = where & 0x7FFF
            flags |= self.available_flags(where >> 15)
            data = _descriptor.pack(address, size, buffer_id, flags)
            if place:
                self._store(_descriptor.size * slot, data)
            else:
                # The head's flags make the chain available: `publish` stores them, when all the others are there.
                self._store(_descriptor.size * slot, data[:14])
                self._head_flags[self._next_slot] = flags
            slots.append(slot)
            self._next_slot = (self._next_slot + 1) % (2 * self.size)
        self._free_count -= len(entries)
        return tuple(slots)

    def publish(self, count: int | None = None) -> None:
        """Store the flags of heads that were posted, the oldest at last: with it the device sees them all."""
        count = len(self._posted) if count is None else count
        places = []
        for posted in self._posted[:count]:
            places.append(self._published)
            self._published = (self._published + len(posted.slots)) % (2 * self.size)
            self._outstanding[posted.head] = posted
        del self._posted[:count]
        for place in reversed(places):
            store_fence()
            self.store_flags(place % self.size, self._head_flags.pop(place))

    def kick(self) -> None:
        """Notify the device, whether it wants that or not."""
        full_fence()
        self._control.kick(self.number, position(self._published, self.size))

    def kicks_wanted(self) -> bool:
        """Say whether the device wants to be notified of what was published since this was last asked."""
        full_fence()
        count = (self._published - self._last_asked) % (2 * self.size)
        self._last_asked = self._published
        where, flags = self.device_event()
        if flags & 3 == EventFlag.DESC and self.has(Feature.EVENT_IDX):
            return event_reached(where, position(self._published, self.size), min(count, self.size), self.size)
        return flags & 3 != EventFlag.DISABLE

    # What the device used

    def has_used(self) -> bool:
        """Say whether there is a used descriptor that was not collected."""
        where = self.used_position
        flags = self.descriptor(where & 0x7FFF)[3]
        return flags & (_AVAIL | _USED) == self.used_flags(where >> 15)

    def _collect(self, limit: int) -> list[Used]:
        found: list[Used] = []
        while limit > 0 and self.has_used():
            load_fence()
            where = self.used_position
            _, length, buffer_id, _ = self.descriptor(where & 0x7FFF)
            retired = self._retire(buffer_id, in_order=self.has(Feature.IN_ORDER))
            for posted in retired:
                self._free_ids.append(posted.head)
            # One with an id that nobody gave takes one descriptor, so that what follows can be seen.
            taken = sum(len(posted.slots) for posted in retired) or 1
            self._next_used = (self._next_used + taken) % (2 * self.size)
            self._free_count = min(self._free_count + taken, self.size)
            used = Used(buffer_id, length, where, max(1, len(retired)))
            limit -= used.buffers
            self._note_used(used)
            found.append(used)
        return found

    # Calls

    def suppress_calls(self) -> None:
        """Tell the device that no used buffer is to be told."""
        self.store_driver_event(0, EventFlag.DISABLE)
        full_fence()

    def allow_calls(self) -> None:
        """Tell the device that every used buffer is to be told."""
        self.store_driver_event(0, EventFlag.ENABLE)
        full_fence()

    def call_at(self, position: int) -> None:
        """Tell the device to tell of the descriptor that it uses at this position; needs EVENT_IDX."""
        self.store_driver_event(position, EventFlag.DESC)
        full_fence()

    # Evidence

    def show_used(self, used: Used) -> Shown:
        """Return the bytes of a used descriptor."""
        return self.show_descriptor(used.position & 0x7FFF)

    def show_descriptor(self, slot: int) -> Shown:
        """Return the bytes of a descriptor."""
        address = self.areas.descriptor + _descriptor.size * slot
        return self._memory.show(address, _descriptor.size, f"descriptor {slot} of queue {self.number}")

    def show_areas(self) -> list[Shown]:
        """Return the bytes of all parts of the ring."""
        name = f"of queue {self.number}"
        return [
            self._memory.show(self.areas.descriptor, ring_size(self.size), f"descriptor ring {name}"),
            self._memory.show(self.areas.driver, EVENT_SIZE, f"driver event {name}"),
            self._memory.show(self.areas.device, EVENT_SIZE, f"device event {name}"),
        ]
