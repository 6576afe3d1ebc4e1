"""The driver's descriptors in a packed ring: which places and buffer ids are free, and how a buffer becomes a chain.

What is known of a buffer (its token, its writable bytes, its descriptors) stands in the driver's own notes. The ring is
not asked again: the device could have changed it.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from guest_agent.virtqueue.buffers import Segments, check_batch, checked_segments, uses_table
from guest_agent.virtqueue.packed_area import PackedNote, PackedQueueArea
from guest_agent.virtqueue.queue import QueueFull
from spec.packed_ring import PACKED_DESCRIPTOR, PackedFlag

__all__ = ["PackedDescriptors"]

# Plain integers: an IntFlag operation costs as much as the rest of a descriptor.
_NEXT, _WRITE, _INDIRECT = int(PackedFlag.NEXT), int(PackedFlag.WRITE), int(PackedFlag.INDIRECT)
_AVAIL, _USED = int(PackedFlag.AVAIL), int(PackedFlag.USED)

_DESCRIPTOR_SIZE: int = PACKED_DESCRIPTOR.sizeof()
_WORDS = _DESCRIPTOR_SIZE // 2
_FLAGS_WORD = 7


class PackedDescriptors:
    """The ring of one area (virtio 1.4, "Placing Available Buffers Into The Descriptor Ring").

    `indirect` and `in_order` say whether INDIRECT_DESC and IN_ORDER were negotiated. With IN_ORDER a buffer's id is the
    offset of its first descriptor.
    """

    def __init__(self, area: PackedQueueArea, *, indirect: bool, in_order: bool) -> None:
        self._area = area
        self._notes = area.notes
        self._size = area.size
        self._table_capacity = area.indirect_capacity if indirect else 0
        self._in_order = in_order

    @property
    def free_count(self) -> int:
        """Descriptors that are free."""
        notes = self._notes
        taken_count = notes[PackedNote.NEXT_AVAILABLE] - notes[PackedNote.NEXT_USED]
        return self._size - taken_count % (2 * self._size)

    def place(
        self,
        readable: Sequence[tuple[int, int]],
        writable: Sequence[tuple[int, int]],
        token: int,
        indirect: bool | None,
    ) -> int:
        """Make a chain of a buffer, or all of it or nothing; returns its id.

        Raises QueueFull, and ValueError for what the text forbids.
        """
        area, notes = self._area, self._notes
        use_indirect = uses_table(len(readable) + len(writable), indirect, self._table_capacity)
        segments = checked_segments(readable, writable, token, write_flag=_WRITE, queue_size=self._size)
        free_count = self.free_count
        count = 1 if use_indirect else len(segments)
        if count > free_count:
            raise QueueFull(f"{count} descriptors needed, {free_count} free")
        place = notes[PackedNote.NEXT_AVAILABLE]
        buffer_id = self._take_id(place)
        if use_indirect:
            segments = [self._store_table(buffer_id, segments)]
        self._store_chain(place, segments, buffer_id)
        area.token_words[buffer_id] = token
        area.writable_size_words[buffer_id] = sum([size for _, size in writable])
        area.descriptor_count_words[buffer_id] = count
        area.mark_slots(buffer_id)
        area.added_words[notes[PackedNote.ADDED_COUNT]] = buffer_id
        self._note_placed(place, count, 1)
        return buffer_id

    def _take_id(self, place: int) -> int:
        if self._in_order:
            return place % self._size
        self._notes[PackedNote.FREE_ID_COUNT] -= 1
        return self._area.free_words[self._notes[PackedNote.FREE_ID_COUNT]]

    def _store_table(self, buffer_id: int, segments: Segments) -> tuple[int, int, int]:
        """Write the buffer's indirect table; returns the segment that refers to it."""
        area = self._area
        offset = area.layout.indirect_table_size * buffer_id
        word = (area.layout.indirect + offset) // 8
        for address, size, flags in segments:
            area.words[word] = address
            area.words[word + 1] = size | flags << 48
            word += 2
        table_size = len(segments) * _DESCRIPTOR_SIZE
        area.mark(area.layout.indirect + offset, table_size)
        return area.address + area.layout.indirect + offset, table_size, _INDIRECT

    def _store_chain(self, place: int, segments: Segments, buffer_id: int) -> None:
        """Write a chain's descriptors, of which the device does not look at any before `publish`."""
        area, notes = self._area, self._notes
        words, last = area.words, place + len(segments) - 1
        for at, (address, size, flags) in enumerate(segments, place):
            lap, offset = divmod(at, self._size)
            flags |= (_USED if lap & 1 else _AVAIL) | (_NEXT if at < last else 0)
            if at == notes[PackedNote.PUBLISHED]:
                # This one's flags would show all that follows: `publish` stores them.
                notes[PackedNote.FIRST_FLAGS] = flags
                flags = area.ring_words[_WORDS * offset + _FLAGS_WORD]
            word = area.ring_word + 2 * offset
            words[word] = address
            words[word + 1] = size | buffer_id << 32 | flags << 48

    def _note_placed(self, place: int, count: int, buffer_count: int) -> None:
        added_count = self._notes[PackedNote.ADDED_COUNT]
        self._area.mark(self._area.added_offset + 2 * added_count, 2 * buffer_count)
        self._notes[PackedNote.ADDED_COUNT] = added_count + buffer_count
        self._area.mark_ring(place, count)
        self._notes[PackedNote.NEXT_AVAILABLE] = (place + count) % (2 * self._size)
        self._area.mark_notes()

    def place_batch(
        self,
        addresses: npt.NDArray[np.uint64],
        sizes: npt.NDArray[np.uint64],
        writable: bool,
        tokens: npt.NDArray[np.uint64],
    ) -> int:
        """Make a chain of one descriptor of each buffer, as many as fit; returns how many."""
        area, notes = self._area, self._notes
        count = check_batch(addresses, sizes, tokens, self.free_count)
        if not count:
            return 0
        sizes = sizes[:count]
        place = notes[PackedNote.NEXT_AVAILABLE]
        places = np.arange(place, place + count)
        offsets = places % self._size
        ids = self._take_ids(offsets)
        flags = np.where(places // self._size & 1, np.uint16(_USED), np.uint16(_AVAIL))
        flags |= np.uint16(_WRITE if writable else 0)
        if place == notes[PackedNote.PUBLISHED]:
            notes[PackedNote.FIRST_FLAGS] = int(flags[0])
            flags[0] = area.ring_flags[offsets[0]]
        records = np.empty(count, area.records.dtype)
        records["addr"] = addresses[:count]
        records["len"] = sizes
        records["id"] = ids
        records["flags"] = flags
        area.records[offsets] = records
        area.tokens[ids] = tokens[:count]
        area.writable_sizes[ids] = sizes if writable else 0
        area.descriptor_counts[ids] = 1
        area.mark_slots(ids)
        added_count = notes[PackedNote.ADDED_COUNT]
        area.added[added_count : added_count + count] = ids
        self._note_placed(place, count, count)
        return count

    def _take_ids(self, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        if self._in_order:
            return offsets
        free_count = self._notes[PackedNote.FREE_ID_COUNT]
        self._notes[PackedNote.FREE_ID_COUNT] = free_count - len(offsets)
        return self._area.free[free_count - len(offsets) : free_count][::-1].astype(np.int64)

    def show(self) -> None:
        """Store the flags that make everything added since the last call available; there is something."""
        area, notes = self._area, self._notes
        place = notes[PackedNote.PUBLISHED]
        area.ring_words[_WORDS * (place % self._size) + _FLAGS_WORD] = notes[PackedNote.FIRST_FLAGS]
        area.mark_ring(place, 1)
        notes[PackedNote.PUBLISHED] = notes[PackedNote.NEXT_AVAILABLE]
        notes[PackedNote.ADDED_COUNT] = 0

    def added(self) -> list[int]:
        """Return the ids of the buffers that were added since `show`, which the device cannot have."""
        count = self._notes[PackedNote.ADDED_COUNT]
        ids: list[int] = self._area.added_words[:count].tolist() if count else []
        return ids

    def release(self, buffer_id: int) -> int:
        """Free the id and the descriptors of a buffer; returns how many descriptors it had."""
        area, notes = self._area, self._notes
        count = area.descriptor_count_words[buffer_id]
        area.descriptor_count_words[buffer_id] = 0
        area.mark_slots(buffer_id)
        if not self._in_order:
            free_count = notes[PackedNote.FREE_ID_COUNT]
            area.free_words[free_count] = buffer_id
            area.mark(area.free_offset + 2 * free_count, 2)
            notes[PackedNote.FREE_ID_COUNT] = free_count + 1
        self._note_released(count)
        return count

    def release_batch(self, ids: npt.NDArray[np.int64]) -> None:
        """Free the ids and the descriptors of many distinct buffers."""
        area, notes = self._area, self._notes
        count = int(area.descriptor_counts[ids].sum())
        area.descriptor_counts[ids] = 0
        area.mark_slots(ids)
        if not self._in_order:
            free_count = notes[PackedNote.FREE_ID_COUNT]
            area.free[free_count : free_count + len(ids)] = ids
            area.mark(area.free_offset + 2 * free_count, 2 * len(ids))
            notes[PackedNote.FREE_ID_COUNT] = free_count + len(ids)
        self._note_released(count)

    def _note_released(self, count: int) -> None:
        self._notes[PackedNote.NEXT_USED] = (self._notes[PackedNote.NEXT_USED] + count) % (2 * self._size)
        self._area.mark_notes()
