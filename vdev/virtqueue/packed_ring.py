"""The descriptor ring and the two event suppression structures of one packed queue, as live views.

Here a place in the ring is a number that counts on through both values of the wrap counter, modulo twice the size
(`spec.packed_ring.linear`): offset and counter are its remainder and its quotient by the size.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from spec.packed_ring import (
    EVENT_ALIGNMENT,
    EVENT_SIZE,
    MAX_QUEUE_SIZE,
    PACKED_DESCRIPTOR,
    RING_ALIGNMENT,
    EventFlag,
    PackedFlag,
    event_reached,
    is_position,
    position,
    ring_size,
)
from vdev.errors import DriverViolation
from vdev.memory import GuestMemory
from vdev.memory.order import store_fence
from vdev.virtqueue.areas import check_area
from vdev.virtqueue.queue import QueueAddresses

__all__ = ["PackedRing"]

Places = npt.NDArray[np.int64]

# Plain integers: an IntFlag operation costs as much as the rest of a descriptor.
_WRITE, _AVAIL, _USED = int(PackedFlag.WRITE), int(PackedFlag.AVAIL), int(PackedFlag.USED)
_BOTH = _AVAIL | _USED
_DESC = int(EventFlag.DESC)

_DESCRIPTOR_SIZE: int = PACKED_DESCRIPTOR.sizeof()
_WORDS = _DESCRIPTOR_SIZE // 2
_ID_WORD, _FLAGS_WORD = 6, 7
_LENGTH_WORD = 2


class PackedRing:
    """The ring, and every store of the device to it and to its event suppression structure, told to the dirty log.

    `records` are the descriptors. Raises DriverViolation if `addresses` names areas that are not aligned or not in
    RAM, or an impossible size.
    """

    def __init__(self, memory: GuestMemory, number: int, addresses: QueueAddresses, *, event_idx: bool) -> None:
        size = addresses.size
        if not 0 < size <= MAX_QUEUE_SIZE:
            raise DriverViolation("Packed Virtqueues", f"{size} is no queue size", queue=number)
        check_area(memory, number, "descriptor", addresses.descriptor, ring_size(size), RING_ALIGNMENT)
        check_area(memory, number, "driver", addresses.driver, EVENT_SIZE, EVENT_ALIGNMENT)
        check_area(memory, number, "device", addresses.device, EVENT_SIZE, EVENT_ALIGNMENT)
        self.size = size
        self._number = number
        self._memory = memory
        self._addresses = addresses
        self._event_idx = event_idx
        self.records: npt.NDArray[Any] = memory.view(addresses.descriptor, PACKED_DESCRIPTOR, size)
        self._flags = self.records["flags"]
        # What makes each place of three laps available, and used: as many as a window from any place can span.
        lap = np.full(size, _AVAIL, np.uint16), np.full(size, _USED, np.uint16)
        self._available_flags = np.concatenate([*lap, *lap[:1]])
        lap = np.full(size, _BOTH, np.uint16), np.zeros(size, np.uint16)
        self._used_flags = np.concatenate([*lap, *lap[:1]])
        ring_bytes = memory.bytes_view(addresses.descriptor, ring_size(size)).data
        self._words = ring_bytes.cast("H")
        self._lengths = ring_bytes.cast("I")
        self._halves = ring_bytes.cast("Q")
        # Both structures are read and stored in one piece, so that a position never meets the flags of another.
        self._driver_event = memory.bytes_view(addresses.driver, EVENT_SIZE).data.cast("I")
        self._device_event = memory.bytes_view(addresses.device, EVENT_SIZE).data.cast("I")

    # What the driver made available

    def is_available(self, place: int) -> bool:
        """Say whether the driver has made the descriptor at `place` available in this lap."""
        lap, offset = divmod(place, self.size)
        return self._words[_WORDS * offset + _FLAGS_WORD] & _BOTH == (_USED if lap & 1 else _AVAIL)

    def available_count(self, place: int, limit: int) -> int:
        """Return how many of the `limit` descriptors from `place` on are available, up to the first that is not."""
        return self.available_prefix(place, self._window(self._flags, place, limit))

    def available_prefix(self, place: int, flags: npt.NDArray[np.uint16]) -> int:
        """Return how many of `flags`, read from `place` on, make their descriptors available in their lap."""
        available = np.equal(flags & np.uint16(_BOTH), self._available_flags[place : place + len(flags)])
        return len(flags) if available.all() else int(np.argmin(available))

    def copy(self, place: int, count: int) -> npt.NDArray[Any]:
        """Return a copy of the `count` descriptors from `place` on, at most a lap."""
        return self._window(self.records, place, count).copy()

    def _window(self, array: npt.NDArray[Any], place: int, count: int) -> npt.NDArray[Any]:
        first = place % self.size
        if first + count <= self.size:
            return array[first : first + count]
        return np.concatenate((array[first:], array[: first + count - self.size]))

    def descriptor(self, place: int) -> tuple[int, int, int, int]:
        """Return a copy of address, size, id and flags of the descriptor at `place`."""
        half = 2 * (place % self.size)
        address, rest = self._halves[half], self._halves[half + 1]
        return address, rest & 0xFFFF_FFFF, rest >> 32 & 0xFFFF, rest >> 48

    # Used

    def store_used(self, place: int, buffer_id: int, written_size: int) -> None:
        """Overwrite the descriptor at `place` with a used one, its flags last."""
        lap, offset = divmod(place, self.size)
        self._lengths[_WORDS // 2 * offset + _LENGTH_WORD] = written_size
        words = _WORDS * offset
        self._words[words + _ID_WORD] = buffer_id
        store_fence()
        self._words[words + _FLAGS_WORD] = (0 if lap & 1 else _BOTH) | (_WRITE if written_size else 0)
        self._memory.mark_written(self._addresses.descriptor + _DESCRIPTOR_SIZE * offset, _DESCRIPTOR_SIZE)

    def store_many_used(self, places: Places, buffer_ids: Places, written_sizes: Places) -> None:
        """Overwrite the descriptors at `places`, which ascend and span less than a lap; the flags of the first last.

        The driver looks for that one first, and so sees all of them or none.
        """
        offsets = places % self.size
        records = self.records
        records["id"][offsets] = buffer_ids
        records["len"][offsets] = written_sizes
        flags = self._used_flags[places] | (written_sizes != 0) * np.uint16(_WRITE)
        store_fence()
        self._flags[offsets[1:]] = flags[1:]
        store_fence()
        first, last = int(offsets[0]), int(offsets[-1])
        self._words[_WORDS * first + _FLAGS_WORD] = int(flags[0])
        if first <= last:
            self._mark(first, last + 1)
        else:
            self._mark(first, self.size)
            self._mark(0, last + 1)

    def _mark(self, first: int, end: int) -> None:
        address = self._addresses.descriptor + _DESCRIPTOR_SIZE * first
        self._memory.mark_written(address, _DESCRIPTOR_SIZE * (end - first))

    # Event suppression

    def store_event(self, flag: EventFlag, place: int = 0) -> None:
        """Say which kicks the device wants; `place` matters with DESC."""
        self._device_event[0] = position(place, self.size) | flag << 16
        self._memory.mark_written(self._addresses.device, EVENT_SIZE)

    def driver_wants_call(self, place: int, count: int) -> bool:
        """Say whether the driver wants to be told of the `count` places before `place`.

        Raises DriverViolation for flags or a position that mean nothing.
        """
        word = self._driver_event[0]
        flag, event = word >> 16 & 3, word & 0xFFFF
        if flag != _DESC:
            if flag > _DESC:
                raise self._event_violation("the reserved event flags 3")
            return flag == EventFlag.ENABLE
        if not self._event_idx:
            raise self._event_violation("event flags DESC, but EVENT_IDX was not negotiated")
        if not is_position(event, self.size):
            raise self._event_violation(f"an event at descriptor {event & 0x7FFF} of {self.size}")
        return event_reached(event, position(place, self.size), count, self.size)

    def _event_violation(self, message: str) -> DriverViolation:
        return DriverViolation(
            "Event Suppression Structure Format", message, queue=self._number, address=self._addresses.driver
        )
