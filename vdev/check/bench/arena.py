"""Guarded guest RAM: whatever a device touches that it was not given is seen afterwards, reads as well as writes.

RAM is one memfd in two regions, one of them above 4 GiB. Each buffer stands in a block of whole pages: the bytes of the
block round it are canaries. Between blocks are guard pages, which nobody here ever touches: they are holes of the file,
and a hole that was read or written through any mapping is allocated from then on, which SEEK_DATA tells.
"""

import os
from dataclasses import dataclass
from enum import Enum

from vdev.check.bench.stray_pages import stray_runs
from vdev.check.bench.touched import Touch, Touched, difference
from vdev.check.evidence import Shown
from vdev.memory import PAGE_SIZE, FileBacking, GuestMemory, Region

__all__ = ["FILL", "HIGH_ADDRESS", "LOW_ADDRESS", "Arena", "Buffer", "Held", "Place"]

LOW_ADDRESS = 0
HIGH_ADDRESS = 0x1_4000_0000
"""Guest-physical: above the first 4 GiB."""
REGION_SIZE = 64 << 20
"""Bytes of each region; what is not used costs nothing."""

FILL = 0xA5
"""The byte that a buffer is full of before a device writes into it."""

_PATTERN = bytes((73 * place + 41) % 251 + 1 for place in range(PAGE_SIZE))
_RESERVED = 256
"""Pages at the beginning and at the end of RAM that only FIRST and LAST are taken from."""


class Place(Enum):
    """Where in guest RAM a buffer stands."""

    LOW = "low"
    HIGH = "high"
    """Above 4 GiB."""
    FIRST = "first"
    """From address 0 on; one buffer of an arena can."""
    LAST = "last"
    """It ends with the last byte of RAM; one buffer of an arena can."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """`size` bytes of guest RAM from the guest-physical `address` on; `what` names it for people."""

    address: int
    size: int
    what: str


@dataclass(slots=True)
class _Block:
    first_page: int
    page_count: int
    buffer: Buffer


class Held:
    """A part of guest RAM that only the bench may change, and how it has to read."""

    def __init__(self, arena: "Arena", buffer: Buffer) -> None:
        self.buffer = buffer
        self._arena = arena
        self._expected = bytearray(arena.read(buffer.address, buffer.size))

    def store(self, offset: int, data: bytes) -> None:
        """Store `data` at `offset` in it."""
        self._arena.write(self.buffer.address + offset, data)
        self._expected[offset : offset + len(data)] = data

    def changes(self) -> Touched | None:
        """Return what somebody else stored, None if nobody did."""
        found = self._arena.read(self.buffer.address, self.buffer.size)
        return difference(self.buffer.address, self._expected, found, Touch.HELD, f"{self.buffer.what}, changed")


class Arena:
    """Guest RAM of one case. `close` it when the case is over."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("vdev-check-ram", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, 2 * REGION_SIZE)
        self._backings = [FileBacking(os.dup(self.fd), REGION_SIZE, offset) for offset in (0, REGION_SIZE)]
        self._ram = self.as_guest_memory()
        self._blocks: dict[int, _Block] = {}
        self._held: dict[int, Held] = {}
        self._free: dict[tuple[Place, int], list[int]] = {}
        self._cursors = {Place.LOW: _RESERVED, Place.HIGH: REGION_SIZE // PAGE_SIZE}
        self._found: list[Touched] = []

    def as_guest_memory(self) -> GuestMemory:
        """Return the same RAM as a device of this process wants it."""
        low, high = self._backings
        return GuestMemory([Region(LOW_ADDRESS, low), Region(HIGH_ADDRESS, high)])

    @property
    def regions(self) -> tuple[tuple[int, int, int], ...]:
        """Guest-physical address, size, and offset in the file of each region."""
        return ((LOW_ADDRESS, REGION_SIZE, 0), (HIGH_ADDRESS, REGION_SIZE, REGION_SIZE))

    def close(self) -> None:
        """Close the file; the memory is gone when the last mapping is."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            for backing in self._backings:
                backing.close()

    # Buffers

    def allocate(
        self,
        size: int,
        *,
        align: int = 1,
        data: bytes | None = None,
        what: str,
        place: Place = Place.LOW,
        offset_in_page: int | None = None,
    ) -> Buffer:
        """Return a new buffer of `size` bytes between canaries and guard pages, with `data` at its beginning, else 0.

        It ends where its last page does, as far as `align` (a power of two up to the page size) allows: a read of the
        first byte behind it is seen. With `offset_in_page` it begins there, and may straddle pages. Raises
        MemoryError if there is no more room.
        """
        page_count = max(1, -(-((offset_in_page or 0) + size) // PAGE_SIZE))
        if offset_in_page is not None:
            start = offset_in_page
        elif place is Place.FIRST:
            start = 0
        else:
            start = (page_count * PAGE_SIZE - max(size, 1)) // align * align
        first_page, is_reused = self._take_pages(place, page_count)
        buffer = Buffer(_address_of(first_page) + start, size, what)
        block = self._blocks[first_page] = _Block(first_page, page_count, buffer)
        for address, canary in _canaries(block):
            self.write(address, canary)
        if is_reused:
            self.fill(buffer, 0)
        if data is not None:
            self.write(buffer.address, data)
        return buffer

    def _take_pages(self, place: Place, count: int) -> tuple[int, bool]:
        """Return the first of so many pages, and whether they had another use before."""
        if place is Place.FIRST:
            first, limit = 0, _RESERVED - 1
        elif place is Place.LAST:
            limit = 2 * REGION_SIZE // PAGE_SIZE
            first = limit - count
        else:
            if free := self._free.get((place, count)):
                return free.pop(), True
            first = self._cursors[place] + 1
            limit = (1 if place is Place.LOW else 2) * REGION_SIZE // PAGE_SIZE - _RESERVED
            if first + count <= limit:
                self._cursors[place] = first + count
        if first + count > limit or first in self._blocks:
            raise MemoryError(f"no room for {count} pages at {place.value} of the guarded memory")
        return first, False

    def release(self, buffer: Buffer) -> None:
        """Look at the canaries of a buffer that is used no more, and let a later one have its pages."""
        first_page = _page_of(buffer.address)
        while first_page not in self._blocks:
            first_page -= 1
        block = self._blocks.pop(first_page)
        self._found += self._changes_of(block)
        if (held := self._held.pop(buffer.address, None)) is not None and (change := held.changes()) is not None:
            self._found.append(change)
        pages_of_region = REGION_SIZE // PAGE_SIZE
        if _RESERVED <= first_page < 2 * pages_of_region - _RESERVED:
            place = Place.LOW if first_page < pages_of_region else Place.HIGH
            self._free.setdefault((place, block.page_count), []).append(first_page)

    def hold(self, buffer: Buffer) -> Held:
        """Have `touched` tell if anybody but the bench changes a buffer from now on."""
        held = self._held[buffer.address] = Held(self, buffer)
        return held

    def let_go(self, buffer: Buffer) -> None:
        """Hold a buffer no more."""
        self._held.pop(buffer.address, None)

    # Bytes

    def read(self, address: int, size: int) -> bytes:
        """Return a copy of `size` bytes. Raises GuestAddressError where there is no RAM."""
        return self._ram.read(address, size)

    def write(self, address: int, data: bytes | bytearray) -> None:
        """Store `data`. Raises GuestAddressError where there is no RAM."""
        self._ram.write(address, data)

    def fill(self, buffer: Buffer, byte: int = FILL) -> None:
        """Store the same byte all over a buffer."""
        self._ram.bytes_view(buffer.address, buffer.size)[:] = byte

    def show(self, address: int, size: int, name: str) -> Shown:
        """Return some bytes as evidence."""
        return Shown(name, self.read(address, size), address)

    def outside(self) -> int:
        """Return an address in no region, with nothing for many pages round it."""
        return (LOW_ADDRESS + REGION_SIZE + HIGH_ADDRESS) // 2

    def guard(self) -> int:
        """Return the address of a guard page with guard pages round it; it is in RAM, and nobody has to do with it."""
        return LOW_ADDRESS + REGION_SIZE - _RESERVED // 2 * PAGE_SIZE

    # What was touched

    def touched(self) -> list[Touched]:
        """Return what was touched that nobody was given. In a region that the other side faulted in whole, as with
        MAP_POPULATE, reads of guard pages cannot be seen, only writes.
        """
        found = list(self._found)
        for block in self._blocks.values():
            found += self._changes_of(block)
        found += [change for held in self._held.values() if (change := held.changes()) is not None]
        return found + self._touched_guards()

    def _changes_of(self, block: _Block) -> list[Touched]:
        found = []
        for address, canary in _canaries(block):
            side = "before" if address < block.buffer.address else "behind"
            name = f"canary {side} {block.buffer.what}"
            found_bytes = self.read(address, len(canary))
            if (change := difference(address, canary, found_bytes, Touch.CANARY, name)) is not None:
                found.append(change)
        return found

    def _touched_guards(self) -> list[Touched]:
        found = []
        for run in stray_runs(self.fd, self._our_pages(), REGION_SIZE // PAGE_SIZE):
            verb = "read" if run.stored_at is None else "written"
            count = f" ({run.page_count} pages)" if run.page_count > 1 else ""
            name = f"guard page{count} {self._neighbour(run.first_page)}, {verb}"
            address = _address_of(run.first_page) + (run.stored_at or 0)
            found.append(Touched(name, run.content, address, Touch.GUARD))
        return found

    def _neighbour(self, page: int) -> str:
        before = [block for block in self._blocks.values() if block.first_page + block.page_count == page]
        if before:
            return f"behind {before[0].buffer.what}"
        after = [block for block in self._blocks.values() if block.first_page == page + 1]
        return f"before {after[0].buffer.what}" if after else "far from every buffer"

    def _our_pages(self) -> list[tuple[int, int]]:
        ours = [(block.first_page, block.first_page + block.page_count) for block in self._blocks.values()]
        ours += [(first, first + count) for (_, count), pages in self._free.items() for first in pages]
        return sorted(ours)


def _address_of(page: int) -> int:
    offset = page * PAGE_SIZE
    return LOW_ADDRESS + offset if offset < REGION_SIZE else HIGH_ADDRESS + offset - REGION_SIZE


def _page_of(address: int) -> int:
    offset = address - LOW_ADDRESS if address < HIGH_ADDRESS else address - HIGH_ADDRESS + REGION_SIZE
    return offset // PAGE_SIZE


def _canaries(block: _Block) -> list[tuple[int, bytes]]:
    """Return address and content of the bytes of a block before and behind its buffer."""
    begin, size = _address_of(block.first_page), block.page_count * PAGE_SIZE
    start = block.buffer.address - begin
    end = start + block.buffer.size
    first_page_end = min(start, PAGE_SIZE)
    parts = []
    if start:
        parts.append(
            (begin, (_PATTERN * -(-start // PAGE_SIZE))[:start] if start > first_page_end else _PATTERN[:start])
        )
    if end < size:
        parts.append((begin + end, (_PATTERN * (1 + (size - end) // PAGE_SIZE))[end % PAGE_SIZE :][: size - end]))
    return parts
