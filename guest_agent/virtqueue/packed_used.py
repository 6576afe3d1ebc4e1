"""What the device has given back in a packed ring, one at a time and many at once."""

import numpy as np
import numpy.typing as npt

from guest_agent.virtqueue.in_order import heads_in_order, sizes_in_order
from guest_agent.virtqueue.packed_area import PackedNote, PackedQueueArea
from guest_agent.virtqueue.packed_descriptors import PackedDescriptors
from guest_agent.virtqueue.prefix import are_first, true_prefix
from guest_agent.virtqueue.queue import Used, UsedBatch
from spec.packed_area import NO_BATCH
from spec.packed_ring import PACKED_DESCRIPTOR, PackedFlag
from vdev.errors import DeviceViolation
from vdev.memory.order import load_fence

__all__ = ["PackedUsed"]

_STATEMENT = "The Virtqueue Descriptor Format"

# Plain integers: an IntFlag operation costs as much as the rest of a descriptor.
_WRITE, _BOTH = int(PackedFlag.WRITE), int(PackedFlag.AVAIL | PackedFlag.USED)

_DESCRIPTOR_SIZE: int = PACKED_DESCRIPTOR.sizeof()
_WORDS = _DESCRIPTOR_SIZE // 2
_ID_WORD, _FLAGS_WORD = 6, 7


class PackedUsed:
    """The used descriptors of one area, from the place on where the next one will be. `number` is for errors."""

    def __init__(self, area: PackedQueueArea, descriptors: PackedDescriptors, number: int, *, in_order: bool) -> None:
        self._area = area
        self._descriptors = descriptors
        self._notes = area.notes
        self._size = area.size
        self._number = number
        self._in_order = in_order

    def is_there(self) -> bool:
        """Say whether the device has given back a buffer that was not taken."""
        if self._notes[PackedNote.BATCH_HEAD] != NO_BATCH:
            return True
        lap, offset = divmod(self._notes[PackedNote.NEXT_USED], self._size)
        return self._area.ring_words[_WORDS * offset + _FLAGS_WORD] & _BOTH == (0 if lap & 1 else _BOTH)

    def looks_many(self, count: int) -> bool:
        """Guess whether at least `count` buffers are there, of which one at least is."""
        place = self._notes[PackedNote.NEXT_USED]
        lap, offset = divmod(place + count - 1, self._size)
        if self._area.ring_words[_WORDS * offset + _FLAGS_WORD] & _BOTH == (0 if lap & 1 else _BOTH):
            return True
        named = self._area.ring_words[_WORDS * (place % self._size) + _ID_WORD]
        return self._in_order and (named - place) % self._size >= count - 1

    # One

    def take(self) -> Used:
        """Take the next used buffer; there is one.

        Raises DeviceViolation.
        """
        buffer_id, written_size = self._next_in_order() if self._in_order else self._descriptor()
        used = Used(self._area.token_words[buffer_id], written_size, buffer_id)
        self._descriptors.release(buffer_id)
        return used

    def _descriptor(self) -> tuple[int, int]:
        """Return id and written size of the next used descriptor, checked."""
        load_fence()
        area = self._area
        offset = self._notes[PackedNote.NEXT_USED] % self._size
        word = area.words[area.ring_word + 2 * offset + 1]  # length, id and flags in one piece
        buffer_id = word >> 32 & 0xFFFF
        written_size = word & 0xFFFF_FFFF if word >> 48 & _WRITE else 0  # without WRITE the length is reserved
        if buffer_id >= self._size:
            raise self._violation(f"buffer id {buffer_id} in a queue of {self._size}", offset)
        if not area.descriptor_count_words[buffer_id] or buffer_id in self._descriptors.added():
            raise self._violation(f"buffer id {buffer_id}, which the device does not hold", offset)
        if written_size > area.writable_size_words[buffer_id]:
            message = f"{written_size} bytes written into {area.writable_size_words[buffer_id]} writable ones"
            raise self._violation(message, offset)
        return buffer_id, written_size

    def _next_in_order(self) -> tuple[int, int]:
        """Return id and written size of the oldest buffer, for which the next used descriptor may speak, too."""
        notes = self._notes
        oldest = notes[PackedNote.NEXT_USED] % self._size
        last, written_size = notes[PackedNote.BATCH_HEAD], notes[PackedNote.BATCH_WRITTEN_SIZE]
        if last == NO_BATCH:
            last, written_size = self._descriptor()
            if last == oldest:
                return last, written_size
            notes[PackedNote.BATCH_HEAD], notes[PackedNote.BATCH_WRITTEN_SIZE] = last, written_size
        if last == oldest:
            notes[PackedNote.BATCH_HEAD] = NO_BATCH
            return last, written_size
        # One that was passed over counts as written completely.
        return oldest, self._area.writable_size_words[oldest]

    def _violation(self, message: str, offset: int) -> DeviceViolation:
        return DeviceViolation(_STATEMENT, message, queue=self._number, descriptor=offset)

    # Many

    def take_many(self, limit: int) -> UsedBatch | None:
        """Take clean used buffers in one go, at most `limit`; None where there is none that this way can take.

        Whatever it leaves, `take` takes or names.
        """
        if self._notes[PackedNote.BATCH_HEAD] != NO_BATCH:
            return None
        span = (self._notes[PackedNote.PUBLISHED] - self._notes[PackedNote.NEXT_USED]) % (2 * self._size)
        ids, written_sizes = self._in_order_prefix(span) if self._in_order else self._prefix(span)
        if not len(ids) or (self._in_order and len(ids) > limit):
            return None
        ids, written_sizes = ids[:limit], written_sizes[:limit]
        batch = UsedBatch(self._area.tokens[ids], written_sizes, ids)
        self._descriptors.release_batch(ids)
        return batch

    def _used_in(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Say for each place whether its descriptor is used in this lap."""
        flags = self._area.ring_flags[places % self._size] & np.uint16(_BOTH)
        used: npt.NDArray[np.bool_] = np.equal(flags, np.where(places // self._size & 1, 0, _BOTH))
        return used

    def _read(self, places: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return ids and written sizes of used descriptors."""
        load_fence()
        records = self._area.records[places % self._size]
        written_sizes = np.where(records["flags"] & np.uint16(_WRITE), records["len"], 0).astype(np.int64)
        return records["id"].astype(np.int64), written_sizes

    def _prefix(self, span: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return ids and written sizes of the used descriptors in `span`, up to the first that is not clean."""
        area, first = self._area, self._notes[PackedNote.NEXT_USED]
        places = first + np.flatnonzero(self._used_in(np.arange(first, first + span)))
        ids, written_sizes = self._read(places)
        ids = ids[: true_prefix(ids < self._size)]
        written_sizes = written_sizes[: len(ids)]
        counts = area.descriptor_counts[ids].astype(np.int64)
        clean = (counts > 0) & (written_sizes <= area.writable_sizes[ids].astype(np.int64)) & are_first(ids, self._size)
        added = self._descriptors.added()
        if added:
            clean &= ~np.isin(ids, added)
        # Each stands as far behind the one before as that one's buffer has descriptors.
        clean &= places[: len(ids)] - first == np.cumsum(counts) - counts
        count = true_prefix(clean)
        return ids[:count], written_sizes[:count]

    def _in_order_prefix(self, span: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        area, first = self._area, self._notes[PackedNote.NEXT_USED]
        heads = heads_in_order(first % self._size, area.descriptor_counts, span)
        places = first + (heads - first) % self._size
        told = self._used_in(places)
        ids, told_sizes = self._read(places)
        sizes = sizes_in_order(heads, told, ids, told_sizes, area.writable_sizes[heads].astype(np.int64))
        return heads[: len(sizes)], sizes
