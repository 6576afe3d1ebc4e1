"""The available and used rings of one split queue, as live views.

Each ring is seen twice: as a memoryview of 16-bit words for one access, and as a numpy array of its entries for many.
Both are in this machine's byte order, which is little-endian wherever `vdev.memory.order` can be imported.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from spec.split_ring import (
    AVAILABLE_ALIGNMENT,
    DESCRIPTOR_ALIGNMENT,
    MAX_QUEUE_SIZE,
    USED_ALIGNMENT,
    USED_ELEMENT,
    available_ring,
    available_ring_size,
    descriptor_table_size,
    used_ring,
    used_ring_size,
)
from vdev.errors import DriverViolation
from vdev.memory import GuestMemory
from vdev.virtqueue.areas import check_area
from vdev.virtqueue.queue import QueueAddresses

__all__ = ["FLAGS", "IDX", "Rings"]

FLAGS, IDX = 0, 1
"""16-bit words of both rings; what stands behind depends on the queue's size."""

_USED_SIZE: int = USED_ELEMENT.sizeof()


class Rings:
    """Both rings, and every store of the device to the used one. Each store is told to the dirty log.

    `available` and `used` are the 16-bit words; `used_event_word` and `avail_event_word` say where the event fields
    are. Raises DriverViolation if `addresses` names areas that are not aligned or not in RAM, or an impossible size.
    """

    def __init__(self, memory: GuestMemory, number: int, addresses: QueueAddresses) -> None:
        _check_addresses(memory, number, addresses)
        self._memory = memory
        self._size = size = addresses.size
        self._used_address = addresses.device
        available_view = memory.view(addresses.driver, available_ring(size))
        used_view = memory.view(addresses.device, used_ring(size))
        self.available = memory.bytes_view(addresses.driver, available_ring_size(size)).data.cast("H")
        self.available_entries = available_view["ring"]
        self.available_ring_word = _offset_of(available_view.dtype, "ring") // 2
        self.used_event_word = _offset_of(available_view.dtype, "used_event") // 2
        used_bytes = memory.bytes_view(addresses.device, used_ring_size(size)).data
        self.used = used_bytes.cast("H")
        self._used_entries = used_view["ring"]
        self._used_ring_offset = offset = _offset_of(used_view.dtype, "ring")
        self._used_words = used_bytes[offset : offset + _USED_SIZE * size].cast("I")
        self.avail_event_word = _offset_of(used_view.dtype, "avail_event") // 2

    def places(self, index: int, count: int) -> npt.NDArray[np.int64]:
        """Return where in a ring the `count` entries from the free-running `index` on stand."""
        return np.arange(index, index + count) & (self._size - 1)

    def store_used_word(self, word: int, value: int) -> None:
        """Store one 16-bit word of the used ring, in one piece."""
        self.used[word] = value
        self._memory.mark_written(self._used_address + 2 * word, 2)

    def store_used_entry(self, index: int, head: int, written_size: int) -> None:
        """Store the entry at the free-running `index`. Raises ValueError for what 32 bits cannot hold."""
        word = 2 * (index & (self._size - 1))
        self._used_words[word] = head
        self._used_words[word + 1] = written_size
        self._memory.mark_written(self._used_address + self._used_ring_offset + 4 * word, _USED_SIZE)

    def store_used_entries(
        self, places: npt.NDArray[np.int64], heads: npt.NDArray[np.int64], written_sizes: npt.NDArray[np.int64]
    ) -> None:
        """Store entries at `places`, which ascend round the ring's end."""
        self._used_entries["id"][places] = heads
        self._used_entries["len"][places] = written_sizes
        first, last = int(places[0]), int(places[-1])
        ring = self._used_address + self._used_ring_offset
        if first <= last:
            self._memory.mark_written(ring + _USED_SIZE * first, _USED_SIZE * (last + 1 - first))
        else:
            self._memory.mark_written(ring + _USED_SIZE * first, _USED_SIZE * (self._size - first))
            self._memory.mark_written(ring, _USED_SIZE * (last + 1))


def _offset_of(dtype: np.dtype[Any], name: str) -> int:
    assert dtype.fields is not None
    return int(dtype.fields[name][1])


def _check_addresses(memory: GuestMemory, number: int, addresses: QueueAddresses) -> None:
    size = addresses.size
    if not 0 < size <= MAX_QUEUE_SIZE or size & (size - 1):
        raise DriverViolation("Split Virtqueues", f"{size} is no queue size", queue=number)
    check_area(memory, number, "descriptor", addresses.descriptor, descriptor_table_size(size), DESCRIPTOR_ALIGNMENT)
    check_area(memory, number, "driver", addresses.driver, available_ring_size(size), AVAILABLE_ALIGNMENT)
    check_area(memory, number, "device", addresses.device, used_ring_size(size), USED_ALIGNMENT)
