"""What stands in the free page queue, read straight from guest RAM, so that equal situations look equal.

A ring goes round and its descriptors are taken in any order, so the same buffers can stand in it in many ways. What
matters is which buffers are there, in which order, and who has them.
"""

from collections.abc import Iterator
from struct import Struct
from typing import Any, NamedTuple, Protocol

import numpy as np

from guest_agent.virtqueue.queue import DriverQueue
from spec.layout import dtype_of
from spec.packed_area import packed_area
from spec.packed_ring import PackedFlag
from spec.split_area import NOTES, chain_notes, split_area
from spec.split_ring import DescriptorFlag, available_ring, used_ring
from vdev.memory import GuestMemory
from vdev.virtqueue.queue import DeviceQueue

__all__ = ["Buffer", "RingView", "ring_view"]

_DESCRIPTOR = Struct("<QIHH")
_USED = Struct("<II")
_ID_TOKEN = 1 << 63
_OFFSET = 0x7FFF
_WRITE = int(DescriptorFlag.WRITE)  # A plain integer: an IntFlag operation costs as much as the rest.


class Buffer(NamedTuple):
    """The first descriptor of a buffer."""

    address: int
    size: int
    writable: bool


class RingView(Protocol):
    """One queue, from outside."""

    span: tuple[int, int]
    """Address and size of what may change of it in guest RAM."""

    def available(self, device: DeviceQueue) -> list[Buffer]:
        """Return the buffers that the device has not popped, in order."""
        ...

    def digest_parts(self, device: DeviceQueue) -> tuple[Any, ...]:
        """Return plain values that are equal where the future is."""
        ...


def ring_view(memory: GuestMemory, queue: DriverQueue, area_address: int, *, packed: bool) -> RingView:
    """Return the view of the driver's queue whose area begins at `area_address`."""
    return _PackedView(memory, queue, area_address) if packed else _SplitView(memory, queue, area_address)


def _offset(layout: Any, name: str) -> int:
    fields = dtype_of(layout).fields
    assert fields is not None
    return int(fields[name][1])


class _SplitView:
    def __init__(self, memory: GuestMemory, queue: DriverQueue, area_address: int) -> None:
        self._memory = memory
        self._mask = queue.size - 1
        layout = split_area(queue.size, 0)
        self.span = (area_address, layout.size)
        area = memory.bytes_view(area_address, layout.size)
        self._bytes = area.data
        self._notes = area[: NOTES.sizeof()].data.cast("I")
        self._table = layout.descriptor
        self._available = area[layout.available : layout.used].data.cast("H")
        self._used_idx = area[layout.used : layout.used + 4].data.cast("H")
        self._used_ring = layout.used + _offset(used_ring(queue.size), "ring")
        self._ring_word = _offset(available_ring(queue.size), "ring") // 2
        tokens = layout.chain_notes + _offset(chain_notes(queue.size), "token")
        self._tokens = area[tokens : tokens + 8 * queue.size].view(np.uint64).data
        names = ("published", "last_used", "next_available", "free_count", "unkicked_count", "calls_enabled")
        self._words = [_offset(NOTES, name) // 4 for name in names]

    def _chain(self, head: int) -> tuple[int, int, int]:
        address, size, flags, _ = _DESCRIPTOR.unpack_from(self._bytes, self._table + _DESCRIPTOR.size * head)
        return address, size, flags

    def _between(self, first: int, end: int) -> Iterator[int]:
        for index in range(first, first + ((end - first) & 0xFFFF)):
            yield self._available[self._ring_word + (index & self._mask)]

    def _token(self, head: int) -> int:
        token = self._tokens[head]
        return _ID_TOKEN if token & _ID_TOKEN else token

    def available(self, device: DeviceQueue) -> list[Buffer]:
        """Return the buffers that the device has not popped, in order."""
        heads = self._between(device.save().next_avail, self._notes[self._words[0]])
        chains = map(self._chain, heads)
        return [Buffer(address, size, bool(flags & _WRITE)) for address, size, flags in chains]

    def digest_parts(self, device: DeviceQueue) -> tuple[Any, ...]:
        """Return what is available (ids with their value), what the device holds, and what is used."""
        published, last_used, next_available, *counts = [self._notes[word] for word in self._words]
        state = device.save()
        waiting = []
        for head in self._between(state.next_avail, published):
            address, size, flags = self._chain(head)
            content = self._memory.read(address, size) if not flags & _WRITE else address
            waiting.append((content, size, flags, self._token(head)))
        held = [(*self._chain(head), self._token(head)) for head in state.outstanding]
        used = []
        for index in range(last_used, last_used + ((self._used_idx[1] - last_used) & 0xFFFF)):
            head, size = _USED.unpack_from(self._bytes, self._used_ring + _USED.size * (index & self._mask))
            used.append((self._token(head), size))
        wishes = (self._available[0], self._used_idx[0], state.kicks_enabled, state.unsignalled_count)
        return (next_available - published, *counts, *wishes, waiting, held, used)


class _PackedView:
    def __init__(self, memory: GuestMemory, queue: DriverQueue, area_address: int) -> None:
        layout = packed_area(queue.size, 0)
        self.span = (area_address, layout.size)
        self._memory = memory
        self._size = queue.size
        self._bytes = memory.bytes_view(area_address, layout.size).data
        self._ring = layout.ring

    def available(self, device: DeviceQueue) -> list[Buffer]:
        """Return the buffers that the device has not popped, in order."""
        position = device.save().next_avail
        offset, wraps = position & _OFFSET, position > _OFFSET
        found: list[Buffer] = []
        while len(found) < self._size:
            address, size, _, flags = _DESCRIPTOR.unpack_from(self._bytes, self._ring + _DESCRIPTOR.size * offset)
            if bool(flags & PackedFlag.AVAIL) != wraps or bool(flags & PackedFlag.USED) == wraps:
                break
            found.append(Buffer(address, size, bool(flags & PackedFlag.WRITE)))
            while flags & PackedFlag.NEXT:
                offset += 1
                flags = _DESCRIPTOR.unpack_from(self._bytes, self._ring + _DESCRIPTOR.size * (offset % self._size))[3]
            offset += 1
            if offset >= self._size:
                offset, wraps = offset - self._size, not wraps
        return found

    def digest_parts(self, device: DeviceQueue) -> tuple[Any, ...]:
        """Return the whole area, what the readable buffers in it hold, and what the device knows."""
        ids = [self._memory.read(one.address, one.size) for one in self.available(device) if not one.writable]
        state = device.save()
        return (bytes(self._bytes), ids, state.next_avail, state.next_used, state.kicks_enabled, state.outstanding)
