"""Looks at a queue's memory as it is, and tells what the driver did to it. Shares no code with either side's rings."""

from collections.abc import Callable
from typing import Protocol

from vdev.check.driver.observation import EntryChanged, EntryKept, Observation, QueueAreas
from vdev.check.driver.raw_chain import RawChain
from vdev.check.registry import RingFormat
from vdev.errors import GuestAddressError
from vdev.memory import GuestMemory

__all__ = ["Kept", "RingWatch", "read_or_nothing"]

Tell = Callable[[Observation], None]


class RingWatch(Protocol):
    """The watch of one queue. The device takes and gives back chains; whoever drives it says so here."""

    number: int
    format: RingFormat
    areas: QueueAreas

    @property
    def in_flight(self) -> dict[int, RawChain]:
        """The chains that the driver made available and the device has not given back, by head."""
        ...

    def begin_at(self, base: int) -> None:
        """Go on from a base as `DeviceQueue.ring_base` gives it."""
        ...

    def look(self) -> None:
        """Tell what is new in the driver's areas, and whether what is out is as it was."""
        ...

    def note_given_back(self, heads: list[int], written_sizes: list[int]) -> None:
        """Take note of chains that the device has just given back, in that order."""
        ...

    def ask_for_kick_at(self, ahead: int) -> None:
        """Store, as the device, that the driver is to notify when `ahead` more entries than now are available.

        1 is the next one. Needs EVENT_IDX.
        """
        ...

    def spoil_suppression(self) -> None:
        """Store, as the device, what a driver must ignore in the field that says when to notify.

        Split: `avail_event` without EVENT_IDX, the flags with it.
        """
        ...


def read_or_nothing(memory: GuestMemory, address: int, size: int) -> bytes | None:
    """Return bytes of guest RAM, None where there is none."""
    try:
        return memory.read(address, size)
    except GuestAddressError:
        return None


class Kept:
    """Pieces of guest RAM that the driver must leave as they are, and what stood there."""

    def __init__(self, memory: GuestMemory, number: int, ring_format: RingFormat, tell: Tell) -> None:
        self._memory = memory
        self._number = number
        self._format = ring_format
        self._tell = tell
        self._pieces: dict[int, tuple[str, bytes]] = {}

    def keep(self, what: str, address: int, data: bytes) -> None:
        """Hold a piece against what stands there from now on."""
        self._pieces[address] = what, data

    def let_go(self, address: int) -> None:
        """Forget a piece: it may be changed."""
        self._pieces.pop(address, None)

    def check(self) -> None:
        """Tell of pieces that are not as they were; such a piece is told of once."""
        changed = False
        for address, (what, before) in list(self._pieces.items()):
            after = read_or_nothing(self._memory, address, len(before)) or b""
            if after != before:
                changed = True
                self._pieces[address] = what, after
                self._tell(EntryChanged(self._number, self._format, what, address, before, after))
        if self._pieces and not changed:
            self._tell(EntryKept(self._number, self._format, len(self._pieces)))
