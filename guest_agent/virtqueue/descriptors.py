"""The driver's descriptors: which are free, and how a buffer becomes a chain of them.

What is known of a chain (its token, its writable bytes, its descriptors) stands in the driver's own notes. The
descriptor table is not asked again: the device could have changed it.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from guest_agent.virtqueue.area import Note, QueueArea
from guest_agent.virtqueue.queue import QueueFull
from spec.layout import struct_of
from spec.split_ring import DESCRIPTOR, DescriptorFlag

__all__ = ["Descriptors"]

# Plain integers: an IntFlag operation costs as much as the rest of a descriptor.
_NEXT, _WRITE, _INDIRECT = int(DescriptorFlag.NEXT), int(DescriptorFlag.WRITE), int(DescriptorFlag.INDIRECT)

_LIMIT_64 = (1 << 64) - 1
_CHAIN_SIZE_LIMIT = 1 << 32
_DESCRIPTOR_SIZE: int = DESCRIPTOR.sizeof()
_pack_descriptor = struct_of(DESCRIPTOR).pack_into


class Descriptors:
    """The descriptor table of one area (virtio 1.4, "Placing Buffers Into The Descriptor Table").

    `indirect` says whether INDIRECT_DESC was negotiated.
    """

    def __init__(self, area: QueueArea, *, indirect: bool) -> None:
        self._area = area
        self._notes = area.notes
        self._table_capacity = area.indirect_capacity if indirect else 0

    @property
    def free_count(self) -> int:
        """Descriptors that are free."""
        return self._notes[Note.FREE_COUNT]

    def place(
        self,
        readable: Sequence[tuple[int, int]],
        writable: Sequence[tuple[int, int]],
        token: int,
        indirect: bool | None,
    ) -> int:
        """Make a chain of a buffer, or all of it or nothing; returns its head.

        Raises QueueFull, and ValueError for what the text forbids.
        """
        segments = [(address, size, 0) for address, size in readable]
        segments += [(address, size, _WRITE) for address, size in writable]
        use_indirect = self._choose_indirect(len(segments), indirect)
        self._check_buffer(segments, token)
        free_count = self._notes[Note.FREE_COUNT]
        needed_count = 1 if use_indirect else len(segments)
        if needed_count > free_count:
            raise QueueFull(f"{needed_count} descriptors needed, {free_count} free")

        area = self._area
        slots = area.free_words[free_count - needed_count : free_count].tolist()
        slots.reverse()
        head: int = slots[0]
        if use_indirect:
            self._store_indirect(head, segments)
        else:
            self._store_chain(area.table, 0, segments, slots)
            for slot, successor in pairwise(slots):
                area.link_words[slot] = successor
        area.token_words[head] = token
        area.writable_size_words[head] = sum([size for _, size in writable])
        area.descriptor_count_words[head] = needed_count
        area.mark_slots(slots)
        self._notes[Note.FREE_COUNT] = free_count - needed_count
        area.mark_notes()
        return head

    def _choose_indirect(self, segment_count: int, wish: bool | None) -> bool:
        if wish is None:
            return 1 < segment_count <= self._table_capacity
        if wish and segment_count > self._table_capacity:
            raise ValueError(f"no indirect table for {segment_count} segments")
        return wish

    def _check_buffer(self, segments: list[tuple[int, int, int]], token: int) -> None:
        if not segments:
            raise ValueError("a buffer needs a segment")
        if len(segments) > self._area.size:
            raise ValueError(f"{len(segments)} segments in a queue of {self._area.size}")
        total_size = 0
        for address, size, _ in segments:
            total_size += size
            if not (0 <= address <= _LIMIT_64 and 0 <= size < _CHAIN_SIZE_LIMIT):
                raise ValueError(f"no descriptor can hold address {address:#x}, {size} bytes")
        if total_size > _CHAIN_SIZE_LIMIT:
            raise ValueError("a buffer of more than 2^32 bytes")
        if not 0 <= token <= _LIMIT_64:
            raise ValueError(f"token {token} is not a 64-bit number")

    def _store_indirect(self, head: int, segments: list[tuple[int, int, int]]) -> None:
        area = self._area
        offset = area.layout.indirect_table_size * head
        size = len(segments) * _DESCRIPTOR_SIZE
        self._store_chain(area.indirect_tables, offset, segments, range(len(segments)))
        area.mark(area.layout.indirect + offset, size)
        address = area.address + area.layout.indirect + offset
        _pack_descriptor(area.table, _DESCRIPTOR_SIZE * head, address, size, _INDIRECT, 0)

    @staticmethod
    def _store_chain(
        table: memoryview, offset: int, segments: list[tuple[int, int, int]], slots: Sequence[int]
    ) -> None:
        last = len(segments) - 1
        for position, (address, size, flags) in enumerate(segments):
            place = offset + _DESCRIPTOR_SIZE * slots[position]
            if position < last:
                _pack_descriptor(table, place, address, size, flags | _NEXT, slots[position + 1])
            else:
                _pack_descriptor(table, place, address, size, flags, 0)

    def place_batch(
        self,
        addresses: npt.NDArray[np.uint64],
        sizes: npt.NDArray[np.uint64],
        writable: bool,
        tokens: npt.NDArray[np.uint64],
    ) -> npt.NDArray[np.int64]:
        """Make a chain of one descriptor of each buffer, as many as fit; returns their heads."""
        if not len(addresses) == len(sizes) == len(tokens):
            raise ValueError(f"{len(addresses)} addresses, {len(sizes)} sizes and {len(tokens)} tokens")
        free_count = self._notes[Note.FREE_COUNT]
        count = min(len(addresses), free_count)
        if not count:
            return np.empty(0, np.int64)
        sizes = sizes[:count]
        if int(sizes.max()) >= _CHAIN_SIZE_LIMIT:
            raise ValueError(f"no descriptor can hold {int(sizes.max())} bytes")
        area = self._area
        slots = area.free[free_count - count : free_count][::-1].astype(np.int64)
        records = np.zeros(count, area.records.dtype)
        records["addr"] = addresses[:count]
        records["len"] = sizes
        records["flags"] = _WRITE if writable else 0
        area.records[slots] = records
        area.tokens[slots] = tokens[:count]
        area.writable_sizes[slots] = sizes if writable else 0
        area.descriptor_counts[slots] = 1
        area.mark_slots(slots)
        self._notes[Note.FREE_COUNT] = free_count - count
        area.mark_notes()
        return slots

    def release(self, head: int) -> None:
        """Free all descriptors of a chain."""
        area = self._area
        count = area.descriptor_count_words[head]
        area.descriptor_count_words[head] = 0
        area.mark_slots(head)
        free_count = self._notes[Note.FREE_COUNT]
        slot = head
        for place in range(free_count, free_count + count):
            area.free_words[place] = slot
            slot = area.link_words[slot]
        self._note_freed(count)

    def release_batch(self, heads: npt.NDArray[np.int64]) -> None:
        """Free all descriptors of many distinct chains."""
        area = self._area
        slots, left = heads, area.descriptor_counts[heads].astype(np.int64)
        area.descriptor_counts[heads] = 0
        area.mark_slots(heads)
        first = place = self._notes[Note.FREE_COUNT]
        while len(slots):
            area.free[place : place + len(slots)] = slots
            place += len(slots)
            longer = left > 1
            slots, left = area.links[slots[longer]].astype(np.int64), left[longer] - 1
        self._note_freed(place - first)

    def _note_freed(self, count: int) -> None:
        free_count = self._notes[Note.FREE_COUNT]
        self._area.mark(self._area.free_offset + 2 * free_count, 2 * count)
        self._notes[Note.FREE_COUNT] = free_count + count
        self._area.mark_notes()
