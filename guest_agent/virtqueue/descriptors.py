"""The driver's descriptors: which are free, and how a buffer becomes a chain of them.

What is known of a chain (its token, its writable bytes, its descriptors) stands in the driver's own notes. The
descriptor table is not asked again: the device could have changed it.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from guest_agent.virtqueue.area import Note, QueueArea
from guest_agent.virtqueue.buffers import check_batch, checked_segments, uses_table
from guest_agent.virtqueue.in_order import heads_in_order
from guest_agent.virtqueue.queue import QueueFull
from spec.split_ring import DESCRIPTOR, DescriptorFlag

__all__ = ["Descriptors"]

# Plain names: to look an attribute up costs as much as to look at the note itself.
_FREE_COUNT = Note.FREE_COUNT
_NEXT_DESCRIPTOR = Note.NEXT_DESCRIPTOR
_OLDEST_DESCRIPTOR = Note.OLDEST_DESCRIPTOR

# Plain integers: an IntFlag operation costs as much as the rest of a descriptor.
_NEXT, _WRITE, _INDIRECT = int(DescriptorFlag.NEXT), int(DescriptorFlag.WRITE), int(DescriptorFlag.INDIRECT)

_DESCRIPTOR_SIZE: int = DESCRIPTOR.sizeof()


class Descriptors:
    """The descriptor table of one area (virtio 1.4, "Placing Buffers Into The Descriptor Table").

    `indirect` and `in_order` say whether INDIRECT_DESC and IN_ORDER were negotiated. With IN_ORDER descriptors are
    taken in ring order, and come back in the same.
    """

    def __init__(self, area: QueueArea, *, indirect: bool, in_order: bool = False) -> None:
        self._area = area
        self._notes = area.notes
        self._table_capacity = area.indirect_capacity if indirect else 0
        self._in_order = in_order

    @property
    def free_count(self) -> int:
        """Descriptors that are free."""
        return self._notes[_FREE_COUNT]

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
        area = self._area
        use_indirect = uses_table(len(readable) + len(writable), indirect, self._table_capacity)
        segments = checked_segments(readable, writable, token, write_flag=_WRITE, queue_size=area.size)
        free_count = self._notes[_FREE_COUNT]
        needed_count = 1 if use_indirect else len(segments)
        if needed_count > free_count:
            raise QueueFull(f"{needed_count} descriptors needed, {free_count} free")

        slots = self._take_slots(needed_count)
        head = slots[0]
        if use_indirect:
            self._store_indirect(head, segments)
        elif needed_count == 1:
            address, size, flags = segments[0]
            word = area.table_word + 2 * head
            area.words[word] = address
            area.words[word + 1] = size | flags << 32
        else:
            self._store_chain(area.table_word, segments, slots)
            for slot, successor in pairwise(slots):
                area.link_words[slot] = successor
        area.token_words[head] = token
        area.writable_size_words[head] = sum([size for _, size in writable])
        area.descriptor_count_words[head] = needed_count
        area.mark_slots(slots)
        area.mark_notes()
        return head

    def _take_slots(self, count: int) -> list[int]:
        notes = self._notes
        free_count = notes[_FREE_COUNT]
        notes[_FREE_COUNT] = free_count - count
        slots: list[int]
        if self._in_order:
            first, size = notes[_NEXT_DESCRIPTOR], self._area.size
            notes[_NEXT_DESCRIPTOR] = (first + count) & (size - 1)
            return [slot & (size - 1) for slot in range(first, first + count)]
        if count == 1:
            return [self._area.free_words[free_count - 1]]
        slots = self._area.free_words[free_count - count : free_count].tolist()
        slots.reverse()
        return slots

    def _store_indirect(self, head: int, segments: list[tuple[int, int, int]]) -> None:
        area = self._area
        offset = area.layout.indirect_table_size * head
        size = len(segments) * _DESCRIPTOR_SIZE
        self._store_chain((area.layout.indirect + offset) // 8, segments, range(len(segments)))
        area.mark(area.layout.indirect + offset, size)
        address = area.address + area.layout.indirect + offset
        word = area.table_word + 2 * head
        area.words[word] = address
        area.words[word + 1] = size | _INDIRECT << 32

    def _store_chain(self, table_word: int, segments: list[tuple[int, int, int]], slots: Sequence[int]) -> None:
        """Write a chain into the table whose first 64-bit word in the area is `table_word`."""
        words, last = self._area.words, len(segments) - 1
        for position, (address, size, flags) in enumerate(segments):
            word = table_word + 2 * slots[position]
            words[word] = address
            if position < last:
                words[word + 1] = size | (flags | _NEXT) << 32 | slots[position + 1] << 48
            else:
                words[word + 1] = size | flags << 32

    def place_batch(
        self,
        addresses: npt.NDArray[np.uint64],
        sizes: npt.NDArray[np.uint64],
        writable: bool,
        tokens: npt.NDArray[np.uint64],
    ) -> npt.NDArray[np.int64]:
        """Make a chain of one descriptor of each buffer, as many as fit; returns their heads."""
        count = check_batch(addresses, sizes, tokens, self._notes[_FREE_COUNT])
        if not count:
            return np.empty(0, np.int64)
        sizes = sizes[:count]
        area = self._area
        slots = self._take_many_slots(count)
        records = np.zeros(count, area.records.dtype)
        records["addr"] = addresses[:count]
        records["len"] = sizes
        records["flags"] = _WRITE if writable else 0
        area.records[slots] = records
        area.tokens[slots] = tokens[:count]
        area.writable_sizes[slots] = sizes if writable else 0
        area.descriptor_counts[slots] = 1
        area.mark_slots(slots)
        area.mark_notes()
        return slots

    def _take_many_slots(self, count: int) -> npt.NDArray[np.int64]:
        notes = self._notes
        free_count = notes[_FREE_COUNT]
        notes[_FREE_COUNT] = free_count - count
        if self._in_order:
            first, size = notes[_NEXT_DESCRIPTOR], self._area.size
            notes[_NEXT_DESCRIPTOR] = (first + count) & (size - 1)
            return np.arange(first, first + count) & (size - 1)
        return self._area.free[free_count - count : free_count][::-1].astype(np.int64)

    def release(self, head: int) -> None:
        """Free all descriptors of a chain."""
        area = self._area
        count = area.descriptor_count_words[head]
        area.descriptor_count_words[head] = 0
        area.mark_slots(head)
        if self._in_order:
            self._note_freed_in_order(count)
            return
        free_count = self._notes[_FREE_COUNT]
        area.free_words[free_count] = slot = head
        for place in range(free_count + 1, free_count + count):
            slot = area.link_words[slot]
            area.free_words[place] = slot
        self._note_freed(count)

    def release_batch(self, heads: npt.NDArray[np.int64]) -> None:
        """Free all descriptors of many distinct chains."""
        area = self._area
        slots, left = heads, area.descriptor_counts[heads].astype(np.int64)
        area.descriptor_counts[heads] = 0
        area.mark_slots(heads)
        if self._in_order:
            self._note_freed_in_order(int(left.sum()))
            return
        first = place = self._notes[_FREE_COUNT]
        while len(slots):
            area.free[place : place + len(slots)] = slots
            place += len(slots)
            longer = left > 1
            slots, left = area.links[slots[longer]].astype(np.int64), left[longer] - 1
        self._note_freed(place - first)

    def _note_freed(self, count: int) -> None:
        free_count = self._notes[_FREE_COUNT]
        self._area.mark(self._area.free_offset + 2 * free_count, 2 * count)
        self._notes[_FREE_COUNT] = free_count + count
        self._area.mark_notes()

    def _note_freed_in_order(self, count: int) -> None:
        notes = self._notes
        notes[_OLDEST_DESCRIPTOR] = (notes[_OLDEST_DESCRIPTOR] + count) & (self._area.size - 1)
        notes[_FREE_COUNT] += count
        self._area.mark_notes()

    def oldest(self, count: int) -> npt.NDArray[np.int64]:
        """Return the heads of the `count` oldest chains, with IN_ORDER."""
        span = self._area.size - self._notes[_FREE_COUNT]
        return heads_in_order(self._notes[_OLDEST_DESCRIPTOR], self._area.descriptor_counts, span)[:count]
