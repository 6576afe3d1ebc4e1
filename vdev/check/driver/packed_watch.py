"""The watch of a packed queue (virtio 1.4, "Packed Virtqueues")."""

from spec.layout import struct_of
from spec.packed_ring import EVENT_SIZE, PACKED_DESCRIPTOR, EventFlag, PackedFlag, linear, position
from vdev.check.driver.observation import ChainGivenBack, ChainMadeAvailable, DriverEventSeen, QueueAreas
from vdev.check.driver.raw_chain import RawChain, RawDescriptor
from vdev.check.driver.ring_watch import Kept, Tell, read_or_nothing
from vdev.check.registry import RingFormat
from vdev.memory import GuestMemory

__all__ = ["PackedWatch"]

_SIZE: int = PACKED_DESCRIPTOR.sizeof()
_unpack = struct_of(PACKED_DESCRIPTOR).unpack
_AVAIL, _USED = int(PackedFlag.AVAIL), int(PackedFlag.USED)


class PackedWatch:
    """See `RingWatch`. Places count on through both values of the wrap counter: 0 to 2 * size - 1."""

    format = RingFormat.PACKED

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
        self._next_used = 0
        self.in_flight: dict[int, RawChain] = {}
        self._kept = Kept(memory, number, self.format, tell)
        self._driver_event: bytes | None = None

    def begin_at(self, base: int) -> None:
        """Go on from the positions in `base`: the next available one, and from bit 16 on the next used one."""
        self._next = linear(base & 0xFFFF, self.areas.size)
        self._next_used = linear(base >> 16, self.areas.size)

    def look(self) -> None:
        """Tell what is new."""
        self._kept.check()
        while (chain := self._next_chain()) is not None:
            self._tell(ChainMadeAvailable(self.number, self.format, chain, tuple(self.in_flight.values())))
            self.in_flight[chain.head] = chain
            for each in chain.descriptors:
                self._kept.keep(f"descriptor {each.place} of buffer {chain.head}", each.at, each.data)
            for each in chain.table:
                self._kept.keep(f"entry {each.place} of the indirect table of buffer {chain.head}", each.at, each.data)
            self._next = (self._next + len(chain.descriptors)) % (2 * self.areas.size)
        event = read_or_nothing(self._memory, self.areas.driver, EVENT_SIZE)
        if event is not None and event != self._driver_event:
            self._driver_event = event
            where, flags = int.from_bytes(event[:2], "little"), int.from_bytes(event[2:], "little")
            self._tell(DriverEventSeen(self.number, self.format, flags, where, self.areas.driver))

    @property
    def next_position(self) -> int:
        """Where the next descriptor will be made available, as a position."""
        return position(self._next, self.areas.size)

    @property
    def taken_count(self) -> int:
        """Descriptors that are the device's."""
        return (self._next - self._next_used) % (2 * self.areas.size)

    def _next_chain(self) -> RawChain | None:
        size = self.areas.size
        room = size - self.taken_count
        found: list[RawDescriptor] = []
        fault = ""
        while True:
            if len(found) >= room:
                fault = f"a list that goes on past the {room} descriptors that were free"
                break
            place = self._next + len(found)
            descriptor, is_available = self._read(place)
            if descriptor is None:
                return None
            if not is_available:
                if not found:
                    return None
                fault = f"descriptor {descriptor.place}, which the one before it refers to, is not available"
                break
            found.append(descriptor)
            if not descriptor.has_next:
                break
        if not found:
            return None
        table: tuple[RawDescriptor, ...] = ()
        if found[-1].is_indirect and not fault:
            table, fault = self._table(found[-1])
        return RawChain(self.number, found[-1].link, tuple(found), table, fault)

    def _read(self, place: int) -> tuple[RawDescriptor | None, bool]:
        lap, slot = divmod(place, self.areas.size)
        at = self.areas.descriptor + _SIZE * slot
        data = read_or_nothing(self._memory, at, _SIZE)
        if data is None:
            return None, False
        descriptor = _descriptor(slot, at, data)
        wanted = _USED if lap & 1 else _AVAIL
        return descriptor, descriptor.flags & (_AVAIL | _USED) == wanted

    def _table(self, last: RawDescriptor) -> tuple[tuple[RawDescriptor, ...], str]:
        if not last.size or last.size % _SIZE:
            return (), f"an indirect table of {last.size} bytes"
        data = read_or_nothing(self._memory, last.address, last.size)
        if data is None:
            return (), f"the indirect table at {last.address:#x} is not wholly in guest RAM"
        entries = range(last.size // _SIZE)
        return tuple(
            _descriptor(entry, last.address + _SIZE * entry, data[_SIZE * entry : _SIZE * (entry + 1)])
            for entry in entries
        ), ""

    # What the device does

    def note_taken(self, count: int) -> None:
        """Nothing: what was taken stays where it is until it is given back."""

    def note_given_back(self, heads: list[int], written_sizes: list[int]) -> None:
        """Take note of buffers that went back."""
        for head, written_size in zip(heads, written_sizes, strict=True):
            before = list(self.in_flight)
            silent = before[: before.index(head)] if self._in_order and head in before else []
            for each in [*silent, head]:
                chain = self.in_flight.pop(each, None)
                if chain is not None:
                    self._let_go(chain)
                    size = written_size if each == head else chain.size
                    self._tell(ChainGivenBack(self.number, self.format, chain, size))

    def _let_go(self, chain: RawChain) -> None:
        for entry in chain.table:
            self._kept.let_go(entry.at)
        # What goes back are places in ring order, whoever's descriptors stood there: the used one is stored over them.
        for place in range(self._next_used, self._next_used + len(chain.descriptors)):
            self._kept.let_go(self.areas.descriptor + _SIZE * (place % self.areas.size))
        self._next_used = (self._next_used + len(chain.descriptors)) % (2 * self.areas.size)

    def ask_for_kick_at(self, ahead: int) -> None:
        """Store the device's event suppression structure."""
        where = position(self._next + ahead - 1, self.areas.size)
        self._memory.write(self.areas.device, where.to_bytes(2, "little") + int(EventFlag.DESC).to_bytes(2, "little"))

    def spoil_suppression(self) -> None:
        """Nothing: the one structure of a packed queue has nothing in it that must be ignored."""

    def restore_suppression(self) -> None:
        """Nothing."""


def _descriptor(place: int, at: int, data: bytes) -> RawDescriptor:
    address, size, link, flags = _unpack(data)
    return RawDescriptor(
        place=place,
        at=at,
        address=address,
        size=size,
        flags=flags,
        link=link,
        is_writable=bool(flags & PackedFlag.WRITE),
        has_next=bool(flags & PackedFlag.NEXT),
        is_indirect=bool(flags & PackedFlag.INDIRECT),
        data=data,
    )
