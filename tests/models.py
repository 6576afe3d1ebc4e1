"""Naive twins: what the fast code must do, written with lists and dicts so that a reader can check it by eye."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from spec.packed_ring import PACKED_DESCRIPTOR, PackedFlag
from spec.split_ring import DESCRIPTOR, DescriptorFlag

__all__ = ["Buffer", "QueueModel", "Refused", "read_chain", "read_packed_chain"]

Segments = list[tuple[int, int]]


@dataclass(frozen=True)
class Buffer:
    """What the driver added: (address, size) pairs, its token, and the descriptors it takes."""

    token: int
    readable: tuple[tuple[int, int], ...]
    writable: tuple[tuple[int, int], ...]
    cost: int

    @property
    def writable_size(self) -> int:
        return sum(size for _, size in self.writable)


@dataclass
class Wishes:
    """One side's wish to be told of entries that the other side places, by numbers that never wrap.

    With EVENT_IDX the side names one entry, and is told when that one is placed. Otherwise it is told of all or none.
    In a packed queue it can be told of all or none with EVENT_IDX, too: of all before it first names one, of none when
    switched off.
    """

    event_idx: bool
    placed: int
    packed: bool = False
    enabled: bool = True
    event: int = 0
    looked: int = 0

    def __post_init__(self):
        self.event = self.looked = self.placed
        self.names_one = self.event_idx and not self.packed

    def disable(self, seen: int) -> None:
        self.enabled = False
        self.event = seen - 1

    def enable(self, seen: int) -> None:
        self.enabled = True
        self.event = seen
        self.names_one = self.event_idx

    def saw(self, seen: int) -> None:
        """The side took everything before entry `seen`."""
        if self.enabled:
            self.event = seen
            self.names_one = self.event_idx

    def should_tell(self) -> bool:
        """Would the other side, looking now, ring?"""
        news = range(self.looked, self.placed)
        self.looked = self.placed
        if self.packed and not self.enabled:
            return False
        if self.names_one:
            return self.event in news
        return self.enabled and len(news) > 0


@dataclass
class QueueModel:
    """A virtqueue as five piles: added, available, held by the device, used, and (gone) collected."""

    size: int
    event_idx: bool
    start: int = 0
    packed: bool = False
    in_order: bool = False
    free: int = 0
    added: list[Buffer] = field(default_factory=list)
    available: list[Buffer] = field(default_factory=list)
    held: dict[int, Buffer] = field(default_factory=dict)
    used: list[tuple[Buffer, int]] = field(default_factory=list)

    def __post_init__(self):
        self.free = self.size
        self.popped = self.collected = self.start
        self.kicks = Wishes(self.event_idx, self.start, self.packed)
        self.calls = Wishes(self.event_idx, self.start, self.packed)

    def entries(self, buffer: Buffer) -> int:
        """Ring entries that a buffer takes, which is what wishes are about."""
        return buffer.cost if self.packed else 1

    def add(self, buffer: Buffer) -> bool:
        """False when it does not fit."""
        if buffer.cost > self.free:
            return False
        self.free -= buffer.cost
        self.added.append(buffer)
        return True

    def publish(self) -> None:
        self.kicks.placed += sum(map(self.entries, self.added))
        self.available += self.added
        self.added = []

    def pop(self) -> Buffer | None:
        if not self.available:
            return None
        buffer = self.available.pop(0)
        self.popped += self.entries(buffer)
        self.kicks.saw(self.popped)
        return buffer

    def push(self, head: int, written_size: int) -> None:
        assert not self.in_order or head == next(iter(self.held))
        buffer = self.held.pop(head)
        self.used.append((buffer, written_size))
        self.calls.placed += self.entries(buffer)

    def collect(self) -> tuple[Buffer, int] | None:
        if not self.used:
            return None
        buffer, written_size = self.used.pop(0)
        self.free += buffer.cost
        self.collected += self.entries(buffer)
        self.calls.saw(self.collected)
        return buffer, written_size


class Refused(Exception):
    """The model says that this chain breaks the text."""


def read_chain(memory, table_address: int, size: int, head: int, *, indirect: bool) -> tuple[Segments, Segments]:
    """The chain at `head` as lists of readable and writable (address, size), a construct parse per descriptor.

    Raises Refused.
    """

    def follow(table: bytes, index: int) -> Iterator[Any]:
        seen = set()
        while True:
            if index in seen or 16 * index >= len(table):
                raise Refused("a loop, or next outside the table")
            seen.add(index)
            entry = DESCRIPTOR.parse(table[16 * index :])
            yield entry
            if not entry.flags & DescriptorFlag.NEXT:
                return
            index = entry.next

    segments = []
    for entry in follow(memory.read(table_address, 16 * size), head):
        if not entry.flags & DescriptorFlag.INDIRECT:
            segments.append(entry)
            continue
        if not indirect or entry.flags & DescriptorFlag.NEXT:
            raise Refused("no such feature, or NEXT beside INDIRECT")
        if entry.len % 16 or not 0 < entry.len // 16 <= size or not memory.contains(entry.addr, entry.len):
            raise Refused("the indirect table is not one")
        inner = list(follow(memory.read(entry.addr, entry.len), 0))
        if any(one.flags & DescriptorFlag.INDIRECT for one in inner):
            raise Refused("nested")
        segments += inner

    if len(segments) > size:
        raise Refused("longer than the queue")
    return _checked(memory, segments)


def _checked(memory, segments) -> tuple[Segments, Segments]:
    """WRITE is the same bit in both formats."""
    kinds = [bool(entry.flags & DescriptorFlag.WRITE) for entry in segments]
    if kinds != sorted(kinds):
        raise Refused("readable behind writable")
    if sum(entry.len for entry in segments) > 2**32:
        raise Refused("more than 4 GiB")
    if not all(memory.contains(entry.addr, entry.len) for entry in segments):
        raise Refused("outside RAM")
    pairs = [(entry.addr, entry.len) for entry in segments]
    writable_from = kinds.index(True) if True in kinds else len(kinds)
    return pairs[:writable_from], pairs[writable_from:]


def read_packed_chain(memory, ring_address: int, size: int, place: int, free: int, *, indirect: bool):
    """The chain whose first descriptor is number `place` (counting on lap by lap), of which `free` may be read.

    Returns readable and writable (address, size) lists, the buffer id, and the number of descriptors. Raises Refused.
    """
    descriptors = []
    for number in range(place, place + free):
        one = PACKED_DESCRIPTOR.parse(memory.read(ring_address + 16 * (number % size), 16))
        wrap = number // size % 2 == 0
        if (bool(one.flags & PackedFlag.AVAIL), bool(one.flags & PackedFlag.USED)) != (wrap, not wrap):
            raise Refused("not available in this lap")
        descriptors.append(one)
        if not one.flags & PackedFlag.NEXT:
            break
    else:
        raise Refused("it does not end")
    segments = descriptors
    if any(one.flags & PackedFlag.INDIRECT for one in descriptors):
        table = descriptors[0]
        if not indirect or len(descriptors) > 1:
            raise Refused("no such feature, or not alone")
        if table.len % 16 or not 0 < table.len // 16 <= size or not memory.contains(table.addr, table.len):
            raise Refused("the indirect table is not one")
        copy = memory.read(table.addr, table.len)
        segments = [PACKED_DESCRIPTOR.parse(copy[at:]) for at in range(0, table.len, 16)]
    if descriptors[-1].id >= size:
        raise Refused("no such id")
    return (*_checked(memory, segments), descriptors[-1].id, len(descriptors))
