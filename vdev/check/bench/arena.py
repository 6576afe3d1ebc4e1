"""Guarded guest RAM: whatever a device touches that it was not given is seen afterwards, reads as well as writes."""

import os
from enum import Enum

from vdev.check.bench.guarded_region import Buffer, GuardedRegion
from vdev.check.bench.touched import Touch, Touched, difference
from vdev.check.evidence import Shown
from vdev.memory import GuestMemory, Region

__all__ = ["FILL", "HIGH_ADDRESS", "LOW_ADDRESS", "REGION_SIZE", "Arena", "Buffer", "Held", "Place"]

LOW_ADDRESS = 0
HIGH_ADDRESS = 0x1_4000_0000
"""Guest-physical: above the first 4 GiB."""
REGION_SIZE = 64 << 20
"""Bytes of each region; what is not used costs nothing."""

FILL = 0xA5
"""The byte that a buffer is full of before a device writes into it."""

_USER_ADDRESSES = (0x7E00_0000_0000, 0x7D80_1000_0000)
_ADDED_GUEST_ADDRESS = 0x1_8000_0000
_ADDED_USER_ADDRESS = 0x7C00_0000_0000
_ADDED_DISTANCE = 0x1_0000_0000
_ADDED_FILE_OFFSET = 0x1_0000


class Place(Enum):
    """Where in guest RAM a buffer stands."""

    LOW = "low"
    HIGH = "high"
    """Above 4 GiB."""
    FIRST = "first"
    """From address 0 on; one buffer of an arena can."""
    LAST = "last"
    """It ends with the last byte of the high region; one buffer of an arena can."""


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
    """Guest RAM of one case: one memfd in two regions, one of them above 4 GiB. `close` it when the case is over."""

    def __init__(self) -> None:
        fd = _new_file(2 * REGION_SIZE)
        self._fds = [fd]
        self.low = GuardedRegion(LOW_ADDRESS, REGION_SIZE, _USER_ADDRESSES[0], 0, fd)
        self.high = GuardedRegion(HIGH_ADDRESS, REGION_SIZE, _USER_ADDRESSES[1], REGION_SIZE, fd)
        self.regions = [self.low, self.high]
        """What a device is told of when it is started."""
        self._all = list(self.regions)
        self._ram = self.as_guest_memory()
        self._held: dict[int, Held] = {}
        self._found: list[Touched] = []

    def as_guest_memory(self) -> GuestMemory:
        """Return the same RAM as a device of this process wants it."""
        return GuestMemory([Region(region.guest_address, region.backing) for region in self._all])

    def add_region(self, size: int) -> GuardedRegion:
        """Return one more region, in a file of its own, of which no device was told; `size` is whole pages."""
        fd = _new_file(_ADDED_FILE_OFFSET + size)
        self._fds.append(fd)
        distance = _ADDED_DISTANCE * (len(self._all) - 2)
        region = GuardedRegion(
            _ADDED_GUEST_ADDRESS + distance, size, _ADDED_USER_ADDRESS + distance, _ADDED_FILE_OFFSET, fd
        )
        self._all.append(region)
        self._ram = self.as_guest_memory()
        return region

    def close(self) -> None:
        """Close the files; the memory is gone when the last mapping is."""
        for region in self._all:
            region.close()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

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
        region: GuardedRegion | None = None,
    ) -> Buffer:
        """Return a new buffer of `size` bytes between canaries and guard pages, with `data` at its beginning, else 0.

        It ends where its last page does, as far as `align` (a power of two up to the page size) allows: a read of the
        first byte behind it is seen. With `offset_in_page` it begins there, and may straddle pages. It is at `place`,
        or in `region`. Raises MemoryError if there is no more room.
        """
        if region is None:
            region = self.low if place in (Place.LOW, Place.FIRST) else self.high
        at = place.value if place in (Place.FIRST, Place.LAST) else ""
        buffer = region.place(size, align=align, what=what, offset_in_page=offset_in_page, at=at)
        if data is not None:
            self.write(buffer.address, data)
        return buffer

    def release(self, buffer: Buffer) -> None:
        """Look at the canaries of a buffer that is used no more, and let a later one have its pages."""
        if (held := self._held.pop(buffer.address, None)) is not None and (change := held.changes()) is not None:
            self._found.append(change)
        next(region for region in self._all if region.holds(buffer.address)).release(buffer)

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
        return (self.low.end + self.high.guest_address) // 2

    def guard(self) -> int:
        """Return the address of a guard page with guard pages round it; it is in RAM, and nobody has to do with it."""
        return self.low.guard()

    def user_address(self, address: int) -> int:
        """Return what a vhost-user front end calls a guest-physical address; one in no region stays as it is."""
        for region in self._all:
            if region.holds(address):
                return region.user_address + address - region.guest_address
        return address

    # What was touched

    def touched(self) -> list[Touched]:
        """Return what was touched that nobody was given.

        In a region that the other side faulted in, as MAP_POPULATE and mlockall(2) do, reads of guard pages cannot be
        seen, only writes.
        """
        found = [*self._found, *(change for held in self._held.values() if (change := held.changes()) is not None)]
        for region in self._all:
            found += region.touched()
        return found


def _new_file(size: int) -> int:
    fd = os.memfd_create("vdev-check-ram", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    return fd
