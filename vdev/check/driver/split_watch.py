"""The watch of a split queue (virtio 1.4, "Split Virtqueues")."""

from collections import deque

from spec.layout import struct_of
from spec.split_ring import DESCRIPTOR, DescriptorFlag, available_ring_size, used_ring_size
from vdev.check.driver.observation import (
    ChainGivenBack,
    ChainMadeAvailable,
    DriverEventSeen,
    QueueAreas,
    RingIndexMoved,
)
from vdev.check.driver.raw_chain import RawChain, RawDescriptor
from vdev.check.driver.ring_watch import Kept, Tell, read_or_nothing
from vdev.check.registry import RingFormat
from vdev.memory import GuestMemory

__all__ = ["SplitWatch"]

_SIZE: int = DESCRIPTOR.sizeof()
_unpack = struct_of(DESCRIPTOR).unpack
_ENTRIES = 4
"""Bytes before the available ring's entries: flags and index."""


class SplitWatch:
    """See `RingWatch`. Nothing is read before the first `look`."""

    format = RingFormat.SPLIT

    def __init__(
        self, memory: GuestMemory, number: int, areas: QueueAreas, tell: Tell, *, event_idx: bool, in_order: bool
    ) -> None:
        self.number = number
        self.areas = areas
        self._memory = memory
        self._tell = tell
        self._event_idx = event_idx
        self._in_order = in_order
        self._next = 0
        self._index = 0
        self._unknown = 0
        """Chains that are out since before this watch began."""
        self.in_flight: dict[int, RawChain] = {}
        self._kept = Kept(memory, number, self.format, tell)
        self._entries: deque[int] = deque()
        """Addresses of the available ring's entries that were not taken yet."""
        self._driver_event: tuple[int, int] | None = None

    def begin_at(self, base: int) -> None:
        """Go on from the available index `base`."""
        used = int.from_bytes(self._memory.read(self.areas.device + 2, 2), "little")
        self._next = self._index = base & 0xFFFF
        self._unknown = (self._next - used) & 0xFFFF

    def look(self) -> None:
        """Tell what is new."""
        self._kept.check()
        size = self.areas.size
        area = read_or_nothing(self._memory, self.areas.driver, available_ring_size(size))
        if area is None:
            return
        index = int.from_bytes(area[2:4], "little")
        if index != self._index:
            in_flight = len(self.in_flight) + self._unknown
            self._tell(RingIndexMoved(self.number, self.format, self._index, index, in_flight))
            self._index = index
        count = (index - self._next) & 0xFFFF
        for _ in range(count if count <= size else 0):
            place = _ENTRIES + 2 * (self._next % size)
            head = int.from_bytes(area[place : place + 2], "little")
            self._kept.keep("entry of the available ring", self.areas.driver + place, area[place : place + 2])
            self._entries.append(self.areas.driver + place)
            self._next = (self._next + 1) & 0xFFFF
            self._note_chain(self._chain(head))
        self._look_at_event(area)

    def _look_at_event(self, area: bytes) -> None:
        flags = int.from_bytes(area[:2], "little")
        event = int.from_bytes(area[-2:], "little") if self._event_idx else 0
        if (flags, event) != self._driver_event:
            self._driver_event = flags, event
            self._tell(DriverEventSeen(self.number, self.format, flags, event, self.areas.driver))

    def _note_chain(self, chain: RawChain) -> None:
        self._tell(ChainMadeAvailable(self.number, self.format, chain, tuple(self.in_flight.values())))
        self.in_flight[chain.head] = chain
        for each in chain.descriptors:
            self._kept.keep(f"descriptor {each.place} of chain {chain.head}", each.at, each.data)
        for each in chain.table:
            self._kept.keep(f"entry {each.place} of the indirect table of chain {chain.head}", each.at, each.data)

    # Chains

    def _chain(self, head: int) -> RawChain:
        direct, fault = self._follow(self.areas.descriptor, self.areas.size, head)
        table: list[RawDescriptor] = []
        if direct and direct[-1].is_indirect and not fault:
            last = direct[-1]
            if not last.size or last.size % _SIZE:
                fault = f"an indirect table of {last.size} bytes"
            else:
                table, fault = self._follow(last.address, last.size // _SIZE, 0)
        return RawChain(self.number, head, tuple(direct), tuple(table), fault)

    def _follow(self, base: int, count: int, place: int) -> tuple[list[RawDescriptor], str]:
        found: list[RawDescriptor] = []
        seen: set[int] = set()
        while True:
            if place >= count:
                return found, f"descriptor {place} in a table of {count}"
            if place in seen:
                return found, f"a loop: descriptor {place} comes twice"
            seen.add(place)
            at = base + _SIZE * place
            data = read_or_nothing(self._memory, at, _SIZE)
            if data is None:
                return found, f"descriptor {place} at {at:#x} is outside guest RAM"
            descriptor = _descriptor(place, at, data)
            found.append(descriptor)
            if not descriptor.has_next:
                return found, ""
            place = descriptor.link

    # What the device does

    def note_taken(self, count: int) -> None:
        """Take note that the device has taken the next `count` entries of the available ring."""
        for _ in range(min(count, len(self._entries))):
            self._kept.let_go(self._entries.popleft())

    def note_given_back(self, heads: list[int], written_sizes: list[int]) -> None:
        """Take note of chains that went back."""
        for head, written_size in zip(heads, written_sizes, strict=True):
            before = list(self.in_flight)
            silent = before[: before.index(head)] if self._in_order and head in before else []
            for each in [*silent, head]:
                chain = self.in_flight.pop(each, None)
                if chain is None:
                    continue
                for descriptor in chain.descriptors + chain.table:
                    self._kept.let_go(descriptor.at)
                size = written_size if each == head else chain.size
                self._tell(ChainGivenBack(self.number, self.format, chain, size))

    def ask_for_kick_at(self, ahead: int) -> None:
        """Store `avail_event`."""
        self._store_used_word(used_ring_size(self.areas.size) - 2, self._index + ahead - 1)

    def spoil_suppression(self) -> None:
        """Store rubbish where the driver must not look."""
        if self._event_idx:
            self._store_used_word(0, 1)
        else:
            self._store_used_word(used_ring_size(self.areas.size) - 2, self._index - 1)

    def restore_suppression(self) -> None:
        """Take back what `spoil_suppression` stored where the driver may look with other features."""
        if self._event_idx:
            self._store_used_word(0, 0)

    def _store_used_word(self, offset: int, value: int) -> None:
        self._memory.write(self.areas.device + offset, (value & 0xFFFF).to_bytes(2, "little"))


def _descriptor(place: int, at: int, data: bytes) -> RawDescriptor:
    address, size, flags, link = _unpack(data)
    return RawDescriptor(
        place=place,
        at=at,
        address=address,
        size=size,
        flags=flags,
        link=link,
        is_writable=bool(flags & DescriptorFlag.WRITE),
        has_next=bool(flags & DescriptorFlag.NEXT),
        is_indirect=bool(flags & DescriptorFlag.INDIRECT),
        data=data,
    )
